//! Where the registry keeps its content and how much it accepts.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::store::{AccessKeys, S3Settings};

/// What an operator sets in `config.toml`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Who is not signed in may pull from public repositories.
    pub anonymous_pull: bool,
    /// Look through every image that is pushed.
    pub scan: bool,
    /// The directory of `gantry advisories update` that images are compared with; absent: `advisories` in the data
    /// directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advisories: Option<PathBuf>,
    /// Networks that webhooks may reach although they would not: this machine, and addresses of its links.
    pub webhooks_may_reach: Vec<IpNet>,
    /// Blobs are in a bucket, and not in files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Settings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { anonymous_pull: false, scan: true, advisories: None, webhooks_may_reach: Vec::new(), s3: None }
    }
}

/// Settings of one registry.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything the registry owns is below this directory.
    pub root: PathBuf,
    /// The address clients use, without a path, e.g. `https://registry.example.org:6443`. Absent: what the
    /// `Host` header says, over HTTPS.
    pub external_url: Option<String>,
    pub limits: Limits,
    /// `HOST:PORT` of images that are this registry's, as pods name them.
    pub hosts: Vec<String>,
    /// An index of advisories, which need not be there.
    pub advisories: PathBuf,
    /// As in [`Settings`].
    pub webhooks_may_reach: Vec<IpNet>,
    /// As in [`Settings`].
    pub s3: Option<S3Settings>,
    /// Who the registry is to S3, where its settings name no file.
    pub s3_keys: Option<AccessKeys>,
    /// An upload that got no byte for this long is forgotten.
    pub upload_expiry: Duration,
    /// Garbage collection leaves alone what was pushed or asked for within this time: a client may have seen
    /// that a blob exists and be about to push the manifest that names it.
    pub garbage_age: Duration,
    /// Blobs that garbage collection removes in a second: bounds what pushes and pulls notice of it.
    pub garbage_removals_per_second_max: u32,
}

impl Config {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            advisories: root.join("advisories"),
            webhooks_may_reach: Vec::new(),
            s3: None,
            s3_keys: None,
            root,
            external_url: None,
            hosts: Vec::new(),
            limits: Limits::default(),
            upload_expiry: Duration::from_secs(24 * 3600),
            garbage_age: Duration::from_secs(3600),
            garbage_removals_per_second_max: 10_000,
        }
    }
}

/// Bounds on what clients can make the registry hold.
#[derive(Clone, Debug)]
pub struct Limits {
    pub manifest_size_max_bytes: usize,
    pub blob_size_max_bytes: u64,
    /// Uploads begun and neither finished nor cancelled.
    pub uploads_max: usize,
    /// Request bodies written at the same time; further ones wait unread.
    pub streams_max: usize,
    /// Longest page of a list, and the page where the client names no length.
    pub page_max_items: usize,
    /// Repositories one page of the catalogue looks at to find those its caller may see.
    pub catalog_scan_max: usize,
    /// Descriptors one manifest may name.
    pub manifest_references_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_size_max_bytes: 4 << 20,
            blob_size_max_bytes: 64 << 30,
            uploads_max: 10_000,
            streams_max: 64,
            page_max_items: 1000,
            catalog_scan_max: 20_000,
            manifest_references_max: 10_000,
        }
    }
}
