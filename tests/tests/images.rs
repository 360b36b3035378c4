//! What may run: images are scanned when they are pushed, rated by the operator's policy, and pods are admitted by it.

use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_testkit::{Instance, Output, eventually_some, run, run_with_input};
use serde_json::{Value, json};

use crate::people::Person;
use crate::receiver::{Receiver, webhook};
use crate::support::{SOON, expect_field, has_all, tools_pod, wait_ready};
use crate::walks::Walk;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/vulnerable-image")
}

/// The example's script, with this build's gantry and the chosen kubectl on the path.
#[track_caller]
fn make(gantry: &Instance) -> Output {
    let mut make = Walk::new(gantry, "make").command("sh");
    run(make.arg(example().join("make.sh")).env("ADVISORIES", gantry.data_dir().join("advisories")))
}

/// `kubectl apply` of the example's pod in a namespace, with another version of the image.
fn deploy(gantry: &Instance, namespace: &str, version: &str) -> Output {
    let pod = std::fs::read_to_string(example().join("app.yaml")).expect("the example's pod");
    let pod = pod.replace("acme/shop/web:1", &format!("acme/shop/web:{version}"));
    gantry.kubectl_with_input(&["-n", namespace, "apply", "-f", "-"], pod.as_bytes())
}

fn image_of(gantry: &Instance, namespace: &str) -> String {
    gantry.jsonpath(&["-n", namespace, "pod", "shop"], "{.spec.containers[0].image}")
}

#[test]
fn a_vulnerable_image_is_refused_in_prod_until_it_is_mended() {
    let config = "[registry]\nwebhooks_may_reach = [\"127.0.0.0/8\"]\n";
    let Some(gantry) = Instance::builder().no_node().file("config.toml", config).start() else { return };
    make(&gantry).ok();
    let report = gantry.gantry(&["image", "report", "acme/shop/web:1"]).ok();
    has_all(
        &report,
        &["Rating", "F, ", "CVE-0000-0001", "3.0.9-1", "CVE-0000-0002", "unsigned-image", " ago"],
    );
    gantry.gantry(&["image", "report", "acme/shop/web:2", "--require", "C"]).ok();
    has_all(
        &gantry.gantry(&["image", "report", "acme/shop/web:1", "--require", "C"]).fails(),
        &["is rated F"],
    );

    objects_show(&gantry, "F", |latest| ["A", "B", "C"].contains(&latest));
    let refused = deploy(&gantry, "shop-prod", "1").fails();
    has_all(
        &refused,
        &[
            "image acme/shop/web:1 (sha256:",
            "may not run in namespace shop-prod",
            "ImagePolicy prod refuses it: it is rated F (45 points, by advisories of 20",
            "C is required: CVE-0000-0001 blocks: critical in",
            "mended in 3.0.9-1",
            "To mend it: mend what is found and push again; `gantry image report acme/shop/web:1` lists it",
            "An operator can grant an exception, in spec.exceptions of ImagePolicy prod",
        ],
    );
    deploy(&gantry, "shop-dev", "1").ok();
    assert_eq!(image_of(&gantry, "shop-dev"), "acme/shop/web:1", "nothing is required in dev");
    let path = r"{.metadata.annotations.registry\.gantry\.dev/digests}";
    let digests = gantry.jsonpath(&["-n", "shop-dev", "pod", "shop"], path);
    has_all(&digests, &[r#"{"shop":"sha256:"#]);
    deploy(&gantry, "shop-prod", "2").ok();
    has_all(&image_of(&gantry, "shop-prod"), &["acme/shop/web:2@sha256:"]);

    // The other ways in.
    has_all(&deploy(&gantry, "shop-prod", "1").fails(), &["it is rated F"]);
    let debug = ["-n", "shop-prod", "debug", "shop", "--image=acme/shop/web:1", "--profile=baseline"];
    has_all(&gantry.kubectl(&debug).fails(), &["it is rated F"]);
    let labels = json!({ "app": "old" });
    let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "old" }, "spec": {
        "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels }, "spec": {
            "containers": [{ "name": "web", "image": "acme/shop/web:1" }] } },
    }});
    let apply = ["-n", "shop-prod", "apply", "-f", "-"];
    let warned = gantry.kubectl_with_input(&apply, deployment.to_string().as_bytes());
    assert!(warned.succeeded(), "{warned}");
    has_all(&warned.stderr, &["Warning: its pods would be refused: image acme/shop/web:1", "it is rated F"]);
    let path = r#"{.status.conditions[?(@.type=="ReplicaFailure")].message}"#;
    eventually_some("the deployment says why it has no pods", SOON, || {
        let said = gantry.jsonpath(&["-n", "shop-prod", "deployment", "old"], path);
        if said.contains("it is rated F") { Ok(()) } else { Err(said) }
    });

    exceptions_end_and_policies_are_checked(&gantry);
    other_projects_do_not_run_it(&gantry);
    other_servers_ask_by_webhook(&gantry);
    pushes_and_pulls_are_held_to_policies(&gantry);
    let receiver = hears(&gantry);
    new_advisories_are_compared(&gantry);
    grades_are_told(&receiver);
    a_kill_loses_no_scan(&gantry);
    scans_are_told(&receiver);
}

