//! Sends records on: RFC 5424 messages over TLS, framed by their length (RFC 5425).
//!
//! Where it stands is kept in a file. Syslog acknowledges nothing, and in TLS 1.3 a server that does not like our
//! certificate says so after our side believes that all is well. So what was written counts as sent when the connection
//! has stood for a while after it, and a new connection begins a little before that: a record may arrive twice, and
//! says by its sequence number that it did.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_audit_api::frame::Kind;
use gantry_audit_api::record::{Outcome, Record};
use gantry_base::fs as durable;
use gantry_host::Host;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::Inner;
use crate::config::SyslogConfig;
use crate::search::Cursor;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Frames of one write.
const FRAMES_AT_ONCE: usize = 256;
/// What may have been lost with a connection: more than a peer's receive buffer holds of short records.
const AGAIN_AFTER_BREAK: u64 = 2048;
/// A server that refuses us, or is about to end, has closed the connection by then.
const STANDS_AFTER: Duration = Duration::from_secs(3);
/// Log audit (RFC 5424 table 1).
const FACILITY: u8 = 13;
/// The structured data's id; 32473 is the number for documentation (RFC 5612), as Gantry has none.
const ELEMENT: &str = "gantry@32473";
const PART: &str = "audit syslog";
const CURSOR: &str = "syslog.json";

/// What is kept between starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sent {
    schema: u32,
    next_sequence: u64,
}

/// Why sending stopped.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {why}")]
    Pem { path: PathBuf, why: String },
    #[error("{0:?} is no name of a server")]
    Name(String),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("{server}: {source}")]
    Connection { server: String, source: std::io::Error },
    #[error("{0} does not take records in time")]
    Slow(String),
    #[error("the trail cannot be read: {0}")]
    Trail(std::io::Error),
}

pub(crate) fn start(inner: &Arc<Inner>, host: &Host) {
    let Some(config) = inner.config.syslog.clone() else { return };
    let (inner, shutdown) = (inner.clone(), host.tasks.shutdown().clone());
    let health = host.tasks.health().clone();
    host.tasks.supervise(PART, move || {
        let (inner, config, shutdown, health) =
            (inner.clone(), config.clone(), shutdown.clone(), health.clone());
        async move {
            forward(&inner, &config, &shutdown, |state| health.set(PART, state)).await;
            Ok::<(), String>(())
        }
    });
}

