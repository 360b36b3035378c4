//! The rules of a repository at a push, a pull and a deletion, and its retention.

use std::collections::HashSet;
use std::io;
use std::time::Instant;

use gantry_base::pattern::matches;
use gantry_oci::{Digest, RepositoryName, Tag};
use gantry_registry_api::{EventType, Owner, Retention, Rules};
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde_json::json;

use crate::Registry;
use crate::catalogue::Facts;
use crate::errors::{ApiError, ErrorCode};
use crate::quota::{exceeded, image_bytes, quantity, used_and_added};
use crate::retention::{Plan, plan};
use crate::routes::ManifestName;
use crate::status::bytes;
use crate::store::ManifestRecord;

/// What one caller does, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Pull,
    Push,
}

/// How retention is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Retain {
    Do,
    /// Only say what would go.
    DryRun,
    /// The same by other rules than the repository's.
    Try(Retention),
}

/// Is the tag one that stays as it is once pushed?
pub(crate) fn is_immutable(rules: &Rules, tag: &Tag) -> bool {
    rules.immutable_tags.iter().any(|pattern| matches(pattern, tag.as_str()))
}

/// The answer to who moves or removes such a tag.
pub(crate) fn immutable(repository: &RepositoryName, what: &str) -> ApiError {
    ApiError::new(ErrorCode::Denied).status(StatusCode::CONFLICT).message(format!(
        "{what} of {repository} is immutable: push under another tag, or change the rules of the repository"
    ))
}

impl Registry {
    /// What is known of the repository; nothing before the registry is started.
    pub(crate) fn facts(&self, repository: &RepositoryName) -> Option<Facts> {
        self.inner.catalogue.facts(repository.as_str())
    }

    /// Whose it is; the platform's before the registry is started.
    pub(crate) fn owner(&self, repository: &RepositoryName) -> Owner {
        self.facts(repository).map(|facts| facts.owner).unwrap_or_default()
    }

    pub(crate) fn rules(&self, repository: &RepositoryName) -> Rules {
        self.facts(repository).map(|facts| facts.rules).unwrap_or_default()
    }

    /// Takes one of the caller's pulls or pushes of this minute.
    pub(crate) fn take_rate(
        &self,
        repository: &RepositoryName,
        rules: &Rules,
        caller: &str,
        counted: Counted,
    ) -> Result<(), ApiError> {
        let (limit, verb, word) = match counted {
            Counted::Pull => (rules.pulls_per_minute, "pull", "pulls"),
            Counted::Push => (rules.pushes_per_minute, "push", "pushes"),
        };
        let Some(limit) = limit else { return Ok(()) };
        let taken = self.inner.rates.take((repository.as_str(), caller, verb), limit, Instant::now());
        taken.map_err(|seconds| {
            ApiError::new(ErrorCode::TooManyRequests)
                .message(format!("{repository} allows {limit} {word} a minute: try again in {seconds} s"))
                .header(RETRY_AFTER, &seconds.to_string())
        })
    }

    /// Does the image fit into every bound? Who asks holds `counting` until the manifest is stored. Gives the mirrors
    /// that have to make room for it: what is kept of other registries is in nobody's way.
    pub(crate) fn fits(
        &self,
        facts: &Facts,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<HashSet<RepositoryName>, ApiError> {
        if let Some(max) = facts.rules.max_image_size.as_deref().and_then(quantity) {
            let size = image_bytes(&self.store().index(), record);
            if size > max {
                return Err(ApiError::new(ErrorCode::SizeInvalid)
                    .status(StatusCode::PAYLOAD_TOO_LARGE)
                    .message(format!(
                        "the image has {} ({size} bytes); {} takes images of {} ({max} bytes) at most",
                        bytes(size),
                        facts.name,
                        bytes(max)
                    ))
                    .detail(json!({ "imageBytes": size, "maxBytes": max })));
            }
        }
        let mut mirrors = HashSet::new();
        for mut bound in self.inner.catalogue.bounds(facts, || self.store().names()) {
            mirrors.extend(bound.repositories.extract_if(|name| self.is_mirror(name)));
            let (used, added) = used_and_added(&self.store().index(), &bound.repositories, digest, record);
            // What adds nothing is taken also where a quota was made smaller than what is there.
            if added > 0 && used.saturating_add(added) > bound.bytes_max {
                return Err(exceeded(&bound, used, added));
            }
        }
        Ok(mirrors)
    }

    /// What the repository's retention lets go now.
    pub(crate) async fn retain(&self, repository: &RepositoryName, how: Retain) -> io::Result<Plan> {
        let (mut rules, name) = (self.rules(repository), repository.clone());
        let dry_run = how != Retain::Do;
        if let Retain::Try(retention) = how {
            rules.retention = Some(retention);
        }
        let planned = self.blocking(move |registry| {
            let history = registry.store().history(&name);
            let plan = plan(&history.0, &history.1, &rules, jiff::Timestamp::now());
            if !dry_run && plan != Plan::default() {
                registry.store().let_go(&name, &plan, &history)?;
            }
            Ok(plan)
        });
        let planned = planned.await?;
        if !dry_run && planned != Plan::default() {
            tracing::info!(%repository, tags = planned.tags.len(), images = planned.manifests.len(), "retention");
            self.note(repository);
            self.tell_let_go(repository, &planned).await;
        }
        Ok(planned)
    }

    async fn tell_let_go(&self, repository: &RepositoryName, gone: &Plan) {
        let tags = gone.tags.iter().cloned().map(ManifestName::Tag);
        let images = gone.manifests.iter().cloned().map(ManifestName::Digest);
        for reference in tags.chain(images) {
            self.told(EventType::Deleted, repository, Some(&reference), json!({ "reason": "retention" }))
                .await;
        }
    }

    /// Keeps the retention rules of every repository, and writes down what was pulled.
    pub async fn retain_all(&self) -> io::Result<()> {
        self.blocking(|registry| registry.store().save_pulls()).await?;
        for repository in self.store().names() {
            if self.rules(&repository).retention.is_some() {
                self.retain(&repository, Retain::Do).await?;
            }
        }
        Ok(())
    }
}
