//! containerd as a child of ours: own root, state and socket; started in its own session, so that containers and
//! their logs outlive Gantry; found again after a restart; restarted when it dies.

mod config;
mod traces;

use std::fs::{self, File};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use gantry_cri::{Runtime, VersionRequest};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::AgentConfig;
use crate::errors::AgentError;
use crate::files;

pub(crate) use traces::{network_namespaces, remove_namespaces, remove_traces};

/// How long containerd may take to answer after its start.
const READY_WAIT: Duration = Duration::from_secs(60);
/// Pause before a containerd that died is started again, doubled up to the cap.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
const RESTART_PAUSE_CAP: Duration = Duration::from_secs(10);
/// A log file larger than this is set aside at the next start.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Of the log's end, what is looked at for its last line.
const LOG_TAIL_BYTES: usize = 2048;

/// Where containerd's files are.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) config: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) pid: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) certs: PathBuf,
}

impl Paths {
    pub(crate) fn new(config: &AgentConfig) -> Self {
        let (root, run) = (config.dirs.data.join("containerd"), config.dirs.run.join("containerd"));
        Self {
            config: root.join("config.toml"),
            certs: root.join("certs.d"),
            log: root.join("containerd.log"),
            root,
            socket: run.join("containerd.sock"),
            pid: run.join("containerd.pid"),
            state: run,
        }
    }
}

/// A supervised containerd.
pub(crate) struct Containerd {
    pub(crate) runtime: Runtime,
    /// True while it answers.
    pub(crate) ready: watch::Receiver<bool>,
    pub(crate) supervisor: Arc<Supervisor>,
    paths: Paths,
}

impl Containerd {
    /// Writes the configuration, adopts the containerd that runs on it or starts one, and waits until it answers.
    /// One that was started here and does not answer is stopped again. Somebody has to run the supervisor.
    pub(crate) async fn start(config: &AgentConfig) -> Result<Self, AgentError> {
        let paths = Paths::new(config);
        config::write(config, &paths)?;
        let runtime = Runtime::new(&paths.socket);
        let program = config.programs.containerd.clone();
        let adopted = running(&paths);
        let pid = match adopted {
            Some(pid) => pid,
            None => spawn(&program, &paths)?,
        };
        if let Err(error) = wait_ready(&runtime, &paths, pid).await {
            if adopted.is_none() {
                stop(&paths).await?;
            }
            return Err(error);
        }
        let (sender, ready) = watch::channel(true);
        let supervisor = Arc::new(Supervisor {
            program,
            paths: paths.clone(),
            runtime: runtime.clone(),
            ready: sender,
            pid: AtomicI32::new(pid),
        });
        Ok(Self { runtime, ready, supervisor, paths })
    }

    /// Stops containerd. Containers must be gone before.
    pub(crate) async fn stop(&self) -> Result<(), AgentError> {
        stop(&self.paths).await
    }

    /// Unmounts what containerd left and removes its files.
    pub(crate) fn remove_files(&self) -> Result<(), AgentError> {
        for path in [&self.paths.state, &self.paths.root] {
            files::unmount_below(path).map_err(AgentError::file("unmount", path))?;
            files::remove_tree(path).map_err(AgentError::file("remove", path))?;
        }
        Ok(())
    }
}

/// Starts containerd again when it dies.
pub(crate) struct Supervisor {
    program: PathBuf,
    paths: Paths,
    runtime: Runtime,
    ready: watch::Sender<bool>,
    /// The containerd that is watched now.
    pid: AtomicI32,
}

impl Supervisor {
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut pause = RESTART_PAUSE;
        loop {
            let pid = self.pid.load(Ordering::Relaxed);
            let started = tokio::time::Instant::now();
            if let Ok(handle) = pidfd(pid) {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = ended(&handle, pid) => {}
                }
            }
            self.ready.send_replace(false);
            tracing::error!(pid, "containerd died; starting it again");
            if started.elapsed() > RESTART_PAUSE_CAP {
                pause = RESTART_PAUSE;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RESTART_PAUSE_CAP);
            let pid = match spawn(&self.program, &self.paths) {
                Ok(pid) => pid,
                Err(error) => {
                    tracing::error!(%error, "containerd does not start");
                    continue;
                }
            };
            self.pid.store(pid, Ordering::Relaxed);
            match wait_ready(&self.runtime, &self.paths, pid).await {
                Ok(()) => {
                    self.ready.send_replace(true);
                }
                Err(error) => tracing::error!(%error, "containerd does not answer"),
            }
        }
    }
}

