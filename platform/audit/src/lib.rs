//! Gantry's audit trail: every request to any service and every security event, in an order that nobody
//! can change without being found out.
//!
//! [`build`] gives an [`Audit`]. Its [`Audit::sink`] takes events from the front door and from identity,
//! its [`Audit::router`] answers the query API, its [`Audit::recorder`] keeps terminal sessions. The form
//! of what is on disk is in `gantry_audit_api`.
//!
//! Two threads do the work: the writer appends, the keeper indexes, compresses and removes. Requests only
//! put an event into a queue.

mod access;
mod alike;
mod catalog;
mod classify;
mod config;
mod errors;
mod index;
mod json;
mod keeper;
mod keys;
mod line;
mod namespaces;
mod policy;
mod queue;
mod recover;
mod redact;
mod renderer;
mod rights;
mod routes;
mod search;
mod sessions;
mod shown;
mod streams;
mod syslog;
mod torn;
mod watch;
mod writer;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use gantry_base::health::{Health, HealthBoard};
use gantry_host::Host;
use gantry_kube_types::{
    AuditClosed, AuditEvent, AuditLike, AuditOwn, AuditPlan, AuditSink, Authorizer, RequestInfo,
    ResourceInfo, SecurityEvent, SessionRecorder, UserInfo, WhenFull,
};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

pub use config::{
    Config, RecordSessions, Retention, RetentionSettings, SessionPolicy, SessionSettings, Settings,
    SyslogConfig, SyslogSettings,
};
pub use errors::OpenError;
pub use namespaces::RECORD_SESSIONS;
pub use policy::{DEFAULT_POLICY, Policy, PolicyError};

/// As whom the component itself acts and reports.
pub const OWN_USER: &str = "system:gantry:audit";
/// Searches and exports at the same time; further ones wait.
const READERS_MAX: usize = 8;

/// A cheap handle on one trail.
#[derive(Clone)]
pub struct Audit {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: Config,
    queue: queue::Queue,
    alike: Arc<alike::Alike>,
    catalog: Arc<catalog::Catalog>,
    keeper: keeper::Keeper,
    namespaces: namespaces::Namespaces,
    owners: Arc<namespaces::Owners>,
    sessions: sessions::Sessions,
    policy: ArcSwap<Policy>,
    /// Grows after each change of it.
    policy_version: AtomicU64,
    authorizer: Arc<dyn Authorizer>,
    health: OnceLock<HealthBoard>,
    readers: Semaphore,
    /// Those who follow the trail are to end.
    draining: CancellationToken,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Itself, for recordings, which outlive the call that begins them.
    own: OnceLock<Weak<Inner>>,
}

/// Opens the trail in `config.root`, which is made if it is not there, and starts to write.
///
/// Reads the newest segment: run it on a blocking thread when the start must not wait.
pub fn build(config: Config, authorizer: Arc<dyn Authorizer>) -> Result<Audit, OpenError> {
    let policy = load_policy(&config)?;
    gantry_base::fs::create_directory(&config.root, 0o700).map_err(OpenError::io(&config.root))?;
    let key = Arc::new(keys::open(&config)?);
    let recovered = recover::open(&config, key.clone())?;
    let sessions = sessions::Sessions::new(&config);
    let interrupted = sessions.close_interrupted().map_err(OpenError::io(&config.root))?;
    let inner = Arc::new(Inner {
        alike: Arc::default(),
        queue: queue::Queue::new(config.queue_max, config.queue_body_bytes_max),
        catalog: recovered.catalog,
        keeper: keeper::Keeper::default(),
        namespaces: namespaces::Namespaces::default(),
        owners: Arc::default(),
        sessions,
        policy: ArcSwap::from_pointee(policy),
        policy_version: AtomicU64::new(0),
        authorizer,
        health: OnceLock::new(),
        readers: Semaphore::new(READERS_MAX),
        draining: CancellationToken::new(),
        threads: Mutex::default(),
        own: OnceLock::new(),
        config,
    });
    let _ = inner.own.set(Arc::downgrade(&inner));
    let writer = writer::Writer::new(inner.clone(), key, recovered.position)?;
    let tends = inner.clone();
    let watches = inner.clone();
    let threads = vec![
        spawn("audit-writer", move || watches.watched("writer", || writer.run()))
            .map_err(OpenError::io(&inner.config.root))?,
        spawn("audit-keeper", move || tends.watched("keeper", || keeper::run(&tends)))
            .map_err(OpenError::io(&inner.config.root))?,
    ];
    *inner.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
    let audit = Audit { inner };
    if let Some(damage) = recovered.damage {
        tracing::error!(damage, "the audit trail is damaged; run `gantry audit verify`");
        let event = AuditEvent::security(SecurityEvent::TrailChanged, own_user());
        audit.put(event.failed(500, "Damaged", &damage));
    }
    if let Some(bytes) = recovered.lost_bytes {
        let event = AuditEvent::security(SecurityEvent::TrailChanged, own_user());
        audit.put(event.with("audit.gantry.dev/lost-bytes", bytes.to_string()));
    }
    interrupted.into_iter().for_each(|event| audit.put(event));
    Ok(audit)
}

