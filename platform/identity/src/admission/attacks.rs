//! Attempts to come to more rights, or to take away what everybody counts on, with kubectl.

use gantry_identity_api::{IdentityProvider, IdentityProviderSpec, Project, User};
use serde_json::{Value, json};

use super::tests::{Api, refused};
use crate::directory::tests::put;
use crate::tenancy::tests::{change, organisations};

#[tokio::test]
async fn default_roles_stay_what_they_are() {
    let api = Api::of(organisations(&[]));
    let stored = |name: &str, options: Value| json!({"metadata": {"name": name}, "spec": {"name": name, "options": options, "implies": []}});
    for name in ["admin", "manager", "member", "reader"] {
        for options in [json!({}), json!({"immutable": true})] {
            let old = stored(name, options.clone());
            let mut new = old.clone();
            new["spec"]["name"] = "other".into();
            refused(&api.own("root", "roles", name, Some(&old), &new).await, "immutable");
            new["spec"]["name"] = name.into();
            new["spec"]["rules"] = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]);
            refused(&api.own("root", "roles", name, Some(&old), &new).await, "immutable");
            refused(&api.own("identity", "roles", name, Some(&old), &new).await, "");
        }
        let some = json!({"metadata": {}});
        refused(&api.own("root", "roles", name, Some(&some), &Value::Null).await, "immutable");
        let (old, new) =
            (stored(name, json!({"immutable": true})), stored(name, json!({"immutable": false})));
        refused(&api.own("root", "roles", name, Some(&old), &new).await, "");
    }
}

#[tokio::test]
async fn who_rules_a_provider_may_be_everybody_who_comes_by_it() {
    let mut state =
        organisations(&["admin alice domain:acme", "manager bob domain:acme", "admin dora system"]);
    let spec = gantry_identity_api::UserSpec {
        domain: "acme".to_owned(),
        enabled: true,
        provider: Some("dir".to_owned()),
        ..Default::default()
    };
    put(&mut state, User::new("dora", spec));
    let provider = IdentityProviderSpec { domain: "acme".to_owned(), ..Default::default() };
    put(&mut state, IdentityProvider::new("dir", provider));
    let provider = |config: Value, kind: &str| {
        json!({"metadata": {"name": "dir"},
               "spec": {"name": "dir", "type": kind, "domain": "acme", "config": config}})
    };
    let old = provider(json!({"urls": ["ldaps://ours"]}), "ldap");
    let new = provider(json!({"urls": ["ldaps://alices"]}), "ldap");
    let api = Api::of(state.clone());
    refused(
        &api.own("alice", "identityproviders", "dir", Some(&old), &new).await,
        "user \"dora\" has role \"admin\"",
    );
    refused(&api.own("root", "identityproviders", "dir", Some(&old), &new).await, "");
    // Also when the provider was deleted, and its users stayed.
    refused(
        &api.creates("alice", "identityproviders", "dir", new["spec"].clone()).await,
        "not yours to give",
    );
    let mut spec = new["spec"].clone();
    spec["name"] = "other".into();
    refused(&api.creates("alice", "identityproviders", "other", spec.clone()).await, "");
    // A Keystone that says who has which role here.
    (spec["type"], spec["config"]) = ("keystone".into(), json!({"sync": {"keepRoles": true}}));
    refused(
        &api.creates("alice", "identityproviders", "other", spec.clone()).await,
        "keepRoles can give role",
    );
    refused(&api.creates("root", "identityproviders", "other", spec.clone()).await, "");
    spec["config"] = json!({"sync": {"keepRoles": false}});
    refused(&api.creates("alice", "identityproviders", "other", spec).await, "");
}

#[tokio::test]
async fn a_disabled_user_is_enabled_by_who_has_their_rights() {
    let mut state = organisations(&["manager bob domain:acme", "admin alice domain:acme"]);
    change::<User>(&mut state, "alice", |u| u.spec.enabled = false);
    let api = Api::of(state);
    let user = |enabled: bool| json!({"metadata": {"name": "alice"}, "spec": {"domain": "acme", "enabled": enabled}});
    refused(&api.own("bob", "users", "alice", Some(&user(false)), &user(true)).await, "not yours to give");
    refused(&api.own("bob", "users", "alice", Some(&user(true)), &user(false)).await, "");
    refused(&api.own("root", "users", "alice", Some(&user(false)), &user(true)).await, "");
    // Nor is the user's source told that it had been the one to disable them.
    let mut marked = user(false);
    marked["metadata"]["annotations"] = json!({"identity.gantry.dev/source-disabled": "true"});
    refused(&api.own("bob", "users", "alice", Some(&user(false)), &marked).await, "the identity provider's");
    refused(&api.own("identity", "users", "alice", Some(&user(false)), &marked).await, "");
}

#[tokio::test]
async fn what_keystones_clients_marked_immutable_is_immutable_here() {
    let marked = |on: bool| json!({"options": {"immutable": on}});
    let mut state = organisations(&["admin alice domain:acme"]);
    change::<Project>(&mut state, "ops", |p| {
        p.spec.extra = marked(true).as_object().expect("an object").clone();
    });
    let api = Api::of(state);
    let project = |name: &str, on: bool| json!({"metadata": {"name": "ops"}, "spec": {"name": name, "domain": "acme", "extra": marked(on)}});
    for (who, old, new, want) in [
        ("alice", project("ops", true), project("other", true), "immutable"),
        ("root", project("ops", true), project("other", true), "immutable"),
        ("root", project("ops", true), project("ops", false), ""),
        ("root", project("ops", false), project("other", false), ""),
        ("alice", project("ops", true), Value::Null, "immutable"),
        ("identity", project("ops", true), Value::Null, ""),
    ] {
        refused(&api.own(who, "projects", "ops", Some(&old), &new).await, want);
    }
}

#[tokio::test]
async fn a_record_names_whom_it_is_of() {
    let api = Api::of(organisations(&[]));
    let record = |user: &str| json!({"collection": "access_rules", "parent": "bob", "id": "r", "attributes": {"user_id": user}});
    refused(&api.creates("bob", "keystonerecords", "x", record("alice")).await, "names the user it is of");
    refused(&api.creates("bob", "keystonerecords", "x", record("bob")).await, "");
}
