//! What may be pushed, pulled and run: the operator's policies, and whose images they are.
//!
//! `policies` says which policy holds where, `judge` whether an image meets it; both are pure. `pods` is the question
//! of admission, asked in this process or by webhook (`webhook`).

mod judge;
mod platforms;
mod pods;
mod policies;
mod running;
mod webhook;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use gantry_host::Host;
use gantry_identity_api::labels;
use gantry_oci::{Digest, RepositoryName};
use gantry_reconcile::Informer;
use gantry_registry_api::{ImagePolicy, OnFailure, Requirements, SignedBy};
use gantry_scanner::Report;
use gantry_signatures::{Authority, PublicKey, Trust};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use crate::Registry;
use crate::scans::Unscanned;
use crate::scans::images::is_image;
use crate::store::ManifestRecord;
pub(crate) use judge::rated;
use judge::{Violation, violations};
pub(crate) use platforms::Platform;
pub use pods::ImageGate;
use policies::Book;
pub(crate) use policies::{Act, Place};
pub(crate) use webhook::review as webhook;

/// How long a namespace that was made just now may take to be known here.
const NAMESPACE_WAIT: Duration = Duration::from_secs(2);
/// How deep indexes may name indexes.
const INDEX_DEPTH_MAX: usize = 4;

/// Policies and namespaces as they are now.
#[derive(Default)]
pub(crate) struct Policies {
    book: RwLock<Arc<Book>>,
    namespaces: OnceLock<(Informer<Namespace>, watch::Receiver<u64>)>,
    nodes: OnceLock<Informer<Node>>,
    /// Wakes who looks at running pods.
    pub(crate) again: running::Again,
}

impl Policies {
    /// Follows policies and namespaces, and returns once both are known.
    pub(crate) async fn follow(registry: &Registry, host: &Host) {
        let policies: Informer<ImagePolicy> =
            Informer::start(&host.tasks, "registry/policies", Api::all(host.client.clone()));
        let namespaces: Informer<Namespace> =
            Informer::start(&host.tasks, "registry/namespaces", Api::all(host.client.clone()));
        let nodes: Informer<Node> =
            Informer::start(&host.tasks, "registry/nodes", Api::all(host.client.clone()));
        policies.synced().await;
        namespaces.synced().await;
        nodes.synced().await;
        let (all, inner) = (policies.clone(), Arc::downgrade(&registry.inner));
        let read = move || {
            let Some(inner) = inner.upgrade() else { return };
            let all = all.list();
            let book = Arc::new(Book::new(all.iter().map(|policy| &**policy)));
            *inner.policies.book.write().unwrap_or_else(PoisonError::into_inner) = book;
            inner.policies.again.policies();
            Registry { inner }.regrade_all();
        };
        read();
        policies.on_change(move |_| read());
        let (changes, seen) = watch::channel(0);
        namespaces.on_change(move |_| changes.send_modify(|changes| *changes += 1));
        // A registry is started once.
        let _ = registry.inner.policies.nodes.set(nodes);
        // Last: who knows namespaces decides, and has to know policies then.
        let _ = registry.inner.policies.namespaces.set((namespaces, seen));
        running::follow(registry, host);
    }

    fn book(&self) -> Arc<Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What nodes run; nothing where that is not known of all of them.
    fn platforms(&self) -> BTreeSet<Platform> {
        let nodes = self.nodes.get().map(Informer::list).unwrap_or_default();
        platforms::of_nodes(nodes.iter().map(|node| &**node))
    }

    /// What the namespace is; nothing if it is not known.
    pub(crate) async fn place(&self, namespace: &str) -> Option<Place> {
        let (namespaces, seen) = self.namespaces.get()?;
        let mut seen = seen.clone();
        let known = async {
            loop {
                seen.mark_unchanged();
                if let Some(found) = namespaces.get("", namespace) {
                    return Some(place_of(&found));
                }
                seen.changed().await.ok()?;
            }
        };
        tokio::time::timeout(NAMESPACE_WAIT, known).await.ok().flatten()
    }
}

