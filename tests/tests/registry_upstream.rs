//! Pulls through: of a registry of another make, and of a second Gantry; with the upstream alive, gone and lying.

use std::process::Command;
use std::time::Duration;

use gantry_testkit::{DockerRegistry, Instance, Output, eventually_some, run, spawn};
use serde_json::{Value, json};

use crate::support::{SOON, expect_field, has_all};

/// A Gantry that pulls through.
struct Mirror {
    gantry: Instance,
}

impl Mirror {
    fn start() -> Option<Self> {
        Some(Self { gantry: Instance::builder().no_node().start()? })
    }

    fn upstream(&self, name: &str, spec: &Value) {
        let object = json!({
            "apiVersion": "registry.gantry.dev/v1alpha1", "kind": "UpstreamRegistry",
            "metadata": { "name": name }, "spec": spec,
        });
        self.gantry.apply(&object.to_string());
        self.condition(name, "Accepted", "True");
    }

    fn condition(&self, name: &str, kind: &str, wanted: &str) {
        let path = format!("{{.status.conditions[?(@.type==\"{kind}\")].status}}");
        expect_field(&self.gantry, &["upstreamregistry", name], &path, wanted);
    }

    fn pull_to(&self, name: &str, folder: &str) -> Output {
        pull(&self.gantry, name, folder)
    }

    fn pull(&self, name: &str) -> Output {
        self.pull_to(name, "pulled")
    }

    /// Status, headers and body of a request by an administrator.
    fn ask(&self, path: &str) -> Output {
        let pki = self.gantry.data_dir().join("pki");
        let file = |name: &str| pki.join(name).display().to_string();
        let url = format!("https://{}{path}", self.gantry.registry());
        let mut command = Command::new("curl");
        command.args(["-sSi", "--max-time", "30", "--cacert", &file("ca.crt"), "--cert", &file("admin.crt")]);
        run(command.args(["--key", &file("admin.key"), "-o", "-", &url]))
    }

    fn is_whole(&self) {
        self.gantry.gantry(&["registry", "fsck"]).ok();
    }
}

fn pull(gantry: &Instance, name: &str, folder: &str) -> Output {
    let target = gantry.scratch().join(folder);
    // A pull into a folder with another image's files fails.
    if target.exists() {
        std::fs::remove_dir_all(&target).expect("removed");
    }
    let (from, to) = (format!("docker://{}/{name}", gantry.registry()), format!("dir:{}", target.display()));
    run(Command::new("skopeo").args(["--insecure-policy", "copy", &from, &to]))
}

/// An archive with one image of a program.
fn packed(gantry: &Instance, program: &str) -> String {
    let archive = gantry.scratch().join(format!("{}.tar", program.replace('/', "-"))).display().to_string();
    gantry.gantry(&["image", "pack", program, "--tag", "x:1", "--output", &archive]).ok();
    archive
}

fn push_to(docker: &DockerRegistry, archive: &str, name: &str) {
    let target = format!("docker://{}/{name}", docker.address());
    let words = ["--insecure-policy", "copy", "--dest-tls-verify=false"];
    run(Command::new("skopeo").args(words).args([&format!("oci-archive:{archive}"), &target])).ok();
}

/// The digests of the blobs of what was pulled, the largest first.
fn blobs(gantry: &Instance, folder: &str) -> Vec<String> {
    let text = std::fs::read(gantry.scratch().join(folder).join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&text).expect("JSON");
    let mut layers: Vec<Value> = manifest["layers"].as_array().expect("layers").clone();
    layers.sort_by_key(|layer| std::cmp::Reverse(layer["size"].as_u64()));
    layers.iter().map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
}

fn docker_spec(docker: &DockerRegistry, more: Value) -> Value {
    let mut spec = json!({ "prefix": "mirror/docker", "freshSeconds": 0,
        "remote": { "endpoint": format!("http://{}", docker.address()) } });
    if let (Some(all), Value::Object(more)) = (spec.as_object_mut(), more) {
        all.extend(more);
    }
    spec
}

