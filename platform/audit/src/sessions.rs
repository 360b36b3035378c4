//! Recordings of terminal sessions.
//!
//! A recording is asciicast version 2 in zstd, written as the session goes and flushed at least every
//! second. When it is closed, its SHA-256 goes into the trail, so that it cannot be changed either.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_audit_api::cast::{CastEvent, CastHeader, take_text};
use gantry_audit_api::files;
use gantry_audit_api::sessions::{Closed, SHA256_KEY, is_id, recording_name, sha256};
use gantry_base::fs as durable;
use gantry_kube_types::{
    AuditEvent, AuditObject, SecurityEvent, SessionRecorder, SessionStart, SessionTape, UserInfo,
    audit_annotations,
};

use crate::Inner;
use crate::config::{Config, RecordSessions, SessionPolicy};
use crate::search::{Scope, by_session};

/// Sessions remembered after their end, for the record of their request, which ends with them.
const REMEMBERED_MAX: usize = 1024;
const FLUSH_EVERY: Duration = Duration::from_secs(1);
const COMPRESSION_LEVEL: i32 = 3;
const FINISHED: &str = "cast.zst";
const PART: &str = "part";

/// The folder of recordings and the sessions in it that are open.
pub(crate) struct Sessions {
    directory: PathBuf,
    policy: SessionPolicy,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    open: usize,
    recent: VecDeque<Session>,
}

#[derive(Clone)]
struct Session {
    id: String,
    start: SessionStart,
    /// Known once the record of the request is written.
    user: Option<UserInfo>,
}

impl Sessions {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            directory: config.root.join(files::SESSIONS),
            policy: config.sessions.clone(),
            known: Mutex::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The recording that the request of this record opened. Ids are chosen by clients: the pod decides, too.
    pub(crate) fn of_request(&self, event: &AuditEvent) -> Option<String> {
        let mut known = self.lock();
        let session = known.recent.iter_mut().rev().find(|session| {
            session.start.audit_id == event.id
                && session.start.namespace == event.object.namespace
                && session.start.pod == event.object.name
        })?;
        session.user.get_or_insert_with(|| event.user.clone());
        Some(session.id.clone())
    }

    /// Recordings that a process left open: they are whole up to a second before its end.
    pub(crate) fn close_interrupted(&self) -> io::Result<Vec<AuditEvent>> {
        let mut events = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != PART) {
                continue;
            }
            let Some(id) = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else {
                continue;
            };
            let finished = self.directory.join(format!("{id}.{FINISHED}"));
            std::fs::rename(&path, &finished)?;
            let event = AuditEvent::security(SecurityEvent::SessionRecorded, crate::own_user());
            events.push(with_file(event, &id, &finished)?.with("audit.gantry.dev/interrupted", "true"));
        }
        durable::sync_directory(&self.directory)?;
        Ok(events)
    }

    fn file(&self, id: &str) -> Option<PathBuf> {
        is_id(id).then(|| self.directory.join(recording_name(id)))
    }

    /// Removes recordings that ended before a time.
    pub(crate) fn expire(&self, before: std::time::SystemTime) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let finished = name.to_str().is_some_and(|name| name.ends_with(FINISHED));
            if finished && entry.metadata()?.modified()? < before {
                durable::remove_all(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// What is found of a recording.
pub(crate) enum Recording {
    /// It never was, has expired, or is not the caller's to see.
    Absent,
    Whole(File),
    /// It is not the one whose hash is in the trail.
    Changed,
}

impl Inner {
    /// A recording that the caller may see, by the records that name it.
    pub(crate) fn session_file(&self, id: &str, scope: &Scope) -> io::Result<Recording> {
        let Some(path) = self.sessions.file(id) else { return Ok(Recording::Absent) };
        if by_session(&self.catalog, id, scope)?.is_empty() {
            return Ok(Recording::Absent);
        }
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Recording::Absent),
            other => other?,
        };
        let found = sha256(&file)?;
        // The record of its end may be another's to see than that of the request.
        let named = by_session(&self.catalog, id, &Scope::All)?;
        let closed = named.iter().find_map(|hit| Closed::of(&hit.payload));
        if closed.is_some_and(|closed| closed.sha256 != found) {
            return Ok(Recording::Changed);
        }
        Ok(Recording::Whole(file))
    }
}

impl SessionRecorder for Inner {
    fn begin(&self, start: &SessionStart) -> Result<Option<Box<dyn SessionTape>>, String> {
        if !self.wants(start)? {
            return Ok(None);
        }
        let policy = &self.sessions.policy;
        let finished: Arc<dyn Finished> = match self.own.get().and_then(std::sync::Weak::upgrade) {
            Some(inner) => inner,
            None => return Err("the audit trail is closed".to_owned()),
        };
        let id = uuid::Uuid::new_v4().to_string();
        {
            let mut known = self.sessions.lock();
            if known.open >= policy.open_max {
                return Err(format!(
                    "sessions here are recorded, and {} are recorded already: try again later",
                    policy.open_max
                ));
            }
            known.open += 1;
            known.recent.push_back(Session { id: id.clone(), start: start.clone(), user: None });
            if known.recent.len() > REMEMBERED_MAX + policy.open_max {
                known.recent.pop_front();
            }
        }
        match Tape::create(&self.sessions.directory, &id, start, policy.bytes_max, finished) {
            Ok(tape) => Ok(Some(Box::new(tape))),
            Err(error) => {
                self.sessions.lock().open -= 1;
                tracing::error!(%error, "a session that must be recorded cannot be");
                Err("sessions here are recorded, and the recording cannot be written".to_owned())
            }
        }
    }

