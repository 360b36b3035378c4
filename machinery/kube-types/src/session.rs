//! The seam between what carries terminal sessions (exec, attach) and what keeps recordings of them.

/// A session that is about to begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStart {
    /// The id of the request that opens it.
    pub audit_id: String,
    pub namespace: String,
    pub pod: String,
    pub container: String,
    /// Empty for attach.
    pub command: Vec<String>,
    pub tty: bool,
}

/// Decides which sessions are recorded, and records them.
pub trait SessionRecorder: Send + Sync {
    /// `Ok(None)`: this session is not recorded. `Err`: it must be recorded and cannot be, so it must not
    /// begin; the sentence is for the user.
    fn begin(&self, session: &SessionStart) -> Result<Option<Box<dyn SessionTape>>, String>;

    /// Whether [`SessionRecorder::begin`] would record it, for a client whose session cannot be. `Err`: that is not
    /// known, so it must not begin.
    fn wants(&self, session: &SessionStart) -> Result<bool, String>;
}

/// One recording. Dropping it closes the file.
///
/// Calls take a copy and return at once; the writing is done elsewhere. `Err` says in a sentence for the
/// user why nothing more is recorded: the session must end.
pub trait SessionTape: Send {
    /// What the user typed.
    fn input(&mut self, bytes: &[u8]) -> Result<(), String>;
    /// What the user saw.
    fn output(&mut self, bytes: &[u8]) -> Result<(), String>;
    /// The terminal has another size.
    fn resize(&mut self, columns: u16, rows: u16) -> Result<(), String>;
}

/// Told to the user at the start of a recorded session.
pub const SESSION_NOTICE: &str = "This session is recorded.";
