//! The many ways to change an object with kubectl. No container is needed for any of them.

use gantry_testkit::{Instance, eventually_some};
use serde_json::json;

use crate::support::{SOON, has_all};

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: plan\ndata:\n  a: one\n";

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: web, image: demo/web:1, env: [{name: A, value: "1"}]}
        - {name: side, image: demo/side:1}
"#;

#[test]
fn objects_are_changed_in_every_way_kubectl_knows() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    gantry.apply(MAP);
    gantry.apply(DEPLOYMENT);
    labels_and_annotations(&gantry);
    patches(&gantry);
    editor_and_diff(&gantry);
    server_side_apply(&gantry);
    mistakes(&gantry);
    watching(&gantry);
    lists(&gantry);
}

/// What `get -o yaml` prints of several objects is applied again. A `List` is no kind of any API, so kubectl takes
/// its schema from the OpenAPI v2 document.
fn lists(gantry: &Instance) {
    let item = |name: &str| {
        let metadata = json!({ "name": name, "labels": { "of": "list" } });
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "a": "b" } })
    };
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [item("first"), item("second")] });
    gantry.apply(&list.to_string());
    let again = gantry.kubectl_with_input(&["apply", "-f", "-"], list.to_string().as_bytes()).ok();
    has_all(&again, &["configmap/first unchanged", "configmap/second unchanged"]);
    let shown = gantry.kubectl(&["get", "configmaps", "-l", "of=list", "-o", "yaml"]).ok();
    let again = gantry.kubectl_with_input(&["apply", "-f", "-"], shown.as_bytes()).ok();
    has_all(&again, &["configmap/first ", "configmap/second "]);
    let mut wrong = item("third");
    wrong["spec"] = json!({ "replicas": 1 });
    let wrong = json!({ "apiVersion": "v1", "kind": "List", "items": [wrong] }).to_string();
    let refused = gantry.kubectl_with_input(&["apply", "-f", "-"], wrong.as_bytes());
    has_all(&refused.fails(), &["unknown field \"spec\""]);
}

fn labels_and_annotations(gantry: &Instance) {
    gantry.kubectl(&["label", "configmap/plan", "tier=front"]).ok();
    has_all(&gantry.kubectl(&["label", "configmap/plan", "tier=back"]).fails(), &["already has a value"]);
    gantry.kubectl(&["label", "configmap/plan", "tier=back", "--overwrite"]).ok();
    gantry.kubectl(&["annotate", "configmap/plan", "note=for people"]).ok();
    let listed = gantry.kubectl(&["get", "configmaps", "-l", "tier in (back,side),!gone", "-o", "name"]).ok();
    assert_eq!(listed.trim(), "configmap/plan");
    gantry.kubectl(&["label", "configmap/plan", "tier-"]).ok();
    let listed = gantry.kubectl(&["get", "configmaps", "-l", "tier", "-o", "name"]).ok();
    assert_eq!(listed, "");
}

