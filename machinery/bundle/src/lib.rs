//! Bundles: images with what refers to them, and advisory data, in one signed file, for sites without a network
//! ([ADR 0024](../../../docs/adr/0024-bundles.md)).
//!
//! A bundle is a tar archive: `bundle.json`, its signature `bundle.json.sig`, and the entries that `bundle.json` lists
//! with sizes and digests, in that order. The entries are an OCI image layout, so that other tools read the images, and
//! the files of an advisory index. Nothing is believed of a bundle that `bundle.json` does not say.
//!
//! [`Writer`] writes one while its blobs come in; [`Bundle`] reads one where it lies, without unpacking it.

mod error;
#[doc(hidden)]
pub mod fuzz;
mod manifest;
mod read;
mod write;

pub use error::BundleError;
pub use manifest::{Advisories, Contents, Entry, Manifest, Pushed, Repository, blob_name};
pub use read::Bundle;
pub use write::Writer;

/// The first entry of a bundle.
pub const MANIFEST: &str = "bundle.json";
/// The second, where there is one: Base64 of an ASN.1 signature of the SHA-256 of [`MANIFEST`], as `cosign sign-blob`
/// writes it.
pub const SIGNATURE: &str = "bundle.json.sig";
