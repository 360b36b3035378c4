//! Writes by everybody, through all of the component's admission.

use std::borrow::Cow;
use std::sync::Arc;

use gantry_identity_api::{
    GROUP, IdentityProvider, IdentityProviderSpec, Project, Quota, Role, RoleSpec, extra,
};
use gantry_kube_types::{
    AdmissionAttributes, AdmissionOperation, AdmissionOutcome, AdmissionPhase, StatusError, UserInfo,
};
use serde_json::{Value, json};

use crate::directory::State;
use crate::directory::tests::{assign, put};
use crate::keystone::new_record;
use crate::rights::{OWN_USER, rule};
use crate::tenancy::namespaces::Known;
use crate::tenancy::tests::{Engine, change, info, organisations, world};
use crate::tenancy::{Tenancy, World};

/// A world with its admission, wired as in the platform.
pub(super) struct Api {
    world: Arc<World>,
    tenancy: Tenancy,
    /// The next writes are tried only.
    pub(super) dry_run: std::cell::Cell<bool>,
    plugins: Vec<Arc<dyn gantry_kube_types::Admission>>,
}

impl Api {
    pub(super) fn of(state: State) -> Self {
        let world = world(state);
        let tenancy = Tenancy(world.clone());
        drop(tenancy.wrap(Arc::new(Engine::of(&world))));
        Self { world, plugins: tenancy.admission(), tenancy, dry_run: std::cell::Cell::new(false) }
    }

    pub(super) fn user(&self, who: &str) -> UserInfo {
        match who {
            "root" => UserInfo::authenticated("root", &["system:masters"]),
            "identity" => UserInfo::authenticated(OWN_USER, &[]),
            "robot" => UserInfo::service_account("web-dev", "robot", "1"),
            who => info(&self.world, who, &[]),
        }
    }

    /// One write; what the caller sees, and where it was admitted the end of it.
    pub(super) async fn write(
        &self,
        user: &UserInfo,
        what: (&str, &str, &str, &str),
        old: Option<&Value>,
        new: &Value,
        outcome: AdmissionOutcome,
    ) -> Result<Value, StatusError> {
        let (group, resource, namespace, name) = what;
        let operation = match (old, new) {
            (Some(_), Value::Null) => AdmissionOperation::Delete,
            (Some(_), _) => AdmissionOperation::Update,
            (None, _) => AdmissionOperation::Create,
        };
        let mut attributes = AdmissionAttributes {
            phase: AdmissionPhase::Mutate,
            user,
            operation,
            group,
            version: "v1alpha1",
            resource,
            kind: resource,
            subresource: "",
            namespace,
            name,
            object: Cow::Owned(new.clone()),
            old_object: old,
            dry_run: self.dry_run.get(),
            warnings: Vec::new(),
            audit_annotations: Vec::new(),
            outcome_listeners: Vec::new(),
        };
        for phase in [AdmissionPhase::Mutate, AdmissionPhase::Validate] {
            attributes.phase = phase;
            for plugin in &self.plugins {
                if let Err(error) = plugin.review(&mut attributes).await {
                    let listeners = std::mem::take(&mut attributes.outcome_listeners);
                    listeners.into_iter().for_each(|tell| tell(AdmissionOutcome::Abandoned));
                    return Err(error);
                }
            }
        }
        let listeners = std::mem::take(&mut attributes.outcome_listeners);
        listeners.into_iter().for_each(|tell| tell(outcome));
        Ok(attributes.object.into_owned())
    }

    pub(super) async fn own(
        &self,
        who: &str,
        resource: &str,
        name: &str,
        old: Option<&Value>,
        new: &Value,
    ) -> String {
        let what = (GROUP, resource, "", name);
        let user = self.user(who);
        let result = self.write(&user, what, old, new, AdmissionOutcome::Abandoned).await;
        result.err().map(|error| format!("{} {}", error.code, error.message)).unwrap_or_default()
    }

    pub(super) async fn creates(&self, who: &str, resource: &str, name: &str, spec: Value) -> String {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        self.own(who, resource, name, None, &object).await
    }

