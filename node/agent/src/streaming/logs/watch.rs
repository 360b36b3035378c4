//! Waits for changes of a log's directory, by inotify.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// What happened since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// A writer closed a file: the log was rotated or the container ended.
    pub(super) closed: bool,
    /// The directory is gone, or files in it were removed.
    pub(super) removed: bool,
}

/// Gives tokio the descriptor in both forms it asks for.
struct Fd(Inotify);

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A watch on the directory of a log: it sees writes into its files, rotations and removals.
pub(super) struct Watch(AsyncFd<Fd>);

impl Watch {
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(directory, flags)?;
        // SAFETY: the descriptor is open, owned by the registered value alone, and the same for its whole life.
        let registered = unsafe { AsyncFd::register(Fd(inotify)) };
        Ok(Self(registered?))
    }

    /// Waits for the next change. Changes before the call count, so nothing is missed between a read and this.
    pub(super) async fn changed(&self) -> io::Result<Change> {
        loop {
            let mut ready = self.0.readable().await?;
            let events = match self.0.get_ref().0.read_events() {
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                other => other?,
            };
            let any = |flags: AddWatchFlags| events.iter().any(|e| e.mask.intersects(flags));
            return Ok(Change {
                // A full event queue may have lost anything.
                closed: any(AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_Q_OVERFLOW),
                removed: any(AddWatchFlags::IN_DELETE
                    | AddWatchFlags::IN_DELETE_SELF
                    | AddWatchFlags::IN_IGNORED
                    | AddWatchFlags::IN_Q_OVERFLOW),
            });
        }
    }
}
