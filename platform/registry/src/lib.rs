//! Gantry's registry: OCI Distribution 1.1 over content by digest, in files or on S3.
//!
//! [`build`] gives a [`Registry`]; its [`Registry::router`] serves `/v2/…` and `/token`. Who may do what is
//! asked of the platform's authoriser as rights on the virtual resource `repositories` of the group
//! `registry.gantry.dev` (verbs `pull`, `push`, `delete`, `list`). Whose a repository is, its object says
//! ([`gantry_registry_api::Repository`]), which is made with the first push.

mod access;
mod admin;
mod admission;
mod archives;
mod blobs;
mod cascade;
mod catalogue;
mod config;
mod errors;
mod events;
mod fetch;
mod gate;
mod lists;
mod manifests;
mod metrics;
mod objects;
mod quota;
mod rate;
mod reconcile;
mod remote;
mod replication;
mod retention;
mod rights;
mod routes;
mod rules;
mod scans;
mod seed;
mod signatures;
mod status;
mod store;
mod tokens;
mod trail;
mod uploads;
mod upstream;
mod validate;

use std::io;
use std::sync::{Arc, OnceLock};

use gantry_kube_types::AuditSink;

pub use access::Access;
pub use admission::RepositoryAdmission;
pub use catalogue::Catalogue;
pub use config::{Config, Limits, Settings};
pub use gate::ImageGate;
pub use reconcile::{OWN_USER, StartError};
pub use rights::{RepositoryRights, RepositoryVisibility};
pub use seed::SeedError;
pub use signatures::Signatures;
pub use store::{AccessKeys, Checked, Collected, Collecting, Problem, S3Settings};
pub use tokens::{
    Bearer, JwtIssuer, NotBeyondRegistry, PasswordIsToken, RegistryTokens, Scope, StillGood, TokenIssuer,
    not_beyond_registry,
};

/// A cheap handle on one registry.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: store::Store,
    access: Access,
    catalogue: Catalogue,
    changed: reconcile::Changed,
    upstreams: Arc<upstream::Upstreams>,
    replications: replication::Replications,
    events: events::Events,
    /// Bounds the request bodies that are written at the same time.
    streams: tokio::sync::Semaphore,
    /// One collection or check at a time: both read all there is.
    tending: tokio::sync::Mutex<()>,
    rates: rate::Rates,
    /// One push at a time counts what is left of a quota: two must not both take it.
    counting: tokio::sync::Mutex<()>,
    scans: scans::Scans,
    archives: archives::Archives,
    policies: gate::Policies,
    counts: metrics::Counts,
    audit: OnceLock<Arc<dyn AuditSink>>,
}

/// Opens the registry below `config.root`, which is made if it is not there.
///
/// Reads the names of everything stored: run it on a blocking thread when the registry may be large.
/// `catalogue` is the one that [`RepositoryRights`] in the way of `access.authorizer` asks.
pub fn build(config: Config, access: Access, catalogue: Catalogue) -> io::Result<Registry> {
    let streams = tokio::sync::Semaphore::new(config.limits.streams_max);
    let scans = scans::Scans::open(&config.root, config.advisories.clone())?;
    let root = config.root.clone();
    let events = events::Events::open(&config.root.join("events"), &config.webhooks_may_reach)?;
    let store = store::Store::open(config)?;
    let archives = archives::Archives::open(&root)?;
    let changed = reconcile::Changed::default();
    let upstreams = Arc::<upstream::Upstreams>::default();
    catalogue.see_below_prefixes_as(&upstreams);
    Ok(Registry {
        inner: Arc::new(Inner {
            store,
            access,
            catalogue,
            changed,
            upstreams,
            replications: replication::Replications::default(),
            events,
            streams,
            tending: tokio::sync::Mutex::default(),
            rates: rate::Rates::default(),
            counting: tokio::sync::Mutex::default(),
            scans,
            archives,
            policies: gate::Policies::default(),
            counts: metrics::Counts::default(),
            audit: OnceLock::new(),
        }),
    })
}

impl Registry {
    /// Security events go there from now on. Requests are recorded by the front door.
    pub fn audit_to(&self, sink: Arc<dyn AuditSink>) {
        // The first one stays: there is one trail.
        let _ = self.inner.audit.set(sink);
    }

    /// Removes blobs that no manifest names and uploads that nobody goes on with. Safe beside pushes.
    pub async fn gc(&self) -> io::Result<Collected> {
        self.gc_watched(|_| true).await
    }

    /// [`Registry::gc`], with `watch` told how far it is; it ends early when that returns false.
    pub async fn gc_watched(
        &self,
        watch: impl Fn(Collecting) -> bool + Send + 'static,
    ) -> io::Result<Collected> {
        let _alone = self.inner.tending.lock().await;
        let collected = self.blocking(move |registry| {
            registry.forget_scans()?;
            let collected = registry.inner.store.collect_garbage(&watch);
            registry.expire_archives(registry.config().upload_expiry)?;
            collected
        });
        let collected = collected.await?;
        self.inner.counts.freed_blobs.add(collected.blobs as u64);
        self.inner.counts.freed_bytes.add(collected.bytes);
        Ok(collected)
    }

    /// Looks whether everything that was acknowledged is there; with `content`, also whether it is what its digest
    /// says. `watch` is told how far it is; it ends early when that returns false.
    pub async fn fsck(
        &self,
        content: bool,
        watch: impl Fn(usize, usize) -> bool + Send + 'static,
    ) -> io::Result<Checked> {
        let _alone = self.inner.tending.lock().await;
        self.blocking(move |registry| registry.inner.store.check(content, &watch)).await
    }

    fn store(&self) -> &store::Store {
        &self.inner.store
    }

    fn config(&self) -> &Config {
        &self.inner.store.config
    }

    /// Runs storage work on a thread that may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Registry) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let registry = self.clone();
        tokio::task::spawn_blocking(move || work(&registry)).await.map_err(io::Error::other)?
    }
}
