//! Settings of the trail.

use std::path::PathBuf;
use std::time::Duration;

use gantry_kube_types::WhenFull;
use serde::{Deserialize, Serialize};

/// What is promised: durable within a second.
const SYNC_INTERVAL_MS_MAX: u64 = 1000;
const CHECKPOINT_SECONDS_MAX: u64 = 3600;
const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

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
    /// A segment is closed this long after its first record: only closed ones expire.
    pub segment_age_max: Duration,
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
            segment_age_max: Duration::from_secs(SECONDS_PER_DAY),
            retention: Retention::default(),
            sessions: SessionPolicy::default(),
            syslog: None,
        }
    }
}

/// Of attempts to reach a syslog server.
const SYSLOG_RETRY_MAX: Duration = Duration::from_secs(60);

/// What an operator chooses: `[audit]` of the platform's settings file, in the units people write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A Kubernetes audit policy (`audit.k8s.io/v1`); absent: our own.
    pub policy: Option<PathBuf>,
    /// What a request meets when the queue of records is full: `wait`, or `fail` with 503.
    pub when_full: WhenFull,
    /// A record survives a loss of power this long after its deed, at most 1000.
    pub sync_interval_ms: u64,
    /// Between signed checkpoints.
    pub checkpoint_interval_seconds: u64,
    pub retention: RetentionSettings,
    pub sessions: SessionSettings,
    /// A server records are sent on to.
    pub syslog: Option<SyslogSettings>,
}

/// How long records are kept; absent: for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    pub days: Option<u32>,
    /// All closed segments together.
    pub mebibytes: Option<u32>,
}

/// Recording of terminal sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    /// Where a namespace does not say: `none`, `terminals` or `all`.
    pub record: RecordSessions,
    /// A longer recording ends its session.
    pub mebibytes_max: u32,
    /// Recorded at the same time; further ones that must be recorded are refused.
    pub open_max: usize,
}

/// RFC 5424 messages over TLS (RFC 5425).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogSettings {
    /// `host:port`.
    pub server: String,
    /// The name in its certificate; absent: the host.
    #[serde(default)]
    pub server_name: Option<String>,
    /// PEM file of the authorities that sign for it.
    pub authorities: PathBuf,
    /// PEM files of our own certificate and key, where it asks for one.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// `HOSTNAME` of the messages; absent: this machine's.
    #[serde(default)]
    pub host_name: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let config = Config::new("");
        Self {
            policy: None,
            when_full: config.when_full,
            sync_interval_ms: config.sync_interval.as_millis() as u64,
            checkpoint_interval_seconds: config.checkpoint_interval.as_secs(),
            retention: RetentionSettings::default(),
            sessions: SessionSettings::default(),
            syslog: None,
        }
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        let SessionPolicy { default, bytes_max, open_max } = SessionPolicy::default();
        Self { record: default, mebibytes_max: (bytes_max >> 20) as u32, open_max }
    }
}

impl Settings {
    /// What cannot be kept, in a sentence.
    pub fn problem(&self) -> Option<String> {
        let (sync, checkpoint) = (self.sync_interval_ms, self.checkpoint_interval_seconds);
        if !(1..=SYNC_INTERVAL_MS_MAX).contains(&sync) {
            return Some(format!("sync_interval_ms is {sync}; 1 to {SYNC_INTERVAL_MS_MAX} are possible"));
        }
        if !(1..=CHECKPOINT_SECONDS_MAX).contains(&checkpoint) {
            return Some(format!(
                "checkpoint_interval_seconds is {checkpoint}; 1 to {CHECKPOINT_SECONDS_MAX} are possible"
            ));
        }
        let pair = self.syslog.as_ref().map(|syslog| (syslog.certificate.is_some(), syslog.key.is_some()));
        match pair {
            Some((true, false)) => Some("syslog.certificate needs syslog.key".to_owned()),
            Some((false, true)) => Some("syslog.key needs syslog.certificate".to_owned()),
            _ => None,
        }
    }

    /// Puts what was chosen into `config`; `host_name` is this machine's.
    pub fn apply(&self, config: &mut Config, host_name: &str) {
        config.policy.clone_from(&self.policy);
        config.when_full = self.when_full;
        config.sync_interval = Duration::from_millis(self.sync_interval_ms);
        config.checkpoint_interval = Duration::from_secs(self.checkpoint_interval_seconds);
        config.retention = Retention {
            age_max: self.retention.days.map(|days| Duration::from_secs(u64::from(days) * SECONDS_PER_DAY)),
            bytes_max: self.retention.mebibytes.map(|mebibytes| u64::from(mebibytes) << 20),
        };
        config.sessions = SessionPolicy {
            default: self.sessions.record,
            bytes_max: u64::from(self.sessions.mebibytes_max) << 20,
            open_max: self.sessions.open_max,
        };
        config.syslog = self.syslog.as_ref().map(|chosen| SyslogConfig {
            server: chosen.server.clone(),
            server_name: chosen.server_name.clone(),
            authorities: chosen.authorities.clone(),
            client: chosen.certificate.clone().zip(chosen.key.clone()),
            host_name: chosen.host_name.clone().unwrap_or_else(|| host_name.to_owned()),
            retry_max: SYSLOG_RETRY_MAX,
        });
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The longest pause before the next attempt.
    pub retry_max: Duration,
}
