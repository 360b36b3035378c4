//! Ways users try to get more than they were given.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_kube_logic::rbac::GROUP;
use gantry_kube_types::{Attributes, Authorizer, Decision, Explanation, Missing, UserInfo};
use gantry_store::Store;
use serde_json::{Value, json};

use super::tests::{admit, ask, put, store};
use super::*;

fn subject(kind: &str, name: &str) -> Value {
    json!([{"kind": kind, "apiGroup": GROUP, "name": name}])
}

fn role_ref(kind: &str, name: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": kind, "name": name})
}

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

fn named(verbs: &[&str], group: &str, resource: &str, name: &str) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": [resource], "resourceNames": [name]})
}

async fn cluster(store: &Store, who: &str, rules: Value) {
    put(store, GROUP, "clusterroles", "", who, json!({ "rules": rules })).await;
    let binding = json!({"roleRef": role_ref("ClusterRole", who), "subjects": subject("User", who)});
    put(store, GROUP, "clusterrolebindings", "", who, binding).await;
}

async fn in_namespace(store: &Store, namespace: &str, who: &str, rules: Value) {
    put(store, GROUP, "roles", namespace, who, json!({ "rules": rules })).await;
    let binding = json!({"roleRef": role_ref("Role", who), "subjects": subject("User", who)});
    put(store, GROUP, "rolebindings", namespace, who, binding).await;
}

fn user(name: &str) -> UserInfo {
    UserInfo::authenticated(name, &[])
}

struct World {
    store: Store,
    rbac: Arc<RbacAuthorizer>,
}

impl World {
    async fn new() -> Self {
        let store = store();
        bootstrap(&store).await.expect("written");
        Self { rbac: Arc::new(RbacAuthorizer::new(store.clone())), store }
    }

    async fn tries(&self, who: &UserInfo, resource: &str, old: Value, new: Value) -> Result<(), String> {
        let plugin = RbacEscalation::new(self.rbac.clone(), self.rbac.clone());
        let namespace = if resource.starts_with("cluster") { "" } else { "demo" };
        admit(&plugin, &self.store, who, (GROUP, resource, ""), (namespace, "x"), (old, new)).await
    }
}

fn check(what: &str, got: &Result<(), String>, refused: Option<&str>) {
    match refused {
        None => assert_eq!(got, &Ok(()), "{what}"),
        Some(text) => assert!(got.as_ref().is_err_and(|e| e.contains(text)), "{what}: {got:?}"),
    }
}

const NOT_HELD: Option<&str> = Some("is attempting to grant RBAC permissions not currently held");

#[tokio::test]
async fn roles_cannot_be_written_beyond_ones_own() {
    let world = World::new().await;
    let writes = rule(&["create", "update", "patch"], GROUP, &["roles", "clusterroles"]);
    cluster(&world.store, "lead", json!([writes, rule(&["get", "list"], "", &["pods", "pods/log"])])).await;
    cluster(&world.store, "boss", json!([rule(&["escalate"], GROUP, &["clusterroles"])])).await;
    let (lead, boss) = (user("lead"), user("boss"));
    let role = |rules: Value| json!({"metadata": {"name": "x"}, "rules": rules});
    let held = role(json!([rule(&["get"], "", &["pods"])]));
    for (rules, refused) in [
        (json!([rule(&["get"], "", &["pods"])]), None),
        (json!([rule(&["get"], "", &["pods"]), rule(&["list"], "", &["pods/log"])]), None),
        (json!([named(&["get"], "", "pods", "one")]), None),
        (json!([rule(&["get", "delete"], "", &["pods"])]), NOT_HELD),
        (json!([rule(&["*"], "", &["pods"])]), NOT_HELD),
        (json!([rule(&["get"], "*", &["pods"])]), NOT_HELD),
        (json!([rule(&["get"], "", &["*"])]), NOT_HELD),
        (json!([rule(&["get"], "", &["pods/*"])]), NOT_HELD),
        (json!([rule(&["get"], "", &["*/log"])]), NOT_HELD),
        (json!([rule(&["get"], "", &["pods/exec"])]), NOT_HELD),
        (json!([rule(&["impersonate"], "", &["users"])]), NOT_HELD),
        (json!([rule(&["bind", "escalate"], GROUP, &["clusterroles"])]), NOT_HELD),
        (json!([{"verbs": ["get"], "nonResourceURLs": ["*"]}]), NOT_HELD),
        (json!([{"verbs": ["get"], "nonResourceURLs": ["/apis/*"]}]), None),
    ] {
        let got = world.tries(&lead, "clusterroles", Value::Null, role(rules.clone())).await;
        check(&format!("create {rules}"), &got, refused);
        let got = world.tries(&lead, "clusterroles", held.clone(), role(rules.clone())).await;
        check(&format!("update to {rules}"), &got, refused);
        let got = world.tries(&boss, "clusterroles", Value::Null, role(rules)).await;
        check("who may escalate", &got, None);
    }
}