fn load_policy(config: &Config) -> Result<Policy, OpenError> {
    let (path, text) = match &config.policy {
        None => (std::path::PathBuf::from("(default)"), DEFAULT_POLICY.to_owned()),
        Some(path) => (path.clone(), std::fs::read_to_string(path).map_err(OpenError::io(path))?),
    };
    Policy::parse(&text).map_err(|source| OpenError::Policy { path, source })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

pub(crate) fn own_user() -> UserInfo {
    UserInfo::authenticated(OWN_USER, &[])
}

impl Audit {
    /// Where the front door and the components put what happens.
    pub fn sink(&self) -> Arc<dyn AuditSink> {
        self.inner.clone()
    }

    /// Records terminal sessions, where a policy says so.
    pub fn recorder(&self) -> Arc<dyn SessionRecorder> {
        self.inner.clone()
    }

    /// Serves `/apis/audit.gantry.dev/…`. Every caller with a good credential may come in: what each may
    /// see is decided here.
    pub fn router(&self) -> axum::Router {
        routes::router(self.inner.clone())
    }

    /// What of it discovery names, with its verbs.
    pub fn discovered() -> (ResourceInfo, Vec<&'static str>) {
        routes::discovered()
    }

    /// What [`Audit::router`] answers.
    pub fn paths() -> Vec<String> {
        routes::paths()
    }

    /// Gives [`OWN_USER`] the rights that [`Audit::start`] needs, with the client of somebody who may.
    pub async fn install(&self, client: &kube::Client) -> kube::Result<()> {
        rights::install(client).await
    }

    /// Begins what needs the cluster and the network: namespaces, projects and domains are watched, records are sent on.
    pub fn start(&self, host: &Host) {
        let _ = self.inner.health.set(host.tasks.health().clone());
        self.inner.show(Health::Ok);
        watch::start(&self.inner, host);
        syslog::start(&self.inner, host);
        let (draining, shutdown) = (self.inner.draining.clone(), host.tasks.shutdown().clone());
        tokio::spawn(async move {
            shutdown.cancelled().await;
            draining.cancel();
        });
    }

    /// Reads the policy file again.
    pub fn reload_policy(&self) -> Result<(), OpenError> {
        self.inner.policy.store(Arc::new(load_policy(&self.inner.config)?));
        self.inner.policy_version.fetch_add(1, Ordering::Release);
        let event = AuditEvent::security(SecurityEvent::TrailChanged, own_user());
        self.put(event.with("audit.gantry.dev/policy", "reloaded"));
        Ok(())
    }

    /// Returns once everything queued before is on disk.
    pub async fn flush(&self) -> Result<(), AuditClosed> {
        let (done, durable) = oneshot::channel();
        self.inner.queue.put(queue::Item::Sync(done));
        durable.await.map_err(|_| AuditClosed)
    }

    /// Writes what is queued, signs for it, and ends. To be called when nobody can make a request any more.
    pub async fn close(&self) {
        self.inner.draining.cancel();
        self.inner.queue.close();
        let threads = std::mem::take(&mut *self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the audit trail panicked");
                }
            }
        });
        // Joining cannot panic.
        let _ = joined.await;
    }

    /// A record of the trail's own, which must not wait.
    fn put(&self, event: AuditEvent) {
        self.inner.put(event);
    }
}

impl Inner {
    pub(crate) fn show(&self, health: Health) {
        if let Some(board) = self.health.get() {
            board.set(writer::PART, health);
        }
    }

    /// Runs a thread of the trail. If it panics, nothing more goes unrecorded: requests are refused.
    fn watched(&self, name: &str, run: impl FnOnce()) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
            tracing::error!(
                "the audit trail's {name} panicked; the trail is closed and requests are refused"
            );
            self.show(Health::Degraded(format!("the audit trail's {name} panicked; start Gantry again")));
            self.queue.close();
        }
    }

    /// Queues a record of the trail itself.
    pub(crate) fn put(&self, event: AuditEvent) {
        self.queue.put(queue::Item::Own(Box::new(event)));
    }
}

#[async_trait::async_trait]
impl AuditSink for Inner {
    fn plan(&self, user: &UserInfo, request: &RequestInfo) -> AuditPlan {
        self.policy.load().plan(user, request)
    }

    fn plans_version(&self) -> Option<u64> {
        Some(self.policy_version.load(Ordering::Acquire))
    }

    fn when_full(&self) -> WhenFull {
        self.config.when_full
    }

    fn try_reserve(&self) -> bool {
        self.queue.try_reserve()
    }

    async fn reserve(&self) -> Result<(), AuditClosed> {
        self.queue.reserve().await
    }

