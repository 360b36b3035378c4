//! Keeps objects and repositories together: what is pushed has an object, whose status says what is in it; with the
//! object goes the content.

use std::time::Duration;

use gantry_host::Host;
use gantry_oci::RepositoryName;
use gantry_reconcile::{Again, Informer, Queue, work};
use gantry_registry_api::{EventType, FINALIZER, Repository, definitions, object_name};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::Registry;
use crate::cascade;
use crate::gate::Policies;
use crate::scans::GRADES_STAY;
use crate::status::status;

/// Whom in-process clients of the registry speak as.
pub const OWN_USER: &str = "system:gantry:registry";

/// A push changes tags and manifests one after the other: they are counted together after this time.
const SETTLE: Duration = Duration::from_millis(500);
/// How long the API server may take to serve the kinds.
const ESTABLISHED_WAIT: Duration = Duration::from_secs(20);
const WORKERS: usize = 2;

/// Why the registry cannot begin its work with objects.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("its kinds and rights")]
    Api(#[from] kube::Error),
    #[error("{0} is not served")]
    NotServed(String),
}

impl Registry {
    /// Installs the kinds, learns whose which repository is, and keeps objects true from now on.
    ///
    /// `host.client` speaks as [`OWN_USER`]; `masters` is used once, to install kinds and rights.
    pub async fn start(&self, host: &Host, masters: &Client) -> Result<(), StartError> {
        install(masters).await?;
        // First: what lies below an upstream's prefix must not be taken for a repository of our own.
        self.start_upstreams(host).await;
        let followed = self.inner.catalogue.follow(host).await;
        cascade::start(host, &self.inner.catalogue, &followed);
        let repositories = followed.repositories;
        Policies::follow(self, host).await;
        self.start_webhooks(host).await;
        let queue = self.inner.changed.clone();
        for name in self.store().names() {
            queue.add(name.to_string());
        }
        let changed = queue.clone();
        repositories.on_change(move |change| {
            if let Some(object) = change.object() {
                changed.add(object.spec.name.clone());
            }
        });
        let reconciler =
            Reconciler { registry: self.clone(), api: Api::all(host.client.clone()), repositories };
        work(&host.tasks, "repositories", queue, WORKERS, move |name| {
            let reconciler = reconciler.clone();
            async move { reconciler.reconcile(&name).await }
        });
        self.start_replications(host).await;
        Ok(())
    }

    /// Something in the repository is another than before.
    pub(crate) fn note(&self, repository: &RepositoryName) {
        self.inner.changed.add_after(repository.to_string(), SETTLE);
        self.inner.replications.changed(repository);
    }
}

/// The repositories whose objects are to be looked at, by name.
pub(crate) type Changed = Queue<String>;

#[derive(Clone)]
struct Reconciler {
    registry: Registry,
    api: Api<Repository>,
    repositories: Informer<Repository>,
}

impl Reconciler {
    async fn reconcile(&self, name: &str) -> Result<Again, String> {
        let text = |error: kube::Error| error.to_string();
        let Ok(repository) = name.parse::<RepositoryName>() else { return Ok(Again::OnChange) };
        let contents = self.registry.store().contents(&repository);
        let found = self.repositories.get("", &object_name(name)).filter(|found| found.spec.name == name);
        let Some(object) = found else {
            if contents.manifests > 0 {
                self.registry.inner.catalogue.create(name).await.map_err(text)?;
            }
            return Ok(Again::OnChange);
        };
        if object.metadata.deletion_timestamp.is_some() {
            if contents.manifests > 0 {
                let data =
                    json!({ "reason": "repository", "tags": contents.tags, "manifests": contents.manifests });
                self.registry.told(EventType::Deleted, &repository, None, data).await;
            }
            self.empty(&repository).await.map_err(|error| error.to_string())?;
            return self.finalizers(&object, false).await.map_err(text);
        }
        if !object.finalizers().iter().any(|f| f == FINALIZER) {
            return self.finalizers(&object, true).await.map_err(text);
        }
        let owner = self.registry.inner.catalogue.shown(&object.spec.owner);
        let graded = repository.clone();
        let grades = self.registry.blocking(move |registry| registry.grades(&graded)).await;
        let grades = grades.map_err(|error| error.to_string())?;
        let wanted = status(owner, &contents, grades);
        if object.status.as_ref() != Some(&wanted) {
            let mut patch = json!({ "status": wanted });
            // In a merge patch, what is not named stays.
            if let Some(status) = patch["status"].as_object_mut() {
                for field in ["lastPush", "worstGrade", "latestGrade"] {
                    status.entry(field).or_insert(serde_json::Value::Null);
                }
            }
            let how = PatchParams::default();
            match self.api.patch_status(&object.name_any(), &how, &Patch::Merge(patch)).await {
                // Gone meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                done => drop(done.map_err(text)?),
            }
        }
        Ok(grades.worst.map_or(Again::OnChange, |_| Again::After(GRADES_STAY)))
    }

    /// Takes everything out. Garbage collection gives the space back.
    async fn empty(&self, repository: &RepositoryName) -> std::io::Result<()> {
        let repository = repository.clone();
        self.registry.blocking(move |registry| registry.store().clear(&repository)).await
    }

    /// With the version that was seen: others' finalizers stay theirs.
    async fn finalizers(&self, object: &Repository, present: bool) -> kube::Result<Again> {
        let mut all: Vec<String> = object.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect();
        if present {
            all.push(FINALIZER.to_owned());
        }
        if all == object.finalizers() {
            return Ok(Again::OnChange);
        }
        let metadata = json!({ "finalizers": all, "resourceVersion": object.resource_version() });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        match self.api.patch(&object.name_any(), &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Again::OnChange),
            done => done.map(|_| Again::OnChange),
        }
    }
}

/// Doing it again changes nothing.
async fn install(masters: &Client) -> Result<(), StartError> {
    let how = PatchParams::apply(OWN_USER).force();
    let api: Api<CustomResourceDefinition> = Api::all(masters.clone());
    for definition in definitions() {
        let name = definition.name_any();
        api.patch(&name, &how, &Patch::Apply(&definition)).await?;
        let served = await_condition(api.clone(), &name, conditions::is_crd_established());
        if !matches!(tokio::time::timeout(ESTABLISHED_WAIT, served).await, Ok(Ok(_))) {
            return Err(StartError::NotServed(name));
        }
    }
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": OWN_USER },
        "rules": [
            { "apiGroups": [gantry_registry_api::GROUP], "resources": ["*"], "verbs": ["*"] },
            { "apiGroups": [gantry_identity_api::GROUP], "resources": ["domains", "projects"],
              "verbs": ["get", "list", "watch"] },
            { "apiGroups": [""], "resources": ["namespaces", "nodes"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] },
            { "apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"] },
            // Credentials for other registries, of the Secrets that operators name in their objects; keys of webhooks.
            { "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] },
            { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": OWN_USER },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": OWN_USER },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OWN_USER }],
    });
    Api::<ClusterRole>::all(masters.clone()).patch(OWN_USER, &how, &Patch::Apply(role)).await?;
    Api::<ClusterRoleBinding>::all(masters.clone()).patch(OWN_USER, &how, &Patch::Apply(binding)).await?;
    Ok(())
}
