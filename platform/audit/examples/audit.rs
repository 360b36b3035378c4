//! Measures the trail: `cargo run --release -p gantry-audit --example audit -- [RECORDS] [DIRECTORY]`.
//!
//! Fills a trail with made-up records, then searches it. Without a directory a temporary one is used.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use gantry_audit::{Audit, Config};
use gantry_audit_api::verify::{Witness, verify};
use gantry_kube_types::{
    Attributes, AuditEvent, AuditLevel, AuditObject, AuditStatus, Authorizer, Decision, UserInfo,
};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use tower::ServiceExt;

const PRODUCERS: u64 = 4;
const SEARCHES: u64 = 40;
const USERS: u64 = 500;
const PROJECTS: u64 = 100;
const NAMES: u64 = 200_000;

struct Everything;

impl Authorizer for Everything {
    fn authorize(&self, asked: &Attributes) -> Decision {
        if asked.user.username == "auditor" {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

/// A number that follows from another and looks like chance.
fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const KINDS: [(&str, &str); 8] = [
    ("", "pods"),
    ("", "configmaps"),
    ("", "secrets"),
    ("", "services"),
    ("apps", "deployments"),
    ("apps", "statefulsets"),
    ("batch", "jobs"),
    ("rbac.authorization.k8s.io", "rolebindings"),
];
const VERBS: [&str; 6] = ["get", "get", "list", "update", "create", "delete"];
const AGENTS: [&str; 3] = [
    "kubectl/v1.34.1 (linux/amd64) kubernetes/93248f9",
    "helm/3.19 Go-http-client/2.0",
    "python-openstackclient keystoneauth1/5.9 python-requests/2.32 CPython/3.13",
];

/// One record a second, so that ten million are about four months.
fn time_of(number: u64) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap_or(Timestamp::UNIX_EPOCH);
    start.checked_add(SignedDuration::from_secs(number as i64)).unwrap_or(start)
}

fn name_of(chance: u64) -> String {
    format!("web-{:x}", mix(chance % NAMES) & 0xff_ffff_ffff)
}

fn event(number: u64) -> AuditEvent {
    let chance = mix(number);
    let project = chance % PROJECTS;
    let namespace = format!("project{project}-{}", ["dev", "test", "prod"][(chance >> 8) as usize % 3]);
    let (group, resource) = KINDS[(chance >> 12) as usize % KINDS.len()];
    let name = name_of(chance >> 16);
    let code = [200, 200, 200, 201, 200, 200, 404, 403, 409, 200][(chance >> 40) as usize % 10];
    let mut object = AuditObject::new(group, resource, &name).in_namespace(&namespace);
    object.version = "v1".to_owned();
    AuditEvent {
        id: format!("{:016x}-{:016x}", chance, mix(chance)),
        level: AuditLevel::Metadata,
        received: time_of(number),
        latency: Duration::from_micros(300 + chance % 5000),
        user: UserInfo::authenticated(
            format!("org{}/user{}", project % 10, (chance >> 20) % USERS),
            &["org/devs"],
        ),
        source: Some(std::net::IpAddr::from([10, 0, (chance >> 5) as u8, chance as u8])),
        user_agent: Some(http::HeaderValue::from_static(AGENTS[(chance >> 30) as usize % 3])),
        uri: format!("/apis/{group}/v1/namespaces/{namespace}/{resource}/{name}").parse().unwrap_or_default(),
        verb: VERBS[(chance >> 33) as usize % VERBS.len()].to_owned(),
        object,
        status: AuditStatus {
            code,
            reason: if code == 403 { "Forbidden".to_owned() } else { String::new() },
            message: if code == 403 { format!("{resource} {name:?} is forbidden") } else { String::new() },
            refusal: None,
        },
        decision: Some((
            code != 403,
            format!(
                "RBAC: allowed by RoleBinding \"gantry:member/{namespace}\" of ClusterRole \"gantry:member\""
            ),
        )),
        credential: "bearer".into(),
        ..AuditEvent::default()
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let records = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(10_000_000);
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let directory = arguments.next().map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let audit = gantry_audit::build(Config::new(&directory), Arc::new(Everything)).expect("a trail");
        append(&audit, records).await;
        settle(&directory).await;
        println!("{:<44} {} MiB", "on disk, closed and indexed", size_bytes(&directory) >> 20);
        println!("{:<44} {} MiB", "resident memory", resident_kib() >> 10);
        search(&audit, records).await;
        println!("{:<44} {} MiB", "resident memory after the searches", resident_kib() >> 10);
        audit.close().await;
        let began = Instant::now();
        let report = verify(&directory, &Witness::default()).expect("readable");
        assert!(report.intact && report.records >= records, "{report:?}");
        println!("{:<44} {:.1} s", "verify all of it", began.elapsed().as_secs_f64());
    });
}

async fn append(audit: &Audit, records: u64) {
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let (sink, next) = (audit.sink(), next.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= records {
                        return;
                    }
                    sink.record(event(number)).await.expect("the trail is open");
                }
            })
        })
        .collect();
    let mut lags = Vec::new();
    while !producers.iter().all(tokio::task::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let asked = Instant::now();
        audit.flush().await.expect("the trail is open");
        lags.push(asked.elapsed());
    }
    for producer in producers {
        producer.await.expect("no panic");
    }
    audit.flush().await.expect("the trail is open");
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{:<44} {:.0}/s ({records} records in {seconds:.1} s)",
        "append, chained and durable",
        records as f64 / seconds
    );
    println!("{:<44} {}", "from queued to durable, while it goes", quantiles(&mut lags));
}