    fn wants(&self, start: &SessionStart) -> Result<bool, String> {
        let would = |wanted: RecordSessions| match wanted {
            RecordSessions::None => false,
            RecordSessions::Terminals => start.tty,
            RecordSessions::All => true,
        };
        let default = self.sessions.policy.default;
        let namespace = &start.namespace;
        match self.namespaces.get(namespace) {
            Some(facts) => Ok(would(facts.sessions.unwrap_or(default))),
            None if would(default) => Ok(true),
            // After a start, until the namespaces are known.
            None => Err(format!(
                "it is not known yet whether sessions in namespace {namespace:?} are recorded: try again"
            )),
        }
    }
}

/// Who is told that a recording is closed.
trait Finished: Send + Sync {
    fn finished(&self, id: &str, part: &Path, length: Duration);
}

impl Finished for Inner {
    fn finished(&self, id: &str, part: &Path, length: Duration) {
        let session = {
            let mut known = self.sessions.lock();
            known.open = known.open.saturating_sub(1);
            known.recent.iter().find(|session| session.id == id).cloned()
        };
        let Some(Session { start, user, .. }) = session else { return };
        let finished = self.sessions.directory.join(format!("{id}.{FINISHED}"));
        let named =
            std::fs::rename(part, &finished).and_then(|()| durable::sync_directory(&self.sessions.directory));
        let mut object = AuditObject::new("", "pods", &start.pod).in_namespace(&start.namespace);
        object.version = "v1".to_owned();
        let event =
            AuditEvent::security(SecurityEvent::SessionRecorded, user.unwrap_or_else(crate::own_user))
                .about(object)
                .in_request(&start.audit_id)
                .with("audit.gantry.dev/container", start.container)
                .with("audit.gantry.dev/session-seconds", length.as_secs().to_string());
        match named.and_then(|()| with_file(event.clone(), id, &finished)) {
            Ok(event) => self.put(event),
            Err(error) => {
                tracing::error!(%error, "a recording cannot be closed");
                self.put(event.failed(500, "InternalError", "the recording cannot be closed"));
            }
        }
    }
}

/// The event with what ties the file to the trail.
fn with_file(event: AuditEvent, id: &str, path: &Path) -> io::Result<AuditEvent> {
    let file = File::open(path)?;
    Ok(event
        .with(audit_annotations::SESSION, id)
        .with(SHA256_KEY, hex::encode(sha256(&file)?))
        .with("audit.gantry.dev/session-bytes", file.metadata()?.len().to_string()))
}

type Encoder = zstd::Encoder<'static, BufWriter<File>>;

/// One recording in progress.
struct Tape {
    id: String,
    part: PathBuf,
    encoder: Option<Encoder>,
    began: Instant,
    flushed: Instant,
    bytes: u64,
    bytes_max: u64,
    /// The end of a piece that is no whole character yet: of input, of output.
    cut: [Vec<u8>; 2],
    finished: Arc<dyn Finished>,
}

impl Tape {
    fn create(
        directory: &Path,
        id: &str,
        start: &SessionStart,
        bytes_max: u64,
        finished: Arc<dyn Finished>,
    ) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let part = directory.join(format!("{id}.{PART}"));
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        let mut encoder = zstd::Encoder::new(BufWriter::new(file), COMPRESSION_LEVEL)?;
        let header = CastHeader {
            version: 2,
            width: 80,
            height: 24,
            timestamp: jiff::Timestamp::now().as_second(),
            command: start.command.join(" "),
            title: format!("{}/{}/{}", start.namespace, start.pod, start.container),
        };
        encoder.write_all(serde_json::to_string(&header).map_err(io::Error::other)?.as_bytes())?;
        encoder.write_all(b"\n")?;
        encoder.flush()?;
        let now = Instant::now();
        Ok(Self {
            id: id.to_owned(),
            part,
            encoder: Some(encoder),
            began: now,
            flushed: now,
            bytes: 0,
            bytes_max,
            cut: Default::default(),
            finished,
        })
    }

    fn event(&mut self, code: char, data: String) -> Result<(), String> {
        if data.is_empty() {
            return Ok(());
        }
        let line = CastEvent { seconds: self.began.elapsed().as_secs_f64(), code, data }.line();
        self.bytes += line.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(format!(
                "This session ends: it is recorded, and its recording reached {} MiB.",
                self.bytes_max >> 20
            ));
        }
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        let mut written = encoder.write_all(line.as_bytes());
        if written.is_ok() && self.flushed.elapsed() >= FLUSH_EVERY {
            written = encoder.flush();
            self.flushed = Instant::now();
        }
        written.map_err(|error| {
            tracing::error!(%error, "a recording cannot be written");
            "This session ends: it is recorded, and the recording cannot be written.".to_owned()
        })
    }

    fn text(&mut self, which: usize, code: char, bytes: &[u8]) -> Result<(), String> {
        self.cut[which].extend_from_slice(bytes);
        let text = take_text(&mut self.cut[which]);
        self.event(code, text)
    }
}

impl SessionTape for Tape {
    fn input(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.text(0, 'i', bytes)
    }

    fn output(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.text(1, 'o', bytes)
    }

    fn resize(&mut self, columns: u16, rows: u16) -> Result<(), String> {
        self.event('r', format!("{columns}x{rows}"))
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        let Some(encoder) = self.encoder.take() else { return };
        let (id, part, length) = (self.id.clone(), self.part.clone(), self.began.elapsed());
        let finished = self.finished.clone();
        // Closing waits for the disk, and sessions end on threads that must not.
        let close = move || {
            let closed = encoder.finish().and_then(|mut out| {
                out.flush()?;
                out.get_ref().sync_all()
            });
            if let Err(error) = closed {
                tracing::error!(%error, "the end of a recording is lost");
            }
            finished.finished(&id, &part, length);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(close)),
            Err(_) => close(),
        }
    }
}
