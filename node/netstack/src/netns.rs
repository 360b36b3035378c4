//! Work inside another network namespace, on a thread of its own.

use std::fs::File;
use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use rtnetlink::Handle;
use tokio::sync::oneshot;

use crate::error::{Context, NetError, Result};

/// Opens a network namespace by path; refuses this process's own.
pub(crate) fn open(path: &Path) -> Result<File> {
    let file = File::open(path).context(|| format!("opening the network namespace {}", path.display()))?;
    let ours =
        std::fs::metadata("/proc/self/ns/net").context(|| "looking at our own namespace".to_owned())?;
    let theirs = file.metadata().context(|| format!("looking at {}", path.display()))?;
    if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) {
        return Err(NetError::NotANamespace(path.to_owned()));
    }
    Ok(file)
}

/// Runs `work` with a netlink connection of the namespace. A thread enters the namespace and ends with
/// the work, so no thread of the runtime ever changes its namespace; `/proc/sys/net` is the namespace's
/// there too.
pub(crate) async fn run_in<T, F, Fut>(namespace: File, work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(Handle) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>>,
{
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("gantry-netns".to_owned())
        .spawn(move || {
            // The receiver is gone when the caller gave up: nothing is left to tell.
            let _ = sender.send(enter_and_run(&namespace, work));
        })
        .context(|| "starting a thread for a network namespace".to_owned())?;
    receiver
        .await
        .unwrap_or_else(|_| Err(NetError::NotReady("work in a network namespace panicked".to_owned())))
}

fn enter_and_run<T, F, Fut>(namespace: &File, work: F) -> Result<T>
where
    F: FnOnce(Handle) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .map_err(std::io::Error::from)
        .context(|| "entering the pod's network namespace".to_owned())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "starting a runtime in a network namespace".to_owned())?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().context(|| "opening netlink in a network namespace".to_owned())?;
        tokio::spawn(connection);
        work(handle).await
    })
}
