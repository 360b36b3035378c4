//! Bounds in bytes: of an image, of a repository, of a project with those below it, of a domain. What several images
//! or repositories of one owner share counts once.

use std::collections::HashSet;

use gantry_kube_logic::quantity::Quantity;
use gantry_oci::{Digest, RepositoryName};
use http::StatusCode;

use crate::errors::{ApiError, ErrorCode};
use crate::status::bytes;
use crate::store::{Index, ManifestRecord};

/// A bound and what it bounds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// `project acme/web`
    pub(crate) whose: String,
    pub(crate) bytes_max: u64,
    /// Taken of it by projects that have bounds of their own, used or not.
    pub(crate) given_bytes: u64,
    /// The repositories that it bounds together.
    pub(crate) repositories: HashSet<RepositoryName>,
}

impl Bound {
    /// What the repositories may use together.
    pub(crate) fn own_bytes_max(&self) -> u64 {
        self.bytes_max.saturating_sub(self.given_bytes)
    }

    /// Is there no room for so much? What adds nothing has room also where a quota was made smaller than what is there.
    pub(crate) fn is_exceeded(&self, used: u64, added: u64) -> bool {
        added > 0 && used.saturating_add(added) > self.own_bytes_max()
    }
}

/// A quantity in bytes; `None` for what is none. Negative ones leave nothing.
pub(crate) fn quantity(text: &str) -> Option<u64> {
    Quantity::parse(text).ok().map(|quantity| u64::try_from(quantity.value()).unwrap_or(0))
}

/// Bytes of the image that a manifest describes, of an index the index alone.
pub(crate) fn image_bytes(index: &Index, record: &ManifestRecord) -> u64 {
    let blobs: HashSet<&Digest> = record.blobs.iter().collect();
    let blobs = blobs.into_iter().filter_map(|digest| index.blobs.get(digest));
    blobs.map(|blob| blob.size_bytes).sum::<u64>() + record.size
}

/// Bytes that the repositories use together.
pub(crate) fn used(index: &Index, repositories: &HashSet<RepositoryName>) -> u64 {
    count(index, repositories).0
}

fn count<'a>(index: &'a Index, repositories: &HashSet<RepositoryName>) -> (u64, HashSet<&'a Digest>) {
    let mut seen: HashSet<&Digest> = HashSet::new();
    let mut used = 0;
    for entry in repositories.iter().filter_map(|name| index.repositories.get(name)) {
        for (manifest, record) in &entry.manifests {
            if seen.insert(manifest) {
                used += record.size;
            }
            // What is kept of another registry may name what is here for somebody else alone.
            let here = |blob: &&Digest| !record.partial || entry.blobs.contains(*blob);
            for blob in record.blobs.iter().filter(here) {
                if seen.insert(blob) {
                    used += index.blobs.get(blob).map_or(0, |blob| blob.size_bytes);
                }
            }
        }
    }
    (used, seen)
}

/// Bytes that the repositories use together, and those that the manifest would add.
pub(crate) fn used_and_added(
    index: &Index,
    repositories: &HashSet<RepositoryName>,
    digest: &Digest,
    record: &ManifestRecord,
) -> (u64, u64) {
    let size = |digest: &Digest| index.blobs.get(digest).map_or(0, |blob| blob.size_bytes);
    let (used, mut seen) = count(index, repositories);
    let mut added = if seen.insert(digest) { record.size } else { 0 };
    for blob in &record.blobs {
        if seen.insert(blob) {
            added += size(blob);
        }
    }
    (used, added)
}