    /// `set` is merged into the spec of a stored project.
    async fn changes_project(&self, who: &str, name: &str, set: Value) -> String {
        let old = {
            let state = self.world.directory.read();
            serde_json::to_value(&**state.projects.get(name).expect("a project")).expect("JSON")
        };
        let mut new = old.clone();
        for (key, value) in set.as_object().expect("fields") {
            new["spec"][key] = value.clone();
        }
        self.own(who, "projects", name, Some(&old), &new).await
    }
}

pub(super) fn refused(message: &str, want: &str) {
    match want {
        "" => assert_eq!(message, ""),
        want => assert!(message.contains(want), "{message:?} says {want:?}"),
    }
}

fn acme() -> State {
    organisations(&[
        "admin alice domain:acme",
        "manager bob project:web",
        "admin eve domain:globex",
        "member alice project:web",
    ])
}

#[tokio::test]
async fn names_are_unique_also_while_they_are_taken() {
    let api = Api::of(acme());
    let web = |domain: &str| json!({"name": "web", "domain": domain, "enabled": true});
    refused(&api.creates("alice", "projects", "1", web("acme")).await, "409");
    let new = |name: &str| json!({"metadata": {"name": name}, "spec": {"name": "fresh", "domain": "acme"}});
    let (alice, what) = (api.user("alice"), |id: &'static str| (GROUP, "projects", "", id));
    let first = api.write(&alice, what("1"), None, &new("1"), AdmissionOutcome::Written).await;
    assert_eq!(first.expect("free")["metadata"]["finalizers"][0], "identity.gantry.dev/cascade");
    let second = api.write(&alice, what("2"), None, &new("2"), AdmissionOutcome::Written).await;
    assert_eq!(second.expect_err("written, not yet shown").code, 409);
    refused(&api.creates("alice", "users", "3", json!({"name": "fresh", "domain": "acme"})).await, "");
    refused(&api.creates("eve", "projects", "4", json!({"name": "fresh", "domain": "globex"})).await, "");
}

#[tokio::test]
async fn objects_make_sense() {
    let api = Api::of(acme());
    for (who, resource, spec, want) in [
        ("root", "domains", json!({"name": "new"}), ""),
        ("root", "domains", json!({"name": "system"}), "must not begin with \\\"system\\\""),
        ("root", "domains", json!({"name": "a/b"}), "must not contain"),
        ("root", "domains", json!({"name": "acme"}), "exists already"),
        ("root", "domains", json!({"name": "new", "quota": {"cpu": "many"}}), "spec.quota.cpu"),
        ("root", "domains", json!({"name": "new", "quota": {"pods": "1500m"}}), "whole number"),
        ("root", "domains", json!({"name": "new", "quota": {"memory": "-1"}}), "negative"),
        ("alice", "domains", json!({"name": "new"}), "may not create"),
        ("alice", "projects", json!({"name": "p", "domain": "nowhere"}), "there is no domain"),
        ("alice", "projects", json!({"name": "p", "domain": "globex"}), "may not create"),
        (
            "alice",
            "projects",
            json!({"name": "p", "domain": "acme", "parent": "gone"}),
            "there is no project",
        ),
        ("alice", "projects", json!({"name": "p", "domain": "acme", "parent": "lab"}), "another domain"),
        ("alice", "projects", json!({"name": "p", "domain": "acme", "parent": "x"}), "below itself"),
        ("alice", "projects", json!({"name": "p\u{202e}", "domain": "acme"}), "cannot be seen"),
        (
            "alice",
            "projects",
            json!({"name": "p", "domain": "acme", "podSecurity": "privileged"}),
            "administrator of the platform",
        ),
        ("root", "projects", json!({"name": "p", "domain": "acme", "podSecurity": "privileged"}), ""),
        (
            "alice",
            "projects",
            json!({"name": "p", "domain": "acme", "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}),
            "the platform's",
        ),
        (
            "alice",
            "projects",
            json!({"name": "p", "domain": "acme", "environments": [{"name": "D"}]}),
            "environments[0].name",
        ),
        (
            "alice",
            "projects",
            json!({"name": "p", "domain": "acme", "environments": [{"name": "d"}, {"name": "d"}]}),
            "Duplicate",
        ),
        (
            "alice",
            "projects",
            json!({"name": "My P", "domain": "acme", "environments": [{"name": "d"}]}),
            "environments[0].namespace",
        ),
        (
            "alice",
            "projects",
            json!({"name": "p", "domain": "acme", "environments": [{"name": "d", "namespace": "kube-system"}]}),
            "belong to the platform",
        ),
        (
            "alice",
            "projects",
            json!({"name": "p", "domain": "acme", "environments": [{"name": "d", "namespace": "lab-dev"}]}),
            "is not free",
        ),
        (
            "alice",
            "users",
            json!({"name": "new", "domain": "acme", "groups": ["globex-devs"]}),
            "another domain",
        ),
        ("alice", "users", json!({"name": "new", "domain": "acme", "groups": ["acme-devs"]}), ""),
        ("bob", "users", json!({"name": "new", "domain": "acme"}), "may not create"),
        ("alice", "users", json!({"name": "alice", "domain": "acme"}), "exists already"),
        ("alice", "groups", json!({"name": "new", "domain": "globex"}), "may not create"),
        (
            "alice",
            "keystonerecords",
            json!({"collection": "regions", "id": "r", "attributes": {}}),
            "may not create",
        ),
        ("root", "keystonerecords", json!({"collection": "regions", "id": "r", "attributes": {}}), ""),
        ("robot", "users", json!({"name": "new", "domain": "acme"}), "may not create"),
        ("identity", "users", json!({"name": "new", "domain": "acme"}), ""),
        ("identity", "users", json!({"name": "alice", "domain": "acme"}), "409"),
    ] {
        let message = api.creates(who, resource, "x", spec.clone()).await;
        assert!(
            if want.is_empty() {
                message.is_empty()
            } else {
                message.replace('"', "\\\"").contains(want) || message.contains(want)
            },
            "{who} {resource} {spec}: {message:?}, wanted {want:?}"
        );
    }
}

#[tokio::test]
async fn a_manager_arranges_a_project_and_does_not_widen_it() {
    let api = Api::of(acme());
    for (who, set, want) in [
        ("bob", json!({"description": "x", "tags": ["a"], "labels": {"team": "x"}}), ""),
        (
            "bob",
            json!({"environments": [{"name": "dev"}, {"name": "prod", "podSecurity": "restricted"}]}),
            "",
        ),
        ("bob", json!({"environments": []}), ""),
        (
            "bob",
            json!({"environments": [{"name": "dev", "podSecurity": "privileged"}]}),
            "weaker than the project's",
        ),
        ("bob", json!({"quota": {"cpu": "100"}}), "spec.quota is given from above"),
        ("bob", json!({"enabled": false}), "spec.enabled"),
        ("bob", json!({"podSecurity": "privileged"}), "administrator of the platform"),
        ("bob", json!({"podSecurity": "restricted"}), "spec.podSecurity"),
        ("bob", json!({"recordSessions": true}), "spec.recordSessions"),
        ("bob", json!({"name": "mine"}), "spec.name"),
        ("bob", json!({"domain": "globex"}), "cannot change"),
        ("bob", json!({"parent": "ops"}), "cannot change"),
        ("alice", json!({"quota": {"cpu": "100"}, "enabled": false, "recordSessions": true}), ""),
        ("alice", json!({"podSecurity": "privileged"}), "administrator of the platform"),
        ("eve", json!({"description": "x"}), "may not change"),
        ("root", json!({"podSecurity": "privileged"}), ""),
    ] {
        let message = api.changes_project(who, "web", set.clone()).await;
        assert!(
            if want.is_empty() { message.is_empty() } else { message.contains(want) },
            "{who} {set}: {message:?}, wanted {want:?}"
        );
    }
}

#[tokio::test]
async fn nobody_lets_a_project_go_by_its_metadata() {
    let api = Api::of(acme());
    let old = json!({"metadata": {"name": "web", "finalizers": ["identity.gantry.dev/cascade"]},
                     "spec": {"domain": "acme"}});
    for (field, value) in [
        ("finalizers", json!([])),
        ("ownerReferences", json!([{"apiVersion": "v1", "kind": "Namespace", "name": "x", "uid": "1"}])),
    ] {
        let mut new = old.clone();
        new["metadata"][field] = value;
        refused(&api.own("bob", "projects", "web", Some(&old), &new).await, "not yours to change");
        refused(&api.own("identity", "projects", "web", Some(&old), &new).await, "");
    }
}

#[tokio::test]
async fn quotas_are_carved_with_the_numbers() {
    let mut state = acme();
    change::<Project>(&mut state, "web", |p| {
        p.spec.quota = Quota { cpu: Some("8".to_owned()), ..Quota::default() };
    });
    change::<Project>(&mut state, "shop", |p| {
        p.spec.quota = Quota { cpu: Some("6".to_owned()), ..Quota::default() };
    });
    let api = Api::of(state);
    let spec = json!({"name": "p", "domain": "acme", "parent": "web", "quota": {"cpu": "4"}});
    refused(
        &api.creates("alice", "projects", "p", spec).await,
        r#"quota cpu of project "web" is 8: 6 are given to its projects, 4 more are asked for, 2 are left"#,
    );
    let fits = json!({"name": "p", "domain": "acme", "parent": "web", "quota": {"cpu": "2"}});
    refused(&api.creates("alice", "projects", "p", fits).await, "");
    let pod = |cpu: &str| json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}});
    let what = ("", "pods", "web-dev", "p");
    let create = |cpu: &'static str| {
        let (api, user) = (&api, api.user("alice"));
        async move { api.write(&user, what, None, &pod(cpu), AdmissionOutcome::Written).await }
    };
    let error = create("3").await.expect_err("more than is left");
    assert!(error.message.contains("2 are left"), "{}", error.message);
    assert!(create("2").await.is_ok());
    let larger = pod("3");
    let (root, what) = (api.user("root"), ("", "pods", "web-dev", "q"));
    let again = api.write(&root, what, None, &larger, AdmissionOutcome::Written).await;
    assert!(again.is_err(), "a quota is a quota, whoever asks");
}

