//! Admission of pods by the images they name.
//!
//! An image of this registry is looked at by its digest: where a policy requires something, the pod is made to run
//! that very digest (`demo/web:1@sha256:…`), so that a tag which moves later brings nothing that nobody looked at.
//! Elsewhere the digest is only written down beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gantry_kube_types::{
    Admission, AdmissionAttributes, AdmissionOperation, AdmissionPhase, FieldError, StatusError,
};
use gantry_oci::{Digest, Reference, RepositoryName, Tag};
use gantry_registry_api::{Answer, GROUP, ImagePolicySpec, OnFailure, POLICIES, Visibility};
use serde_json::{Value, json};

use super::platforms::{Platform, taken};
use super::policies::{Effective, documents};
use super::{Act, Asked, INDEX_DEPTH_MAX, Place};
use crate::Registry;
use crate::catalogue::Facts;
use crate::routes::ManifestName;

/// Of a pod: the digests of its images of this registry, by container, as its names were resolved when it was made.
pub(super) const DIGESTS: &str = "registry.gantry.dev/digests";
/// The platform's own, without which nothing runs: no policy locks them out.
const EXEMPT_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
const PAUSE: &str = "gantry/pause";
/// Names of Docker Hub, which the node asks here first.
const DOCKER_HUB: [&str; 2] = ["docker.io", "index.docker.io"];
/// How long a pod waits for an upstream to say what its image is.
const UPSTREAM_WAIT: Duration = Duration::from_secs(5);
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Pods by their images, and policies by what they say. Knows nothing before it is connected.
#[derive(Clone, Default)]
pub struct ImageGate {
    registry: Arc<OnceLock<Registry>>,
    /// Pods are another cluster's, of whose nodes nothing is known.
    is_webhook: bool,
}

impl ImageGate {
    /// Asks this registry from now on.
    pub fn connect(&self, registry: &Registry) {
        // One platform has one registry.
        let _ = self.registry.set(registry.clone());
    }

    /// For the pods of another cluster.
    pub(super) fn of_webhook(registry: &Registry) -> Self {
        Self { registry: Arc::new(OnceLock::from(registry.clone())), is_webhook: true }
    }
}

#[async_trait::async_trait]
impl Admission for ImageGate {
    fn name(&self) -> &'static str {
        "ImageGate"
    }

    async fn review(&self, request: &mut AdmissionAttributes<'_>) -> Result<(), StatusError> {
        if !matches!(request.operation, AdmissionOperation::Create | AdmissionOperation::Update) {
            return Ok(());
        }
        if request.is(GROUP, POLICIES) {
            return match request.phase {
                AdmissionPhase::Validate => policy(self.registry.get(), request),
                AdmissionPhase::Mutate => Ok(()),
            };
        }
        let Some(template) = template(request) else { return Ok(()) };
        if is_exempt(request.namespace) {
            return Ok(());
        }
        let images = new_images(request, template);
        if images.is_empty() {
            return Ok(());
        }
        let is_pod = request.group.is_empty() && request.resource == "pods";
        let registry = self.registry.get().ok_or_else(starting)?;
        let gate = match Gate::at(registry, request.namespace).await {
            Ok(gate) if self.is_webhook => Gate { nodes: BTreeSet::new(), ..gate },
            Ok(gate) => gate,
            // What is no pod yet is looked at again when it is one.
            Err(_) if !is_pod => return Ok(()),
            Err(error) => return Err(error),
        };
        match (request.phase, is_pod) {
            (AdmissionPhase::Mutate, true) => {
                gate.bring(&images).await;
                gate.resolve(request, &images);
            }
            (AdmissionPhase::Mutate, false) => {}
            (AdmissionPhase::Validate, _) => {
                for image in images.iter().map(|(_, image)| image).collect::<BTreeSet<_>>() {
                    let Err(why) = gate.check(image).await? else { continue };
                    if is_pod {
                        request.audit_annotations.push(("registry.gantry.dev/refused".into(), image.clone()));
                        return Err(request.forbidden(why));
                    }
                    request.warnings.push(format!("its pods would be refused: {why}"));
                }
            }
        }
        Ok(())
    }
}

