//! Threads beside the asynchronous ones.

/// Lowers the priority of the calling thread by so many steps of nice(1), 19 at most: what others wait for goes
/// first, and the thread has what is left, which is everything on an idle machine.
pub fn stand_back(niceness: u8) {
    if niceness > 0 {
        // SAFETY: nice(2) takes a number and touches no memory of ours. On Linux it is of the thread.
        unsafe { nix::libc::nice(i32::from(niceness.min(19))) };
    }
}
