//! OCI images as bytes: names and digests, archives from other tools, images packed from programs,
//! and a client of the OCI Distribution protocol. Nothing here knows of Kubernetes.

pub mod archive;
pub mod client;
pub mod digest;
pub mod image;
pub mod layer;
pub mod pack;
pub mod reference;

pub use digest::{Algorithm, Digest, Hasher};
pub use reference::{Reference, RepositoryName, Tag};