/// A namespace of the platform's own, which no policy locks out.
pub(super) fn is_exempt(namespace: &str) -> bool {
    EXEMPT_NAMESPACES.contains(&namespace)
}

fn starting() -> StatusError {
    let why = "the registry is still starting, and cannot say which images may run: try again";
    StatusError::service_unavailable(why).retry_after(1)
}

impl<'a> Gate<'a> {
    pub(super) async fn at(registry: &'a Registry, namespace: &str) -> Result<Self, StatusError> {
        let place = registry.inner.policies.place(namespace).await.ok_or_else(starting)?;
        let effective = registry.inner.policies.book().at(&place, Act::Deploy);
        let nodes = registry.inner.policies.platforms();
        Ok(Gate { registry, namespace: namespace.to_owned(), place, effective, nodes })
    }
}

/// Where the pod's specification is in the object; nothing for what makes no pods.
fn template(request: &AdmissionAttributes<'_>) -> Option<&'static str> {
    match (request.group, request.resource, request.subresource) {
        ("", "pods", "" | "ephemeralcontainers") => Some("/spec"),
        ("", "replicationcontrollers", "")
        | ("apps", "deployments" | "statefulsets" | "daemonsets" | "replicasets", "")
        | ("batch", "jobs", "") => Some("/spec/template/spec"),
        ("batch", "cronjobs", "") => Some("/spec/jobTemplate/spec/template/spec"),
        _ => None,
    }
}

/// Containers and their images. Names are not looked at: no container hides behind another one's.
pub(super) fn images(object: &Value, template: &str) -> Vec<(String, String)> {
    let Some(spec) = object.pointer(template) else { return Vec::new() };
    let containers = LISTS.iter().filter_map(|list| spec[list].as_array()).flatten();
    let named = containers.filter_map(|container| {
        let image = container["image"].as_str().filter(|image| !image.is_empty())?;
        Some((container["name"].as_str().unwrap_or_default().to_owned(), image.to_owned()))
    });
    named.collect()
}

/// Those that the object did not name before.
fn new_images(request: &AdmissionAttributes<'_>, template: &str) -> Vec<(String, String)> {
    let mut now = images(&request.object, template);
    let before = request.old_object.map(|old| images(old, template)).unwrap_or_default();
    let before: BTreeSet<String> = before.into_iter().map(|(_, image)| image).collect();
    now.retain(|(_, image)| !before.contains(image));
    now
}

/// Where an image is.
#[derive(Debug, PartialEq, Eq)]
enum Located {
    Here(Reference),
    Elsewhere,
    /// The node will say so.
    NoName,
}

/// One namespace and what holds there.
pub(super) struct Gate<'a> {
    registry: &'a Registry,
    namespace: String,
    place: Place,
    effective: Effective,
    /// What nodes run; nothing: every image of an index counts.
    nodes: BTreeSet<Platform>,
}

