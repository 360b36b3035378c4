//! What sign-ins cost that is computed where they are answered, for tests that compare it. Counted by thread: a test
//! and everything that it awaits run on one.

use std::cell::Cell;

thread_local! {
    static DIGESTS: Cell<u64> = const { Cell::new(0) };
}

pub(crate) fn digested() {
    DIGESTS.set(DIGESTS.get() + 1);
}

/// Digests and HMACs of secrets until now.
pub(crate) fn digests() -> u64 {
    DIGESTS.get()
}
