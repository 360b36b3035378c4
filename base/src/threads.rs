//! Threads beside the asynchronous ones.

use nix::libc;

/// Longer than any turn it gets. Since Linux 6.12 a thread that wakes up goes before one whose turns are longer, at
/// once and not when that one's turn is over; before, the kernel does not look at it.
const SLICE_NS: u64 = 100_000_000;

/// Lowers the priority of the calling thread by so many steps of nice(1), 19 at most, and makes it one of long turns
/// (SCHED_BATCH): what others wait for goes first, and the thread has what is left, which is everything on an idle
/// machine.
pub fn stand_back(niceness: u8) {
    if niceness == 0 {
        return;
    }
    let niceness = i32::from(niceness.min(19));
    let attributes = libc::sched_attr {
        // A few dozen bytes.
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_BATCH as u32,
        sched_flags: 0,
        sched_nice: niceness,
        sched_priority: 0,
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads the structure, which is as long as it says; thread 0 is the calling one.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if set != 0 {
        // SAFETY: nice(2) takes a number and touches no memory of ours. On Linux it is of the thread.
        unsafe { libc::nice(niceness) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_stands_back_does_so_alone() {
        // SAFETY: both take numbers alone.
        let now = || unsafe { (libc::getpriority(libc::PRIO_PROCESS, 0), libc::sched_getscheduler(0)) };
        let before = now();
        let aside = std::thread::spawn(move || {
            stand_back(7);
            now()
        });
        assert_eq!(aside.join().expect("no panic"), (7, libc::SCHED_BATCH));
        assert_eq!(now(), before);
    }
}