/// The answer to a push that does not fit.
pub(crate) fn exceeded(bound: &Bound, used: u64, added: u64) -> ApiError {
    let given = match bound.given_bytes {
        0 => String::new(),
        given => format!("{} given to projects below it, ", bytes(given)),
    };
    let left = bound.own_bytes_max().saturating_sub(used);
    let message = format!(
        "the quota of {} is {} ({} bytes): {given}{} used, and this image adds {} ({added} bytes), {} left; remove \
         images, or ask for a larger quota",
        bound.whose,
        bytes(bound.bytes_max),
        bound.bytes_max,
        bytes(used),
        bytes(added),
        bytes(left),
    );
    ApiError::new(ErrorCode::Denied).status(StatusCode::FORBIDDEN).message(message).detail(
        serde_json::json!({
            "quotaBytes": bound.bytes_max,
            "givenBytes": bound.given_bytes,
            "usedBytes": used,
            "addedBytes": added,
        }),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::store::{BlobInfo, Repository};

    #[test]
    fn what_is_shared_counts_once() {
        let mut index = Index::default();
        for (name, size) in [("base", 1000), ("a", 10), ("b", 20), ("elsewhere", 7)] {
            let info = BlobInfo::new(size, SystemTime::now());
            index.blobs.insert(Digest::of(name.as_bytes()), info);
        }
        let record = |blobs: &[&str]| ManifestRecord {
            size: 1,
            blobs: blobs.iter().map(|b| Digest::of(b.as_bytes())).collect(),
            ..ManifestRecord::default()
        };
        for (name, manifest, blobs) in [
            ("acme/web/x", "m1", &["base", "a"][..]),
            ("acme/web/y", "m2", &["base", "a", "a"]),
            ("other", "m3", &["elsewhere"]),
        ] {
            let mut entry = Repository::default();
            entry.insert_manifest(Digest::of(manifest.as_bytes()), Arc::new(record(blobs)));
            index.repositories.insert(name.parse().expect("a name"), entry);
        }
        let of = |names: &[&str]| names.iter().map(|n| n.parse().expect("a name")).collect::<HashSet<_>>();
        let web = of(&["acme/web/x", "acme/web/y", "acme/web/new"]);
        let new = Digest::of(b"new");
        for (repositories, manifest, blobs, want) in [
            (&web, &new, &["base", "b"][..], (1012, 21)),
            (&web, &new, &["base"], (1012, 1)),
            (&web, &Digest::of(b"m1"), &["base", "a"], (1012, 0)),
            (&web, &new, &["elsewhere", "elsewhere"], (1012, 8)),
            (&of(&["acme/web/x"]), &new, &["b"], (1011, 21)),
            (&of(&[]), &new, &["b", "base"], (0, 1021)),
        ] {
            let got = used_and_added(&index, repositories, manifest, &record(blobs));
            assert_eq!(got, want, "{blobs:?}");
        }
        assert_eq!(image_bytes(&index, &record(&["base", "a", "a"])), 1011);
        for (text, want) in [("20Gi", Some(20 << 30)), ("0", Some(0)), ("-1", Some(0)), ("much", None)] {
            assert_eq!(quantity(text), want, "{text}");
        }
    }

    #[test]
    fn a_refusal_has_the_numbers() {
        for (given, used, wanted) in [
            (
                0,
                3 << 30,
                "10.0 GiB (10737418240 bytes): 3.0 GiB used, and this image adds 8.0 GiB (8589934592 bytes), 7.0 GiB left;",
            ),
            (
                4 << 30,
                3 << 30,
                "10.0 GiB (10737418240 bytes): 4.0 GiB given to projects below it, 3.0 GiB used, and this image adds 8.0 GiB (8589934592 bytes), 3.0 GiB left;",
            ),
            // More was given or used than there is: nothing is left, and nothing negative.
            (
                12 << 30,
                1,
                "12.0 GiB given to projects below it, 1 B used, and this image adds 8.0 GiB (8589934592 bytes), 0 B left;",
            ),
        ] {
            let whose = "project acme/web".to_owned();
            let bound =
                Bound { whose, bytes_max: 10 << 30, given_bytes: given, repositories: HashSet::new() };
            assert!(bound.is_exceeded(used, 8 << 30) && !bound.is_exceeded(used, 0));
            let told = exceeded(&bound, used, 8 << 30).facts();
            let message = told["message"].as_str().expect("a message");
            assert!(message.starts_with("the quota of project acme/web is 10.0 GiB"), "{message}");
            assert!(message.contains(wanted), "{message}");
            assert_eq!((&told["givenBytes"], &told["usedBytes"]), (&given.into(), &used.into()));
        }
    }
}
