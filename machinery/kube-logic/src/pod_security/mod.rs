//! The Pod Security Standards (`privileged`, `baseline`, `restricted`) without I/O: [`evaluate`] says
//! what of a pod a level forbids, [`Policy`] reads a namespace's labels. Wording is upstream's
//! (`k8s.io/pod-security-admission`).

mod baseline;
mod restricted;

use serde_json::Value;

use crate::meta;

/// The minor version whose checks `latest` means: that of the API we serve.
pub const LATEST_MINOR: u32 = 37;
const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may do; each level forbids what the one before does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// A level as of a version; shown as `baseline:latest`, `restricted:v1.28`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelVersion {
    pub level: Level,
    /// Of `v1.N`; `None` is `latest`.
    pub minor: Option<u32>,
}

impl LevelVersion {
    pub fn latest(level: Level) -> Self {
        Self { level, minor: None }
    }

    fn minor(self) -> u32 {
        self.minor.unwrap_or(LATEST_MINOR)
    }
}

impl std::fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.minor {
            None => write!(f, "{}:latest", self.level.name()),
            Some(minor) => write!(f, "{}:v1.{minor}", self.level.name()),
        }
    }
}

/// What holds in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Pods that violate it are refused.
    pub enforce: LevelVersion,
    /// Pods and workloads that violate it are noted in the audit record.
    pub audit: LevelVersion,
    /// Callers are warned of pods and workloads that violate it.
    pub warn: LevelVersion,
}

/// A label that cannot be read, with the label's key, its value, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLabel {
    pub key: String,
    pub value: String,
    pub must: &'static str,
}

impl Policy {
    /// The namespace's labels over the defaults. A label that cannot be read counts as `restricted`.
    pub fn of(namespace: &Value, defaults: &Self) -> (Self, Vec<BadLabel>) {
        let (mut policy, mut bad) = (*defaults, Vec::new());
        let label = |key: String| Some((meta::label(namespace, &key)?.to_owned(), key));
        let mut read = |mode: &str, into: &mut LevelVersion| {
            let set = label(format!("{PREFIX}{mode}"));
            if let Some((value, key)) = &set {
                into.level = Level::parse(value).unwrap_or_else(|| {
                    let must = "must be one of privileged, baseline, restricted";
                    bad.push(BadLabel { key: key.clone(), value: value.clone(), must });
                    Level::Restricted
                });
            }
            if let Some((value, key)) = label(format!("{PREFIX}{mode}-version")) {
                into.minor = parse_version(&value).unwrap_or_else(|| {
                    let must = "must be \"latest\" or \"v1.x\"";
                    bad.push(BadLabel { key, value: value.clone(), must });
                    None
                });
            }
            set.is_some()
        };
        let enforced = read("enforce", &mut policy.enforce);
        read("audit", &mut policy.audit);
        let warned = read("warn", &mut policy.warn);
        // Who enforces a level wants to hear of workloads whose pods will be refused.
        if enforced && !warned && policy.enforce.level > policy.warn.level {
            policy.warn = policy.enforce;
        }
        (policy, bad)
    }
}

/// `Some(None)`: `latest`.
#[expect(clippy::option_option, reason = "the outer says whether it can be read, the inner is latest")]
fn parse_version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = !minor.is_empty() && (minor == "0" || !minor.starts_with('0'));
    plain.then(|| minor.parse().ok()).flatten().map(Some)
}

/// Who is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exemptions {
    pub usernames: Vec<String>,
    pub namespaces: Vec<String>,
    pub runtime_classes: Vec<String>,
}

/// What one check forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `privileged`.
    pub reason: String,
    /// `container "a" must not set securityContext.privileged=true`.
    pub detail: String,
}

impl Violation {
    fn new(reason: &str, detail: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), detail: detail.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.reason, self.detail)
    }
}

/// What the checks look at.
struct Subject<'a> {
    metadata: &'a Value,
    spec: &'a Value,
    minor: u32,
}

impl<'a> Subject<'a> {
    /// Init containers, containers and ephemeral containers.
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| spec[list].as_array().into_iter().flatten())
    }

    /// Names of the containers that something holds for.
    fn containers_that(&self, holds: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|c| holds(c)).map(|c| c["name"].as_str().unwrap_or_default()).collect()
    }

    fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }
}

type Check = fn(&Subject<'_>) -> Option<Violation>;

/// What the level forbids of a pod, given as its metadata and spec (of a template, too).
pub fn evaluate(policy: LevelVersion, metadata: &Value, spec: &Value) -> Vec<Violation> {
    let subject = Subject { metadata, spec, minor: policy.minor() };
    let checks: Vec<Check> = match policy.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => baseline::CHECKS.to_vec(),
        Level::Restricted => [baseline::KEPT_BY_RESTRICTED, restricted::CHECKS].concat(),
    };
    checks.iter().filter_map(|check| check(&subject)).collect()
}

/// The sentence about all violations: `violates PodSecurity "baseline:latest": …`.
pub fn sentence(policy: LevelVersion, violations: &[Violation]) -> String {
    let all: Vec<String> = violations.iter().map(Violation::to_string).collect();
    format!("PodSecurity {:?}: {}", policy.to_string(), all.join(", "))
}

fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| format!("{:?}", name.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
fn named(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and containers "a", "b"`: who set something; `None` where nobody did.
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    let mut who = Vec::new();
    if pod {
        who.push("pod".to_owned());
    }
    if !containers.is_empty() {
        who.push(named(containers));
    }
    (!who.is_empty()).then(|| who.join(" and "))
}

#[cfg(test)]
mod tests;
