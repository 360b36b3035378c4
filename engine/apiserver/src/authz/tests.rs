use std::sync::Arc;

use bytes::Bytes;
use gantry_kube_logic::rbac::GROUP;
use gantry_kube_types::{Attributes, Authorizer, Decision, UserInfo};
use gantry_store::{Expect, Key, Mutation, Options, Store};
use serde_json::{Value, json};

use super::*;
use crate::admission::{AdmissionPlugin, AdmissionRequest, Effects, Operation};
use crate::reader::Reader;

pub(super) async fn put(
    store: &Store,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
    mut object: Value,
) {
    object["metadata"]["name"] = name.into();
    let bytes = Bytes::from(object.to_string());
    let key = Key::new(group, resource, namespace, name);
    let put = Mutation::Put { key, expect: Expect::Any, encode: Box::new(move |_| bytes) };
    store.write(put).await.expect("the store takes it");
}

pub(super) async fn delete(store: &Store, group: &str, resource: &str, namespace: &str, name: &str) {
    let key = Key::new(group, resource, namespace, name);
    store.write(Mutation::Delete { key, expect: Expect::Any, encode: None }).await.expect("it is there");
}

/// `verb [group/]resource[/subresource] [namespace [name]]`, or `verb /path`.
pub(super) fn ask(user: &UserInfo, question: &str) -> Attributes {
    let words: Vec<&str> = question.split(' ').collect();
    let mut asked = Attributes { user: user.clone(), verb: words[0].into(), ..Attributes::default() };
    if words[1].starts_with('/') {
        asked.path = words[1].into();
        return asked;
    }
    asked.is_resource_request = true;
    let resource = match words[1].split_once(':') {
        Some((group, resource)) => {
            asked.group = group.into();
            resource
        }
        None => words[1],
    };
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    (asked.resource, asked.subresource) = (resource.into(), subresource.into());
    asked.namespace = words.get(2).map_or("", |n| if *n == "-" { "" } else { n }).into();
    asked.name = words.get(3).copied().unwrap_or("").into();
    asked
}

pub(super) fn store() -> Store {
    Store::memory(Options { events_max: 64, ..Options::default() }).expect("a store")
}

#[tokio::test]
async fn rights_hold_as_soon_as_the_write_is_acknowledged() {
    let store = store();
    let rbac = RbacAuthorizer::new(store.clone());
    let alice = UserInfo::authenticated("alice", &[]);
    let may = || rbac.authorize(&ask(&alice, "get pods demo")).is_allowed();
    assert!(!may());
    let role = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    let binding = json!({
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "User", "apiGroup": GROUP, "name": "alice"}],
    });
    for round in 0..5 {
        put(&store, GROUP, "rolebindings", "demo", "alice", binding.clone()).await;
        assert!(!may(), "round {round}: a binding without its role grants nothing");
        put(&store, GROUP, "roles", "demo", "reader", role.clone()).await;
        assert!(may(), "round {round}: granted");
        // More events than the store keeps: the watch is lost and the index is built anew.
        for i in 0..if round % 2 == 0 { 200 } else { 1 } {
            put(&store, GROUP, "roles", "other", "noise", json!({ "rules": [], "i": i })).await;
        }
        assert!(may(), "round {round}: still granted");
        delete(&store, GROUP, "roles", "demo", "reader").await;
        assert!(!may(), "round {round}: revoked");
    }
    let master = UserInfo::authenticated("root", &["system:masters"]);
    assert!(rbac.authorize(&ask(&master, "delete secrets kube-system x")).is_allowed());
}

