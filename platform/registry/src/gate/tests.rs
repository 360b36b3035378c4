//! Policies against a registry with images in it, scanned step by step.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_kube_types::{
    Attributes, Authenticator, Authorizer, ConnectionInfo, Decision, StatusError, UserInfo,
};
use gantry_oci::Tag;
use gantry_oci::image::Image;
use gantry_oci::layer::{Entry, Tree};
use gantry_scanner::advisories::{Given, SourceUpdate, update};
use gantry_signatures::attachment::{self, Subject};
use gantry_signatures::payload::Payload;
use gantry_signatures::{PrivateKey, Signature};
use serde_json::{Value, json};

use super::*;
use crate::{Access, Catalogue, Config, JwtIssuer};

struct Everybody;

impl Authorizer for Everybody {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::Allow(String::new())
    }
}

#[async_trait::async_trait]
impl Authenticator for Everybody {
    async fn authenticate(
        &self,
        _: &http::HeaderMap,
        _: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        Ok(None)
    }
}

/// A registry in a directory, with advisories of which one concerns openssl before version 2.
pub(crate) fn registry(folder: &std::path::Path) -> Registry {
    let (advisories, source) = (folder.join("advisories"), folder.join("source"));
    gantry_base::fs::create_directory(&source, 0o755).expect("a directory");
    let advisory = json!({ "id": "TEST-1", "modified": jiff::Timestamp::now(), "affected": [{
        "package": { "ecosystem": "Debian:12", "name": "openssl" },
        "severity": [{ "type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H" }],
        "ranges": [{ "type": "ECOSYSTEM", "events": [{ "introduced": "0" }, { "fixed": "2" }] }],
    }] });
    let text = advisory.to_string();
    gantry_base::fs::write_atomic(&source.join("a.json"), text.as_bytes(), 0o644).expect("written");
    let location = source.display().to_string();
    let brought = SourceUpdate { location, given: Given::Files(&source), etag: None, last_modified: None };
    update(&advisories, &[brought], Timestamp::now()).expect("an index");
    let mut config = Config::new(folder.join("registry"));
    config.advisories = advisories;
    let everybody: Arc<dyn Authenticator> = Arc::new(Everybody);
    let access = Access {
        authorizer: Arc::new(Everybody),
        issuer: Arc::new(JwtIssuer::open(&folder.join("token.key")).expect("a key")),
        passwords: everybody.clone(),
        bearers: everybody,
    };
    crate::build(config, access, Catalogue::default()).expect("a registry")
}

fn set(registry: &Registry, spec: &Value) {
    let policy = ImagePolicy::new("p", serde_json::from_value(spec.clone()).expect("a policy"));
    *registry.inner.policies.book.write().expect("a lock") = Arc::new(Book::new(&[policy]));
}

fn debian(openssl: &str) -> Image {
    let mut tree = Tree::default();
    for (path, text) in [
        ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n".to_owned()),
        (
            "var/lib/dpkg/status",
            format!(
                "Package: openssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: {openssl}\n\n"
            ),
        ),
    ] {
        tree.add(path, Entry::Bytes { content: text.into_bytes().into(), mode: 0o644 });
    }
    let (layer, diff) = tree.to_layer().expect("a layer");
    let config = json!({ "os": "linux", "architecture": "amd64", "config": { "User": "1000" },
        "rootfs": { "type": "layers", "diff_ids": [diff] } });
    Image::with_config(config.to_string().into(), vec![layer]).expect("an image")
}

/// What a builder attests: an image by its configuration, and no file system.
fn attestation() -> Image {
    let layer = gantry_oci::image::Blob::of_bytes("application/vnd.in-toto+json", &b"{}"[..]);
    Image::with_config("{}".into(), vec![layer]).expect("an image")
}

fn index(images: &[&Image]) -> Image {
    index_for(&images.iter().map(|image| (*image, Value::Null)).collect::<Vec<_>>())
}

fn index_for(images: &[(&Image, Value)]) -> Image {
    let manifests = images.iter().map(|(image, platform)| {
        json!({ "mediaType": image.media_type, "digest": image.digest(), "size": image.manifest.len(),
            "platform": platform })
    });
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index =
        json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests.collect::<Vec<_>>() });
    // The parts of an image that are pushed before its manifest are those of one that is there.
    let Image { config, layers, .. } = images[0].0.clone();
    Image { manifest: index.to_string().into(), media_type: media_type.to_owned(), config, layers }
}

