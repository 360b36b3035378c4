//! The built-in controllers as users notice them. No container is needed for any of them.

use std::process::Command;

use gantry_testkit::{Instance, eventually, eventually_some, helm_program, run};
use serde_json::json;

use crate::support::{SOON, expect_field, has_all};

#[test]
fn controllers_keep_their_promises() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    cascades(&gantry);
    what_every_namespace_has(&gantry);
    aggregated_roles(&gantry);
    endpoints(&gantry);
    helm(&gantry);
}

/// A deployment whose pods never run, because there is no node: they are objects with owners all the same.
fn family(name: &str) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "demo/none:1"}]},
            },
        },
    })
    .to_string()
}

/// How many objects of a kind belong to the family.
fn members(gantry: &Instance, kind: &str, name: &str) -> usize {
    gantry.kubectl(&["get", kind, "-l", &format!("app={name}"), "-o", "name"]).ok().lines().count()
}

fn cascades(gantry: &Instance) {
    for (name, cascade) in [("back", "background"), ("fore", "foreground"), ("orphan", "orphan")] {
        gantry.apply(&family(name));
        eventually("the family is complete", SOON, || {
            (members(gantry, "replicasets", name), members(gantry, "pods", name)) == (1, 2)
        });
        let cascade = format!("--cascade={cascade}");
        gantry.kubectl(&["delete", &format!("deployment/{name}"), &cascade, "--timeout=40s"]).ok();
        match name {
            "orphan" => {
                eventually("the orphan forgets its owner", SOON, || {
                    let owners = "{.items[*].metadata.ownerReferences[*].name}";
                    gantry.jsonpath(&["replicasets", "-l", "app=orphan"], owners).is_empty()
                });
                assert_eq!(members(gantry, "replicasets", name), 1);
                assert_eq!(members(gantry, "pods", name), 2, "the pods belong to the set, and it is there");
            }
            // The owner goes last: when it is gone, so is everything it had.
            "fore" => {
                assert_eq!((members(gantry, "replicasets", name), members(gantry, "pods", name)), (0, 0));
            }
            _ => eventually("the family follows", SOON, || {
                (members(gantry, "replicasets", name), members(gantry, "pods", name)) == (0, 0)
            }),
        }
    }
}

fn what_every_namespace_has(gantry: &Instance) {
    gantry.kubectl(&["create", "namespace", "own"]).ok();
    for object in ["serviceaccount/default", "configmap/kube-root-ca.crt"] {
        let uid = || gantry.jsonpath(&["-n", "own", object], "{.metadata.uid}");
        let first =
            eventually_some("it is there", SOON, || Some(uid()).filter(|u| is_uid(u)).ok_or("not yet"));
        gantry.kubectl(&["-n", "own", "delete", object]).ok();
        eventually("what was deleted comes back", SOON, || is_uid(&uid()) && uid() != first);
    }
    // One that was changed says again what it should.
    let patch = [
        "-n",
        "own",
        "patch",
        "configmap/kube-root-ca.crt",
        "--type=merge",
        "--patch",
        r#"{"data": {"ca.crt": "x"}}"#,
    ];
    gantry.kubectl(&patch).ok();
    eventually("the certificate is put right", SOON, || {
        gantry
            .jsonpath(&["-n", "own", "configmap/kube-root-ca.crt"], "{.data.ca\\.crt}")
            .contains("BEGIN CERTIFICATE")
    });
    // A namespace with something in it goes as a whole.
    gantry.kubectl(&["-n", "own", "create", "configmap", "inside", "--from-literal=a=b"]).ok();
    gantry.kubectl(&["delete", "namespace", "own", "--timeout=40s"]).ok();
    has_all(&gantry.kubectl(&["-n", "own", "get", "configmap", "inside"]).fails(), &["NotFound"]);
}

fn is_uid(text: &str) -> bool {
    text.len() == 36 && text.matches('-').count() == 4
}

const ROLES: &str = r#"
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: gathers}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {into: gathers}}]}
rules: []
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: gives, labels: {into: gathers, rbac.authorization.k8s.io/aggregate-to-view: "true"}}
rules: [{apiGroups: [test.gantry.dev], resources: [ships], verbs: [get, list]}]
"#;