#[test]
fn what_was_pulled_once_is_served_when_the_upstream_is_gone() {
    let (Some(mut docker), Some(mirror)) = (DockerRegistry::start(), Mirror::start()) else { return };
    let gantry = &mirror.gantry;
    let (first, second) = (packed(gantry, "/bin/true"), packed(gantry, "/bin/cat"));
    push_to(&docker, &first, "team/x:1");
    push_to(&docker, &second, "team/unseen:1");
    mirror.upstream("docker", &docker_spec(&docker, json!({})));
    mirror.pull("mirror/docker/team/x:1").ok();
    let before = blobs(gantry, "pulled");
    expect_field(gantry, &["repository", "mirror.docker.team.x"], "{.status.tags}", "1");
    // It is looked at like everything else that is here.
    gantry.gantry(&["image", "report", "mirror/docker/team/x:1", "--wait", "60"]).ok();
    // The tag moves: here too, as soon as it is no longer believed.
    push_to(&docker, &second, "team/x:1");
    mirror.pull("mirror/docker/team/x:1").ok();
    let after = blobs(gantry, "pulled");
    assert_ne!(before, after);
    mirror.condition("docker", "Reachable", "True");
    // Nobody but the upstream writes there, and what it has not is not here.
    let pushed = gantry.gantry(&["image", "pack", "/bin/true", "--tag", "mirror/docker/team/x:2"]);
    has_all(&pushed.fails(), &["is a mirror of the upstream registry docker"]);
    has_all(&mirror.pull("mirror/docker/team/x:nothing").fails(), &["manifest unknown"]);

    docker.stop();
    mirror.pull("mirror/docker/team/x:1").ok();
    assert_eq!(blobs(gantry, "pulled"), after);
    let answer = mirror.ask("/v2/mirror/docker/team/x/manifests/1").ok().to_lowercase();
    has_all(&answer, &["http/2 200", "warning: 299 - \"mirror/docker/team/x is served as it was kept"]);
    let answer = mirror.ask("/v2/mirror/docker/team/unseen/manifests/1").ok();
    has_all(&answer, &["HTTP/2 502", "upstream registry docker"]);
    mirror.condition("docker", "Reachable", "False");
    eventually_some("an event tells", SOON, || {
        let seen = gantry.kubectl(&["get", "events", "-A"]).ok();
        if seen.contains("UpstreamAway") { Ok(()) } else { Err(seen) }
    });
    // Also after a crash.
    gantry.kill9();
    gantry.restart();
    mirror.pull("mirror/docker/team/x:1").ok();

    docker.resume();
    // Whether it is there is known by asking it.
    eventually_some("the upstream is asked again", SOON, || {
        let answer = mirror.ask("/v2/mirror/docker/team/x/manifests/1").ok().to_lowercase();
        let path = "{.status.conditions[?(@.type==\"Reachable\")].status}";
        let reachable = gantry.jsonpath(&["upstreamregistry", "docker"], path);
        if !answer.contains("warning:") && reachable == "True" { Ok(()) } else { Err((reachable, answer)) }
    });
    mirror.is_whole();
}

#[test]
fn one_blob_is_fetched_once_and_never_kept_unless_it_is_right() {
    let (Some(docker), Some(mirror)) = (DockerRegistry::start(), Mirror::start()) else { return };
    let gantry = &mirror.gantry;
    // Does not compress: many pieces on the way.
    let noise = gantry.scratch().join("noise");
    let random = std::fs::File::open("/dev/urandom").expect("noise");
    let mut file = std::fs::File::create(&noise).expect("a file");
    std::io::copy(&mut std::io::Read::take(random, 40 << 20), &mut file).expect("noise");
    let large = gantry.scratch().join("large.tar").display().to_string();
    let noise = noise.display().to_string();
    gantry.gantry(&["image", "pack", "/bin/true", "--with", &noise, "--tag", "x:1", "--output", &large]).ok();
    let small = packed(gantry, "/bin/true");
    push_to(&docker, &large, "team/large:1");
    push_to(&docker, &small, "team/bad:1");
    mirror.upstream("docker", &docker_spec(&docker, json!({ "freshSeconds": 3600 })));

    let pulls: Vec<_> = (0..6)
        .map(|number| {
            let from = format!("docker://{}/mirror/docker/team/large:1", gantry.registry());
            let to = format!("dir:{}", gantry.scratch().join(format!("pull-{number}")).display());
            spawn(Command::new("skopeo").args(["--insecure-policy", "copy", &from, &to]))
        })
        .collect();
    for pull in pulls {
        pull.wait(Duration::from_secs(120)).ok();
    }
    let layer = blobs(gantry, "pull-0").remove(0);
    let log = docker.log();
    let fetched = |line: &&str| line.contains("GET /v2/") && line.contains(&layer);
    assert_eq!(log.lines().filter(fetched).count(), 1, "{log}");
    // The tag is believed.
    let asked = |log: &str| log.lines().filter(|line| line.contains("/team/large/manifests/1")).count();
    let before = asked(&docker.log());
    mirror.pull("mirror/docker/team/large:1").ok();
    assert_eq!(asked(&docker.log()), before);

    // The upstream's disk lies about one byte, and then no more.
    let direct = format!("docker://{}/team/bad:1", docker.address());
    let raw = run(Command::new("skopeo").args(["inspect", "--tls-verify=false", "--raw", &direct])).ok();
    let manifest: Value = serde_json::from_str(&raw).expect("JSON");
    let bad = manifest["layers"][0]["digest"].as_str().expect("a digest");
    let path = docker.blob(bad);
    let good = std::fs::read(&path).expect("the blob");
    let mut content = good.clone();
    content[100] ^= 1;
    std::fs::write(&path, content).expect("written");
    mirror.pull("mirror/docker/team/bad:1").fails();
    // Whoever is sent it as it comes is not sent its end.
    let asked = mirror.ask(&format!("/v2/mirror/docker/team/bad/blobs/{bad}"));
    assert!(!asked.succeeded(), "a whole blob that is wrong");
    mirror.is_whole();
    std::fs::write(&path, good).expect("written");
    mirror.pull("mirror/docker/team/bad:1").ok();
    mirror.is_whole();
}