#[tokio::test]
async fn privileged_pods_are_granted_by_administrators_of_the_platform() {
    let api = Api::of(organisations(&[
        "operator bob system",
        "admin eve system",
        "admin alice domain:acme",
        "admin alice project:web",
    ]));
    let at = |level: &str| json!({"name": "dev", "podSecurity": level});
    let refusal = "for an administrator of the platform to grant (role admin on the system)";
    for (who, set, want) in [
        ("alice", json!({"podSecurity": "privileged"}), refusal),
        ("alice", json!({"environments": [at("privileged")]}), refusal),
        ("bob", json!({"podSecurity": "privileged"}), "may not change"),
        ("eve", json!({"podSecurity": "privileged"}), ""),
        ("eve", json!({"environments": [at("privileged")]}), ""),
        ("alice", json!({"podSecurity": "restricted"}), ""),
        ("alice", json!({"environments": [at("restricted")]}), ""),
    ] {
        let message = api.changes_project(who, "web", set.clone()).await;
        let good = if want.is_empty() { message.is_empty() } else { message.contains(want) };
        assert!(good, "{who} {set}: {message:?}, wanted {want:?}");
    }
}

#[tokio::test]
async fn assignments_give_what_one_has_and_do_not_change() {
    let mut state = acme();
    let spec = RoleSpec { domain: Some("globex".to_owned()), ..RoleSpec::default() };
    put(&mut state, Role::new("foreign", spec));
    let api = Api::of(state);
    for (who, spec, want) in [
        ("bob", json!({"role": "member", "user": "alice", "project": "web"}), "assigned already"),
        ("bob", json!({"role": "reader", "user": "alice", "project": "web"}), ""),
        ("bob", json!({"role": "admin", "user": "bob", "project": "web"}), "may not create"),
        ("bob", json!({"role": "reader", "user": "bob", "system": true}), "may not create"),
        ("bob", json!({"role": "reader", "user": "bob", "domain": "acme"}), "may not create"),
        ("alice", json!({"role": "admin", "user": "alice", "domain": "acme", "inherited": true}), ""),
        ("alice", json!({"role": "operator", "user": "alice", "system": true}), "may not create"),
        ("alice", json!({"role": "admin", "user": "alice", "project": "lab"}), "may not create"),
        ("root", json!({"role": "foreign", "user": "alice", "project": "web"}), "inside that domain only"),
        ("root", json!({"role": "foreign", "user": "alice", "system": true}), "inside that domain only"),
        (
            "root",
            json!({"role": "admin", "user": "alice", "system": true, "inherited": true}),
            "below the system",
        ),
        (
            "root",
            json!({"role": "admin", "user": "alice", "group": "acme-devs", "system": true}),
            "exactly one",
        ),
        (
            "root",
            json!({"role": "admin", "user": "alice", "project": "web", "domain": "acme"}),
            "exactly one",
        ),
        ("root", json!({"role": "admin", "project": "web"}), "exactly one"),
        ("root", json!({"role": "gone", "user": "alice", "project": "web"}), "there is no role"),
        ("root", json!({"role": "admin", "user": "gone", "project": "web"}), "there is no user"),
        ("root", json!({"role": "admin", "user": "alice", "project": "gone"}), "there is no project"),
    ] {
        let message = api.creates(who, "roleassignments", "x", spec.clone()).await;
        assert!(
            if want.is_empty() { message.is_empty() } else { message.contains(want) },
            "{who} {spec}: {message:?}, wanted {want:?}"
        );
    }
    let old = json!({"metadata": {"name": "x"}, "spec": {"role": "reader", "user": "bob", "project": "web"}});
    let mut new = old.clone();
    new["spec"]["role"] = "admin".into();
    refused(&api.own("root", "roleassignments", "x", Some(&old), &new).await, "does not change");
}

