//! skopeo against the registry, through the token flow.

use std::path::Path;

use tokio::process::Command;

use super::new;

async fn skopeo(args: &[&str]) -> Result<String, String> {
    let output =
        Command::new("skopeo").args(args).output().await.expect("skopeo is installed by `xtask setup`");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A layout directory with one image, made by hand.
fn layout(directory: &Path) -> String {
    use gantry_oci::Digest;
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a directory");
    let blob = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        let file = blobs.join(digest.hex());
        gantry_base::fs::write_atomic(&file, bytes, 0o644).expect("a blob");
        serde_json::json!({ "digest": digest, "size": bytes.len() })
    };
    let with = |mut value: serde_json::Value, kind: &str| {
        value["mediaType"] = kind.into();
        value
    };
    let layer: Vec<u8> = vec![0; 300 * 1024];
    let config = serde_json::json!({ "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] } });
    let manifest = serde_json::json!({ "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": with(blob(config.to_string().as_bytes()), "application/vnd.oci.image.config.v1+json"),
        "layers": [with(blob(&layer), "application/vnd.oci.image.layer.v1.tar")] });
    let mut entry = with(blob(manifest.to_string().as_bytes()), "application/vnd.oci.image.manifest.v1+json");
    entry["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "1" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    for (name, text) in
        [("index.json", index.to_string()), ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.into())]
    {
        gantry_base::fs::write_atomic(&directory.join(name), text.as_bytes(), 0o644).expect("a file");
    }
    format!("oci:{}:1", directory.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pushes_pulls_inspects_and_deletes() {
    let test = new();
    let directory = test.place();
    let (_test, address) = test.serve(directory.clone()).await;
    let source = layout(&directory.path().join("source"));
    let image = format!("docker://{address}/demo/web:1");
    let push = ["copy", "--dest-tls-verify=false", "--dest-creds", "alice:alice-token", &source, &image];
    skopeo(&push).await.expect("a push");
    let copy = format!("oci:{}:1", directory.path().join("copy").display());
    skopeo(&["copy", "--src-tls-verify=false", "--src-creds", "alice:alice-token", &image, &copy])
        .await
        .expect("a pull");
    let seen = skopeo(&["inspect", "--tls-verify=false", "--creds", "alice:alice-token", &image]).await;
    assert!(seen.expect("an inspection").contains("\"1\""));
    for (creds, what) in [("bob:bob-token", "another"), ("alice:wrong", "a bad password of")] {
        let refused = skopeo(&["inspect", "--tls-verify=false", "--creds", creds, &image]).await;
        assert!(refused.is_err(), "{what} user was let in");
    }
    assert!(skopeo(&["inspect", "--no-creds", "--tls-verify=false", &image]).await.is_err());
    skopeo(&["delete", "--tls-verify=false", "--creds", "alice:alice-token", &image])
        .await
        .expect("a deletion");
    assert!(
        skopeo(&["inspect", "--tls-verify=false", "--creds", "alice:alice-token", &image]).await.is_err()
    );
}