impl Gate<'_> {
    fn locate(&self, image: &str) -> Located {
        let (host, rest) = match image.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
            _ => (None, image),
        };
        let Ok(mut reference) = rest.parse::<Reference>() else { return Located::NoName };
        match host {
            Some(host) if self.registry.config().hosts.iter().any(|own| own == host) => {
                return Located::Here(reference);
            }
            Some(host) if !DOCKER_HUB.contains(&host) => return Located::Elsewhere,
            _ => {}
        }
        let has = |name: &RepositoryName| self.registry.store().tags(name, None, 1).is_some();
        // The node asks for `web` as `library/web`, and gets `web` where there is no such repository.
        let name = reference.repository.as_str();
        let (of_hub, plain) = match name.strip_prefix("library/") {
            Some(plain) => (Some(reference.repository.clone()), plain.parse().ok()),
            None if name.contains('/') => (None, None),
            None => (format!("library/{name}").parse().ok(), Some(reference.repository.clone())),
        };
        if let Some(found) = of_hub.filter(has).or(plain.filter(has)) {
            reference.repository = found;
        }
        // A name without a host is looked up here first; one that belongs to somebody here is nobody else's.
        let owned = self.registry.facts(&reference.repository).is_some_and(|f| f.owner != Default::default());
        let known = owned || has(&reference.repository) || self.registry.is_mirror(&reference.repository);
        if known { Located::Here(reference) } else { Located::Elsewhere }
    }

    /// Asks upstreams for images that are pulled through: what does not come in time is judged by what is here.
    async fn bring(&self, images: &[(String, String)]) {
        let names: BTreeSet<&String> = images.iter().map(|(_, image)| image).collect();
        let asked = names.into_iter().filter_map(|image| match self.locate(image) {
            Located::Here(reference) if self.registry.is_mirror(&reference.repository) => {
                let facts = self.registry.facts(&reference.repository)?;
                may_pull(&facts, &self.place).then_some(reference)
            }
            _ => None,
        });
        let each = asked.map(|reference| async move {
            let name = match (reference.digest, reference.tag) {
                (Some(digest), _) => ManifestName::Digest(digest),
                (None, tag) => ManifestName::Tag(tag.unwrap_or_else(Tag::latest)),
            };
            let brought = crate::upstream::manifest(self.registry, &reference.repository, &name).await;
            if let Err(error) = brought {
                tracing::debug!(?error, repository = %reference.repository, "an upstream's image did not come");
            } else if self.effective.requirements.is_some() {
                self.bring_images(&reference.repository, &name).await;
            }
        });
        // Those that are late go on coming when somebody asks again.
        let _ = tokio::time::timeout(UPSTREAM_WAIT, futures::future::join_all(each)).await;
    }

    /// Asks for the images of an index that nodes may take: what is here is scanned, and can be judged then.
    async fn bring_images(&self, repository: &RepositoryName, name: &ManifestName) {
        let store = self.registry.store();
        let digest = match name {
            ManifestName::Tag(tag) => store.resolve(repository, tag),
            ManifestName::Digest(digest) => Some(digest.clone()),
        };
        let mut open: Vec<(usize, Digest)> = digest.into_iter().map(|digest| (0, digest)).collect();
        while let Some((depth, digest)) = open.pop() {
            if store.record(repository, &digest).is_none() {
                let name = ManifestName::Digest(digest.clone());
                if let Err(error) = crate::upstream::manifest(self.registry, repository, &name).await {
                    tracing::debug!(?error, %repository, %digest, "an upstream's image did not come");
                }
            }
            if let Some(record) = store.record(repository, &digest).filter(|_| depth < INDEX_DEPTH_MAX) {
                open.extend(taken(&record, &self.nodes).map(|image| (depth + 1, image.clone())));
            }
        }
    }

    fn digest(&self, reference: &Reference) -> Option<Digest> {
        let store = self.registry.store();
        let tag = || reference.tag.clone().unwrap_or_else(Tag::latest);
        let digest = reference.digest.clone().or_else(|| store.resolve(&reference.repository, &tag()))?;
        store.record(&reference.repository, &digest).map(|_| digest)
    }

    /// Makes the pod run what is looked at.
    fn resolve(&self, request: &mut AdmissionAttributes<'_>, images: &[(String, String)]) {
        let mut digests = BTreeMap::new();
        let mut by_image = BTreeMap::new();
        for (container, image) in images {
            if let Located::Here(reference) = self.locate(image)
                && let Some(digest) = self.digest(&reference)
            {
                digests.insert(container.as_str(), digest.clone());
                if reference.digest.is_none() {
                    by_image.insert(image.as_str(), digest);
                }
            }
        }
        if digests.is_empty() {
            return;
        }
        let pins = self.effective.requirements.is_some();
        let object = request.object_mut();
        if pins {
            for list in LISTS {
                for container in object["spec"][list].as_array_mut().into_iter().flatten() {
                    let pinned = container["image"].as_str().and_then(|image| by_image.get_key_value(image));
                    if let Some((image, digest)) = pinned {
                        container["image"] = format!("{image}@{digest}").into();
                    }
                }
            }
            return;
        }
        if !object["metadata"].is_object() {
            return;
        }
        let known = object["metadata"]["annotations"][DIGESTS].as_str();
        let mut all: BTreeMap<String, Value> =
            known.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        all.extend(digests.into_iter().map(|(name, digest)| (name.to_owned(), json!(digest))));
        if !object["metadata"]["annotations"].is_object() {
            object["metadata"]["annotations"] = json!({});
        }
        object["metadata"]["annotations"][DIGESTS] = json!(all).to_string().into();
    }

    /// Whether pods of the namespace may run the image; `Err` within is a sentence about why not.
    pub(super) async fn check(&self, image: &str) -> Result<Result<(), String>, StatusError> {
        let reference = match self.locate(image) {
            Located::NoName => return Ok(Ok(())),
            Located::Elsewhere => return Ok(self.elsewhere(image)),
            Located::Here(reference) if reference.repository.as_str() == PAUSE => return Ok(Ok(())),
            Located::Here(reference) => reference,
        };
        let (repository, namespace) = (&reference.repository, &self.namespace);
        let facts = self.registry.facts(repository).ok_or_else(starting)?;
        if !may_pull(&facts, &self.place) {
            return Ok(Err(format!(
                "image {image} may not be run in namespace {namespace}: repository {repository} does not belong to its \
                 project, is not shared with it and is not public, or is not there. To mend it: who manages it shares \
                 it (`gantry repository share {repository} --project DOMAIN/PROJECT`, or `gantry repository set \
                 {repository} --visibility public`)"
            )));
        }
        let Some(digest) = self.digest(&reference) else {
            return Ok(match &self.effective.requirements {
                None => Ok(()),
                Some((policy, _)) => Err(format!(
                    "image {image} is not in the registry, and ImagePolicy {policy} has requirements that cannot be \
                     looked at in namespace {namespace}. To mend it: push it first"
                )),
            });
        };
        // A tag that leads elsewhere by now, or never led here, is no name of the image: exceptions go by names.
        let tag = reference.tag.clone().or_else(|| reference.digest.is_none().then(Tag::latest));
        let tag = tag.filter(|tag| self.registry.store().resolve(repository, tag).as_ref() == Some(&digest));
        let name = match tag {
            Some(tag) => format!("{repository}:{tag}"),
            None => format!("{repository}@{digest}"),
        };
        let asked = Asked { repository, name: &name, digest: &digest };
        let record = self.registry.store().record(repository, &digest);
        let mut images = record
            .map(|record| self.registry.images_in(repository, &record, &self.nodes))
            .unwrap_or_default();
        if images.is_empty() {
            images.push(digest.clone());
        }
        let judged = self.registry.refused(Act::Deploy, asked, images, &self.place).await;
        Ok(match judged {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => {
                Err(format!("image {name} ({digest}) may not run in namespace {namespace}: {refusal}"))
            }
            Err(error) if self.effective.on_failure == OnFailure::Open => {
                tracing::warn!(image, %error, "an image cannot be looked at, and the policy lets it pass");
                Ok(())
            }
            Err(error) => {
                tracing::error!(image, %error, "an image cannot be looked at");
                return Err(StatusError::internal(format!(
                    "the report of image {image} cannot be read, so it may not run"
                )));
            }
        })
    }

    fn elsewhere(&self, image: &str) -> Result<(), String> {
        match &self.effective.other_registries {
            Some((policy, Answer::Refuse)) => Err(format!(
                "image {image} may not run in namespace {}: it is of another registry, and ImagePolicy {policy} refuses \
                 those. To mend it: push it to this registry, where it is scanned, and name it by its repository here. \
                 An operator can change otherRegistries of ImagePolicy {policy}",
                self.namespace
            )),
            _ => Ok(()),
        }
    }
}