#[tokio::test]
async fn a_custom_role_grants_what_its_maker_holds() {
    let api = Api::of(acme());
    let role = |rules: Value, implies: &[&str]| json!({"name": "special", "domain": "acme", "rules": rules, "implies": implies});
    let one = |verb: &str, group: &str, resource: &str| {
        json!([serde_json::to_value(rule(&[verb], group, &[resource])).expect("a rule")])
    };
    for (who, spec, want) in [
        ("alice", role(one("get", "", "pods"), &[]), ""),
        ("alice", role(one("push", "registry.gantry.dev", "repositories"), &["reader"]), ""),
        ("alice", role(one("get", "", "nodes"), &[]), "do not hold"),
        ("alice", role(one("*", "", "pods"), &[]), "do not hold"),
        ("alice", role(one("get", "*", "*"), &[]), "do not hold"),
        ("alice", role(one("escalate", "rbac.authorization.k8s.io", "roles"), &[]), "do not hold"),
        ("alice", role(one("get", "", "*/scale"), &[]), "do not hold"),
        ("alice", role(json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]), &[]), "about URLs"),
        (
            "alice",
            role(json!([{"verbs": [], "apiGroups": [""], "resources": ["pods"]}]), &[]),
            "at least one verb",
        ),
        ("alice", role(json!([]), &["admin"]), "no role implies"),
        ("alice", role(json!([]), &["operator"]), "not yours to give"),
        ("alice", role(json!([]), &["gone"]), "there is no role"),
        ("alice", json!({"name": "everywhere"}), "may not create"),
        ("bob", role(json!([]), &[]), "may not create"),
        ("eve", role(json!([]), &[]), "may not create"),
        ("root", role(one("get", "", "nodes"), &["operator"]), ""),
    ] {
        let message = api.creates(who, "roles", "x", spec.clone()).await;
        assert!(
            if want.is_empty() { message.is_empty() } else { message.contains(want) },
            "{who} {spec}: {message:?}, wanted {want:?}"
        );
    }
}