/// Until every full segment is closed.
async fn settle(directory: &Path) {
    let began = Instant::now();
    let open = || {
        let files = std::fs::read_dir(directory.join("segments")).expect("a folder");
        files.filter_map(Result::ok).filter(|f| f.path().extension().is_some_and(|e| e == "log")).count()
    };
    while open() > 1 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{:<44} {:.1} s", "index and compression finish after", began.elapsed().as_secs_f64());
}

async fn search(audit: &Audit, records: u64) {
    let day = |n: u64| {
        let since = time_of(mix(n) % records);
        let until = since.checked_add(SignedDuration::from_hours(24)).unwrap_or(since);
        format!("since={since}&until={until}")
    };
    type Make<'a> = Box<dyn Fn(u64) -> String + 'a>;
    let kinds: Vec<(&str, Make<'_>)> = vec![
        ("newest 100", Box::new(|_| String::new())),
        ("by user", Box::new(|n| format!("user=org{}/user{}", n % 10, mix(n) % USERS))),
        ("by name", Box::new(|n| format!("name={}", name_of(mix(n))))),
        (
            "by namespace and outcome",
            Box::new(|n| format!("namespace=project{}-dev&outcome=denied", n % PROJECTS)),
        ),
        (
            "by resource, verb, outcome",
            Box::new(|_| "resource=secrets&verb=delete&outcome=failed".to_owned()),
        ),
        (
            "a user's denied deletes",
            Box::new(|n| format!("user=org{}/user{}&verb=delete&outcome=denied", n % 10, mix(n) % USERS)),
        ),
        ("within a day", Box::new(day)),
        ("a user within a day", Box::new(move |n| format!("user=org1/user{}&{}", mix(n) % USERS, day(n)))),
        ("a word that is rare", Box::new(|n| format!("q={}", name_of(mix(n)).replace('-', "%20")))),
        ("words that are common", Box::new(|n| format!("q=forbidden%20project{}%20helm", n % PROJECTS))),
        ("common words, nothing found", Box::new(|n| format!("q=kubectl%20helm%20project{}", n % PROJECTS))),
        ("a word that is not there", Box::new(|n| format!("q=nothing{n}"))),
    ];
    let mut all = Vec::new();
    for (kind, make) in &kinds {
        let mut times = Vec::new();
        let mut found = 0;
        for n in 0..SEARCHES {
            let began = Instant::now();
            found += ask(audit, "auditor", &make(n)).await;
            times.push(began.elapsed());
        }
        all.extend(times.iter().copied());
        println!(
            "{:<44} {}, {:.0} found",
            format!("search: {kind}"),
            quantiles(&mut times),
            found as f64 / SEARCHES as f64
        );
    }
    let mut own = Vec::new();
    for n in 0..SEARCHES {
        let began = Instant::now();
        ask(audit, &format!("org{}/user{}", n % 10, mix(n) % USERS), "resource=pods").await;
        own.push(began.elapsed());
    }
    all.extend(own.iter().copied());
    println!("{:<44} {}", "search: own deeds of a plain user", quantiles(&mut own));
    println!("{:<44} {}", "search: all of them", quantiles(&mut all));
}

async fn ask(audit: &Audit, user: &str, query: &str) -> usize {
    let request = http::Request::get(format!("/apis/audit.gantry.dev/v1alpha1/records?{query}"))
        .extension(UserInfo::authenticated(user, &[]))
        .body(Body::empty())
        .expect("a request");
    let answer = audit.router().oneshot(request).await.expect("never fails");
    assert_eq!(answer.status(), 200, "{query}");
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    let page: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    page["items"].as_array().map_or(0, Vec::len)
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |q: usize| times.get((times.len().saturating_sub(1)) * q / 100).copied().unwrap_or_default();
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    format!("p50 {:.1} ms, p95 {:.1} ms, max {:.1} ms", ms(at(50)), ms(at(95)), ms(at(100)))
}

fn size_bytes(directory: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(directory.join("segments")) else { return 0 };
    files.filter_map(|f| f.ok()?.metadata().ok()).map(|m| m.len()).sum()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
