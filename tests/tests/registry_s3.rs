//! A whole platform whose images are on S3, with real clients that are sent there for blobs.

use std::process::Command;

use gantry_testkit::{Instance, S3Server, run};

use crate::support::{expect_output, has_all, tools_pod, wait_ready};

fn config(server: &S3Server) -> String {
    format!("{}redirect = true\n", server.settings())
}

#[test]
fn images_on_s3_are_pushed_run_checked_and_outlive_a_crash() {
    let mut server = S3Server::start();
    let Some(gantry) = Instance::builder().file("config.toml", &config(&server)).start() else { return };
    assert!(!gantry.data_dir().join("registry/blobs").exists());
    gantry.push_tools();
    let host = gantry.registry();
    let layout = gantry.scratch().join("layout").display().to_string();
    let (tools, web) = (format!("docker://{host}/demo/tools:1"), format!("docker://{host}/demo/web:1"));
    run(Command::new("skopeo").args(["copy", &tools, &format!("oci:{layout}:1")])).ok();
    run(Command::new("skopeo").args(["copy", &format!("oci:{layout}:1"), &web])).ok();
    // containerd fetches it, sent by the registry to the bucket.
    let mut pod = tools_pod("from-s3", "echo it runs; sleep 3600");
    pod["spec"]["containers"][0]["image"] = "demo/web:1".into();
    gantry.apply(&pod.to_string());
    wait_ready(&gantry, "pod/from-s3");
    expect_output(&gantry, &["logs", "from-s3"], "it runs");

    gantry.kill9();
    gantry.restart();
    has_all(&gantry.gantry(&["registry", "fsck"]).ok(), &["manifests", "blobs"]);
    // Our own client is sent there, too.
    let bundle = gantry.scratch().join("web.bundle").display().to_string();
    gantry.gantry(&["bundle", "create", "--output", &bundle, "demo/web:1"]).ok();
    server.stop();
    let refused = run(Command::new("skopeo").args(["copy", &format!("oci:{layout}:1"), &web]));
    assert!(refused.succeeded(), "everything is there, and the sizes are known: {refused}");
    let lost = gantry.gantry(&["registry", "fsck"]);
    assert!(!lost.succeeded(), "{lost}");
    server.resume();
    gantry.gantry(&["registry", "fsck"]).ok();
}

#[test]
fn a_start_that_cannot_use_the_bucket_says_why_and_leaves_nothing() {
    let server = S3Server::start();
    let builder = Instance::builder().no_node().file("config.toml", &config(&server));
    let Some(gantry) = builder.start() else { return };
    gantry.down(&[]).ok();
    for (secret, mode, why) in [
        (S3Server::SECRET_KEY, 0o644, "can be read by others (mode 644): chmod 600"),
        ("wrong", 0o600, "SignatureDoesNotMatch"),
    ] {
        server.write_credentials(secret, mode);
        let refused = gantry.up();
        assert!(!refused.succeeded() && refused.stderr.contains(why), "{refused}");
    }
    server.write_credentials(S3Server::SECRET_KEY, 0o600);
    gantry.restart();
}