#[test]
fn what_was_not_pulled_for_longest_leaves() {
    let (Some(mut docker), Some(mirror)) = (DockerRegistry::start(), Mirror::start()) else { return };
    let gantry = &mirror.gantry;
    for (program, name) in [("/bin/true", "a"), ("/bin/false", "b"), ("/bin/sleep", "c")] {
        push_to(&docker, &packed(gantry, program), &format!("team/{name}:1"));
    }
    mirror.upstream("docker", &docker_spec(&docker, json!({ "freshSeconds": 3600 })));
    let size = || {
        let text = gantry.jsonpath(&["upstreamregistry", "docker"], "{.status.sizeBytes}");
        text.parse::<u64>().unwrap_or(0)
    };
    for name in ["a", "b"] {
        mirror.pull(&format!("mirror/docker/team/{name}:1")).ok();
    }
    mirror.pull("mirror/docker/team/a:1").ok();
    // The three do not fit, two do.
    mirror.upstream("docker", &docker_spec(&docker, json!({ "freshSeconds": 3600, "sizeLimit": "2500Ki" })));
    let generation = "{.status.conditions[?(@.type==\"Accepted\")].observedGeneration}";
    expect_field(gantry, &["upstreamregistry", "docker"], generation, "2");
    mirror.pull("mirror/docker/team/c:1").ok();
    eventually_some("there is room again", SOON, || {
        let size = size();
        if size > 0 && size <= 2500 << 10 { Ok(()) } else { Err(size) }
    });
    docker.stop();
    mirror.pull("mirror/docker/team/b:1").fails();
    mirror.pull("mirror/docker/team/a:1").ok();
    mirror.pull("mirror/docker/team/c:1").ok();
    mirror.is_whole();
}

/// Below a project's name, what is kept counts in the project's quota, and is in nobody's way.
#[test]
fn what_is_kept_makes_room_for_what_the_project_pushes() {
    let (Some(docker), Some(mirror)) = (DockerRegistry::start(), Mirror::start()) else { return };
    let gantry = &mirror.gantry;
    for (program, name) in [("/bin/true", "a"), ("/bin/false", "b")] {
        push_to(&docker, &packed(gantry, program), &format!("team/{name}:1"));
    }
    gantry.gantry(&["domain", "create", "acme"]).ok();
    gantry.gantry(&["project", "create", "acme/web"]).ok();
    mirror
        .upstream("docker", &docker_spec(&docker, json!({ "prefix": "acme/web/hub", "freshSeconds": 3600 })));
    let kept = || {
        let text = gantry.jsonpath(&["upstreamregistry", "docker"], "{.status.sizeBytes}");
        text.parse::<u64>().unwrap_or(0)
    };
    for name in ["a", "b"] {
        mirror.pull(&format!("acme/web/hub/team/{name}:1")).ok();
        expect_field(gantry, &["repository", &format!("acme.web.hub.team.{name}")], "{.status.tags}", "1");
    }
    // The manifest is there first, its layers with it.
    let one: u64 = eventually_some("one is whole", SOON, || {
        let size = gantry.jsonpath(&["repository", "acme.web.hub.team.a"], "{.status.sizeBytes}");
        size.parse().ok().filter(|bytes| *bytes > 100_000).ok_or(size)
    });
    // Two and a half of them: beside both, one more does not fit.
    let quota = one * 5 / 2;
    gantry.gantry(&["project", "set", "acme/web", "--quota", &format!("images={quota}")]).ok();
    let push = |name: &str, program: &str| gantry.gantry(&["image", "pack", program, "--tag", name]);
    eventually_some("it is pushed", SOON, || {
        let out = push("acme/web/own:1", "/bin/sleep");
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });
    eventually_some("one has left", SOON, || {
        let kept = kept();
        if kept > 0 && kept <= quota - one / 2 && kept < 2 * one { Ok(()) } else { Err(kept) }
    });
    push("acme/web/own:2", "/bin/uname").ok();
    // What the project pushed itself is held to its quota.
    let refused = push("acme/web/own:3", "/bin/echo").fails();
    has_all(&refused, &["the quota of project acme/web is"]);
    // Pulls are not.
    mirror.pull("acme/web/hub/team/a:1").ok();
    eventually_some("nothing stays beside what was pushed", SOON, || {
        let kept = kept();
        if kept < one { Ok(()) } else { Err(kept) }
    });
    mirror.pull("acme/web/hub/team/b:1").ok();
    mirror.is_whole();
}