/// The worst grade of the repository, and that of the image that was pushed last.
#[track_caller]
fn objects_show(gantry: &Instance, worst: &str, latest: impl Fn(&str) -> bool) {
    let shown = eventually_some("the object shows its images' grades", SOON, || {
        let path = "{.status.worstGrade} {.status.latestGrade}";
        let shown = gantry.jsonpath(&["repository", "acme.shop.web"], path);
        let (first, second) = shown.split_once(' ').unwrap_or_default();
        if first == worst && latest(second) { Ok(second.to_owned()) } else { Err(shown) }
    });
    let listed = gantry.gantry(&["repository", "list", "acme/shop/web"]).ok();
    has_all(&listed, &["WORST", "LATEST"]);
    let row: Vec<&str> = listed.lines().nth(1).expect("a row").split_whitespace().collect();
    assert!(row.windows(2).any(|cells| cells == [worst, shown.as_str()]), "{listed}");
    has_all(&gantry.kubectl(&["get", "repositories"]).ok(), &["WORST", "LATEST"]);
}

fn patch(gantry: &Instance, spec: &Value) -> Output {
    let patch = json!({ "spec": spec }).to_string();
    gantry.kubectl(&["patch", "imagepolicy", "prod", "--type=merge", "-p", &patch])
}

/// Waits for the condition of the pod, and gives its message.
#[track_caller]
fn accepted(gantry: &Instance, namespace: &str, wanted: &str) -> String {
    let field = |field: &str| {
        let path =
            format!(r#"{{.status.conditions[?(@.type=="registry.gantry.dev/ImagesAccepted")].{field}}}"#);
        gantry.jsonpath(&["-n", namespace, "pod", "shop"], &path)
    };
    eventually_some(&format!("the images of the pod are accepted: {wanted}"), SOON, || {
        let seen = field("status");
        if seen == wanted { Ok(()) } else { Err(seen) }
    });
    field("message")
}

fn exceptions_end_and_policies_are_checked(gantry: &Instance) {
    let exception = |expires: &str| {
        json!({ "exceptions": [{ "vulnerability": "CVE-0000-0001", "target": "acme/shop/*", "expires": expires,
            "author": "alice@acme.example", "reason": "it shows no certificates to anybody" }] })
    };
    patch(gantry, &exception("2020-01-01T00:00:00Z")).ok();
    has_all(&deploy(gantry, "shop-prod", "1").fails(), &["it is rated F"]);
    patch(gantry, &exception("2999-01-01T00:00:00Z")).ok();
    eventually_some("the exception counts", SOON, || {
        let out = deploy(gantry, "shop-prod", "1");
        if out.succeeded() { Ok(()) } else { Err(out) }
    });
    has_all(&image_of(gantry, "shop-prod"), &["acme/shop/web:1@sha256:"]);
    patch(gantry, &json!({ "exceptions": null })).ok();
    // What was let in is told that it would not be any more, and stays.
    let said = accepted(gantry, "shop-prod", "False");
    has_all(&said, &["image acme/shop/web:1 (sha256:", "ImagePolicy prod refuses it", "it is rated F"]);
    let events = ["-n", "shop-prod", "get", "events", "--field-selector=reason=ImageRefused"];
    has_all(&gantry.kubectl(&events).ok(), &["Warning", "pod/shop", "it is rated F"]);
    patch(gantry, &json!({ "deploy": { "minimumGrade": "F" } })).ok();
    accepted(gantry, "shop-prod", "True");
    patch(gantry, &json!({ "deploy": { "minimumGrade": "C" } })).ok();
    accepted(gantry, "shop-prod", "False");
    gantry.kubectl(&["-n", "shop-prod", "delete", "pod", "shop", "--now"]).ok();
    deploy(gantry, "shop-prod", "2").ok();

    for (spec, words) in [
        (json!({ "rating": { "weights": { "hihg": 1 } } }), &["spec.rating", "hihg"][..]),
        (json!({ "push": { "minimumGrade": "C" } }), &["spec.push", "no environment"]),
        (json!({ "deploy": { "signature": {} } }), &["spec.deploy.signature", "names nobody"]),
        (json!({ "deploy": { "minimumGrade": "Z" } }), &["minimumGrade"]),
    ] {
        has_all(&patch(gantry, &spec).fails(), words);
    }
    let same = json!({ "apiVersion": "registry.gantry.dev/v1alpha1", "kind": "ImagePolicy",
        "metadata": { "name": "other" }, "spec": { "scope": { "environment": "prod" } } });
    let same = gantry.kubectl_with_input(&["apply", "-f", "-"], same.to_string().as_bytes());
    has_all(&same.fails(), &["ImagePolicy prod has this scope already"]);

    let trial = |image: &str| {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "trial" },
            "spec": { "containers": [{ "name": "x", "image": image }] } });
        let arguments = ["-n", "shop-prod", "create", "--dry-run=server", "-f", "-"];
        gantry.kubectl_with_input(&arguments, pod.to_string().as_bytes())
    };
    let prefix = gantry.scratch().join("release").display().to_string();
    let keys = ["image", "generate-key-pair", "--output-key-prefix", &prefix, "--password-stdin"];
    run_with_input(&mut gantry.gantry_command(&keys), b"a password\n").ok();
    let public = std::fs::read_to_string(format!("{prefix}.pub")).expect("a public key");
    patch(gantry, &json!({ "deploy": { "signature": { "keys": [public] } } })).ok();
    eventually_some("a signature is required", SOON, || {
        let out = trial("acme/shop/web:2");
        if out.stderr.contains("it has to be signed: it has no signature") { Ok(()) } else { Err(out) }
    });
    let key = format!("{prefix}.key");
    let sign = ["image", "sign", "--key", &key, "--password-stdin", "acme/shop/web:2"];
    run_with_input(&mut gantry.gantry_command(&sign), b"a password\n").ok();
    trial("acme/shop/web:2").ok();
    patch(gantry, &json!({ "deploy": { "signature": null }, "otherRegistries": "refuse" })).ok();
    eventually_some("other registries are refused", SOON, || {
        let out = trial("quay.io/x/y:1");
        if out.stderr.contains("it is of another registry") { Ok(()) } else { Err(out) }
    });
    has_all(&trial("nginx:1").fails(), &["it is of another registry"]);
    has_all(&trial("acme/shop/nothing:1").fails(), &["is not in the registry", "push it first"]);
    patch(gantry, &json!({ "otherRegistries": null })).ok();
}

