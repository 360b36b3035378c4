//! Settings of the trail.

use std::path::PathBuf;
use std::time::Duration;

use gantry_kube_types::WhenFull;

/// Everything that can be chosen about a trail.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything the trail owns is below this directory.
    pub root: PathBuf,
    /// The private key of checkpoints (PKCS#8); made if it is not there.
    pub key: PathBuf,
    /// An `audit.k8s.io/v1` policy file. Absent: [`crate::DEFAULT_POLICY`].
    pub policy: Option<PathBuf>,
    /// Records that wait to be written.
    pub queue_max: usize,
    /// Bytes of bodies that wait to be written; past it the queue counts as full.
    pub queue_body_bytes_max: usize,
    /// What a request meets when the queue is full.
    pub when_full: WhenFull,
    /// A record is on disk, beyond a loss of power, this long after it was queued.
    pub sync_interval: Duration,
    /// Between signed checkpoints while records come.
    pub checkpoint_interval: Duration,
    /// A segment is closed when it has this many bytes.
    pub segment_bytes_max: u64,
    pub retention: Retention,
    pub sessions: SessionPolicy,
    /// Where records are sent on to.
    pub syslog: Option<SyslogConfig>,
}

impl Config {
    /// The defaults, in `root`, with the key in it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            key: root.join("checkpoint.key"),
            root,
            policy: None,
            queue_max: 8192,
            queue_body_bytes_max: 64 << 20,
            when_full: WhenFull::Wait,
            sync_interval: Duration::from_millis(250),
            checkpoint_interval: Duration::from_secs(30),
            segment_bytes_max: 32 << 20,
            retention: Retention::default(),
            sessions: SessionPolicy::default(),
            syslog: None,
        }
    }
}

/// How long records are kept. Whole segments are removed, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Older records go. `None`: they stay.
    pub age_max: Option<Duration>,
    /// The segments together take no more than this, as far as closed ones can be removed.
    pub bytes_max: Option<u64>,
}

/// Which terminal sessions are recorded where the namespace does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordSessions {
    #[default]
    None,
    /// Those with a terminal (`kubectl exec -t`).
    Terminals,
    All,
}

impl RecordSessions {
    /// The value of a namespace's annotation or label.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "none" | "false" => Some(Self::None),
            "terminals" | "true" => Some(Self::Terminals),
            "all" => Some(Self::All),
            _ => None,
        }
    }
}

/// Recording of terminal sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPolicy {
    pub default: RecordSessions,
    /// A recording with more bytes ends its session.
    pub bytes_max: u64,
    /// Sessions recorded at the same time; further ones that must be recorded are refused.
    pub open_max: usize,
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self { default: RecordSessions::None, bytes_max: 256 << 20, open_max: 256 }
    }
}

/// A syslog server that takes RFC 5424 messages over TLS (RFC 5425).
#[derive(Clone, Debug)]
pub struct SyslogConfig {
    /// `host:port`; the port of RFC 5425 is 6514.
    pub server: String,
    /// The name in its certificate; absent: the host.
    pub server_name: Option<String>,
    /// PEM of the authorities it may be signed by.
    pub authorities: PathBuf,
    /// PEM of our certificate and key, where it asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
    /// `HOSTNAME` of the messages.
    pub host_name: String,
}
