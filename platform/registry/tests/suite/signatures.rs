//! What the registry says of the signatures in it, whoever made them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_oci::image::Image;
use gantry_oci::{Digest, RepositoryName};
use gantry_signatures::attachment::{self, Subject};
use gantry_signatures::payload::Payload;
use gantry_signatures::{PrivateKey, Signature, Trust};

use super::new;
use crate::support::TestRegistry;

async fn push(test: &TestRegistry, config: &str) -> Image {
    let image = Image::with_config(config.to_owned().into(), Vec::new()).expect("an image");
    let name: RepositoryName = "demo/x".parse().expect("a name");
    let tag = format!("t{}", &image.digest().hex()[..8]).parse().expect("a tag");
    test.registry.put_image(&name, &tag, &image).await.expect("stored");
    image
}

fn signed(key: &PrivateKey, image: &Image) -> (Subject, Signature) {
    let subject = Subject {
        digest: image.digest(),
        media_type: image.media_type.clone(),
        size_bytes: image.manifest.len() as u64,
    };
    let payload = Payload { reference: "r/demo/x".to_owned(), digest: image.digest() }.to_bytes(0);
    let signature = STANDARD.encode(key.sign(&payload).expect("a signature"));
    (subject, Signature { payload: payload.into(), signature, certificate: None, chain: None })
}

/// Pushes signatures as any client would.
async fn attach(test: &TestRegistry, (subject, signature): &(Subject, Signature), reference: &str) {
    let attached = attachment::with_signature(None, subject, signature).expect("JSON");
    for blob in &attached.blobs {
        let gantry_oci::image::MediaSource::Bytes(bytes) = &blob.source else { panic!("in memory") };
        let path = format!("/v2/demo/x/blobs/uploads/?digest={}", blob.digest);
        let length = bytes.len().to_string();
        let headers = [("content-type", "application/octet-stream"), ("content-length", &length)];
        assert_eq!(test.ask("alice", "POST", &path, &headers, bytes.clone()).await.status, 201);
    }
    let path = format!("/v2/demo/x/manifests/{reference}");
    let headers = [("content-type", attachment::MANIFEST_TYPE)];
    let answer = test.ask("alice", "PUT", &path, &headers, attached.manifest).await;
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
}

#[tokio::test]
async fn signatures_are_found_by_tag_and_by_subject_and_count_for_their_image_alone() {
    let test = new();
    let name: RepositoryName = "demo/x".parse().expect("a name");
    let (key, other) = (PrivateKey::generate().expect("a key"), PrivateKey::generate().expect("a key"));
    let trust = |key: &PrivateKey| Trust { keys: vec![key.public()], authorities: Vec::new() };
    let found = async |digest: &Digest, key: &PrivateKey| {
        let (verified, refused) = {
            let found = test.registry.verify_signature(&name, digest, &trust(key)).await.expect("disk");
            (found.verified.len(), found.refused.join("; "))
        };
        (verified, refused)
    };
    let [first, second, third] = ["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"].map(|config| push(&test, config));
    let (first, second, third) = (first.await, second.await, third.await);
    assert_eq!(found(&first.digest(), &key).await, (0, String::new()), "nobody signed it");

    let tag = |image: &Image| attachment::tag(&image.digest()).expect("a tag").to_string();
    attach(&test, &signed(&key, &first), &tag(&first)).await;
    assert_eq!(found(&first.digest(), &key).await, (1, String::new()));
    let (none, why) = found(&first.digest(), &other).await;
    assert!(none == 0 && why.contains("none of the keys"), "{why}");
    // By subject alone: pushed by digest.
    let by_subject = signed(&key, &second);
    let manifest = attachment::with_signature(None, &by_subject.0, &by_subject.1).expect("JSON").manifest;
    attach(&test, &by_subject, &Digest::of(&manifest).to_string()).await;
    assert_eq!(found(&second.digest(), &key).await, (1, String::new()));
    // The first one's under the third one's name.
    attach(&test, &signed(&key, &first), &tag(&third)).await;
    let (none, why) = found(&third.digest(), &key).await;
    assert!(none == 0 && why.contains(&format!("another image, {}", first.digest())), "{why}");
    // One that does not count does no harm to one that does.
    attach(&test, &signed(&other, &first), &tag(&first)).await;
    let trust = Trust { keys: vec![key.public(), other.public()], authorities: Vec::new() };
    let both = test.registry.verify_signature(&name, &first.digest(), &trust).await.expect("disk");
    assert_eq!((both.verified.len(), both.refused.len()), (2, 0), "by tag and by subject: {both:?}");
}

/// A signature as cosign 2 writes it, made with openssl: nothing of it comes from our own code.
#[tokio::test]
async fn what_others_sign_counts() {
    let test = new();
    let name: RepositoryName = "demo/x".parse().expect("a name");
    let image = push(&test, "{}").await;
    let directory = tempfile::tempdir().expect("a directory");
    let openssl = |arguments: &[&str]| {
        let out = std::process::Command::new("openssl").args(arguments).current_dir(&directory).output();
        let out = out.expect("openssl runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key"]);
    let public = String::from_utf8(openssl(&["pkey", "-in", "key", "-pubout"])).expect("PEM");
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"registry.example/demo/x"}},"image":{{"docker-manifest-digest":"{}"}},"type":"cosign container image signature"}},"optional":null}}"#,
        image.digest()
    );
    gantry_base::fs::write_atomic(&directory.path().join("payload"), payload.as_bytes(), 0o600)
        .expect("written");
    let signature = STANDARD.encode(openssl(&["dgst", "-sha256", "-sign", "key", "payload"]));
    let config = format!(
        r#"{{"architecture":"","created":"0001-01-01T00:00:00Z","history":[{{"created":"0001-01-01T00:00:00Z"}}],"os":"","rootfs":{{"type":"layers","diff_ids":["{}"]}},"config":{{}}}}"#,
        Digest::of(payload.as_bytes())
    );
    for blob in [&payload, &config] {
        let path = format!("/v2/demo/x/blobs/uploads/?digest={}", Digest::of(blob.as_bytes()));
        let length = blob.len().to_string();
        let headers = [("content-type", "application/octet-stream"), ("content-length", length.as_str())];
        assert_eq!(test.ask("alice", "POST", &path, &headers, blob.clone()).await.status, 201);
    }
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","size":{},"digest":"{}"}},"layers":[{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","size":{},"digest":"{}","annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}]}}"#,
        config.len(),
        Digest::of(config.as_bytes()),
        payload.len(),
        Digest::of(payload.as_bytes()),
    );
    let path = format!("/v2/demo/x/manifests/sha256-{}.sig", image.digest().hex());
    let headers = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
    assert_eq!(test.ask("alice", "PUT", &path, &headers, manifest).await.status, 201);
    let key = gantry_signatures::PublicKey::from_pem(&public).expect("a key");
    let trust = Trust { keys: vec![key], authorities: Vec::new() };
    let found = test.registry.verify_signature(&name, &image.digest(), &trust).await.expect("disk");
    assert_eq!(found.verified.len(), 1, "{found:?}");
    assert_eq!(found.verified[0].reference, "registry.example/demo/x");
}