fn aggregated_roles(gantry: &Instance) {
    gantry.apply(ROLES);
    expect_field(gantry, &["clusterrole/gathers"], "{.rules[*].resources[*]}", "ships");
    // The built-in roles are made in the same way: everybody who may view sees the new kind too.
    eventually("view has it too", SOON, || {
        gantry.jsonpath(&["clusterrole/view"], "{.rules[*].resources[*]}").contains("ships")
    });
    gantry.kubectl(&["delete", "clusterrole/gives"]).ok();
    expect_field(gantry, &["clusterrole/gathers"], "{.rules[*].resources[*]}", "");
}

/// Slices come and go with the Service they belong to.
fn endpoints(gantry: &Instance) {
    gantry.apply(&family("served"));
    gantry.kubectl(&["expose", "deployment/served", "--port=80"]).ok();
    let slices = ["endpointslices", "-l", "kubernetes.io/service-name=served"];
    let there = || !gantry.kubectl(&[&["get"], &slices[..], &["-o", "name"]].concat()).ok().is_empty();
    eventually("a Service with a selector has a slice, before any pod is ready too", SOON, there);
    gantry.kubectl(&["delete", "service/served"]).ok();
    eventually("the slices go with their Service", SOON, || !there());
    gantry.kubectl(&["delete", "deployment/served"]).ok();
}

const CHART: &[(&str, &str)] = &[
    ("Chart.yaml", "apiVersion: v2\nname: ship\nversion: 0.1.0\n"),
    ("values.yaml", "replicas: 0\ncolor: blue\n"),
    (
        "crds/sails.yaml",
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: sails.helm.gantry.dev}\n\
         spec: {group: helm.gantry.dev, scope: Namespaced, names: {plural: sails, singular: sail, kind: Sail}, \
         versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, \
         x-kubernetes-preserve-unknown-fields: true}}}]}\n",
    ),
    (
        "templates/all.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"{{ .Release.Name }}\"}\ndata: {color: \"{{ .Values.color }}\"}\n\
         ---\napiVersion: helm.gantry.dev/v1\nkind: Sail\nmetadata: {name: main}\n\
         ---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: \"{{ .Release.Name }}\"}\nspec:\n  \
         replicas: {{ .Values.replicas }}\n  selector: {matchLabels: {app: ship}}\n  template:\n    \
         metadata: {labels: {app: ship}}\n    spec: {containers: [{name: main, image: \"demo/none:1\"}]}\n",
    ),
];

/// A chart with its own kinds is installed, upgraded, rolled back and removed by Helm as it is.
fn helm(gantry: &Instance) {
    let Some(program) = helm_program() else {
        eprintln!("not looked at: there is no helm for this machine");
        return;
    };
    let chart = gantry.scratch().join("chart");
    for (name, text) in CHART {
        let path = chart.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }
    let chart = chart.display().to_string();
    let helm = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).env("KUBECONFIG", gantry.kubeconfig()).env("HOME", gantry.scratch());
        run(&mut command).ok()
    };
    let color = || gantry.jsonpath(&["configmap/mine"], "{.data.color}");
    helm(&["install", "mine", &chart, "--wait", "--timeout", "40s"]);
    assert_eq!(color(), "blue");
    assert_eq!(gantry.jsonpath(&["sails"], "{.items[*].metadata.name}"), "main");
    helm(&["upgrade", "mine", &chart, "--set", "color=red", "--wait", "--timeout", "40s"]);
    assert_eq!(color(), "red");
    helm(&["rollback", "mine", "1", "--wait", "--timeout", "40s"]);
    assert_eq!(color(), "blue");
    has_all(&helm(&["history", "mine"]), &["superseded", "Rollback to 1", "deployed"]);
    has_all(&helm(&["list"]), &["mine", "ship-0.1.0"]);
    helm(&["uninstall", "mine", "--wait", "--timeout", "40s"]);
    has_all(&gantry.kubectl(&["get", "configmap", "mine"]).fails(), &["NotFound"]);
}