fn other_projects_do_not_run_it(gantry: &Instance) {
    gantry.gantry(&["project", "create", "acme/lab", "--environment", "dev"]).ok();
    gantry.kubectl(&["wait", "--for=create", "--timeout=60s", "namespace/lab-dev"]).ok();
    for namespace in ["lab-dev", "default"] {
        let refused = deploy(gantry, namespace, "2").fails();
        has_all(
            &refused,
            &["repository acme/shop/web does not belong to its project", "gantry repository share"],
        );
    }
    let by_host = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "host" }, "spec": {
        "containers": [{ "name": "x", "image": format!("{}/acme/shop/web:2", gantry.registry()) }] } });
    let arguments = ["-n", "lab-dev", "create", "-f", "-"];
    let refused = gantry.kubectl_with_input(&arguments, by_host.to_string().as_bytes()).fails();
    has_all(&refused, &["does not belong to its project"]);
    gantry.gantry(&["repository", "share", "acme/shop/web", "--project", "acme/lab"]).ok();
    eventually_some("the share counts", SOON, || {
        let out = deploy(gantry, "lab-dev", "2");
        if out.succeeded() { Ok(()) } else { Err(out) }
    });
}

/// A request with the administrator's certificate, or none: status and body.
fn post(gantry: &Instance, admin: bool, path: &str, body: &Value) -> (String, Value) {
    let pki = gantry.data_dir().join("pki");
    let file = |name: &str| pki.join(name).display().to_string();
    let url = format!("https://{}{path}", gantry.registry());
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "--cacert", &file("ca.crt"), "-w", "\n%{http_code}"]);
    if admin {
        command.args(["--cert", &file("admin.crt"), "--key", &file("admin.key")]);
    }
    command.args(["-H", "Content-Type: application/json", "--data-binary", "@-", &url]);
    let said = run_with_input(&mut command, body.to_string().as_bytes()).ok();
    let (body, status) = said.rsplit_once('\n').expect("a status");
    (status.to_owned(), serde_json::from_str(body).unwrap_or_default())
}

