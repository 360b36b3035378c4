//! An image for several platforms that is pulled through: it is judged by what the cluster's nodes take of it, and
//! nothing else of it has to be here.

use std::path::Path;
use std::process::Command;

use gantry_testkit::{DockerRegistry, Instance, Output, eventually_some, run, run_with_input};
use serde_json::{Value, json};

use crate::support::{SOON, has_all};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image of the example, with an openssl of this version; its digest and size.
fn push(gantry: &Instance, docker: &DockerRegistry, version: &str) -> (String, usize) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/vulnerable-image/image");
    let folder = gantry.scratch().join(version);
    run(Command::new("cp").arg("-R").arg(&example).arg(&folder)).ok();
    let status = folder.join("var/lib/dpkg/status");
    let text = std::fs::read_to_string(&status).expect("the packages");
    std::fs::write(&status, text.replace("Version: 3.0.8-1\n", &format!("Version: {version}\n")))
        .expect("written");
    let (folder, archive) = (folder.display().to_string(), format!("{}.tar", folder.display()));
    let pack = ["image", "pack", &folder, "--destination", "/", "--tag", "x:1", "--cmd", "/none"];
    gantry.gantry(&[&pack[..], &["--output", &archive]].concat()).ok();
    let target = format!("docker://{}/team/web:{version}", docker.address());
    let copy =
        ["--insecure-policy", "copy", "--dest-tls-verify=false", &format!("oci-archive:{archive}"), &target];
    run(Command::new("skopeo").args(copy)).ok();
    let raw = run(Command::new("skopeo").args(["inspect", "--tls-verify=false", "--raw", &target])).ok();
    (digest(&raw), raw.len())
}

fn digest(text: &str) -> String {
    let sum = run_with_input(&mut Command::new("sha256sum"), text.as_bytes()).ok();
    format!("sha256:{}", sum.split_whitespace().next().expect("a sum"))
}

/// Puts an index of the two into the registry; gives its digest.
fn push_index(docker: &DockerRegistry, images: &[(&str, &(String, usize))]) -> String {
    let entries = images.iter().map(|(architecture, (digest, size))| {
        json!({ "mediaType": MANIFEST, "digest": digest, "size": size,
            "platform": { "os": "linux", "architecture": architecture } })
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries.collect::<Vec<_>>() })
        .to_string();
    let url = format!("http://{}/v2/team/web/manifests/1", docker.address());
    let kind = format!("content-type: {INDEX}");
    run(Command::new("curl").args(["-sSf", "-X", "PUT", "-H", &kind, "--data-binary", &index, &url])).ok();
    digest(&index)
}

/// A node as its agent shows it.
fn node(gantry: &Instance, architecture: &str) {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": architecture } });
    gantry.apply(&node.to_string());
    let texts = [
        "bootID",
        "containerRuntimeVersion",
        "kernelVersion",
        "kubeProxyVersion",
        "kubeletVersion",
        "machineID",
        "osImage",
        "systemUUID",
    ];
    let mut info: Value = texts.iter().map(|name| ((*name).to_owned(), json!("x"))).collect();
    info["operatingSystem"] = "linux".into();
    info["architecture"] = architecture.into();
    let patch = json!({ "status": { "nodeInfo": info } }).to_string();
    gantry
        .kubectl(&["patch", "node", architecture, "--subresource=status", "--type=merge", "-p", &patch])
        .ok();
}

fn run_it(gantry: &Instance, name: &str) -> Output {
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "web", "image": "mirror/docker/team/web:1" }] } });
    gantry.kubectl_with_input(&["apply", "-f", "-"], pod.to_string().as_bytes())
}

/// What a client for that platform gets.
fn pull(gantry: &Instance, architecture: &str) -> Output {
    let (from, to) = (
        format!("docker://{}/mirror/docker/team/web:1", gantry.registry()),
        format!("dir:{}", gantry.scratch().join(format!("pulled-{architecture}")).display()),
    );
    let words = ["--insecure-policy", "--override-arch", architecture, "copy", &from, &to];
    run(Command::new("skopeo").args(words))
}

#[test]
fn an_upstreams_index_is_judged_by_what_nodes_take_of_it() {
    let (Some(docker), Some(gantry)) = (DockerRegistry::start(), Instance::builder().no_node().start())
    else {
        return;
    };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/vulnerable-image/advisories");
    let source = gantry.scratch().join("osv");
    std::fs::create_dir_all(&source).expect("a folder");
    let text = std::fs::read_to_string(example.join("EXAMPLE-2023-0001.json")).expect("an advisory");
    let now = gantry.jsonpath(&["namespace", "default"], "{.metadata.creationTimestamp}");
    std::fs::write(source.join("x.json"), text.replace("@NOW@", &now)).expect("written");
    let directory = gantry.data_dir().join("advisories").display().to_string();
    gantry.gantry(&["advisories", "update", &source.display().to_string(), "--directory", &directory]).ok();
    let (good, bad) = (push(&gantry, &docker, "3.0.9-1"), push(&gantry, &docker, "3.0.8-1"));
    let index = push_index(&docker, &[("amd64", &good), ("arm64", &bad)]);
    for object in [
        json!({ "kind": "UpstreamRegistry", "metadata": { "name": "docker" }, "spec": { "prefix": "mirror/docker",
            "freshSeconds": 3600, "remote": { "endpoint": format!("http://{}", docker.address()) } } }),
        json!({ "kind": "ImagePolicy", "metadata": { "name": "all" }, "spec": { "scope": {},
            "deploy": { "minimumGrade": "C" }, "pull": { "minimumGrade": "C" } } }),
    ] {
        let mut object = object;
        object["apiVersion"] = "registry.gantry.dev/v1alpha1".into();
        gantry.apply(&object.to_string());
    }
    node(&gantry, "amd64");
    eventually_some("the image of the node's platform came, was scanned, and is good", SOON, || {
        let out = run_it(&gantry, "first");
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });
    let image = gantry.jsonpath(&["pod", "first"], "{.spec.containers[0].image}");
    assert_eq!(image, format!("mirror/docker/team/web:1@{index}"));
    let asked =
        |digest: &str| docker.log().lines().any(|line| line.contains("/manifests/") && line.contains(digest));
    assert!(asked(&good.0) && !asked(&bad.0), "what no node takes stays where it is: {}", docker.log());
    // Clients get what is good of it, each for its own platform.
    pull(&gantry, "amd64").ok();
    eventually_some("the bad one is refused to who asks for it", SOON, || {
        let said = pull(&gantry, "arm64").fails();
        if said.contains("it is rated F") { Ok(()) } else { Err(said) }
    });
    pull(&gantry, "amd64").ok();

    // A node that takes the other.
    node(&gantry, "arm64");
    eventually_some("both count", SOON, || {
        let out = run_it(&gantry, "second");
        if out.succeeded() {
            gantry.kubectl(&["delete", "pod", "second", "--now"]).ok();
            return Err(out.to_string());
        }
        if out.stderr.contains("it is rated F") { Ok(()) } else { Err(out.to_string()) }
    });
    gantry.kubectl(&["delete", "node", "arm64"]).ok();
    eventually_some("one counts", SOON, || {
        let out = run_it(&gantry, "third");
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });
    has_all(&gantry.gantry(&["registry", "fsck"]).ok(), &["repositories"]);
}