/// Ends the containerd that runs with our configuration, if one does.
pub(crate) async fn stop(paths: &Paths) -> Result<(), AgentError> {
    let Some(pid) = running(paths) else { return Ok(()) };
    let handle = pidfd(pid).map_err(AgentError::file("watch", &paths.pid))?;
    let raw = nix::unistd::Pid::from_raw(pid);
    for (signal, limit) in [(nix::sys::signal::SIGTERM, 10), (nix::sys::signal::SIGKILL, 10)] {
        let _ = nix::sys::signal::kill(raw, signal);
        if tokio::time::timeout(Duration::from_secs(limit), ended(&handle, pid)).await.is_ok() {
            break;
        }
    }
    let _ = fs::remove_file(&paths.pid);
    Ok(())
}

/// The pid of the containerd that runs with our configuration, if one does.
fn running(paths: &Paths) -> Option<i32> {
    let pid: i32 = fs::read_to_string(&paths.pid).ok()?.trim().parse().ok()?;
    is_ours(pid, &paths.config).then_some(pid)
}

/// A pid may have been given to another program since: only one with our configuration in its arguments counts.
fn is_ours(pid: i32, config: &Path) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let config = config.as_os_str().as_encoded_bytes();
    arguments.split(|b| *b == 0).any(|argument| argument == config)
}

/// A process that has just begun has no arguments yet, so it is not known by them. One of ours that ended and
/// that nobody has waited for is a zombie.
fn has_ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

fn spawn(program: &Path, paths: &Paths) -> Result<i32, AgentError> {
    if fs::metadata(&paths.log).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
        let _ = fs::rename(&paths.log, paths.log.with_extension("log.1"));
    }
    let log = File::options().create(true).append(true).open(&paths.log);
    let log = log.map_err(AgentError::file("open", &paths.log))?;
    let errors = log.try_clone().map_err(AgentError::file("open", &paths.log))?;
    // A socket of a containerd that was killed would refuse; a new one makes its own.
    let _ = fs::remove_file(&paths.socket);
    let mut command = Command::new(program);
    command.arg("--config").arg(&paths.config).stdin(Stdio::null()).stdout(log).stderr(errors);
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(io::Error::from));
    }
    let child = command
        .spawn()
        .map_err(|source| AgentError::ContainerdStart { program: program.to_owned(), source })?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    files::write_atomic(&paths.pid, pid.to_string().as_bytes(), 0o600)
        .map_err(AgentError::file("write", &paths.pid))?;
    // The child is watched and reaped by pid: it may outlive us, and one found again is no child at all.
    drop(child);
    Ok(pid)
}

fn pidfd(pid: i32) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: a plain system call; the descriptor it returns is ours alone.
    let raw = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    let raw = i32::try_from(raw).map_err(io::Error::other)?;
    // SAFETY: `raw` is a fresh descriptor that nobody else owns.
    let handle = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: an owned descriptor stays the same open file for as long as it is registered.
    Ok(unsafe { AsyncFd::register(handle) }?)
}

/// Waits for the end of the process and reaps it when it is our child.
async fn ended(handle: &AsyncFd<OwnedFd>, pid: i32) {
    let _ = handle.readable().await;
    use nix::sys::wait::{WaitPidFlag, waitpid};
    let _ = waitpid(nix::unistd::Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
}

/// Asks until it answers; there is no other sign that a gRPC server is up.
async fn wait_ready(runtime: &Runtime, paths: &Paths, pid: i32) -> Result<(), AgentError> {
    let deadline = tokio::time::Instant::now() + READY_WAIT;
    let mut pause = Duration::from_millis(5);
    loop {
        let last = match runtime.version(VersionRequest::default()).await {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        };
        let dead = has_ended(pid);
        if dead || tokio::time::Instant::now() > deadline {
            let said = last_line(&paths.log);
            return Err(match dead {
                true => AgentError::ContainerdEnded { said, log: paths.log.clone() },
                false => AgentError::ContainerdNotReady { seconds: READY_WAIT.as_secs(), last, said },
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// The end of a log, for an error that may outlive it.
fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
    tail.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing").trim().to_owned()
}