#[tokio::test]
async fn groups_and_sign_ins_are_no_way_to_more_rights() {
    let mut state = organisations(&["admin bob domain:acme"]);
    assign(&mut state, "admin group:acme-devs system");
    let api = Api::of(state);
    let user = |groups: &[&str], federated: Value| {
        json!({"metadata": {"name": "bob"},
               "spec": {"domain": "acme", "groups": groups, "federated": federated}})
    };
    let bare = user(&[], json!([]));
    refused(
        &api.own("bob", "users", "bob", Some(&bare), &user(&["acme-devs"], json!([]))).await,
        "not yours to give",
    );
    refused(&api.own("root", "users", "bob", Some(&bare), &user(&["acme-devs"], json!([]))).await, "");
    // Signing in as somebody with more rights.
    let named = |name: &str, federated: Value| json!({"metadata": {"name": name}, "spec": {"domain": "acme", "federated": federated}});
    let identity = json!([{"provider": "p", "protocol": "oidc", "uniqueId": "bob"}]);
    let (old, new) = (named("alice", json!([])), named("alice", identity));
    refused(&api.own("bob", "users", "alice", Some(&old), &new).await, "not yours to give");
    let provider = json!({"name": "p", "type": "oidc", "domain": "acme", "config": {},
                          "groupMapping": {"everybody": ["acme-devs"]}});
    refused(&api.creates("bob", "identityproviders", "p", provider).await, "not yours to give");
    let secret =
        |name: &str| json!({"name": "p", "type": "oidc", "domain": "acme", "config": {}, "secret": name});
    refused(
        &api.creates("bob", "identityproviders", "p", secret("kube-system/x")).await,
        "not one of the domain's",
    );
    refused(
        &api.creates("bob", "identityproviders", "p", secret("lab-dev/x")).await,
        "not one of the domain's",
    );
    refused(&api.creates("bob", "identityproviders", "p", secret("web-dev/x")).await, "");
}