#[tokio::test]
async fn the_defaults_are_written_once_and_kept() {
    let store = store();
    bootstrap(&store).await.expect("written");
    let revision = store.revision();
    bootstrap(&store).await.expect("looked at");
    assert_eq!(store.revision(), revision, "the second time changes nothing");
    let reader = Reader::new(store.snapshot());
    let admin = reader.get(GROUP, "clusterroles", "", "cluster-admin").expect("there");
    assert_eq!(
        (&admin["apiVersion"], &admin["kind"]),
        (&json!("rbac.authorization.k8s.io/v1"), &json!("ClusterRole"))
    );
    assert_eq!(admin["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(admin["metadata"][field].is_string(), "metadata.{field}");
    }
    // What was taken away comes back, what was added stays, and who says no is left alone.
    let mut viewer = reader.get(GROUP, "clusterroles", "", "system:discovery").expect("there");
    let extra = json!({"verbs": ["get"], "nonResourceURLs": ["/extra"]});
    viewer["rules"] = json!([extra]);
    put(&store, GROUP, "clusterroles", "", "system:discovery", viewer.clone()).await;
    viewer["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false".into();
    put(&store, GROUP, "clusterroles", "", "system:basic-user", viewer).await;
    bootstrap(&store).await.expect("reconciled");
    let reader = Reader::new(store.snapshot());
    let mended = reader.get(GROUP, "clusterroles", "", "system:discovery").expect("there");
    assert_eq!(mended["rules"].as_array().map(Vec::len), Some(2), "{mended}");
    assert_eq!(mended["rules"][0], extra);
    let left = reader.get(GROUP, "clusterroles", "", "system:basic-user").expect("there");
    assert_eq!(left["rules"], json!([extra]));

    let rbac = RbacAuthorizer::new(store.clone());
    let (manager, scheduler) = (
        UserInfo::authenticated("system:kube-controller-manager", &[]),
        UserInfo::authenticated("system:kube-scheduler", &[]),
    );
    let (anybody, anonymous) = (UserInfo::authenticated("alice", &[]), UserInfo::anonymous());
    for (user, question, allowed) in [
        (&manager, "update apps:deployments/status demo web", true),
        (&manager, "deletecollection example.com:widgets demo", true),
        (&manager, "create serviceaccounts/token demo web", true),
        (&manager, "escalate rbac.authorization.k8s.io:clusterroles - admin", true),
        (&manager, "impersonate users - root", false),
        (&scheduler, "create pods/binding demo web", true),
        (&scheduler, "patch pods/status demo web", true),
        (&scheduler, "create events.k8s.io:events demo", true),
        (&scheduler, "delete scheduling.gantry.dev:schedulingexplanations demo web", true),
        (&scheduler, "get secrets demo key", false),
        (&anybody, "create authorization.k8s.io:selfsubjectaccessreviews", false),
        (&anybody, "get /api", false),
        (&anybody, "get pods demo", false),
        (&anonymous, "get /version", true),
        (&anonymous, "get /api", false),
    ] {
        // `system:basic-user` and `system:discovery` were changed above, hence the refusals of alice.
        let allowed = allowed || (question == "get /api" && user.username == "alice");
        assert_eq!(
            rbac.authorize(&ask(user, question)).is_allowed(),
            allowed,
            "{} {question}",
            user.username
        );
    }
}

#[tokio::test]
async fn a_node_reads_only_what_its_pods_need() {
    let store = store();
    let node = UserInfo::authenticated("system:node:n1", &["system:nodes"]);
    let authorizer = Union(vec![
        Arc::new(NodeAuthorizer::new(store.clone())),
        Arc::new(RbacAuthorizer::new(store.clone())),
    ]);
    let pod = |node: &str, phase: &str| {
        json!({
            "metadata": {"uid": "pod-1"},
            "spec": {
                "nodeName": node, "serviceAccountName": "web", "imagePullSecrets": [{"name": "pull"}],
                "containers": [{
                    "envFrom": [{"configMapRef": {"name": "env"}}],
                    "env": [{"valueFrom": {"secretKeyRef": {"name": "password"}}}],
                }],
                "volumes": [
                    {"projected": {"sources": [{"configMap": {"name": "root-ca"}}]}},
                    {"persistentVolumeClaim": {"claimName": "data"}},
                ],
            },
            "status": {"phase": phase},
        })
    };
    let volume = json!({"spec": {"claimRef": {"namespace": "demo", "name": "data"}}});
    put(&store, "", "persistentvolumes", "", "pv-1", volume).await;
    let needed = [
        "get secrets demo pull",
        "watch secrets demo password",
        "get configmaps demo env",
        "list configmaps demo root-ca",
        "get persistentvolumeclaims demo data",
        "get persistentvolumes - pv-1",
        "create serviceaccounts/token demo web",
    ];
    let check = |allowed: bool, when: &str| {
        for question in needed {
            assert_eq!(
                authorizer.authorize(&ask(&node, question)).is_allowed(),
                allowed,
                "{question} {when}"
            );
        }
    };
    check(false, "before there is a pod");
    put(&store, "", "pods", "demo", "web-0", pod("n2", "Running")).await;
    check(false, "with the pod on another node");
    put(&store, "", "pods", "demo", "web-0", pod("n1", "Running")).await;
    check(true, "with the pod here");
    for (question, allowed) in [
        ("get secrets demo other", false),
        ("get secrets other pull", false),
        ("list secrets demo", false),
        ("list secrets", false),
        ("update secrets demo pull", false),
        ("create serviceaccounts/token demo default", false),
        ("patch nodes/status - n1", true),
        ("patch nodes/status - n2", false),
        ("delete nodes - n2", false),
        ("update coordination.k8s.io:leases kube-node-lease n1", true),
        ("update coordination.k8s.io:leases kube-node-lease n2", false),
        ("update coordination.k8s.io:leases demo n1", false),
        ("watch pods", true),
        ("update pods/status demo web-0", true),
        ("create pods/exec demo web-0", false),
        ("watch discovery.k8s.io:endpointslices", true),
        ("create events demo", true),
        ("create rbac.authorization.k8s.io:clusterrolebindings", false),
    ] {
        assert_eq!(authorizer.authorize(&ask(&node, question)).is_allowed(), allowed, "{question}");
    }
    let Decision::NoOpinion(why) = authorizer.authorize(&ask(&node, "get secrets demo other")) else {
        panic!("a node's own rights are no denial");
    };
    assert_eq!(why, "no relationship found between node 'n1' and this object");
    put(&store, "", "pods", "demo", "web-0", pod("n1", "Succeeded")).await;
    check(false, "after the pod has ended");
    let impostor = UserInfo::authenticated("system:node:n1", &[]);
    assert!(!authorizer.authorize(&ask(&impostor, "watch pods")).is_allowed(), "without the group");
}

pub(super) fn kind_of(group: &str, resource: &str) -> crate::kind::Kind {
    let info = gantry_kube_types::ResourceInfo {
        group: group.to_owned().into(),
        version: "v1".into(),
        resource: resource.to_owned().into(),
        singular: "".into(),
        kind: "".into(),
        list_kind: "".into(),
        scope: gantry_kube_types::Scope::Namespaced,
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
    };
    crate::kind::Kind::new(info, Arc::new(crate::kind::Plain))
}

/// Runs a plugin on one write; `old` is null for a create, `new` for a delete.
pub(super) async fn admit(
    plugin: &dyn AdmissionPlugin,
    store: &Store,
    user: &UserInfo,
    (group, resource, subresource): (&str, &str, &str),
    (namespace, name): (&str, &str),
    (old, mut new): (Value, Value),
) -> Result<(), String> {
    let kind = kind_of(group, resource);
    let reader = Reader::new(store.snapshot());
    let effects = Effects::default();
    let operation = match (old.is_null(), new.is_null()) {
        (true, _) => Operation::Create,
        (_, true) => Operation::Delete,
        _ => Operation::Update,
    };
    let mut request = AdmissionRequest {
        user,
        operation,
        kind: &kind,
        namespace,
        name,
        subresource,
        object: &mut new,
        old_object: (!old.is_null()).then_some(&old),
        dry_run: false,
        reader: &reader,
        effects: &effects,
    };
    plugin.admit(&mut request).await.map_err(|error| error.message)?;
    plugin.validate(&request).await.map_err(|error| error.message)
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let store = store();
    bootstrap(&store).await.expect("written");
    let rbac = Arc::new(RbacAuthorizer::new(store.clone()));
    let plugin = RbacEscalation::new(rbac.clone(), rbac.clone());
    let subject = |name: &str| json!([{"kind": "User", "apiGroup": GROUP, "name": name}]);
    let role_ref = |kind: &str, name: &str| json!({"apiGroup": GROUP, "kind": kind, "name": name});
    let rules = json!([
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
        {"verbs": ["create"], "apiGroups": [GROUP], "resources": ["roles", "rolebindings"]},
        {"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["view"]},
    ]);
    put(&store, GROUP, "roles", "demo", "lead", json!({ "rules": rules })).await;
    let binding = json!({"roleRef": role_ref("Role", "lead"), "subjects": subject("alice")});
    put(&store, GROUP, "rolebindings", "demo", "lead", binding).await;
    let alice = UserInfo::authenticated("alice", &[]);
    let master = UserInfo::authenticated("root", &["system:masters"]);
    let manager = UserInfo::authenticated("system:kube-controller-manager", &[]);
    let role = |verb: &str, resource: &str| json!({"rules": [{"verbs": [verb], "apiGroups": [""], "resources": [resource]}]});
    let bind = |kind: &str, name: &str| json!({"roleRef": role_ref(kind, name), "subjects": subject("bob")});
    let exec = role("create", "pods/exec");
    let refusal = "is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], \
                   Resources:[\"pods/exec\"], Verbs:[\"create\"]}";
    let aggregating = json!({"rules": [], "aggregationRule": {"clusterRoleSelectors": []}});
    for (user, resource, old, new, refused) in [
        (&alice, "roles", Value::Null, role("get", "pods"), None),
        (&alice, "roles", Value::Null, exec.clone(), Some(refusal)),
        (&alice, "roles", Value::Null, role("*", "*"), Some("not currently held")),
        (&alice, "roles", exec.clone(), exec.clone(), None),
        (&alice, "rolebindings", Value::Null, bind("Role", "lead"), None),
        (&alice, "rolebindings", Value::Null, bind("ClusterRole", "view"), None),
        (
            &alice,
            "rolebindings",
            Value::Null,
            bind("ClusterRole", "cluster-admin"),
            Some("not currently held"),
        ),
        (&alice, "rolebindings", Value::Null, bind("Role", "gone"), Some("\"gone\" not found")),
        (&master, "rolebindings", Value::Null, bind("ClusterRole", "cluster-admin"), None),
        (
            &alice,
            "clusterroles",
            Value::Null,
            aggregating.clone(),
            Some("must have cluster-admin privileges"),
        ),
        (&manager, "clusterroles", aggregating, role("*", "*"), None),
    ] {
        let namespace = if resource.starts_with("cluster") { "" } else { "demo" };
        let what = format!("{} {resource} {new}", user.username);
        let got = admit(&plugin, &store, user, (GROUP, resource, ""), (namespace, "x"), (old, new)).await;
        match refused {
            None => assert_eq!(got, Ok(()), "{what}"),
            Some(text) => assert!(got.as_ref().is_err_and(|e| e.contains(text)), "{what}: {got:?}"),
        }
    }
}

#[tokio::test]
async fn a_node_writes_only_its_own() {
    let store = store();
    let node = UserInfo::authenticated("system:node:n1", &["system:nodes"]);
    let pod = |node: &str| json!({"metadata": {"uid": "1"}, "spec": {"nodeName": node}});
    let labelled = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    let bare = json!({"metadata": {}});
    let tainted = json!({"metadata": {}, "spec": {"taints": [{"key": "a"}]}});
    for (what, at, old, new, refused) in [
        (("", "pods", "status"), ("demo", "p"), pod("n1"), pod("n1"), None),
        (("", "pods", "status"), ("demo", "p"), pod("n2"), pod("n2"), Some("can only update pod status")),
        (("", "pods", ""), ("demo", "p"), pod("n1"), Value::Null, None),
        (("", "pods", ""), ("demo", "p"), pod("n2"), Value::Null, Some("can only delete pods")),
        (("", "pods", ""), ("demo", "p"), Value::Null, pod("n1"), Some("can only create mirror pods")),
        (("", "nodes", ""), ("", "n1"), Value::Null, labelled("kubernetes.io/hostname"), None),
        (("", "nodes", ""), ("", "n1"), bare.clone(), labelled("example.com/disk"), None),
        (("", "nodes", ""), ("", "n2"), Value::Null, bare.clone(), Some("not allowed to modify node \"n2\"")),
        (
            ("", "nodes", ""),
            ("", "n1"),
            bare.clone(),
            labelled("zone.node-restriction.kubernetes.io/a"),
            Some("following labels"),
        ),
        (
            ("", "nodes", ""),
            ("", "n1"),
            bare.clone(),
            labelled("node-role.kubernetes.io/control-plane"),
            Some("following labels"),
        ),
        (("", "nodes", ""), ("", "n1"), bare.clone(), tainted, Some("modify taints")),
        (
            ("coordination.k8s.io", "leases", ""),
            ("kube-node-lease", "n2"),
            Value::Null,
            bare,
            Some("same name"),
        ),
    ] {
        let shown = format!("{what:?} {at:?} {new}");
        let got = admit(&NodeRestriction, &store, &node, what, at, (old, new)).await;
        match refused {
            None => assert_eq!(got, Ok(()), "{shown}"),
            Some(text) => assert!(got.as_ref().is_err_and(|e| e.contains(text)), "{shown}: {got:?}"),
        }
    }
    put(&store, "", "pods", "demo", "mine", pod("n1")).await;
    put(&store, "", "pods", "demo", "theirs", pod("n2")).await;
    let reader = Reader::new(store.snapshot());
    let bound = |name: &str, uid: &str| {
        let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
        json!({"spec": {"boundObjectRef": reference}})
    };
    for (request, code) in [
        (bound("mine", "1"), None),
        (bound("mine", "2"), Some(403)),
        (bound("mine", ""), Some(403)),
        (bound("theirs", "1"), Some(403)),
        (bound("gone", "1"), Some(404)),
        (json!({"spec": {}}), Some(403)),
    ] {
        let got = check_token_request(&node, &reader, "demo", &request).err().map(|error| error.code);
        assert_eq!(got, code, "{request}");
    }
}

#[tokio::test]
async fn reviews_answer_and_refuse() {
    let store = store();
    bootstrap(&store).await.expect("written");
    let rbac = RbacAuthorizer::new(store.clone());
    let pods = json!({"verb": "get", "resource": "pods", "namespace": "demo"});
    let ask = |spec: Value| subject_access_review(json!({ "spec": spec }), &rbac);
    let masters = ask(json!({"groups": ["system:masters"], "resourceAttributes": pods})).expect("answered");
    assert_eq!(masters["status"]["allowed"], true);
    let nobody = ask(json!({"user": "eve", "resourceAttributes": pods})).expect("answered");
    assert_eq!(nobody["status"], json!({"allowed": false}));
    let path = json!({"verb": "get", "path": "/version"});
    let version =
        ask(json!({"user": "eve", "groups": ["system:unauthenticated"], "nonResourceAttributes": path}));
    let version = version.expect("answered");
    assert_eq!(version["status"]["allowed"], true);
    assert!(version["status"]["reason"].as_str().is_some_and(|r| r.contains("system:public-info-viewer")));
    for spec in [
        json!({"resourceAttributes": pods}),
        json!({"user": "eve"}),
        json!({"user": "eve", "resourceAttributes": pods, "nonResourceAttributes": path}),
    ] {
        assert_eq!(ask(spec.clone()).expect_err("refused").code, 422, "{spec}");
    }
    let local = |namespace: &str| {
        let spec = json!({"user": "eve", "resourceAttributes": pods});
        local_subject_access_review(json!({ "spec": spec }), namespace, &rbac)
    };
    assert_eq!(local("demo").expect("answered")["status"]["allowed"], false);
    assert_eq!(local("other").expect_err("refused").code, 422);
    let alice = UserInfo::authenticated("alice", &[]);
    let own = json!({"spec": {"resourceAttributes": {
        "verb": "create", "group": "authorization.k8s.io", "resource": "selfsubjectaccessreviews",
    }}});
    let own = self_subject_access_review(own, &alice, &rbac).expect("answered");
    assert_eq!(own["status"]["allowed"], true);
    let rules = self_subject_rules_review(json!({"spec": {"namespace": "demo"}}), &alice, &rbac, &rbac)
        .expect("answered");
    assert_eq!(rules["status"]["incomplete"], false);
    let listed = |field: &str| rules["status"][field].as_array().map_or(0, Vec::len);
    assert!(listed("resourceRules") > 0 && listed("nonResourceRules") > 0, "{rules}");
    assert_eq!(self_subject_rules_review(json!({}), &alice, &rbac, &rbac).expect_err("refused").code, 400);
}
