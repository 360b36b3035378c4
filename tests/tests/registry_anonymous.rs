//! Pulls without credentials: of what is public, where the operator allows it.

use std::path::Path;
use std::process::Command;

use gantry_testkit::{Instance, Output, run};
use serde_json::Value;

use crate::support::has_all;

/// With the instance's authority and nothing that says who asks.
fn skopeo(certs: &Path, words: &[&str]) -> Output {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").arg(words[0]);
    let sides: &[&str] = if words[0] == "copy" { &["src-", "dest-"] } else { &[""] };
    for side in sides {
        command.arg(format!("--{side}no-creds")).arg(format!("--{side}cert-dir")).arg(certs);
    }
    run(command.args(&words[1..]))
}

/// Status and body.
fn curl(gantry: &Instance, path: &str, more: &[&str]) -> (String, String) {
    let ca = gantry.data_dir().join("pki/ca.crt").display().to_string();
    let url = format!("https://{}{path}", gantry.registry());
    let words = ["-sS", "--max-time", "30", "--cacert", &ca, "-w", "\n%{http_code}"];
    let out = run(Command::new("curl").args(words).args(more).arg(&url)).ok();
    let (body, status) = out.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

fn instance(config: &str) -> Option<Instance> {
    let gantry = Instance::builder().no_node().file("config.toml", config).start()?;
    for name in ["demo/open:1", "demo/closed:1"] {
        gantry.gantry(&["image", "pack", "/bin/true", "--tag", name]).ok();
    }
    gantry.gantry(&["repository", "set", "demo/open", "--visibility", "public"]).ok();
    let certs = gantry.scratch().join("ca-alone");
    std::fs::create_dir_all(&certs).expect("a folder");
    std::fs::copy(gantry.data_dir().join("pki/ca.crt"), certs.join("ca.crt")).expect("copied");
    Some(gantry)
}

#[test]
fn what_is_public_is_pulled_without_credentials_where_that_is_allowed() {
    let Some(gantry) = instance("[registry]\nanonymous_pull = true\n") else { return };
    let (host, certs) = (gantry.registry(), gantry.scratch().join("ca-alone"));
    let image = |name: &str| format!("docker://{host}/{name}");
    let folder = |name: &str| format!("dir:{}", gantry.scratch().join(name).display());
    skopeo(&certs, &["copy", &image("demo/open:1"), &folder("pulled")]).ok();
    has_all(&skopeo(&certs, &["list-tags", &image("demo/open")]).ok(), &["\"1\""]);
    for closed in ["demo/closed:1", "no/such:1", "gantry/pause:1"] {
        let said = skopeo(&certs, &["inspect", &image(closed)]).fails().to_lowercase();
        has_all(&said, &["auth"]);
    }
    // Pulling is all.
    for name in ["demo/open:2", "demo/mine:1"] {
        let said = skopeo(&certs, &["copy", &folder("pulled"), &image(name)]).fails().to_lowercase();
        has_all(&said, &["denied"]);
    }
    assert_eq!(curl(&gantry, "/v2/_catalog", &[]).0, "401");
    assert_eq!(curl(&gantry, "/v2/demo/open/manifests/1", &["-X", "DELETE"]).0, "401");
    assert_eq!(curl(&gantry, "/api/v1/namespaces", &[]).0, "403");
    // A token that nobody asked for as somebody opens no more than that, whatever it was asked for.
    let scope = "scope=repository:demo/open:pull,push,delete&scope=repository:demo/closed:pull";
    let (status, body) = curl(&gantry, &format!("/token?service=x&{scope}"), &[]);
    assert_eq!(status, "200", "{body}");
    let token: Value = serde_json::from_str(&body).expect("JSON");
    let bearer = format!("authorization: Bearer {}", token["token"].as_str().expect("a token"));
    let ask = |path: &str, more: &[&str]| curl(&gantry, path, &[&["-H", &bearer], more].concat()).0;
    assert_eq!(ask("/v2/demo/open/manifests/1", &[]), "200");
    assert!(["401", "403", "404"].contains(&ask("/v2/demo/closed/manifests/1", &[]).as_str()));
    assert!(["401", "403"].contains(&ask("/v2/demo/open/manifests/1", &["-X", "DELETE"]).as_str()));
    assert!(["401", "403"].contains(&ask("/v2/demo/open/blobs/uploads/", &["-X", "POST"]).as_str()));
    assert!(["401", "403"].contains(&ask("/api/v1/namespaces", &[]).as_str()));
    // It is private again.
    gantry.gantry(&["repository", "set", "demo/open", "--visibility", "private"]).ok();
    has_all(&skopeo(&certs, &["inspect", &image("demo/open:1")]).fails().to_lowercase(), &["auth"]);
}

#[test]
fn nothing_is_pulled_without_credentials_otherwise() {
    let Some(gantry) = instance("") else { return };
    let certs = gantry.scratch().join("ca-alone");
    let image = format!("docker://{}/demo/open:1", gantry.registry());
    has_all(&skopeo(&certs, &["inspect", &image]).fails().to_lowercase(), &["auth"]);
    assert_eq!(curl(&gantry, "/v2/demo/open/manifests/1", &[]).0, "401");
}
