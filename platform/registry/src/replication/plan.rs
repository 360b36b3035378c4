//! What is to be copied and removed: pure functions of what there is on both sides.

use std::collections::{BTreeMap, BTreeSet};

use gantry_base::pattern::matches;
use gantry_oci::{Digest, Tag};
use gantry_registry_api::ReplicationSpec;
use serde_json::Value;

use crate::retention::attached_to;

/// The tags of one repository.
pub(crate) type Tags = BTreeMap<Tag, Digest>;

/// What is to be done in one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) copies: BTreeSet<Tag>,
    pub(crate) deletes: BTreeSet<Tag>,
}

/// Whether a repository, as it is called where it comes from, is meant.
pub(crate) fn has_repository(spec: &ReplicationSpec, name: &str) -> bool {
    spec.repositories.iter().any(|pattern| matches(pattern, name))
}

/// Whether a tag is one that rules are about. Those called after an image go with it.
pub(crate) fn has_tag(spec: &ReplicationSpec, tag: &Tag) -> bool {
    let wanted = spec.tags.is_empty() || spec.tags.iter().any(|pattern| matches(pattern, tag.as_str()));
    wanted && attached_to(tag).is_none()
}

/// Tags that differ are copied; what is gone is removed where that is wanted.
pub(crate) fn plan(spec: &ReplicationSpec, source: &Tags, target: &Tags) -> Plan {
    let differs = |(tag, digest): &(&Tag, &Digest)| has_tag(spec, tag) && target.get(tag) != Some(digest);
    let copies = source.iter().filter(differs).map(|(tag, _)| tag.clone()).collect();
    // A source without any tag is more likely one that was not read.
    let gone =
        |tag: &&Tag| spec.deletes && !source.is_empty() && has_tag(spec, tag) && !source.contains_key(*tag);
    Plan { copies, deletes: target.keys().filter(gone).cloned().collect() }
}

/// The tags called after one of `images` that differ: signatures, attestations, lists of referrers.
pub(crate) fn attachments(images: &BTreeSet<Digest>, source: &Tags, target: &Tags) -> BTreeSet<Tag> {
    let of_ours = |tag: &Tag| attached_to(tag).is_some_and(|digest| images.contains(&digest));
    let differs = |(tag, digest): &(&Tag, &Digest)| of_ours(tag) && target.get(tag) != Some(digest);
    source.iter().filter(differs).map(|(tag, _)| tag.clone()).collect()
}

/// An index with the images of the wanted platforms alone; `None` where it stays as it is.
pub(crate) fn reduced(index: &[u8], platforms: &[String]) -> Option<Vec<u8>> {
    if platforms.is_empty() {
        return None;
    }
    let mut index: Value = serde_json::from_slice(index).ok()?;
    let all = index["manifests"].as_array_mut()?;
    let before = all.len();
    all.retain(|descriptor| wants(&descriptor["platform"], platforms));
    if all.len() == before {
        return None;
    }
    serde_json::to_vec(&index).ok()
}

/// What says nothing of a platform is no image for one.
fn wants(platform: &Value, platforms: &[String]) -> bool {
    let text = |field: &str| platform[field].as_str().unwrap_or_default();
    let plain = format!("{}/{}", text("os"), text("architecture"));
    let with_variant = format!("{plain}/{}", text("variant"));
    platform.is_null() || platforms.iter().any(|wanted| *wanted == plain || *wanted == with_variant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tags(all: &[(&str, &str)]) -> Tags {
        all.iter().map(|(tag, image)| (tag.parse().expect("a tag"), Digest::of(image.as_bytes()))).collect()
    }

    fn names(tags: &BTreeSet<Tag>) -> String {
        tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_differs_is_copied_and_what_is_gone_removed_where_that_is_wanted() {
        let signature = format!("sha256-{}.sig", Digest::of(b"a").hex());
        let source = tags(&[("1", "a"), ("2", "b"), ("dev", "c"), (&signature, "s")]);
        let target = tags(&[("1", "a"), ("2", "old"), ("gone", "x"), ("dev-gone", "y")]);
        let spec = |tags: &[&str], deletes| ReplicationSpec {
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            deletes,
            ..ReplicationSpec::default()
        };
        for (spec, copies, deletes) in [
            (spec(&[], false), "2 dev", ""),
            (spec(&[], true), "2 dev", "dev-gone gone"),
            (spec(&["dev*"], true), "dev", "dev-gone"),
            (spec(&["?"], true), "2", ""),
        ] {
            let plan = plan(&spec, &source, &target);
            assert_eq!((names(&plan.copies).as_str(), names(&plan.deletes).as_str()), (copies, deletes));
        }
        assert_eq!(plan(&spec(&[], true), &Tags::new(), &target), Plan::default(), "nothing was read");
        let images = BTreeSet::from([Digest::of(b"a")]);
        assert_eq!(names(&attachments(&images, &source, &target)), signature);
        assert_eq!(names(&attachments(&images, &source, &source)), "");
        assert_eq!(names(&attachments(&BTreeSet::new(), &source, &target)), "");
    }

    #[test]
    fn indexes_keep_the_platforms_that_are_wanted() {
        let entry = |os: &str, architecture: &str, variant: &str| json!({ "digest": architecture, "platform": { "os": os, "architecture": architecture, "variant": variant } });
        let index = json!({ "schemaVersion": 2, "manifests": [
            entry("linux", "amd64", ""), entry("linux", "arm", "v7"), entry("windows", "amd64", ""), { "digest": "other" },
        ]});
        let bytes = index.to_string().into_bytes();
        for (platforms, left) in [
            (&["linux/amd64"][..], Some("amd64 other")),
            (&["linux/arm/v7", "linux/amd64"], Some("amd64 arm other")),
            (&["linux/arm"], Some("arm other")),
            (&["linux/amd64", "linux/arm", "windows/amd64"], None),
            (&[], None),
        ] {
            let platforms: Vec<String> = platforms.iter().map(|p| (*p).to_owned()).collect();
            let found = reduced(&bytes, &platforms).map(|bytes| {
                let index: Value = serde_json::from_slice(&bytes).expect("JSON");
                let all = index["manifests"].as_array().expect("a list").clone();
                all.iter()
                    .map(|d| d["digest"].as_str().expect("text").to_owned())
                    .collect::<Vec<_>>()
                    .join(" ")
            });
            assert_eq!(found.as_deref(), left, "{platforms:?}");
        }
        let image = json!({ "schemaVersion": 2, "layers": [] }).to_string();
        assert_eq!(reduced(image.as_bytes(), &["linux/amd64".to_owned()]), None);
    }
}
