//! Kinds of errors of the agent.

use std::path::PathBuf;

use gantry_cri::CriError;

/// Why the agent could not start or lost a part it needs.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or directory could not be used.
    #[error("{operation} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// containerd did not become ready.
    #[error("containerd does not answer after {seconds} s: {last}; it said last: {said}")]
    ContainerdNotReady {
        /// How long was waited.
        seconds: u64,
        /// The last error.
        last: String,
        /// The last line of its log.
        said: String,
    },
    /// containerd ended right after its start.
    #[error("containerd ended as soon as it was started; it said last: {said} (log: {})", log.display())]
    ContainerdEnded {
        /// The last line of its log.
        said: String,
        /// Its log file.
        log: PathBuf,
    },
    /// containerd could not be started.
    #[error("cannot start {}: {source}", program.display())]
    ContainerdStart {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A call to the runtime failed.
    #[error("{0}")]
    Runtime(#[from] CriError),
    /// A call to the API server failed.
    #[error("{operation}: {source}")]
    Api {
        /// What was tried.
        operation: &'static str,
        /// The client's error.
        source: Box<kube::Error>,
    },
}

impl AgentError {
    /// A closure for `map_err` on file operations.
    pub(crate) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }
}

/// A pod cannot go on, in the words its status and events show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct PodProblem {
    /// A reason that kubectl users know (`ErrImagePull`, `CreateContainerConfigError`, `FailedMount` …).
    pub reason: &'static str,
    /// The details.
    pub message: String,
}

impl PodProblem {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