    fn commit(&self, event: Box<AuditEvent>) -> Option<AuditLike> {
        let hash = self.alike.hash(&event);
        let Some(kept) = hash.and_then(|hash| self.alike.find(hash, &event, &self.namespaces)) else {
            self.queue.commit(event);
            return None;
        };
        self.queue.commit_like(kept.clone(), alike::own(&event));
        Some(AuditLike { event, kept })
    }

    fn commit_again(&self, like: &AuditLike, own: AuditOwn<'_>) -> bool {
        let Ok(kept) = like.kept.clone().downcast::<alike::Kept>() else { return false };
        // Else its record has other parts.
        let is_plain = !own.id.is_empty() && !own.latency.is_zero();
        let holds = is_plain && kept.is_as_of(&self.namespaces);
        if holds {
            self.queue.commit_like(kept, alike::own_of(own));
        }
        holds
    }

    fn release(&self) {
        self.queue.release(1, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use gantry_kube_types::{Attributes, AuditPlace, AuditStatus, Decision};
    use jiff::Timestamp;

    use super::*;
    use crate::namespaces::Facts;

    struct Nobody;

    impl Authorizer for Nobody {
        fn authorize(&self, _: &Attributes) -> Decision {
            Decision::NoOpinion(String::new())
        }
    }

    /// Asks until the trail keeps the like of it.
    async fn kept(audit: &Audit, event: &AuditEvent) -> AuditLike {
        let sink = audit.sink();
        loop {
            let place = AuditPlace::take(&sink).await.expect("a place");
            if let Some(like) = place.put(Box::new(event.clone())) {
                return like;
            }
            audit.flush().await.expect("durable");
        }
    }

    #[tokio::test]
    async fn only_what_is_the_same_in_its_record_is_told_in_short() {
        let directory = tempfile::tempdir().expect("a directory");
        let audit = build(Config::new(directory.path()), Arc::new(Nobody)).expect("a trail");
        let event = AuditEvent {
            id: "first".to_owned(),
            received: Timestamp::now(),
            latency: Duration::from_micros(9),
            user: UserInfo::authenticated("acme/alice", &[]),
            verb: "get".to_owned(),
            object: gantry_kube_types::AuditObject::new("", "pods", "p").in_namespace("web-dev"),
            status: AuditStatus { code: 200, ..AuditStatus::default() },
            ..AuditEvent::default()
        };
        let like = tokio::time::timeout(Duration::from_secs(30), kept(&audit, &event)).await.expect("kept");
        let own = AuditOwn { id: "second", received: event.received, latency: event.latency };
        let tells = |like: &AuditLike, own: AuditOwn<'_>| {
            let place = AuditPlace::try_take(&audit.sink()).expect("a place");
            place.put_again(like, own).is_ok()
        };
        assert!(tells(&like, own));
        assert!(!tells(&like, AuditOwn { latency: Duration::ZERO, ..own }));
        assert!(!tells(&like, AuditOwn { id: "", ..own }));
        let others = AuditLike { event: like.event.clone(), kept: Arc::new("another sink's") };
        assert!(!tells(&others, own));
        // The record names the project of the namespace.
        let web = Facts { project: Some("web".to_owned()), sessions: None };
        audit.inner.namespaces.replace(HashMap::from([("web-dev".to_owned(), web)]));
        assert!(!tells(&like, own));
        audit.close().await;
    }

    #[tokio::test]
    async fn nobody_comes_in_before_it_is_known_whether_they_are_recorded() {
        let says = |sessions| Facts { project: None, sessions };
        let known = [
            ("says-nothing", says(None)),
            ("none", says(Some(RecordSessions::None))),
            ("terminals", says(Some(RecordSessions::Terminals))),
            ("all", says(Some(RecordSessions::All))),
        ];
        let all = std::iter::once("unknown").chain(known.iter().map(|(name, _)| *name));
        let namespaces: Vec<&str> = all.collect();
        for (default, want) in [
            (RecordSessions::None, "?? nn nn yn yy"),
            (RecordSessions::Terminals, "y? yn nn yn yy"),
            (RecordSessions::All, "yy yy nn yn yy"),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let sessions = SessionPolicy { default, ..SessionPolicy::default() };
            let audit = build(Config { sessions, ..Config::new(directory.path()) }, Arc::new(Nobody));
            let audit = audit.expect("a trail");
            let known = known.iter().map(|(name, facts)| ((*name).to_owned(), facts.clone()));
            audit.inner.namespaces.replace(known.collect());
            // At a terminal, and without one.
            let wants = |namespace: &str| {
                [true, false].map(|tty| {
                    let namespace = namespace.to_owned();
                    let start = gantry_kube_types::SessionStart { namespace, tty, ..Default::default() };
                    match audit.recorder().wants(&start) {
                        Ok(true) => 'y',
                        Ok(false) => 'n',
                        Err(_) => '?',
                    }
                })
            };
            let found: Vec<String> = namespaces.iter().map(|name| wants(name).iter().collect()).collect();
            assert_eq!(found.join(" "), want, "{default:?}");
            audit.close().await;
        }
    }
}