fn patches(gantry: &Instance) {
    let patch = |kind: &str, body: &str| {
        gantry.kubectl(&["patch", "deployment/web", "--type", kind, "--patch", body]).ok();
    };
    patch(
        "json",
        r#"[{"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": "2"}]"#,
    );
    patch("merge", r#"{"metadata": {"labels": {"by": "merge"}}}"#);
    patch(
        "strategic",
        r#"{"spec": {"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "B", "value": "3"}]}]}}}}"#,
    );
    let names = gantry.jsonpath(&["deployment/web"], "{.spec.template.spec.containers[*].name}");
    assert_eq!(names, "web side", "a strategic patch merges containers by name");
    let env = gantry.jsonpath(
        &["deployment/web"],
        "{range .spec.template.spec.containers[0].env[*]}{.name}={.value} {end}",
    );
    let mut env: Vec<&str> = env.split_whitespace().collect();
    env.sort_unstable();
    assert_eq!(env, ["A=2", "B=3"]);
    patch(
        "strategic",
        r#"{"spec": {"template": {"spec": {"containers": [{"name": "side", "$patch": "delete"}]}}}}"#,
    );
    assert_eq!(gantry.jsonpath(&["deployment/web"], "{.spec.template.spec.containers[*].name}"), "web");
}

fn editor_and_diff(gantry: &Instance) {
    let mut edit = gantry.kubectl_command(&["edit", "configmap/plan"]);
    edit.env("EDITOR", "sed -i s/one/two/").env("KUBE_EDITOR", "sed -i s/one/two/");
    gantry_testkit::run(&mut edit).ok();
    assert_eq!(gantry.jsonpath(&["configmap/plan"], "{.data.a}"), "two");
    let diff = gantry.kubectl_with_input(&["diff", "-f", "-"], MAP.as_bytes());
    assert_eq!(diff.code, 1, "{diff}");
    has_all(&diff.stdout, &["-  a: two", "+  a: one"]);
    assert_eq!(gantry.jsonpath(&["configmap/plan"], "{.data.a}"), "two", "diff changes nothing");
    gantry.apply(MAP);
    assert_eq!(gantry.kubectl_with_input(&["diff", "-f", "-"], MAP.as_bytes()).code, 0);
}

fn server_side_apply(gantry: &Instance) {
    let manifest = |value: &str| {
        format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: shared}}, data: {{k: {value}}}}}")
    };
    let apply = |manager: &str, value: &str, more: &[&str]| {
        let flag = format!("--field-manager={manager}");
        let words = [&["apply", "--server-side", &flag, "-f", "-"], more].concat();
        gantry.kubectl_with_input(&words, manifest(value).as_bytes())
    };
    has_all(&apply("alice", "a", &[]).ok(), &["configmap/shared serverside-applied"]);
    let conflict = apply("bob", "b", &[]).fails();
    has_all(&conflict, &["conflict", "alice", ".data.k"]);
    assert_eq!(gantry.jsonpath(&["configmap/shared"], "{.data.k}"), "a");
    apply("bob", "b", &["--force-conflicts"]).ok();
    assert_eq!(gantry.jsonpath(&["configmap/shared"], "{.data.k}"), "b");
    let managers = gantry
        .jsonpath(&["configmap/shared", "--show-managed-fields"], "{.metadata.managedFields[*].manager}");
    has_all(&managers, &["bob"]);
}

/// Bad input gets an error with the field's path, and nothing is half-applied.
fn mistakes(gantry: &Instance) {
    let refused = |manifest: &str, words: &[&str]| {
        // Behind a document mark kubectl takes braces for YAML, not JSON.
        let manifest = format!("---\n{manifest}");
        has_all(&gantry.kubectl_with_input(&["create", "-f", "-"], manifest.as_bytes()).fails(), words);
    };
    refused(
        "{apiVersion: v1, kind: Pod, metadata: {name: Bad_Name}, spec: {containers: []}}",
        &["is invalid", "metadata.name", "spec.containers: Required value"],
    );
    refused(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: odd}, dat: {a: b}}",
        &["strict decoding error", "unknown field \"dat\""],
    );
    refused(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: nowhere}}",
        &["namespaces \"nowhere\" not found"],
    );
    refused(MAP, &["AlreadyExists", "configmaps \"plan\" already exists"]);
    has_all(&gantry.kubectl(&["get", "configmap", "odd"]).fails(), &["NotFound"]);
    let dry = gantry.kubectl(&["create", "configmap", "dry", "--from-literal=a=b", "--dry-run=server"]).ok();
    has_all(&dry, &["created (server dry run)"]);
    has_all(&gantry.kubectl(&["get", "configmap", "dry"]).fails(), &["NotFound"]);
    has_all(&gantry.kubectl(&["get", "nonsense"]).fails(), &["doesn't have a resource type \"nonsense\""]);
}

fn watching(gantry: &Instance) {
    let watch = gantry.kubectl_spawn(&["get", "configmaps", "-w", "--output-watch-events"]);
    let sees = |what: &[&str]| {
        eventually_some(&format!("the watch shows {what:?}"), SOON, || {
            let seen = watch.stdout();
            let found = seen.lines().any(|line| what.iter().all(|word| line.contains(word)));
            if found { Ok(()) } else { Err(seen) }
        });
    };
    sees(&["ADDED", "plan"]);
    gantry.kubectl(&["create", "configmap", "late", "--from-literal=a=b"]).ok();
    sees(&["ADDED", "late"]);
    gantry.kubectl(&["label", "configmap/late", "x=y"]).ok();
    sees(&["MODIFIED", "late"]);
    gantry.kubectl(&["delete", "configmap/late"]).ok();
    sees(&["DELETED", "late"]);
}
