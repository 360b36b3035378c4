//! The sandbox's first process: holds the namespaces, reaps orphans, ends on SIGTERM or SIGINT. Static, without
//! any library, so that its image is one file.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

// The kernel enters with an unaligned frame of its own; a function call needs none of what lies there.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {main}", "ud2", main = sym main);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, 0", "bl {main}", "brk 1", main = sym main);

#[cfg(target_arch = "x86_64")]
mod nr {
    pub const SIGPROCMASK: usize = 14;
    pub const WAIT4: usize = 61;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}
#[cfg(target_arch = "aarch64")]
mod nr {
    pub const SIGPROCMASK: usize = 135;
    pub const WAIT4: usize = 260;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const EXIT_GROUP: usize = 94;
}

/// A system call with up to four arguments.
///
/// SAFETY: the arguments must be valid for the call.
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel changes rax, rcx and r11 only; memory is what the caller answers for.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            out("rcx") _, out("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel changes x0 only; memory is what the caller answers for.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
            options(nostack));
    }
    result
}

const SIGINT: isize = 2;
const SIGTERM: isize = 15;
const SIGCHLD: isize = 17;
const WNOHANG: usize = 1;

extern "C" fn main() -> ! {
    let bit = |signal: isize| 1u64 << (signal - 1);
    let wanted = bit(SIGINT) | bit(SIGTERM) | bit(SIGCHLD);
    let set = &raw const wanted as usize;
    // SAFETY: `set` points to 8 bytes that outlive the calls; 8 is the size of the kernel's signal set. Blocked
    // signals queue up, so none is lost between two waits.
    unsafe {
        call(nr::SIGPROCMASK, 0, set, 0, 8);
        loop {
            match call(nr::SIGTIMEDWAIT, set, 0, 0, 8) {
                SIGINT | SIGTERM => {
                    call(nr::EXIT_GROUP, 0, 0, 0, 0);
                }
                SIGCHLD => while call(nr::WAIT4, usize::MAX, 0, WNOHANG, 0) > 0 {},
                _ => {}
            }
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