#[tokio::test]
async fn providers_and_what_keystones_clients_call_so_share_their_names() {
    let mut state = organisations(&[]);
    put(&mut state, new_record("identity_providers", None, "idp", serde_json::Map::new()));
    let called = IdentityProviderSpec { name: Some("Corporate".to_owned()), ..Default::default() };
    put(&mut state, IdentityProvider::new("other", called));
    let api = Api::of(state);
    let provider = |name: Value| json!({"name": name, "type": "ldap", "domain": "acme", "config": {}});
    let record = |id: &str| json!({"collection": "identity_providers", "id": id, "attributes": {}});
    for (resource, id, spec, want) in [
        ("identityproviders", "idp", provider(Value::Null), "409"),
        ("identityproviders", "third", provider(json!("idp")), "\"idp\" exists already"),
        ("identityproviders", "third", provider(json!("other")), "409"),
        ("identityproviders", "third", provider(json!("Third")), ""),
        ("keystonerecords", "0a", record("other"), "409"),
        ("keystonerecords", "0b", record("Corporate"), "\"Corporate\" exists already"),
        ("keystonerecords", "0c", record("free"), ""),
        // Other collections have names of their own.
        ("keystonerecords", "0d", json!({"collection": "mappings", "id": "other", "attributes": {}}), ""),
    ] {
        refused(&api.creates("root", resource, id, spec).await, want);
    }
    // On its way, before the directory shows it.
    let made = json!({"metadata": {"name": "0c"}, "spec": record("free")});
    let what = (GROUP, "keystonerecords", "", "0c");
    api.write(&api.user("root"), what, None, &made, AdmissionOutcome::Written).await.expect("free");
    refused(&api.creates("root", "identityproviders", "free", provider(Value::Null)).await, "409");
}

#[tokio::test]
async fn credentials_pass_on_what_one_has() {
    let api = Api::of(acme());
    let credential = |user: &str, project: &str, roles: &[&str]| json!({"name": "c", "user": user, "project": project, "roles": roles, "unrestricted": false});
    for (who, spec, want) in [
        ("bob", credential("bob", "web", &["reader"]), ""),
        ("bob", credential("bob", "web", &["admin"]), "has no role \"admin\""),
        ("bob", credential("bob", "shop", &["reader"]), "has no role"),
        ("bob", credential("alice", "web", &["member"]), "may not create"),
        ("bob", credential("bob", "web", &[]), "at least one role"),
        ("identity", credential("bob", "web", &["admin"]), "has no role"),
    ] {
        let message = api.creates(who, "applicationcredentials", "x", spec.clone()).await;
        assert!(
            if want.is_empty() { message.is_empty() } else { message.contains(want) },
            "{who} {spec}: {message:?}, wanted {want:?}"
        );
    }
    // By a token that is good for less than the user.
    let token = info(&api.world, "bob", &[(extra::PROJECT, "web"), (extra::ROLES, "reader")]);
    let object = |roles: &[&str]| json!({"metadata": {"name": "x"}, "spec": credential("bob", "web", roles)});
    let what = (GROUP, "applicationcredentials", "", "x");
    let wide = api.write(&token, what, None, &object(&["member"]), AdmissionOutcome::Abandoned).await;
    assert!(wide.expect_err("more than the token").message.contains("has no role"));
    assert!(api.write(&token, what, None, &object(&["reader"]), AdmissionOutcome::Abandoned).await.is_ok());
    let trust = json!({"trustor": "bob", "trustee": "eve", "project": "web", "roles": ["admin"],
                       "impersonation": true, "allowRedelegation": false});
    refused(&api.creates("bob", "trusts", "t", trust.clone()).await, "has no role");
    refused(&api.creates("alice", "trusts", "t", trust).await, "may not create");
}