fn other_servers_ask_by_webhook(gantry: &Instance) {
    let review = |version: &str| {
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u-1", "operation": "CREATE", "namespace": "shop-prod", "name": "x",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "userInfo": { "username": "somebody", "groups": ["system:authenticated"] },
            "object": { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "x" }, "spec": {
                "containers": [{ "name": "x", "image": format!("acme/shop/web:{version}") }] } },
        }})
    };
    let path = "/registry/v1/admission/validate";
    let (status, answer) = post(gantry, true, path, &review("1"));
    let response = &answer["response"];
    assert_eq!(
        (status.as_str(), &response["uid"], &response["allowed"]),
        ("200", &json!("u-1"), &json!(false))
    );
    has_all(response["status"]["message"].as_str().expect("a sentence"), &["ImagePolicy prod", "rated F"]);
    let (_, answer) = post(gantry, true, path, &review("2"));
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    let (_, answer) = post(gantry, true, "/registry/v1/admission/mutate", &review("2"));
    assert_eq!(answer["response"]["patchType"], "JSONPatch", "{answer}");
    assert_eq!(post(gantry, true, path, &json!({ "apiVersion": "v1" })).0, "400");
    let nobody = Person::signed_in(gantry, "acme/nobody");
    let token = nobody.gantry(&["token", "--raw"]).ok();
    let url = format!("https://{}{path}", gantry.registry());
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let ca = gantry.data_dir().join("pki/ca.crt").display().to_string();
    let words =
        ["-sS", "--max-time", "20", "--cacert", &ca, "-o", "/dev/null", "-w", "%{http_code}", "-H", &bearer];
    let said = run(Command::new("curl").args(words).args(["-X", "POST", "-d", "{}", &url])).ok();
    assert_eq!(said, "403", "reviews tell what is where, and are not for everybody");
    has_all(&nobody.gantry(&["image", "report", "acme/shop/web:1"]).fails(), &["no such image"]);
}