/// Of somebody who may do everything there.
pub fn robot_token(gantry: &Instance) -> String {
    gantry.kubectl(&["create", "serviceaccount", "robot"]).ok();
    let role = ["--clusterrole=cluster-admin", "--serviceaccount=default:robot"];
    gantry.kubectl(&[&["create", "clusterrolebinding", "robot"], &role[..]].concat()).ok();
    gantry.kubectl(&["create", "token", "robot", "--duration=1h"]).ok().trim().to_owned()
}

/// With credentials out of a Secret, over TLS of an authority of its own, by the token flow.
#[test]
fn a_second_gantry_is_an_upstream_as_any() {
    let (Some(mirror), Some(origin)) = (Mirror::start(), Instance::builder().no_node().start()) else {
        return;
    };
    let gantry = &mirror.gantry;
    origin.gantry(&["image", "pack", "/bin/true", "--tag", "private/x:1"]).ok();
    let ca = std::fs::read_to_string(origin.data_dir().join("pki/ca.crt")).expect("an authority");
    let spec = |prefix: &str, secret: &str| {
        let endpoint = format!("https://{}", origin.registry());
        let secret = json!({ "namespace": "default", "name": secret });
        json!({ "prefix": prefix, "visibility": "public", "repositories": ["private/*"], "freshSeconds": 0,
            "remote": { "endpoint": endpoint, "certificateAuthority": ca, "credentials": secret } })
    };
    let secret = |name: &str, password: &str| {
        let user = "--from-literal=username=any";
        let password = format!("--from-literal=password={password}");
        gantry.kubectl(&["create", "secret", "generic", name, user, &password]).ok();
    };
    secret("origin", &robot_token(&origin));
    secret("wrong", "no-token");
    mirror.upstream("origin", &spec("mirror/origin", "origin"));
    mirror.upstream("wrong", &spec("mirror/wrong", "wrong"));
    mirror.pull("mirror/origin/private/x:1").ok();
    let answer = mirror.ask("/v2/mirror/wrong/private/x/manifests/1").ok();
    has_all(&answer, &["HTTP/2 502", "upstream registry wrong"]);
    has_all(&mirror.pull("mirror/origin/gantry/pause:1").fails(), &["unknown"]);
    expect_field(gantry, &["repository", "mirror.origin.private.x"], "{.spec.visibility}", "public");

    // A prefix that is taken, a Secret that is not there: said at the object.
    let object = |name: &str, spec: Value| {
        let object = json!({ "apiVersion": "registry.gantry.dev/v1alpha1", "kind": "UpstreamRegistry",
            "metadata": { "name": name }, "spec": spec });
        gantry.apply(&object.to_string());
        mirror.condition(name, "Accepted", "False");
        gantry.jsonpath(&["upstreamregistry", name], "{.status.conditions[0].message}")
    };
    has_all(&object("again", spec("mirror/origin", "origin")), &["prefix", "another upstream"]);
    gantry.gantry(&["image", "pack", "/bin/true", "--tag", "ours/x/y:1"]).ok();
    has_all(&object("ours", spec("ours/x", "origin")), &["prefix", "repositories of our own"]);
    has_all(&object("nothing", spec("mirror/nothing", "nothing")), &["default/nothing does not exist"]);
    let log = std::fs::read_to_string(gantry.data_dir().join("gantry.log")).expect("a log");
    assert!(!log.contains("no-token"), "a password in the log");

    origin.kill9();
    mirror.pull("mirror/origin/private/x:1").ok();
    // Signatures come along, by their tags.
    origin.restart();
    let key = gantry.scratch().join("key").display().to_string();
    let mut make = gantry.gantry_command(&[
        "image",
        "generate-key-pair",
        "--output-key-prefix",
        &key,
        "--password-stdin",
    ]);
    gantry_testkit::run_with_input(&mut make, b"a password\n").ok();
    let private = format!("{key}.key");
    let mut sign =
        origin.gantry_command(&["image", "sign", "--key", &private, "--password-stdin", "private/x:1"]);
    gantry_testkit::run_with_input(&mut sign, b"a password\n").ok();
    let public = format!("{key}.pub");
    eventually_some("the signature is found through the mirror", SOON, || {
        let out = gantry.gantry(&["image", "verify", "--key", &public, "mirror/origin/private/x:1"]);
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });
    mirror.is_whole();
}
