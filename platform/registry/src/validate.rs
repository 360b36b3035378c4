//! Is this a manifest, and what does it name?

use std::collections::BTreeMap;

use gantry_oci::Digest;
use gantry_oci::image::is_elsewhere;
use serde_json::Value;

use crate::store::ManifestRecord;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    urls: Option<Vec<Value>>,
    platform: Option<Platform>,
}

#[derive(serde::Deserialize)]
struct Platform {
    os: Option<String>,
    architecture: Option<String>,
}

/// Fields by which clients understand a manifest.
const FIELDS: [&str; 16] = [
    "annotations",
    "architecture",
    "artifactType",
    "blobs",
    "config",
    "data",
    "digest",
    "layers",
    "manifests",
    "mediaType",
    "os",
    "platform",
    "schemaVersion",
    "size",
    "subject",
    "urls",
];

impl Descriptor {
    /// `os/architecture`; nothing where it does not say both.
    fn platform(&self) -> String {
        let said = self.platform.as_ref().and_then(|platform| {
            let (os, architecture) = (platform.os.as_ref()?, platform.architecture.as_ref()?);
            (!os.is_empty() && !architecture.is_empty()).then(|| format!("{os}/{architecture}"))
        });
        said.unwrap_or_default()
    }

    /// Content that stays where its `urls` say is not pushed.
    fn is_foreign(&self) -> bool {
        is_elsewhere(&self.media_type, self.urls.as_ref().map_or(0, Vec::len))
    }
}

/// Checks `bytes`, sent with `content_type`, naming at most `references_max` others.
pub(crate) fn check(
    bytes: &[u8],
    content_type: Option<&str>,
    references_max: usize,
) -> Result<ManifestRecord, String> {
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|error| format!("the manifest is not valid: {error}"))?;
    if let Some(field) = ambiguous(&serde_json::from_slice(bytes).unwrap_or_default()) {
        return Err(format!("the manifest is not valid: {field:.100?} is another spelling of a field"));
    }
    let sent = content_type
        .map(|t| t.split(';').next().unwrap_or(t).trim())
        .filter(|t| !t.is_empty() && !matches!(*t, "application/json" | "application/octet-stream"));
    let media_type = match (sent, manifest.media_type.as_deref()) {
        (Some(sent), Some(written)) if sent != written => {
            return Err(format!("Content-Type is {sent}, but the manifest says it is {written}"));
        }
        (Some(sent), _) => sent.to_owned(),
        (None, Some(written)) => written.to_owned(),
        (None, None) => {
            return Err("neither Content-Type nor mediaType says what kind of manifest it is".to_owned());
        }
    };
    if media_type != OCI_ARTIFACT && manifest.schema_version != Some(2) {
        return Err("schemaVersion must be 2".to_owned());
    }
    let (blobs, manifests, artifact_type) = references(&media_type, &manifest)?;
    if blobs.len() + manifests.len() > references_max {
        return Err(format!("a manifest may name {references_max} others"));
    }
    let platforms = platforms(&manifests);
    let digests = |list: Vec<&Descriptor>| list.into_iter().map(|d| d.digest.clone()).collect::<Vec<_>>();
    let record = ManifestRecord {
        media_type,
        size: bytes.len() as u64,
        subject: manifest.subject.as_ref().map(|subject| subject.digest.clone()),
        artifact_type,
        blobs: digests(blobs),
        manifests: digests(manifests),
        platforms,
        partial: false,
        annotations: manifest.subject.as_ref().and(manifest.annotations.clone()).unwrap_or_default(),
    };
    Ok(record)
}

/// What the manifests are for; nothing where none says it.
fn platforms(manifests: &[&Descriptor]) -> Vec<String> {
    let all: Vec<String> = manifests.iter().map(|descriptor| descriptor.platform()).collect();
    if all.iter().all(String::is_empty) { Vec::new() } else { all }
}

/// A name of a field that is none of ours, and that clients written in Go take for one: they would read another
/// manifest than was looked at here. (One that is there twice is no field's value: reading it fails.)
fn ambiguous(manifest: &Value) -> Option<&str> {
    match manifest {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            // As Go folds them; there is no other letter that becomes one of these.
            let folded = name.to_lowercase().replace('ſ', "s");
            let is_other = |field: &&str| field.eq_ignore_ascii_case(&folded) && *field != name.as_str();
            match FIELDS.iter().any(is_other) {
                true => Some(name.as_str()),
                // Anybody's names are in there.
                false if name == "annotations" => None,
                false => ambiguous(value),
            }
        }),
        Value::Array(values) => values.iter().find_map(ambiguous),
        _ => None,
    }
}

/// The manifests that an index, which was checked when it came, names, and what they are for.
pub(crate) fn manifests_of(stored: impl std::io::Read) -> (Vec<Digest>, Vec<String>) {
    let manifest: Option<Manifest> = serde_json::from_reader(stored).ok();
    let manifests = manifest.and_then(|m| m.manifests).unwrap_or_default();
    let platforms = platforms(&manifests.iter().collect::<Vec<_>>());
    (manifests.into_iter().map(|d| d.digest).collect(), platforms)
}

type References<'a> = (Vec<&'a Descriptor>, Vec<&'a Descriptor>, Option<String>);

