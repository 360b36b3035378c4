//! How signatures are kept beside an image: a manifest under the tag `sha256-HEX.sig`, a layer for each signature.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_oci::image::{Blob, canonical};
use gantry_oci::{Digest, Tag};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Signature;
use crate::payload::{BYTES_MAX, MEDIA_TYPE};

/// Of a manifest that holds signatures and refers to its image (OCI 1.1).
pub const ARTIFACT_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";

/// Signatures of one manifest that are looked at; further ones are left out.
pub const SIGNATURES_MAX: usize = 100;

/// Where clients look for the signatures of an image.
pub fn tag(digest: &Digest) -> Option<Tag> {
    format!("{}-{}.sig", digest.algorithm().as_str(), digest.hex()).parse().ok()
}

/// A signature whose payload is still to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The blob with what was signed.
    pub payload: Digest,
    pub signature: String,
    pub certificate: Option<String>,
    pub chain: Option<String>,
}

impl Entry {
    pub fn with_payload(self, payload: Bytes) -> Signature {
        let Self { signature, certificate, chain, .. } = self;
        Signature { payload, signature, certificate, chain }
    }
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The signatures that a manifest names; those that cannot be one are left out.
pub fn entries(manifest: &[u8]) -> Result<Vec<Entry>, String> {
    let manifest: Manifest = serde_json::from_slice(manifest).map_err(|error| error.to_string())?;
    let fits = |layer: &Layer| layer.media_type == MEDIA_TYPE && layer.size <= BYTES_MAX as u64;
    let entry = |mut layer: Layer| {
        let text = |of: &mut BTreeMap<String, String>, key| of.remove(key).filter(|text| !text.is_empty());
        Some(Entry {
            signature: text(&mut layer.annotations, SIGNATURE)?,
            certificate: text(&mut layer.annotations, CERTIFICATE),
            chain: text(&mut layer.annotations, CHAIN),
            payload: layer.digest,
        })
    };
    Ok(manifest.layers.into_iter().filter(fits).filter_map(entry).take(SIGNATURES_MAX).collect())
}

/// An image to be signed.
#[derive(Clone, Debug)]
pub struct Subject {
    pub digest: Digest,
    pub media_type: String,
    pub size_bytes: u64,
}

/// A manifest of signatures, and the blobs it needs beside those that are there.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub manifest: Bytes,
    pub blobs: Vec<Blob>,
}

/// The manifest under [`tag`] with one signature more. It names its image as subject, too, so that it is found among
/// the referrers and stays as long as the image.
pub fn with_signature(
    existing: Option<&[u8]>,
    subject: &Subject,
    new: &Signature,
) -> Result<Attachment, serde_json::Error> {
    let existing: Option<Value> = existing.map(serde_json::from_slice).transpose()?;
    let mut layers = existing.and_then(|m| m["layers"].as_array().cloned()).unwrap_or_default();
    let payload = Blob::of_bytes(MEDIA_TYPE, new.payload.clone());
    let mut annotations = json!({ SIGNATURE: new.signature });
    for (key, value) in [(CERTIFICATE, &new.certificate), (CHAIN, &new.chain)] {
        if let Some(value) = value {
            annotations[key] = value.as_str().into();
        }
    }
    layers.push(json!({
        "mediaType": MEDIA_TYPE, "digest": payload.digest, "size": payload.size_bytes, "annotations": annotations,
    }));
    let layer_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "", "os": "", "created": "0001-01-01T00:00:00Z", "config": {},
        "history": layers.iter().map(|_| json!({ "created": "0001-01-01T00:00:00Z" })).collect::<Vec<_>>(),
        "rootfs": { "type": "layers", "diff_ids": layer_ids },
    });
    let config = Blob::of_bytes(CONFIG_TYPE, canonical(&config)?);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "artifactType": ARTIFACT_TYPE,
        "config": { "mediaType": CONFIG_TYPE, "digest": config.digest, "size": config.size_bytes },
        "layers": layers,
        "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.size_bytes },
    });
    Ok(Attachment { manifest: canonical(&manifest)?, blobs: vec![config, payload] })
}