/// Sends until the shutdown; what fails is tried again after a growing pause.
async fn forward(
    inner: &Arc<Inner>,
    config: &SyslogConfig,
    shutdown: &CancellationToken,
    show: impl Fn(gantry_base::health::Health),
) {
    use gantry_base::health::Health;
    let mut pause = RETRY_MIN;
    while !shutdown.is_cancelled() {
        let before = read_sent(&inner.config.root).next_sequence;
        let ended = tokio::select! {
            ended = send(inner, config, || show(Health::Ok)) => ended,
            () = shutdown.cancelled() => return,
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "audit records are not sent on");
            show(Health::Degraded(format!("audit records are not sent on: {error}")));
        }
        let progress = read_sent(&inner.config.root).next_sequence > before;
        pause = if progress { RETRY_MIN } else { (pause * 2).min(config.retry_max) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// What was written and may not have been taken.
struct Unsure {
    /// When, and the number of what comes next; the oldest first.
    written: VecDeque<(Instant, u64)>,
}

impl Unsure {
    fn new(next_sequence: u64) -> Self {
        Self { written: VecDeque::from([(Instant::now(), next_sequence)]) }
    }

    fn put(&mut self, next_sequence: u64) {
        self.written.push_back((Instant::now(), next_sequence));
    }

    /// When the first of it is old enough; `None`: nothing waits.
    fn due(&self) -> Option<Instant> {
        self.written.front().map(|(at, _)| *at + STANDS_AFTER)
    }

    /// Up to where all is sent by now, if that is news.
    fn settled(&mut self) -> Option<u64> {
        let old = self.written.iter().take_while(|(at, _)| at.elapsed() >= STANDS_AFTER).count();
        self.written.drain(..old).next_back().map(|(_, next_sequence)| next_sequence)
    }
}

/// One connection, until it breaks. `stands` is called once it did not break for a while.
async fn send(inner: &Arc<Inner>, config: &SyslogConfig, stands: impl Fn()) -> Result<(), SendError> {
    let stream = connect(config).await?;
    let broken = |source| SendError::Connection { server: config.server.clone(), source };
    let (mut from, mut to) = tokio::io::split(stream);
    let mut tip = inner.catalog.tip.subscribe();
    let kept = read_sent(&inner.config.root).next_sequence;
    let mut cursor = Cursor::from(kept.saturating_sub(AGAIN_AFTER_BREAK).max(1));
    let mut unsure = Unsure::new(kept);
    // The server says nothing; that it closed shows only to who reads.
    let mut byte = [0];
    loop {
        if let Some(next_sequence) = unsure.settled() {
            stands();
            keep_sent(&inner.config.root, next_sequence.max(kept))?;
        }
        tip.borrow_and_update();
        let host_name = config.host_name.clone();
        let (next, messages, any) = inner
            .reading(move |inner| {
                let mut messages = Vec::new();
                let any = cursor.advance(&inner.catalog, FRAMES_AT_ONCE, |sequence, kind, payload| {
                    if kind == Kind::Record {
                        append_message(&mut messages, &host_name, sequence, payload);
                    }
                })?;
                Ok((cursor, messages, any))
            })
            .await
            .map_err(|error| SendError::Trail(std::io::Error::other(error.message)))?;
        cursor = next;
        if any {
            let write = async {
                to.write_all(&messages).await?;
                to.flush().await
            };
            let written = tokio::time::timeout(WRITE_TIMEOUT, write).await;
            written.map_err(|_| SendError::Slow(config.server.clone()))?.map_err(broken)?;
            unsure.put(cursor.next_sequence());
            continue;
        }
        let due = unsure.due();
        tokio::select! {
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            changed = tip.changed() => if changed.is_err() { return Ok(()) },
            read = from.read(&mut byte) => match read {
                Ok(0) => return Err(broken(std::io::ErrorKind::ConnectionAborted.into())),
                Ok(_) => {}
                Err(error) => return Err(broken(error)),
            },
        }
    }
}

async fn connect(config: &SyslogConfig) -> Result<TlsStream<TcpStream>, SendError> {
    let tls = tls(config)?;
    let host = config.server.rsplit_once(':').map_or(config.server.as_str(), |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = config.server_name.as_deref().unwrap_or(host).to_owned();
    let server_name = ServerName::try_from(name.clone()).map_err(|_| SendError::Name(name))?;
    let connecting = async {
        let stream = TcpStream::connect(&config.server).await?;
        TlsConnector::from(Arc::new(tls)).connect(server_name, stream).await
    };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
    let connected = connected.map_err(|_| SendError::Slow(config.server.clone()))?;
    connected.map_err(|source| SendError::Connection { server: config.server.clone(), source })
}

fn tls(config: &SyslogConfig) -> Result<ClientConfig, SendError> {
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |error: rustls::pki_types::pem::Error| SendError::Pem { path, why: error.to_string() }
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, SendError> {
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(pem(path))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&config.authorities)? {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match &config.client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
            Ok(builder.with_client_auth_cert(certificates(certificate)?, key_der)?)
        }
    }
}

/// `MSG-LEN SP SYSLOG-MSG`.
fn append_message(out: &mut Vec<u8>, host: &str, sequence: u64, payload: &[u8]) {
    let message = message(host, sequence, payload);
    out.extend_from_slice(format!("{} ", message.len()).as_bytes());
    out.extend_from_slice(&message);
}

fn message(host: &str, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let record = Record::parse(payload).unwrap_or_default();
    let severity = match record.outcome() {
        Outcome::Success => 6,
        Outcome::Failed => 5,
        Outcome::Denied => 4,
        Outcome::Error => 3,
    };
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut head = format!("<{}>1 ", FACILITY * 8 + severity);
    // Writing to a String cannot fail.
    let _ = write!(
        head,
        "{} {} gantry-audit - {} [{ELEMENT} sequence=\"{sequence}\" auditID=\"{}\" user=\"{}\" verb=\"{}\" code=\"{}\"] ",
        dash(&record.request_received_timestamp),
        dash(&header_text(host, 255)),
        dash(&header_text(if record.event().is_empty() { "request" } else { record.event() }, 32)),
        escaped(&record.audit_id),
        escaped(&record.user.username),
        escaped(&record.verb),
        record.response_status.code,
    );
    let mut message = head.into_bytes();
    message.extend_from_slice(payload);
    message
}

/// PRINTUSASCII without spaces, as header fields must be.
fn header_text(text: &str, bytes_max: usize) -> String {
    text.chars().filter(char::is_ascii_graphic).take(bytes_max).collect()
}

/// A parameter's value: `"`, `\` and `]` are escaped (RFC 5424 section 6.3.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        // A line break would end the message for receivers that count lines.
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

fn read_sent(root: &Path) -> Sent {
    let kept = durable::read_optional(&root.join(CURSOR)).ok().flatten();
    kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Sent { schema: 1, next_sequence: 1 })
}

fn keep_sent(root: &Path, next_sequence: u64) -> Result<(), SendError> {
    let path = root.join(CURSOR);
    let text = serde_json::to_vec(&Sent { schema: 1, next_sequence }).unwrap_or_default();
    durable::write_atomic(&path, &text, 0o600).map_err(|source| SendError::File { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_rfc_5424() {
        let payload = br#"{"auditID":"r-1","verb":"get","user":{"username":"a\"]\\b\n"},"responseStatus":{"code":403},"requestReceivedTimestamp":"2026-11-25T10:00:00.000000Z","annotations":{"audit.gantry.dev/event":"secret-read"}}"#;
        let text = String::from_utf8(message("node one", 7, payload)).expect("text");
        let (head, body) = text.split_at(text.find(" {").expect("a body"));
        assert_eq!(
            head,
            r#"<108>1 2026-11-25T10:00:00.000000Z nodeone gantry-audit - secret-read [gantry@32473 sequence="7" auditID="r-1" user="a\"\]\\b " verb="get" code="403"]"#
        );
        assert_eq!(body.trim_start().as_bytes(), payload);
        let mut framed = Vec::new();
        append_message(&mut framed, "node", 7, b"{}");
        let space = framed.iter().position(|b| *b == b' ').expect("a length");
        let length: usize = std::str::from_utf8(&framed[..space]).expect("text").parse().expect("a number");
        assert_eq!(length, framed.len() - space - 1);
    }
}
