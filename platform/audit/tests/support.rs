//! A trail in a temporary directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_audit::{Audit, Config};
use gantry_audit_api::verify::{Report, Witness, verify};
use gantry_kube_types::{
    Attributes, AuditEvent, AuditLevel, AuditObject, AuditStatus, Authorizer, Decision, UserInfo,
    audit_annotations,
};
use jiff::{SignedDuration, Timestamp};

pub(crate) const START: &str = "2026-01-01T00:00:00Z";

/// `auditor` lists everything, nobody else has any right.
pub(crate) struct Rules;

impl Authorizer for Rules {
    fn authorize(&self, asked: &Attributes) -> Decision {
        let records = asked.group == "audit.gantry.dev" && asked.resource == "records";
        match asked.user.username.as_str() {
            "auditor" if records => Decision::Allow("ClusterRoleBinding \"auditors\"".to_owned()),
            _ => Decision::NoOpinion(String::new()),
        }
    }
}

/// Small segments, and quick about everything.
pub(crate) fn config(directory: &Path) -> Config {
    Config {
        segment_bytes_max: 64 << 10,
        sync_interval: Duration::from_millis(20),
        checkpoint_interval: Duration::from_millis(100),
        ..Config::new(directory)
    }
}

pub(crate) fn open(config: Config) -> Audit {
    gantry_audit::build(config, Arc::new(Rules)).expect("a trail")
}

pub(crate) fn check(directory: &Path) -> Report {
    verify(directory, &Witness::default()).expect("readable")
}

/// The `number`th event of a made-up day: all fields follow from the number.
pub(crate) fn event(number: u64) -> AuditEvent {
    let pick = |of: &[&str], every: u64| of[(number / every) as usize % of.len()].to_owned();
    let start: Timestamp = START.parse().expect("a time");
    let namespace = format!("project{}-dev", number % 7);
    let name = format!("web-{:x}", number.wrapping_mul(2_654_435_761) % 100_000);
    let resource = pick(&["pods", "secrets", "deployments"], 5);
    let group = if resource == "deployments" { "apps" } else { "" };
    let mut object = AuditObject::new(group, &resource, &name).in_namespace(&namespace);
    object.version = "v1".to_owned();
    AuditEvent {
        id: format!("id-{number}"),
        level: AuditLevel::Metadata,
        received: start.checked_add(SignedDuration::from_secs(number as i64)).expect("in range"),
        latency: Duration::from_micros(700),
        user: UserInfo::authenticated(format!("acme/user{}", number % 11), &["acme/devs"]),
        source: "192.0.2.1".parse().ok(),
        user_agent: Some(http::HeaderValue::from_static("kubectl/v1.34.0 (linux/amd64)")),
        uri: format!("/api/v1/namespaces/{namespace}/{resource}/{name}").parse().expect("a URI"),
        verb: pick(&["get", "list", "create", "delete"], 3),
        object,
        status: AuditStatus {
            code: [200, 201, 403, 404, 500][(number % 5) as usize],
            ..AuditStatus::default()
        },
        decision: Some((number % 5 != 2, "RBAC".to_owned())),
        credential: "bearer".into(),
        annotations: project(number).map(|id| (audit_annotations::PROJECT.into(), id)).into_iter().collect(),
        ..AuditEvent::default()
    }
}

/// The project that the `number`th event names.
pub(crate) fn project(number: u64) -> Option<String> {
    (number % 13 == 5).then(|| format!("p{}", number % 3))
}

pub(crate) async fn fill(audit: &Audit, numbers: std::ops::Range<u64>) {
    let sink = audit.sink();
    for number in numbers {
        sink.record(event(number)).await.expect("recorded");
    }
    audit.flush().await.expect("durable");
}

/// Polls a condition, with a bound.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}

/// Files of the folder of segments with an extension.
pub(crate) fn files(directory: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let read = std::fs::read_dir(directory.join("segments")).expect("a folder");
    let mut found: Vec<_> = read.map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == extension));
    found.sort();
    found
}
