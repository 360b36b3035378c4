//! The tap on terminal sessions: what is typed and shown goes to a recorder, where one wants it.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;
use gantry_kube_types::{SESSION_NOTICE, SessionRecorder, SessionStart, SessionTape};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::channels::{RESIZE, STDERR, STDIN, STDOUT};
use super::error::Failure;

/// The id of the request as the front door recorded it.
const AUDIT_ID: &str = "audit-id";

/// In the extensions of requests to a router that [`super::recorded`] made.
#[derive(Clone)]
pub(super) struct Recorder(pub(super) Arc<dyn SessionRecorder>);

/// The recording of one session; none where nobody wants one. Clones share it, and it is closed when the last
/// one is gone.
#[derive(Clone, Default)]
pub(super) struct Recording(Option<Arc<Tape>>);

struct Tape {
    tape: Mutex<Box<dyn SessionTape>>,
    /// Why nothing more is recorded.
    over: Mutex<Option<String>>,
    ended: CancellationToken,
}

/// The size of a terminal as clients send it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

impl Recording {
    /// Asks the recorder, if there is one. A session that must be recorded and cannot be does not begin: nor does one
    /// of a client that nobody here `understands`.
    pub(super) fn begin(
        request: &Request,
        mut start: SessionStart,
        understands: bool,
    ) -> Result<Self, Failure> {
        let Some(Recorder(recorder)) = request.extensions().get::<Recorder>() else {
            return Ok(Self::default());
        };
        let id = request.headers().get(AUDIT_ID).and_then(|value| value.to_str().ok());
        start.audit_id = id.unwrap_or_default().to_owned();
        let unavailable = |message| Failure { status: http::StatusCode::SERVICE_UNAVAILABLE, message };
        if !understands {
            // A client's own SPDY goes through as it is: nothing here sees what is in it.
            return match recorder.wants(&start).map_err(unavailable)? {
                true => Err(Failure::bad_request(
                    "sessions here are recorded, which needs a client that speaks WebSocket (kubectl 1.31 or later)",
                )),
                false => Ok(Self::default()),
            };
        }
        let tape = recorder.begin(&start).map_err(unavailable)?;
        Ok(Self(tape.map(|tape| {
            let (tape, over) = (Mutex::new(tape), Mutex::default());
            Arc::new(Tape { tape, over, ended: CancellationToken::new() })
        })))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What the user is told at the start, and on which channel. Bytes that a program reads (standard output
    /// without a terminal) are left alone: who asks for nothing else is told in a header.
    pub(super) fn notice(&self, tty: bool, channels: &[u8]) -> Option<(u8, Vec<u8>)> {
        self.0.as_ref()?;
        let channel = if tty { STDOUT } else { STDERR };
        let end = if tty { "\r\n" } else { "\n" };
        channels.contains(&channel).then(|| (channel, format!("{SESSION_NOTICE}{end}").into_bytes()))
    }

    /// What the client sent. False: it must not go on.
    pub(super) fn sent(&self, channel: u8, bytes: &[u8]) -> bool {
        self.record(|tape| match channel {
            STDIN => tape.input(bytes),
            RESIZE => match serde_json::from_slice::<Size>(bytes) {
                Ok(size) => tape.resize(size.width, size.height),
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        })
    }

    /// What the client is about to see. False: it must not.
    pub(super) fn shown(&self, channel: u8, bytes: &[u8]) -> bool {
        self.record(|tape| match channel {
            STDOUT | STDERR => tape.output(bytes),
            _ => Ok(()),
        })
    }

    fn record(&self, write: impl FnOnce(&mut dyn SessionTape) -> Result<(), String>) -> bool {
        let Some(shared) = &self.0 else { return true };
        let mut tape = shared.tape.lock().unwrap_or_else(PoisonError::into_inner);
        match write(tape.as_mut()) {
            Ok(()) => true,
            Err(why) => {
                shared.over.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
                shared.ended.cancel();
                false
            }
        }
    }

    /// Ends when the session must, with the reason for the user.
    pub(super) async fn over(&self) -> String {
        let Some(shared) = &self.0 else { return std::future::pending().await };
        shared.ended.cancelled().await;
        shared.over.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl SessionRecorder for Kept {
        fn begin(&self, session: &SessionStart) -> Result<Option<Box<dyn SessionTape>>, String> {
            match session.namespace.as_str() {
                "free" => Ok(None),
                "full" => Err("no room".to_owned()),
                _ => Ok(Some(Box::new(Lines(self.0.clone())))),
            }
        }

        fn wants(&self, session: &SessionStart) -> Result<bool, String> {
            if session.namespace == "unknown" {
                Err("not known".to_owned())
            } else {
                Ok(session.namespace != "free")
            }
        }
    }

    struct Lines(Arc<Mutex<Vec<String>>>);

    impl Lines {
        fn add(&self, line: String) -> Result<(), String> {
            let mut lines = self.0.lock().expect("not poisoned");
            if lines.len() == 3 {
                return Err("full".to_owned());
            }
            lines.push(line);
            Ok(())
        }
    }

    impl SessionTape for Lines {
        fn input(&mut self, bytes: &[u8]) -> Result<(), String> {
            self.add(format!("i {}", String::from_utf8_lossy(bytes)))
        }

        fn output(&mut self, bytes: &[u8]) -> Result<(), String> {
            self.add(format!("o {}", String::from_utf8_lossy(bytes)))
        }

        fn resize(&mut self, columns: u16, rows: u16) -> Result<(), String> {
            self.add(format!("r {columns}x{rows}"))
        }
    }

    fn request(recorder: Option<Kept>) -> Request {
        let mut request = Request::new(axum::body::Body::empty());
        if let Some(kept) = recorder {
            request.extensions_mut().insert(Recorder(Arc::new(kept)));
        }
        request
    }

    fn start(namespace: &str) -> SessionStart {
        SessionStart { namespace: namespace.to_owned(), ..SessionStart::default() }
    }

    #[tokio::test]
    async fn what_is_typed_and_shown_is_recorded_until_the_tape_is_full() {
        let kept = Kept::default();
        let lines = kept.0.clone();
        let recording = Recording::begin(&request(Some(kept)), start("acme"), true).expect("allowed");
        assert!(recording.sent(RESIZE, br#"{"Width":80,"Height":24}"#));
        assert!(recording.sent(STDIN, b"ls") && recording.shown(STDOUT, b"a"));
        assert!(!recording.shown(STDERR, b"b"));
        assert_eq!(recording.over().await, "full");
        assert_eq!(*lines.lock().expect("not poisoned"), ["r 80x24", "i ls", "o a"]);
        let told = recording.notice(true, &[STDOUT]).expect("told");
        assert_eq!(told, (STDOUT, b"This session is recorded.\r\n".to_vec()));
        assert_eq!(recording.notice(false, &[STDOUT]), None, "a program reads it");
        assert_eq!(recording.notice(false, &[STDOUT, STDERR]).expect("told").0, STDERR);
    }

    #[test]
    fn who_is_not_recorded_is_let_alone_and_who_cannot_be_is_refused() {
        let off = Recording::begin(&request(Some(Kept::default())), start("free"), true).expect("allowed");
        assert!(!off.is_on() && off.sent(STDIN, b"x") && off.notice(true, &[STDOUT]).is_none());
        assert!(!Recording::begin(&request(None), start("acme"), true).expect("allowed").is_on());
        let refused = Recording::begin(&request(Some(Kept::default())), start("full"), true);
        assert_eq!(refused.err().map(|failure| failure.message).as_deref(), Some("no room"));
        // A client whose session nobody can follow.
        for (namespace, want) in [("free", None), ("acme", Some("WebSocket")), ("unknown", Some("not known"))]
        {
            let kept = Kept::default();
            let lines = kept.0.clone();
            let refused = Recording::begin(&request(Some(kept)), start(namespace), false).err();
            let message = refused.map(|failure| failure.message);
            let as_wanted = match (&message, want) {
                (Some(message), Some(want)) => message.contains(want),
                (message, want) => message.is_none() && want.is_none(),
            };
            assert!(as_wanted, "{namespace}: {message:?}");
            assert!(lines.lock().expect("not poisoned").is_empty());
        }
    }
}