fn place_of(namespace: &Namespace) -> Place {
    let label = |key: &str| namespace.labels().get(key).filter(|value| !value.is_empty()).cloned();
    Place {
        domain: label(labels::DOMAIN),
        project: label(labels::PROJECT),
        environment: label(labels::ENVIRONMENT),
    }
}

/// An image as somebody named it, and what that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) repository: &'a RepositoryName,
    /// `demo/web:1`
    pub(crate) name: &'a str,
    pub(crate) digest: &'a Digest,
}

/// Why an image is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    policy: String,
    violations: Vec<Violation>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { policy, violations } = self;
        let join = |text: fn(&Violation) -> &str| {
            let mut all: Vec<&str> = violations.iter().map(text).collect();
            all.dedup();
            all.join("; ")
        };
        write!(
            f,
            "ImagePolicy {policy} refuses it: {}. To mend it: {}. An operator can grant an exception, in \
             spec.exceptions of ImagePolicy {policy}",
            join(|one| &one.finding),
            join(|one| &one.remedy),
        )
    }
}

impl Registry {
    /// The report as who belongs to the place sees it: with its exceptions, and rated by its policy.
    pub(crate) fn rated(&self, report: Report, name: &str, place: &Place) -> Report {
        let effective = self.inner.policies.book().at(place, Act::Deploy);
        rated(report, name, &effective, Timestamp::now())
    }

    /// Enters whether the image is signed, as the policy of the place wants it for pods.
    pub(crate) fn enter_signature(
        &self,
        report: &mut Report,
        repository: &RepositoryName,
        digests: &[Digest],
        place: &Place,
    ) -> io::Result<()> {
        let Some(compliance) = &mut report.compliance else { return Ok(()) };
        let required = self.inner.policies.book().at(place, Act::Deploy).requirements;
        let trusted = required.and_then(|(_, required)| required.signature);
        let signed = match trusted.as_ref().map(trust).transpose() {
            Ok(trust) => self.signed(repository, digests, trust.as_ref())?,
            Err(why) => Err(why),
        };
        compliance.enter_signature(signed);
        Ok(())
    }

    /// Where a repository belongs, as policies say it.
    pub(crate) fn place_of(&self, repository: &RepositoryName) -> Place {
        self.facts(repository).map(|facts| self.inner.catalogue.place(&facts.owner)).unwrap_or_default()
    }

    /// Whether anything is required anywhere for pushes or pulls, which most platforms do not.
    pub(crate) fn has_policies(&self, act: Act) -> bool {
        self.inner.policies.book().says_anything_of(act)
    }

    /// Whether a manifest that is pushed or pulled is one that policies have a say about, and what they say.
    pub(crate) async fn permit(
        &self,
        act: Act,
        asked: Asked<'_>,
        record: &ManifestRecord,
    ) -> io::Result<Result<(), Refusal>> {
        let images = match is_image(record) {
            true => vec![asked.digest.clone()],
            // Kept in parts: who pulls it takes one image of it, which is looked at when it is asked for itself.
            false if record.partial && !record.manifests.is_empty() => Vec::new(),
            false => match self.images_in(asked.repository, record, &BTreeSet::new()) {
                images if images.is_empty() => return Ok(Ok(())),
                images => images,
            },
        };
        self.refused(act, asked, images, &self.place_of(asked.repository)).await
    }

    /// The images that an index leads to: those that a node of these platforms may take, or all where it takes none.
    pub(crate) fn images_in(
        &self,
        repository: &RepositoryName,
        record: &ManifestRecord,
        nodes: &BTreeSet<Platform>,
    ) -> Vec<Digest> {
        let (mut images, mut open) = (BTreeSet::new(), vec![(0, Arc::new(record.clone()))]);
        while let Some((depth, index)) = open.pop() {
            for digest in platforms::taken(&index, nodes) {
                match self.store().record(repository, digest) {
                    Some(found) if is_image(&found) => drop(images.insert(digest.clone())),
                    Some(found) if found.manifests.is_empty() => {}
                    Some(found) if depth < INDEX_DEPTH_MAX => open.push((depth + 1, found)),
                    // Not here, or nobody looks that deep: it counts as an image that is not scanned.
                    _ => drop(images.insert(digest.clone())),
                }
            }
        }
        match images.is_empty() && !nodes.is_empty() {
            true => self.images_in(repository, record, &BTreeSet::new()),
            false => images.into_iter().collect(),
        }
    }