#[tokio::test]
async fn deletions_leave_nothing_hanging() {
    let api = Api::of(acme());
    let some = json!({"metadata": {}});
    for (who, resource, name, want) in [
        ("alice", "projects", "web", "projects are below it: shop"),
        ("alice", "projects", "cart", ""),
        ("bob", "projects", "web", "may not delete"),
        ("root", "domains", "acme", "disable it first"),
        ("root", "roles", "reader", "immutable"),
        ("alice", "users", "bob", ""),
        ("eve", "users", "bob", "may not delete"),
        ("root", "users", "gone", ""),
        ("alice", "users", "gone", "not yours to delete"),
    ] {
        let message = api.own(who, resource, name, Some(&some), &Value::Null).await;
        assert!(
            if want.is_empty() { message.is_empty() } else { message.contains(want) },
            "{who} {resource} {name}: {message:?}, wanted {want:?}"
        );
    }
}

#[tokio::test]
async fn tenants_do_not_touch_what_is_kept_for_them() {
    let api = Api::of(organisations(&["admin alice project:web", "admin eve system"]));
    const RBAC: &str = "rbac.authorization.k8s.io";
    let (some, none) = (json!({"metadata": {}}), Value::Null);
    for (who, what, old, new, want) in [
        ("alice", ("", "namespaces", "mine", "mine"), None, &some, "gantry project environment add"),
        ("robot", ("", "namespaces", "mine", "mine"), None, &some, "gantry project environment add"),
        ("root", ("", "namespaces", "mine", "mine"), None, &some, ""),
        ("eve", ("", "namespaces", "mine", "mine"), None, &some, ""),
        ("alice", ("", "namespaces", "web-dev", "web-dev"), Some(&some), &none, "environment of a project"),
        ("alice", (RBAC, "rolebindings", "web-dev", "gantry:member"), Some(&some), &some, "gantry assign"),
        ("alice", (RBAC, "rolebindings", "web-dev", "gantry:new"), None, &some, "gantry assign"),
        ("alice", (RBAC, "rolebindings", "web-dev", "gantry:member"), Some(&some), &none, "gantry assign"),
        ("robot", (RBAC, "rolebindings", "web-dev", "gantry:member"), Some(&some), &none, "gantry assign"),
        ("alice", (RBAC, "rolebindings", "web-dev", "mine"), None, &some, ""),
        ("identity", (RBAC, "rolebindings", "web-dev", "gantry:member"), None, &some, ""),
        ("alice", ("", "resourcequotas", "web-dev", "gantry"), Some(&some), &none, "project's quota"),
        ("alice", ("", "limitranges", "web-dev", "gantry"), Some(&some), &some, "project's quota"),
        ("alice", ("", "resourcequotas", "web-dev", "mine"), None, &some, ""),
    ] {
        let user = api.user(who);
        let result = api.write(&user, what, old, new, AdmissionOutcome::Abandoned).await;
        let message = result.err().map(|e| e.message).unwrap_or_default();
        assert!(
            if want.is_empty() { message.is_empty() } else { message.contains(want) },
            "{who} {what:?}: {message:?}, wanted {want:?}"
        );
    }
    let controller = UserInfo::service_account("kube-system", "namespace-controller", "1");
    let what = (RBAC, "rolebindings", "web-dev", "gantry:member");
    assert!(api.write(&controller, what, Some(&some), &none, AdmissionOutcome::Written).await.is_ok());
    assert_eq!(api.tenancy.namespaces().project_of("web-dev").as_deref(), Some("web"));
}

#[tokio::test]
async fn an_environment_gets_a_namespace_nobody_else_asked_for() {
    let api = Api::of(acme());
    let spec = |namespace: &str| json!({"environments": [{"name": "dev"}, {"name": "next", "namespace": namespace}]});
    refused(&api.changes_project("bob", "web", spec("free")).await, "");
    refused(&api.changes_project("bob", "web", spec("shop-dev")).await, "is not free");
    api.world.namespaces.put("monitoring", Some(Known::default()));
    refused(&api.changes_project("bob", "web", spec("monitoring")).await, "is not free");
}
