//! gantry-oci's client against the registry.

use std::sync::Mutex;

use gantry_oci::image::{Blob, Image};
use gantry_oci::pack::{PackOptions, pack};
use gantry_oci::{RepositoryName, Tag};
use reqwest::redirect::Policy;

use super::new;
use crate::support::client;

#[tokio::test(flavor = "multi_thread")]
async fn our_client_pushes_lists_and_deletes() {
    let test = new();
    let directory = test.place();
    let (test, address) = test.serve(directory).await;
    let client = client(&address, Policy::default());
    let (name, tag): (RepositoryName, Tag) = ("demo/x".parse().expect("a name"), "1".parse().expect("a tag"));

    // Large enough for two chunks.
    let layer = Blob::of_bytes("application/vnd.oci.image.layer.v1.tar", vec![0; 40 << 20]);
    let image = Image::with_config("{}".into(), vec![layer]).expect("an image");
    let seen = Mutex::new(0);
    let watch = |progress: gantry_oci::client::Progress| {
        *seen.lock().expect("a lock") += u64::from(!progress.present)
    };
    client.push(&name, std::slice::from_ref(&tag), &image, &watch).await.expect("a push");
    assert!(*seen.lock().expect("a lock") >= 3, "the layer went in chunks");
    *seen.lock().expect("a lock") = 0;
    client.push(&name, &["2".parse().expect("a tag")], &image, &watch).await.expect("a push");
    assert_eq!(*seen.lock().expect("a lock"), 0, "nothing is sent twice");

    assert_eq!(client.manifest(&name, "2").await.expect("a manifest").digest, image.digest());
    assert_eq!(client.tags(&name).await.expect("tags"), ["1", "2"]);
    assert_eq!(client.catalog().await.expect("a catalogue"), ["demo/x"]);
    assert_eq!(
        client.small_blob(&name, &image.config.digest).await.expect("a blob").len() as u64,
        image.config.size_bytes
    );
    let other: RepositoryName = "demo/y".parse().expect("a name");
    assert!(client.mount_blob(&other, &name, &image.layers[0].digest).await.expect("a mount"));
    client.delete_manifest(&name, &image.digest().to_string()).await.expect("a deletion");
    assert!(client.manifest(&name, "1").await.expect_err("gone").is_not_found());

    let pause: RepositoryName = "gantry/pause".parse().expect("a name");
    for _ in 0..2 {
        test.registry.put_image(&pause, &tag, &image).await.expect("seeded");
    }
    assert_eq!(client.manifest(&pause, "1").await.expect("a manifest").digest, image.digest());
    let dynamic = pack(std::path::Path::new("/usr/bin/sort"), &PackOptions::default()).expect("packed");
    client.push(&other, &[tag], &dynamic, &watch).await.expect("a push");
}
