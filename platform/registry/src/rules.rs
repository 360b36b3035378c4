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

/// Repositories that a report of failures names; the log has all.
const FAILURES_SHOWN: usize = 5;

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
            if bound.is_exceeded(used, added) {
                return Err(exceeded(&bound, used, added));
            }
        }
        Ok(mirrors)
    }

    /// What the repository's retention lets go now.
    pub(crate) async fn retain(&self, repository: &RepositoryName, how: Retain) -> io::Result<Plan> {
        let mut rules = self.rules(repository);
        let dry_run = how != Retain::Do;
        if let Retain::Try(retention) = how {
            rules.retention = Some(retention);
        }
        self.retain_by(repository, rules, dry_run).await
    }

    async fn retain_by(&self, repository: &RepositoryName, rules: Rules, dry_run: bool) -> io::Result<Plan> {
        let name = repository.clone();
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

    /// Keeps the retention rules of every repository, and writes down what was pulled. One that cannot be kept is
    /// no reason not to keep the others: the error tells of all.
    pub async fn retain_all(&self) -> io::Result<()> {
        let saved = self.blocking(|registry| registry.store().save_pulls()).await;
        let rules = self.store().names().into_iter().map(|name| (self.rules(&name), name));
        let rules = rules.filter(|(rules, _)| rules.retention.is_some()).collect();
        saved.and(self.retain_each(rules).await)
    }

    async fn retain_each(&self, rules: Vec<(Rules, RepositoryName)>) -> io::Result<()> {
        let (all, mut failed) = (rules.len(), Vec::new());
        for (rules, repository) in rules {
            if let Err(error) = self.retain_by(&repository, rules, false).await {
                tracing::error!(%repository, %error, "retention failed");
                failed.push(format!("{repository}: {error}"));
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        let more = failed.len().saturating_sub(FAILURES_SHOWN);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let count = failed.len();
        failed.truncate(FAILURES_SHOWN);
        let told = failed.join("; ");
        Err(io::Error::other(format!("the retention of {count} of {all} repositories failed: {told}{more}")))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use gantry_oci::pack::{PackOptions, pack_static};
    use gantry_registry_api::Keep;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn retention_goes_on_after_repositories_that_fail() {
        let folder = tempfile::tempdir().expect("a directory");
        let registry = crate::gate::tests::registry(folder.path());
        let image =
            pack_static(vec![0; 10].into(), "/x", "amd64", &PackOptions::default()).expect("an image");
        let keep = Keep { tags: vec!["none".to_owned()], ..Keep::default() };
        let retention = Some(Retention { keep: vec![keep], untagged_days: None });
        let mut rules = Vec::new();
        for name in ["a", "b", "c"] {
            let repository: RepositoryName = name.parse().expect("a name");
            registry.put_image(&repository, &Tag::latest(), &image).await.expect("pushed");
            rules.push((Rules { retention: retention.clone(), ..Rules::default() }, repository));
        }
        // What is to be removed cannot be.
        for name in ["a", "b"] {
            let tag = folder.path().join("registry/repositories").join(name).join("_tags/latest");
            fs::remove_file(&tag).expect("the tag's file");
            fs::create_dir(&tag).expect("a directory in its place");
        }
        let told = registry.retain_each(rules).await.expect_err("two failed").to_string();
        assert!(told.contains("2 of 3") && told.contains("a: ") && told.contains("b: "), "{told}");
        assert_eq!(registry.store().resolve(&"c".parse().expect("a name"), &Tag::latest()), None);
    }
}
