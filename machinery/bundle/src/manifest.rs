//! What a bundle says of itself.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use gantry_oci::{Digest, RepositoryName, Tag};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::BundleError;

pub(crate) const MEDIA_TYPE: &str = "application/vnd.gantry.bundle.v1+json";
/// Of `bundle.json`: some 300,000 entries.
pub(crate) const MANIFEST_MAX_BYTES: u64 = 64 << 20;
const LAYOUT: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
const INDEX: &str = "index.json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const ADVISORIES: &str = "advisories/";

/// `bundle.json`: everything in a bundle, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    media_type: String,
    pub created: Timestamp,
    pub repositories: Vec<Repository>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advisories: Option<Advisories>,
    /// In the order in which they stand in the file.
    pub entries: Vec<Entry>,
}

/// What goes into one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    pub name: String,
    pub blobs: Vec<Digest>,
    /// Each after those that it names.
    pub manifests: Vec<Pushed>,
}

/// A manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pushed {
    pub digest: Digest,
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
}

/// An index of advisories, of the entries that are named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Advisories {
    pub manifest: String,
    pub table: String,
    pub count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_modified: Option<Timestamp>,
}

/// A file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub name: String,
    pub size_bytes: u64,
    pub digest: Digest,
}

/// What a bundle is made of.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub repositories: Vec<Repository>,
    /// Sizes of all blobs and manifests.
    pub sizes: BTreeMap<Digest, u64>,
    pub advisories: Option<(Advisories, [Entry; 2])>,
}

impl Manifest {
    pub fn new(contents: Contents, created: Timestamp) -> Result<Self, BundleError> {
        let mut manifest = Self {
            media_type: MEDIA_TYPE.to_owned(),
            created,
            repositories: contents.repositories,
            advisories: None,
            entries: Vec::new(),
        };
        let blobs = contents.sizes.into_iter().map(|(digest, size_bytes)| Entry {
            name: blob_name(&digest),
            size_bytes,
            digest,
        });
        manifest.entries = blobs.collect();
        if let Some((advisories, entries)) = contents.advisories {
            manifest.advisories = Some(advisories);
            manifest.entries.extend(entries);
        }
        let layout = manifest.layout()?;
        let small = layout.iter().map(|(name, bytes)| Entry {
            name: (*name).to_owned(),
            size_bytes: bytes.len() as u64,
            digest: Digest::of(bytes),
        });
        manifest.entries.splice(0..0, small.collect::<Vec<_>>());
        manifest.check()?;
        Ok(manifest)
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let parsed = serde_json::from_slice::<Self>(bytes);
        let manifest = parsed.map_err(|error| BundleError::Manifest(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    pub fn to_bytes(&self) -> Result<Bytes, BundleError> {
        let bytes = serde_json::to_vec(self).map_err(|error| BundleError::Manifest(error.to_string()))?;
        if bytes.len() as u64 > MANIFEST_MAX_BYTES {
            return Err(BundleError::Manifest(format!("it has more than {MANIFEST_MAX_BYTES} bytes")));
        }
        Ok(bytes.into())
    }

    /// Bytes of all entries.
    pub fn size_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size_bytes).fold(0, u64::saturating_add)
    }

    /// The files of an image layout that lead to the images, made of what is said here.
    pub(crate) fn layout(&self) -> Result<[(&'static str, Bytes); 2], BundleError> {
        let sizes: HashMap<&Digest, u64> = self.entries.iter().map(|e| (&e.digest, e.size_bytes)).collect();
        let mut listed = Vec::new();
        for repository in &self.repositories {
            for manifest in &repository.manifests {
                let mut descriptor = json!({
                    "mediaType": manifest.media_type, "digest": manifest.digest,
                    "size": sizes.get(&manifest.digest).copied().unwrap_or_default(),
                });
                if manifest.tags.is_empty() && manifest.subject.is_some() {
                    listed.push(descriptor.clone());
                }
                for tag in &manifest.tags {
                    let name = format!("{}:{tag}", repository.name);
                    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
                    listed.push(descriptor.clone());
                }
            }
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": listed });
        let index = serde_json::to_vec(&index).map_err(|error| BundleError::Manifest(error.to_string()))?;
        Ok([(LAYOUT.0, Bytes::from_static(LAYOUT.1)), (INDEX, index.into())])
    }

    /// Everything that is named is there once, under a name that bundles have.
    fn check(&self) -> Result<(), BundleError> {
        let bad = |what: String| Err(BundleError::Manifest(what));
        if self.media_type != MEDIA_TYPE {
            return bad(format!("it is a {:.100?}, and {MEDIA_TYPE:?} is known here", self.media_type));
        }
        let mut names = HashSet::new();
        for entry in &self.entries {
            if !names.insert(entry.name.as_str()) {
                return bad(format!("it lists {:.200?} twice", entry.name));
            }
            let is_file = entry.name == LAYOUT.0 || entry.name == INDEX || is_advisory_file(&entry.name);
            if !is_file && entry.name != blob_name(&entry.digest) {
                return bad(format!("it lists {:.200?}, which bundles do not have", entry.name));
            }
        }
        for repository in &self.repositories {
            if let Err(error) = repository.name.parse::<RepositoryName>() {
                return bad(error.to_string());
            }
            for digest in repository.blobs.iter().chain(repository.manifests.iter().map(|m| &m.digest)) {
                if !names.contains(blob_name(digest).as_str()) {
                    return bad(format!("{} needs {digest}, which it does not list", repository.name));
                }
            }
            for tag in repository.manifests.iter().flat_map(|manifest| &manifest.tags) {
                if let Err(error) = tag.parse::<Tag>() {
                    return bad(error.to_string());
                }
            }
        }
        for name in self.advisories.iter().flat_map(|a| [&a.manifest, &a.table]) {
            if !names.contains(name.as_str()) || !is_advisory_file(name) {
                return bad(format!("its advisories need {name:.200?}, which it does not list"));
            }
        }
        Ok(())
    }
}

fn is_advisory_file(name: &str) -> bool {
    let file = name.strip_prefix(ADVISORIES).unwrap_or_default();
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !file.is_empty() && !file.starts_with('.') && file.bytes().all(fits)
}

/// Where a blob is (OCI image layout, *Blobs*).
pub fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}