#[tokio::test]
async fn aggregation_gives_nobody_more() {
    let world = World::new().await;
    let writes = rule(&["create", "update", "patch"], GROUP, &["clusterroles"]);
    cluster(&world.store, "lead", json!([writes, rule(&["get"], "", &["pods"])])).await;
    let lead = user("lead");
    let labelled = |label: Option<&str>, rules: Value| {
        let mut role = json!({"metadata": {"name": "x", "labels": {}}, "rules": rules});
        if let Some(label) = label {
            role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{label}")] =
                "true".into();
        }
        role
    };
    let (own, secrets) = (json!([rule(&["get"], "", &["pods"])]), json!([rule(&["get"], "", &["secrets"])]));
    let aggregating = |rules: Value| {
        json!({"metadata": {"name": "x"}, "rules": rules, "aggregationRule": {"clusterRoleSelectors": [
            {"matchLabels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}]}})
    };
    let cluster_admin = Some("must have cluster-admin privileges to use the aggregationRule");
    for (what, old, new, refused) in [
        ("a label on what one holds", labelled(None, own.clone()), labelled(Some("view"), own.clone()), None),
        (
            "a label on a stranger's role",
            labelled(None, secrets.clone()),
            labelled(Some("view"), secrets.clone()),
            NOT_HELD,
        ),
        ("a new labelled role", Value::Null, labelled(Some("admin"), own.clone()), None),
        ("a new labelled role with more", Value::Null, labelled(Some("admin"), secrets.clone()), NOT_HELD),
        ("a role that gathers", Value::Null, aggregating(json!([])), cluster_admin),
        (
            "any change of one that gathers",
            aggregating(own.clone()),
            labelled(None, own.clone()),
            cluster_admin,
        ),
    ] {
        check(what, &world.tries(&lead, "clusterroles", old, new).await, refused);
    }
    // What the garbage collector does is no change of rights.
    let mut owned = labelled(None, secrets.clone());
    owned["metadata"]["finalizers"] = json!(["x"]);
    check("a finalizer", &world.tries(&lead, "clusterroles", owned, labelled(None, secrets)).await, None);
}

#[tokio::test]
async fn bindings_bind_only_what_may_be_bound() {
    let world = World::new().await;
    in_namespace(
        &world.store,
        "demo",
        "lead",
        json!([
            rule(&["create", "update", "patch"], GROUP, &["rolebindings"]),
            rule(&["get", "list", "watch"], "", &["pods"]),
            named(&["bind"], GROUP, "clusterroles", "view"),
        ]),
    )
    .await;
    let lead = user("lead");
    let bind = |kind: &str, role: &str, who: Value| json!({"roleRef": role_ref(kind, role), "subjects": who});
    let me = || subject("User", "lead");
    for (what, old, new, refused) in [
        ("what may be bound by name", Value::Null, bind("ClusterRole", "view", me()), None),
        ("another by that right", Value::Null, bind("ClusterRole", "edit", me()), NOT_HELD),
        ("everything", Value::Null, bind("ClusterRole", "cluster-admin", me()), NOT_HELD),
        ("one's own role for another", Value::Null, bind("Role", "lead", subject("User", "bob")), None),
        (
            "a Role of the name of one that may be bound",
            Value::Null,
            bind("Role", "view", me()),
            Some("not found"),
        ),
        ("a role that does not exist yet", Value::Null, bind("ClusterRole", "soon", me()), Some("not found")),
        (
            "oneself as a subject of a stronger binding",
            bind("ClusterRole", "admin", subject("User", "root")),
            bind("ClusterRole", "admin", json!([subject("User", "root")[0], me()[0]])),
            NOT_HELD,
        ),
        (
            "everybody",
            Value::Null,
            bind("ClusterRole", "admin", subject("Group", "system:authenticated")),
            NOT_HELD,
        ),
        (
            "an empty binding to be filled later",
            Value::Null,
            bind("ClusterRole", "cluster-admin", json!([])),
            NOT_HELD,
        ),
    ] {
        check(what, &world.tries(&lead, "rolebindings", old, new).await, refused);
    }
    // What is held in one namespace is not held in all.
    let wide = bind("ClusterRole", "view", me());
    check("cluster-wide", &world.tries(&lead, "clusterrolebindings", Value::Null, wide).await, NOT_HELD);
}

/// As identity narrows a credential: to one namespace and to reading.
struct Narrow(Arc<RbacAuthorizer>);

impl Authorizer for Narrow {
    fn authorize(&self, asked: &Attributes) -> Decision {
        let inside = asked.namespace == "demo" && asked.resource != "secrets";
        if inside { self.0.authorize(asked) } else { Decision::NoOpinion("narrowed".to_owned()) }
    }
}

#[tokio::test]
async fn a_narrow_credential_grants_no_more_than_it_is() {
    let world = World::new().await;
    cluster(&world.store, "root", json!([rule(&["*"], "*", &["*"])])).await;
    let plugin = RbacEscalation::new(Arc::new(Narrow(world.rbac.clone())), world.rbac.clone());
    let root = user("root");
    // `escalate` and `bind` are asked of the narrowed authoriser: a role of reading secrets is beyond it
    // although its user holds everything, unless the credential may escalate itself.
    let grant = json!({"rules": [rule(&["get"], "", &["secrets"])]});
    for (namespace, refused) in [("demo", None), ("other", NOT_HELD)] {
        let got = admit(
            &plugin,
            &world.store,
            &root,
            (GROUP, "roles", ""),
            (namespace, "x"),
            (Value::Null, grant.clone()),
        )
        .await;
        check(namespace, &got, refused);
    }
}

#[tokio::test]
async fn nobody_becomes_another() {
    let world = World::new().await;
    let store = &world.store;
    let auth = "authentication.k8s.io";
    cluster(
        store,
        "help",
        json!([
            named(&["impersonate"], "", "users", "alice"),
            named(&["impersonate"], "", "groups", "devs"),
            named(&["impersonate"], auth, "userextras/scopes", "view"),
            named(&["impersonate"], auth, "uids", "1"),
        ]),
    )
    .await;
    in_namespace(
        store,
        "demo",
        "ci",
        json!([rule(&["impersonate", "create"], "", &["serviceaccounts", "serviceaccounts/token"])]),
    )
    .await;
    in_namespace(store, "demo", "dev", json!([rule(&["*"], "*", &["*"])])).await;
    for (who, question, allowed) in [
        ("help", "impersonate users - alice", true),
        ("help", "impersonate users - root", false),
        ("help", "impersonate users", false),
        ("help", "impersonate groups - devs", true),
        ("help", "impersonate groups - system:masters", false),
        ("help", "impersonate authentication.k8s.io:userextras/scopes - view", true),
        ("help", "impersonate authentication.k8s.io:userextras/scopes - write", false),
        ("help", "impersonate authentication.k8s.io:userextras/other - view", false),
        ("help", "impersonate authentication.k8s.io:uids - 1", true),
        ("help", "impersonate authentication.k8s.io:uids - 2", false),
        ("help", "impersonate serviceaccounts demo default", false),
        ("ci", "impersonate serviceaccounts demo default", true),
        ("ci", "impersonate serviceaccounts kube-system default", false),
        ("ci", "impersonate users - alice", false),
        ("ci", "create serviceaccounts/token demo default", true),
        ("ci", "create serviceaccounts/token kube-system default", false),
        ("ci", "create serviceaccounts/token - default", false),
        // All rights in a namespace are none outside of it.
        ("dev", "get secrets demo s", true),
        ("dev", "get secrets other s", false),
        ("dev", "list secrets", false),
        ("dev", "impersonate users - root", false),
        ("dev", "impersonate groups - system:masters", false),
        ("dev", "get namespaces other other", false),
        ("dev", "create namespaces", false),
        ("dev", "get nodes - n1", false),
        ("dev", "create authorization.k8s.io:subjectaccessreviews", false),
        ("dev", "create authentication.k8s.io:tokenreviews", false),
        ("dev", "update certificates.k8s.io:certificatesigningrequests/approval - x", false),
        ("dev", "approve certificates.k8s.io:signers - kubernetes.io/kube-apiserver-client", false),
        ("dev", "get /metrics", false),
    ] {
        assert_eq!(
            world.rbac.authorize(&ask(&user(who), question)).is_allowed(),
            allowed,
            "{who}: {question}"
        );
    }
    // Names that look like others' names.
    for name in
        ["dev\u{200b}", "DEV", "dev ", "ｄｅｖ", "User:dev", "system:serviceaccount:demo:dev", "dev\0"]
    {
        assert!(!world.rbac.authorize(&ask(&user(name), "get secrets demo s")).is_allowed(), "{name:?}");
    }
    let lookalike = UserInfo::authenticated("x", &["dev", "System:masters", "system:masters "]);
    assert!(!world.rbac.authorize(&ask(&lookalike, "get secrets demo s")).is_allowed());
}

#[tokio::test]
async fn certificates_come_only_from_those_who_may_sign() {
    let world = World::new().await;
    let signer = "kubernetes.io/kube-apiserver-client";
    let group = "certificates.k8s.io";
    let writes = rule(
        &["create", "update"],
        group,
        &["certificatesigningrequests", "certificatesigningrequests/approval"],
    );
    cluster(&world.store, "eve", json!([writes])).await;
    cluster(&world.store, "one", json!([named(&["approve"], group, "signers", signer)])).await;
    cluster(
        &world.store,
        "domain",
        json!([named(&["approve", "sign"], group, "signers", "kubernetes.io/*")]),
    )
    .await;
    let plugin = Signers::new(world.rbac.clone());
    let request = |organisation: &str| {
        let key = rcgen_request("mallory", organisation);
        json!({"metadata": {"name": "x"}, "spec": {"signerName": signer, "request": STANDARD.encode(key)}})
    };
    let of = |kind: &'static str| (group, "certificatesigningrequests", kind);
    let approved = |on: bool| {
        let mut object = request("devs");
        object["status"] = if on { json!({"conditions": [{"type": "Approved"}]}) } else { json!({}) };
        object
    };
    let signed = || {
        let mut object = request("devs");
        object["status"]["certificate"] = "x".into();
        object
    };
    for (who, kind, old, new, refused) in [
        ("eve", "", Value::Null, request("devs"), None),
        ("eve", "", Value::Null, request("system:masters"), Some("system:masters group is not allowed")),
        ("eve", "approval", approved(false), approved(true), Some("not permitted to approve requests")),
        ("one", "approval", approved(false), approved(true), None),
        ("domain", "approval", approved(false), approved(true), None),
        ("one", "status", request("devs"), signed(), Some("not permitted to sign requests")),
        ("domain", "status", request("devs"), signed(), None),
    ] {
        let got = admit(&plugin, &world.store, &user(who), of(kind), ("", "x"), (old, new)).await;
        check(&format!("{who} {kind}"), &got, refused);
    }
}

fn rcgen_request(name: &str, organisation: &str) -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    parameters.distinguished_name.push(rcgen::DnType::OrganizationName, organisation);
    parameters.serialize_request(&key).expect("a request").pem().expect("PEM")
}

#[tokio::test]
async fn explanations_are_for_those_they_are_about() {
    let world = World::new().await;
    let store = &world.store;
    in_namespace(store, "demo", "dev", json!([rule(&["get", "list"], "", &["pods"])])).await;
    put(
        store,
        GROUP,
        "clusterroles",
        "",
        "secret-project",
        json!({"rules": [rule(&["create"], "", &["pods"])]}),
    )
    .await;
    let api = ExplainApi::new(world.rbac.clone(), world.rbac.clone());
    let pods = |verb: &str| json!({"verb": verb, "resource": "pods", "namespace": "demo"});
    let dev = user("dev");
    let own = api.explain(&dev, json!({"spec": {"resourceAttributes": pods("get")}})).expect("answered");
    let status = &own["status"];
    assert_eq!(status["reason"], "RBAC: allowed by RoleBinding \"dev/demo\" of Role \"dev\" to User \"dev\"");
    assert_eq!((&status["allowed"], &status["grants"][0]["binding"]), (&json!(true), &json!("dev")));
    let own = api.explain(&dev, json!({"spec": {"user": "dev", "resourceAttributes": pods("create")}}));
    let status = own.expect("answered")["status"].take();
    assert_eq!((&status["allowed"], &status["heldVerbs"]), (&json!(false), &json!(["get", "list"])));
    let roles: Vec<&str> =
        status["nearest"].as_array().into_iter().flatten().filter_map(|m| m["role"].as_str()).collect();
    assert_eq!(roles.first(), Some(&"edit"), "{status}");
    assert!(!roles.contains(&"secret-project"), "roles of others are not told: {status}");
    assert_eq!(status["nearest"][0]["bindingKind"], "RoleBinding");
    for spec in [json!({"user": "root"}), json!({"user": "dev", "groups": ["system:masters"]})] {
        let mut spec = spec;
        spec["resourceAttributes"] = pods("get");
        let refused = api.explain(&dev, json!({ "spec": spec })).expect_err("about another");
        assert_eq!(refused.code, 403, "{}", refused.message);
    }
    let master = UserInfo::authenticated("root", &["system:masters"]);
    let other = api.explain(&master, json!({"spec": {"user": "dev", "resourceAttributes": pods("create")}}));
    let told = other.expect("answered")["status"]["nearest"].to_string();
    assert!(told.contains("secret-project"), "{told}");
}

/// Decides as RBAC does, and knows more of repositories.
struct Component(Arc<RbacAuthorizer>);

impl Authorizer for Component {
    fn authorize(&self, asked: &Attributes) -> Decision {
        self.0.authorize(asked)
    }

    fn explain(&self, asked: &Attributes, listener: &UserInfo) -> Option<Explanation> {
        let missing = Missing { role: format!("for {}", listener.username), ..Missing::default() };
        let note = "not yours".to_owned();
        (asked.resource == "repositories").then(|| Explanation {
            nearest: vec![missing],
            note,
            ..Explanation::default()
        })
    }
}

/// A role that every cluster has would do, bound to the whole cluster: that is not what is missing.
#[tokio::test]
async fn what_is_missing_is_the_components_to_say() {
    let world = World::new().await;
    let everything = json!({"rules": [rule(&["pull"], "registry.gantry.dev", &["repositories"])]});
    put(&world.store, GROUP, "clusterroles", "", "gantry:reader", everything).await;
    let component = Arc::new(Component(world.rbac.clone()));
    let explain = |authorizer: Arc<dyn Authorizer>, resource: &str| {
        let asked =
            json!({"verb": "pull", "group": "registry.gantry.dev", "resource": resource, "name": "a/b/c"});
        let api = ExplainApi::new(authorizer, world.rbac.clone());
        let said = api.explain(&user("dev"), json!({"spec": {"resourceAttributes": asked}}));
        said.expect("answered")["status"].take()
    };
    let status = explain(world.rbac.clone(), "repositories");
    assert_eq!(status["nearest"][0]["role"], "gantry:reader", "RBAC alone knows no better: {status}");
    let status = explain(component.clone(), "repositories");
    let roles: Vec<&str> =
        status["nearest"].as_array().into_iter().flatten().filter_map(|m| m["role"].as_str()).collect();
    assert_eq!((roles, &status["reason"]), (vec!["for dev"], &json!("not yours")), "{status}");
    let binding =
        json!({"roleRef": role_ref("ClusterRole", "gantry:reader"), "subjects": subject("User", "dev")});
    put(&world.store, GROUP, "clusterrolebindings", "", "all", binding).await;
    let status = explain(component, "repositories");
    assert_eq!(
        (&status["allowed"], &status["grants"][0]["binding"]),
        (&json!(true), &json!("all")),
        "{status}"
    );
    assert_eq!(status["nearest"], json!([]), "{status}");
}