fn references<'a>(media_type: &str, manifest: &'a Manifest) -> Result<References<'a>, String> {
    let missing = |field: &str| format!("a manifest of type {media_type} needs {field}");
    let own = |list: &'a [Descriptor]| list.iter().filter(|d| !d.is_foreign());
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => {
            let config = manifest.config.as_ref().ok_or_else(|| missing("config"))?;
            let layers = manifest.layers.as_deref().ok_or_else(|| missing("layers"))?;
            if manifest.manifests.is_some() {
                return Err("an image manifest cannot have manifests".to_owned());
            }
            // Sizes that lie are found when the blob's own is compared; absurd ones are refused here.
            if layers.iter().chain([config]).any(|d| d.size > i64::MAX as u64) {
                return Err("a size is not possible".to_owned());
            }
            let kind = manifest.artifact_type.clone().filter(|t| !t.is_empty());
            let kind = kind.or_else(|| Some(config.media_type.clone()));
            Ok((std::iter::once(config).chain(own(layers)).collect(), Vec::new(), kind))
        }
        OCI_INDEX | DOCKER_LIST => {
            let list = manifest.manifests.as_deref().ok_or_else(|| missing("manifests"))?;
            if manifest.layers.is_some() || manifest.config.is_some() {
                return Err("an index cannot have config or layers".to_owned());
            }
            Ok((Vec::new(), list.iter().collect(), manifest.artifact_type.clone()))
        }
        OCI_ARTIFACT => {
            let kind = manifest.artifact_type.clone().ok_or_else(|| missing("artifactType"))?;
            Ok((own(manifest.blobs.as_deref().unwrap_or_default()).collect(), Vec::new(), Some(kind)))
        }
        other => Err(format!("manifests of type {other:.200} are not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn descriptor(media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": Digest::of(b"x"), "size": 1 })
    }

    fn outcome(value: &Value, content_type: Option<&str>) -> Result<ManifestRecord, String> {
        check(value.to_string().as_bytes(), content_type, 3)
    }

    #[test]
    fn manifests_name_their_blobs_and_indexes_their_manifests() {
        let image = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor("c"),
            "layers": [descriptor("l")], "subject": descriptor(OCI_MANIFEST), "annotations": { "a": "b" } });
        let record = outcome(&image, Some(OCI_MANIFEST)).expect("an image");
        assert_eq!(record.blobs.len(), 2);
        assert_eq!(record.artifact_type.as_deref(), Some("c"));
        assert_eq!(record.subject, Some(Digest::of(b"x")));
        assert_eq!(record.annotations["a"], "b");
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST)] });
        assert_eq!(outcome(&index, Some(OCI_INDEX)).expect("an index").manifests.len(), 1);
        assert_eq!(manifests_of(index.to_string().as_bytes()), (vec![Digest::of(b"x")], Vec::new()));
        let mut of = descriptor(OCI_MANIFEST);
        of["platform"] = json!({ "os": "linux", "architecture": "arm64", "variant": "v8" });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST), of] });
        let record = outcome(&index, Some(OCI_INDEX)).expect("an index");
        assert_eq!(record.platforms, ["", "linux/arm64"]);
        assert_eq!(manifests_of(index.to_string().as_bytes()), (record.manifests, record.platforms));
        assert!(outcome(&image, None).is_ok());
    }

    #[test]
    fn what_go_would_read_as_another_manifest_is_refused() {
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST)] });
        for (pointer, name, refused) in [
            ("", "Manifests", true),
            ("", "manifeſts", true),
            ("", "manifests2", false),
            ("/manifests/0", "Digest", true),
            ("/manifests/0", "PLATFORM", true),
            ("/manifests/0", "annotations", false),
        ] {
            let mut index = index.clone();
            let at = index.pointer_mut(pointer).expect("it is there");
            at[name] = if name == "annotations" { json!({ "Digest": "x" }) } else { json!("x") };
            let told = outcome(&index, Some(OCI_INDEX)).err().unwrap_or_default();
            assert_eq!(told.contains("another spelling"), refused, "{name}: {told}");
        }
        let mut deep = index.clone();
        deep["manifests"][0]["platform"] = json!({ "os": "linux", "architecture": "arm64", "oſ": "windows" });
        assert!(outcome(&deep, Some(OCI_INDEX)).is_err());
        let twice = index.to_string().replacen("\"manifests\":", "\"manifests\":[],\"manifests\":", 1);
        assert!(check(twice.as_bytes(), Some(OCI_INDEX), 3).is_err(), "{twice}");
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let layers = vec![descriptor("l"); 3];
        let image = json!({ "schemaVersion": 2, "config": descriptor("c"), "layers": [] });
        for (value, content_type) in [
            (json!([]), Some(OCI_MANIFEST)),
            (json!({}), Some(OCI_MANIFEST)),
            (json!({ "schemaVersion": 1 }), Some(OCI_MANIFEST)),
            (image.clone(), None),
            (image.clone(), Some(OCI_INDEX)),
            (image.clone(), Some("text/plain")),
            (
                json!({ "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor("c"), "layers": [] }),
                Some(OCI_MANIFEST),
            ),
            (json!({ "schemaVersion": 2, "config": descriptor("c"), "layers": layers }), Some(OCI_MANIFEST)),
            (
                json!({ "schemaVersion": 2, "config": { "mediaType": "c", "digest": "sha256:1", "size": 1 }, "layers": [] }),
                Some(OCI_MANIFEST),
            ),
            (
                json!({ "schemaVersion": 2, "config": { "mediaType": "c", "digest": Digest::of(b""), "size": -1 }, "layers": [] }),
                Some(OCI_MANIFEST),
            ),
        ] {
            assert!(outcome(&value, content_type).is_err(), "{value} {content_type:?}");
        }
    }
}