struct Stage {
    registry: Registry,
    repository: RepositoryName,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn set() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let repository = "demo/x".parse().expect("a name");
        Self { registry: registry(folder.path()), repository, _folder: folder }
    }

    async fn push(&self, tag: &str, image: &Image) {
        let tag: Tag = tag.parse().expect("a tag");
        self.registry.put_image(&self.repository, &tag, image).await.expect("pushed");
    }

    async fn scan_all(&self) {
        while self.registry.scan_next().await.expect("scanned").is_some() {}
    }

    /// What is said of it: nothing if it may.
    async fn said(&self, act: Act, image: &Image) -> String {
        let digest = image.digest();
        let asked = Asked { repository: &self.repository, name: "demo/x:1", digest: &digest };
        let record = self.registry.store().record(&self.repository, &digest).expect("it is there");
        let answer = self.registry.permit(act, asked, &record).await.expect("looked at");
        answer.err().map(|refusal| refusal.to_string()).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_and_indexes_are_held_to_what_is_required() {
    let stage = Stage::set();
    let (old, new, attested) = (debian("1"), debian("2"), attestation());
    for (tag, image) in [("old", &old), ("new", &new), ("attested", &attested)] {
        stage.push(tag, image).await;
    }
    let (good, mixed) = (index(&[&new, &attested]), index(&[&new, &old]));
    stage.push("good", &good).await;
    stage.push("mixed", &mixed).await;
    set(&stage.registry, &json!({ "deploy": { "minimumGrade": "B" }, "push": { "minimumGrade": "E" } }));
    for image in [&old, &new, &good, &mixed] {
        let said = stage.said(Act::Deploy, image).await;
        assert!(said.contains("not scanned") && said.contains("ImagePolicy p refuses it"), "{said}");
    }
    assert_eq!(stage.said(Act::Pull, &old).await, "", "nothing is said of pulls");
    stage.scan_all().await;
    for (image, want) in [(&old, "TEST-1 blocks"), (&mixed, "TEST-1 blocks"), (&new, ""), (&good, "")] {
        for act in [Act::Deploy, Act::Push] {
            let said = stage.said(act, image).await;
            assert_eq!(said.is_empty(), want.is_empty(), "{act:?} {said}");
            assert!(said.contains(want), "{act:?} {said}");
        }
    }
    // What cannot be understood lets nothing pass, unless it says so.
    set(&stage.registry, &json!({ "rating": { "weights": 1 } }));
    assert!(stage.said(Act::Deploy, &new).await.contains("the policy cannot be understood (spec.rating"));
    set(&stage.registry, &json!({ "rating": { "weights": 1 }, "onFailure": "open" }));
    assert_eq!(stage.said(Act::Deploy, &new).await, "");
}

/// Images of an index that no node takes say nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_counts_as_what_nodes_take_of_it() {
    let stage = Stage::set();
    let (old, new) = (debian("1"), debian("2"));
    for (tag, image) in [("old", &old), ("new", &new)] {
        stage.push(tag, image).await;
    }
    let of = |architecture: &str| json!({ "os": "linux", "architecture": architecture });
    let mixed = index_for(&[(&new, of("amd64")), (&old, of("arm64"))]);
    // The same image is said to be for both: the node takes it.
    let twice = index_for(&[(&old, of("amd64")), (&old, of("arm64")), (&new, of("amd64"))]);
    let nowhere = index_for(&[(&old, of("s390x"))]);
    let within = index_for(&[(&mixed, Value::Null)]);
    for (tag, index) in [("mixed", &mixed), ("twice", &twice), ("nowhere", &nowhere), ("within", &within)] {
        stage.push(tag, index).await;
    }
    let images = |index: &Image, nodes: &[&str]| {
        let record = stage.registry.store().record(&stage.repository, &index.digest()).expect("it is there");
        let nodes = nodes.iter().map(|node| Platform::parse(node).expect("a platform")).collect();
        stage.registry.images_in(&stage.repository, &record, &nodes)
    };
    let both = {
        let mut both = vec![old.digest(), new.digest()];
        both.sort();
        both
    };
    assert_eq!(images(&mixed, &["linux/amd64"]), [new.digest()]);
    assert_eq!(images(&within, &["linux/amd64"]), [new.digest()]);
    assert_eq!(images(&mixed, &["linux/arm64"]), [old.digest()]);
    assert_eq!(images(&mixed, &["linux/arm64", "linux/amd64"]), both);
    assert_eq!(images(&mixed, &[]), both);
    assert_eq!(images(&twice, &["linux/amd64"]), both);
    assert_eq!(images(&nowhere, &["linux/amd64"]), [old.digest()], "what fits nowhere counts whole");
}

/// As `gantry image sign` leaves it beside the image.
fn signature(key: &PrivateKey, image: &Image) -> Image {
    let subject = Subject {
        digest: image.digest(),
        media_type: image.media_type.clone(),
        size_bytes: image.manifest.len() as u64,
    };
    let payload = Payload { reference: "r/demo/x".to_owned(), digest: image.digest() }.to_bytes(0);
    let signature = STANDARD.encode(key.sign(&payload).expect("a signature"));
    let signature = Signature { payload: payload.into(), signature, certificate: None, chain: None };
    let attached = attachment::with_signature(None, &subject, &signature).expect("JSON");
    let [config, layer] = <[_; 2]>::try_from(attached.blobs).expect("a configuration and a payload");
    let media_type = attachment::MANIFEST_TYPE.to_owned();
    Image { manifest: attached.manifest, media_type, config, layers: vec![layer] }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_signed_by_whom_the_policy_trusts() {
    let stage = Stage::set();
    let (signed, unsigned) = (debian("2"), debian("3"));
    stage.push("signed", &signed).await;
    stage.push("unsigned", &unsigned).await;
    let (key, other) = (PrivateKey::generate().expect("a key"), PrivateKey::generate().expect("a key"));
    let tag = attachment::tag(&signed.digest()).expect("a tag");
    stage.push(tag.as_str(), &signature(&key, &signed)).await;
    let by = |key: &str, failure: &str| json!({ "onFailure": failure, "deploy": { "signature": { "keys": [key] } } });
    set(&stage.registry, &by(&key.public().to_pem(), "open"));
    assert_eq!(stage.said(Act::Deploy, &signed).await, "");
    let said = stage.said(Act::Deploy, &unsigned).await;
    assert!(said.contains("it has to be signed: it has no signature"), "{said}");
    set(&stage.registry, &by(&other.public().to_pem(), "open"));
    let said = stage.said(Act::Deploy, &signed).await;
    assert!(
        said.contains("it has to be signed: it was made with none of the keys that are trusted"),
        "{said}"
    );
    set(&stage.registry, &by("no key", "closed"));
    let said = stage.said(Act::Deploy, &signed).await;
    assert!(said.contains("its signature cannot be verified: signature.keys[0]"), "{said}");
    set(&stage.registry, &by("no key", "open"));
    assert_eq!(stage.said(Act::Deploy, &signed).await, "");
}