fn pushes_and_pulls_are_held_to_policies(gantry: &Instance) {
    let policy = |required: &Value| {
        let mut spec = required.clone();
        spec["scope"] = json!({});
        let policy = json!({ "apiVersion": "registry.gantry.dev/v1alpha1", "kind": "ImagePolicy",
            "metadata": { "name": "registry" }, "spec": spec });
        gantry.apply(&policy.to_string());
    };
    let copy = |version: &str| {
        let image = |name: &str| format!("docker://{}/acme/shop/{name}:{version}", gantry.registry());
        run(Command::new("skopeo").args(["--insecure-policy", "copy", &image("web"), &image("copy")]))
    };
    policy(&json!({ "push": { "minimumGrade": "C", "unscanned": "allow" } }));
    copy("2").ok();
    eventually_some("an image that is known to be bad is not taken", SOON, || {
        let said = copy("1").stderr;
        let wanted = ["ImagePolicy registry refuses it", "it is rated F"];
        if wanted.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said) }
    });
    let manifest = |version: &str| {
        let pki = gantry.data_dir().join("pki");
        let file = |name: &str| pki.join(name).display().to_string();
        let url = format!("https://{}/v2/acme/shop/web/manifests/{version}", gantry.registry());
        let words = ["-sS", "--max-time", "20", "--cacert", &file("ca.crt"), "-w", "\n%{http_code}"];
        let certificate = ["--cert", &file("admin.crt"), "--key", &file("admin.key"), &url];
        run(Command::new("curl").args(words).args(certificate)).ok()
    };
    policy(&json!({ "pull": { "minimumGrade": "C" } }));
    eventually_some("an image that is known to be bad is not given", SOON, || {
        let said = manifest("1");
        if said.contains("DENIED") && said.contains("it is rated F") && said.ends_with("403") {
            Ok(())
        } else {
            Err(said)
        }
    });
    assert!(manifest("2").ends_with("200"), "the good one is");
    gantry.kubectl(&["delete", "imagepolicy", "registry"]).ok();
}

fn new_advisories_are_compared(gantry: &Instance) {
    let source = gantry.scratch().join("more-advisories");
    std::fs::create_dir_all(&source).expect("a folder");
    let advisory =
        std::fs::read_to_string(example().join("advisories/EXAMPLE-2023-0001.json")).expect("it is there");
    let now = gantry.jsonpath(&["imagepolicy", "prod"], "{.metadata.creationTimestamp}");
    let advisory = advisory.replace("@NOW@", &now).replace("0001", "0003").replace("3.0.9-1", "3.0.10-1");
    std::fs::write(source.join("EXAMPLE-2023-0003.json"), advisory).expect("written");
    let directory = gantry.data_dir().join("advisories").display().to_string();
    let source = source.display().to_string();
    gantry.gantry(&["advisories", "update", &source, "--directory", &directory]).ok();
    eventually_some("version 2 is compared again, without reading a layer", SOON, || {
        let report = gantry.gantry(&["image", "report", "acme/shop/web:2"]).ok();
        if report.contains("CVE-0000-0003") && report.contains("F, ") { Ok(()) } else { Err(report) }
    });
    objects_show(gantry, "F", |latest| latest == "F");
    has_all(&accepted(gantry, "shop-prod", "False"), &["acme/shop/web:2", "CVE-0000-0003 blocks"]);
    let records = gantry.gantry(&["audit", "search", "--verb", "image-rated", "-o", "json"]).ok();
    has_all(&records, &["acme/shop/web", "registry.gantry.dev/grade-before"]);
    gantry.kubectl(&["-n", "shop-prod", "delete", "pod", "shop", "--now"]).ok();
    has_all(&deploy(gantry, "shop-prod", "2").fails(), &["CVE-0000-0003 blocks"]);
}

fn a_kill_loses_no_scan(gantry: &Instance) {
    gantry.push_hello("demo/hello:1", &[]).ok();
    gantry.kill9();
    gantry.up().ok();
    has_all(
        &gantry.gantry(&["image", "report", "demo/hello:1"]).ok(),
        &["demo/hello:1", "Advisories", "Rating"],
    );
    has_all(&gantry.gantry(&["image", "report", "acme/shop/web:2"]).ok(), &["CVE-0000-0003", "F, "]);
    has_all(&deploy(gantry, "shop-prod", "2").fails(), &["CVE-0000-0003 blocks"]);
    has_all(&gantry.gantry(&["registry", "fsck"]).ok(), &["repositories"]);
}

