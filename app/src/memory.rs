//! Memory that a burst of work took goes back to the machine.
//!
//! The allocator keeps what is freed between what is still held: after a hundred thousand objects came over the API
//! that was a fifth of the process.

use std::time::Duration;

use gantry_base::tasks::Tasks;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(60);
/// Less than this is not worth the moment that giving it back takes.
#[cfg(target_env = "gnu")]
const FREE_BYTES_MIN: usize = 16 << 20;

/// Looks until the process drains. No part of the instance: where it cannot, nothing is amiss.
pub fn tend(tasks: &Tasks) {
    let shutdown = tasks.shutdown().clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = shutdown.cancelled() => return,
            }
            if tokio::task::spawn_blocking(give_back).await.is_err() {
                return;
            }
        }
    });
}

#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: both only look at and change the allocator's own state, under its locks.
    unsafe {
        if nix::libc::mallinfo2().fordblks >= FREE_BYTES_MIN {
            nix::libc::malloc_trim(0);
        }
    }
}

/// Other allocators do so themselves.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}