/// Whether pods of the place may pull from the repository: as its people, the owner's and those it is shared with.
fn may_pull(facts: &Facts, place: &Place) -> bool {
    let here = |project: &Option<String>, domain: &Option<String>| match (project, domain) {
        (Some(project), _) => place.project.as_ref() == Some(project),
        (None, Some(domain)) => place.domain.as_ref() == Some(domain),
        (None, None) => false,
    };
    let is_platform = place.project.is_none() && place.domain.is_none();
    facts.visibility == Visibility::Public
        || here(&facts.owner.project, &facts.owner.domain)
        || (is_platform && facts.owner == Default::default())
        || facts.shares.iter().any(|share| here(&share.project, &share.domain))
}

/// What is refused of policies.
fn policy(registry: Option<&Registry>, request: &AdmissionAttributes<'_>) -> Result<(), StatusError> {
    // What does not fit the types was refused by the schema.
    let Ok(spec) = serde_json::from_value::<ImagePolicySpec>(request.object["spec"].clone()) else {
        return Ok(());
    };
    let mut errors = Vec::new();
    if let Err((field, why)) = documents(&spec) {
        errors.push(FieldError::invalid(field, Value::Null, why));
    }
    let acts = [("push", &spec.push), ("pull", &spec.pull), ("deploy", &spec.deploy)];
    for (act, required) in acts {
        let Some(required) = required else { continue };
        if act != "deploy" && spec.scope.environment.is_some() {
            let why = "repositories have no environment: say it in a policy without one";
            errors.push(FieldError::forbidden(format!("spec.{act}"), why));
        }
        let signature = required.signature.as_ref();
        if signature.is_some_and(|by| by.keys.is_empty() && by.certificates.is_empty()) {
            let why = "it names nobody: keys or certificates are wanted";
            errors.push(FieldError::invalid(format!("spec.{act}.signature"), Value::Null, why));
        }
    }
    if spec.scope.project.is_some() && spec.scope.domain.is_some() {
        let why = "a project says its domain: name one of them";
        errors.push(FieldError::invalid("spec.scope", Value::Null, why));
    }
    let book = registry.map(|registry| registry.inner.policies.book());
    let same = book.as_ref().and_then(|book| book.of_scope(&spec.scope));
    if let Some(other) = same.filter(|other| *other != request.name) {
        let why = format!("ImagePolicy {other} has this scope already: change that one");
        errors.push(FieldError::invalid("spec.scope", json!(spec.scope), why));
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(StatusError::invalid(GROUP, request.kind, request.name, &errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_registry_api::{Owner, Rules, Share};

    #[test]
    fn pods_pull_what_their_project_may_pull() {
        let facts = |owner: &str, visibility, shares: &[&str]| Facts {
            name: "x".to_owned(),
            owner: owner.parse().expect("an owner"),
            visibility,
            shares: shares
                .iter()
                .map(|with| {
                    let Owner { project, domain } = with.parse().expect("an owner");
                    Share { project, domain, ..Share::default() }
                })
                .collect(),
            rules: Rules::default(),
        };
        let of = |project: &str| Place {
            domain: Some("acme".to_owned()),
            project: Some(project.to_owned()),
            environment: Some("prod".to_owned()),
        };
        let private = Visibility::Private;
        for (facts, place, want) in [
            (facts("project:web", private, &[]), of("web"), true),
            (facts("project:web", private, &[]), of("shop"), false),
            (facts("project:web", private, &[]), Place::default(), false),
            (facts("project:web", private, &["project:shop"]), of("shop"), true),
            (facts("project:web", private, &["domain:acme"]), of("shop"), true),
            (facts("project:web", private, &["domain:globex"]), of("shop"), false),
            (facts("project:web", Visibility::Public, &[]), of("shop"), true),
            (facts("domain:acme", private, &[]), of("shop"), true),
            (facts("domain:globex", private, &[]), of("shop"), false),
            (facts("platform", private, &[]), of("shop"), false),
            (facts("platform", private, &[]), Place::default(), true),
            (facts("platform", Visibility::Public, &[]), of("shop"), true),
            // A share with nobody is no share with the platform.
            (facts("domain:acme", private, &["platform"]), Place::default(), false),
        ] {
            assert_eq!(may_pull(&facts, &place), want, "{facts:?} {place:?}");
        }
    }

    #[test]
    fn every_container_of_every_kind_is_seen() {
        let pod = json!({ "spec": {
            "containers": [{ "name": "a", "image": "x:1" }, { "name": "none" }],
            "initContainers": [{ "name": "b", "image": "x:2" }],
            "ephemeralContainers": [{ "name": "c", "image": "x:3" }],
        }});
        let found = images(&pod, "/spec");
        assert_eq!(found.iter().map(|(_, image)| image.as_str()).collect::<Vec<_>>(), ["x:2", "x:1", "x:3"]);
        let cron = json!({ "spec": { "jobTemplate": { "spec": { "template": pod } } } });
        assert_eq!(images(&cron, "/spec/jobTemplate/spec/template/spec"), found);
        assert!(images(&cron, "/spec").is_empty());
    }
}