    /// Looks at every one of `images`, which are what `asked` leads to: the worst of them counts.
    async fn refused(
        &self,
        act: Act,
        asked: Asked<'_>,
        images: Vec<Digest>,
        place: &Place,
    ) -> io::Result<Result<(), Refusal>> {
        let effective = self.inner.policies.book().at(place, act);
        if let (Some((policy, why)), OnFailure::Closed) = (&effective.broken, effective.on_failure) {
            return Ok(Err(Refusal { policy: policy.clone(), violations: vec![broken(why)] }));
        }
        let Some((policy, required)) = effective.requirements.clone() else { return Ok(Ok(())) };
        let (name, wanted, open) =
            (asked.name.to_owned(), required.clone(), effective.on_failure == OnFailure::Open);
        let judged = self.blocking(move |registry| {
            let mut found: Vec<Violation> = Vec::new();
            for image in &images {
                let report = match registry.inner.scans.report(image) {
                    // Builders put what they attest beside the images of an index.
                    Ok(Err(Unscanned::NoImage)) if images.len() > 1 => continue,
                    Ok(report) => report,
                    Err(error) if open => {
                        tracing::warn!(%image, %error, "a report cannot be read, and the policy lets it pass");
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let now = Timestamp::now();
                let report = report.map(|report| rated(report, &name, &effective, now));
                let report = report.map_err(|why| why.to_string());
                let more = violations(&name, report.as_ref().map_err(String::as_str), &wanted, now);
                found.extend(more.into_iter().filter(|one| !found.contains(one)).collect::<Vec<_>>());
            }
            Ok(found)
        });
        let mut violations = judged.await?;
        violations.extend(self.unsigned(asked, &required, open).await);
        Ok(if violations.is_empty() { Ok(()) } else { Err(Refusal { policy, violations }) })
    }

    async fn unsigned(&self, asked: Asked<'_>, required: &Requirements, open: bool) -> Option<Violation> {
        let trusted = required.signature.as_ref()?;
        let found = match trust(trusted) {
            Ok(trust) => {
                let found = self.verify_signature(asked.repository, asked.digest, &trust).await;
                found.map_err(|error| error.to_string())
            }
            Err(why) => Err(why),
        };
        let finding = match found {
            Ok(found) if !found.verified.is_empty() => return None,
            Ok(found) if found.refused.is_empty() => "it has to be signed: it has no signature".to_owned(),
            Ok(found) => format!("it has to be signed: {}", found.refused.join("; ")),
            Err(why) if open => {
                let image = asked.name;
                tracing::warn!(image, why, "signatures cannot be verified, and the policy lets it pass");
                return None;
            }
            Err(why) => format!("its signature cannot be verified: {why}"),
        };
        let remedy = format!("sign {} with one of the keys of the policy (gantry image sign)", asked.name);
        Some(Violation { finding, remedy })
    }
}

/// Whom a policy trusts.
fn trust(signed: &SignedBy) -> Result<Trust, String> {
    let keys = signed.keys.iter().enumerate().map(|(at, text)| {
        PublicKey::from_pem(text).map_err(|error| format!("signature.keys[{at}]: {error}"))
    });
    let authorities = signed.certificates.iter().enumerate().map(|(at, text)| {
        Authority::from_pem(text).map_err(|error| format!("signature.certificates[{at}]: {error}"))
    });
    Ok(Trust { keys: keys.collect::<Result<_, _>>()?, authorities: authorities.collect::<Result<_, _>>()? })
}

fn broken(why: &str) -> Violation {
    Violation {
        finding: format!("the policy cannot be understood ({why})"),
        remedy: "the operator mends the policy".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