fn grades_are_told(receiver: &Receiver) {
    let rated = receiver.expect("the new grade", |event| {
        event["type"] == "dev.gantry.registry.rated" && event["data"]["repository"] == "acme/shop/web"
    });
    let data = rated.event()["data"].clone();
    assert!(data["grade"] == "F" && data["gradeBefore"] != "F" && !data["gradeBefore"].is_null(), "{data}");
}

fn scans_are_told(receiver: &Receiver) {
    let scanned = receiver.expect("the scan", |event| {
        event["type"] == "dev.gantry.registry.scanned" && event["data"]["repository"] == "demo/hello"
    });
    assert!(scanned.event()["data"]["vulnerabilities"].is_object(), "{:?}", scanned.event());
}

/// Somebody who hears of scans and grades.
fn hears(gantry: &Instance) -> Receiver {
    let receiver = Receiver::start(gantry, "receiver");
    let secret = "--from-literal=secret=a key that has 32 bytes, exactly";
    gantry.kubectl(&["create", "secret", "generic", "hook", secret]).ok();
    let spec = receiver.spec(&json!({ "events": ["scanned", "rated"] }));
    gantry.apply(&webhook("default", "scans", &spec).to_string());
    let accepted = "{.status.conditions[?(@.type==\"Accepted\")].status}";
    expect_field(gantry, &["registrywebhook", "scans"], accepted, "True");
    receiver
}

/// On a node: what is pinned is what runs, also when its tag has moved.
#[test]
fn what_is_admitted_is_what_runs() {
    let Some(gantry) = Instance::start() else { return };
    let policy = json!({ "apiVersion": "registry.gantry.dev/v1alpha1", "kind": "ImagePolicy",
        "metadata": { "name": "scanned" }, "spec": { "deploy": { "unscanned": "refuse" } } });
    gantry.apply(&policy.to_string());
    let image = gantry.push_tools();
    let create = |pod: &Value| gantry.kubectl_with_input(&["create", "-f", "-"], pod.to_string().as_bytes());
    let pod = tools_pod("first", crate::support::IDLE);
    // Without advisories there is no grade, and the refusal says so.
    eventually_some("it is refused as not compared", SOON, || {
        let out = create(&pod);
        let said = out.stderr.contains("it was not compared with advisories");
        if said { Ok(()) } else { Err(out) }
    });
    let advisories = example().join("advisories").display().to_string();
    let source = gantry.scratch().join("advisories");
    std::fs::create_dir_all(&source).expect("a folder");
    for entry in std::fs::read_dir(advisories).expect("the example's") {
        let entry = entry.expect("an entry");
        let text =
            std::fs::read_to_string(entry.path()).expect("text").replace("@NOW@", "2026-01-01T00:00:00Z");
        std::fs::write(source.join(entry.file_name()), text).expect("written");
    }
    let directory = gantry.data_dir().join("advisories").display().to_string();
    gantry.gantry(&["advisories", "update", &source.display().to_string(), "--directory", &directory]).ok();
    eventually_some("it is admitted when it was compared", SOON, || {
        let out = create(&pod);
        if out.succeeded() { Ok(()) } else { Err(out) }
    });
    wait_ready(&gantry, "pod/first");
    let pinned = gantry.jsonpath(&["pod", "first"], "{.spec.containers[0].image}");
    has_all(&pinned, &[&format!("{image}@sha256:")]);
    let digest = pinned.rsplit_once('@').map(|(_, digest)| digest.to_owned()).expect("a digest");
    has_all(&gantry.jsonpath(&["pod", "first"], "{.status.containerStatuses[0].imageID}"), &[&digest]);
    expect_field(&gantry, &["repository", "demo.tools"], "{.status.tags}", "1");
}
