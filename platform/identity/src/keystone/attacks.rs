//! Attempts to come to more rights through the Keystone API.

use gantry_identity_api::{ApplicationCredential, ApplicationCredentialSpec, Trust, TrustSpec, User};
use serde_json::{Value, json};

use super::tests::Platform;
use crate::directory::State;
use crate::directory::tests::{assign, put};
use crate::tenancy::tests::{change, organisations};
use crate::token::{NewToken, TokenScope};

/// Bob manages users of acme, alice administers the platform, carol (acme) is nobody; `acme-devs` rule the project
/// web, `acme-ops` nothing.
fn acme() -> State {
    let mut state = organisations(&[
        "manager bob domain:acme",
        "admin alice system",
        "admin group:acme-devs project:web",
        "admin eve domain:globex",
    ]);
    for (name, groups) in [("carol", vec![]), ("dave", vec!["acme-devs"]), ("frank", vec![])] {
        let groups = groups.into_iter().map(str::to_owned).collect();
        let spec = gantry_identity_api::UserSpec {
            domain: "acme".to_owned(),
            enabled: name != "frank",
            groups,
            ..Default::default()
        };
        put(&mut state, User::new(name, spec));
    }
    let spec = gantry_identity_api::GroupSpec { domain: "acme".to_owned(), ..Default::default() };
    put(&mut state, gantry_identity_api::Group::new("acme-ops", spec));
    change::<User>(&mut state, "alice", |u| u.spec.groups.clear());
    change::<User>(&mut state, "bob", |u| u.spec.groups.clear());
    state
}

fn domain(id: &str) -> TokenScope {
    TokenScope::Domain(id.to_owned())
}

fn user(change: Value) -> Value {
    json!({ "user": change })
}

#[tokio::test]
async fn who_may_not_give_a_right_gives_no_way_to_it() {
    let mut state = acme();
    assign(&mut state, "admin frank project:web");
    let platform = Platform::of(state);
    let bob = platform.token("bob", domain("acme"));
    let root = platform.token("alice", TokenScope::System);
    let federated = json!([{"idp_id": "p", "protocols": [{"protocol_id": "openid", "unique_id": "x"}]}]);
    for (who, what, body, want) in [
        // Into a group whose roles are not bob's to give.
        (&bob, "PUT /groups/acme-devs/users/bob", Value::Null, 403),
        (&bob, "PUT /groups/acme-ops/users/bob", Value::Null, 204),
        (&root, "PUT /groups/acme-devs/users/carol", Value::Null, 204),
        // Becoming somebody who has more: directly, or by a group.
        (&bob, "PATCH /users/alice", user(json!({"password": "Tr0ub4dor&3"})), 403),
        (&bob, "PATCH /users/dave", user(json!({"password": "Tr0ub4dor&3"})), 403),
        (&bob, "PATCH /users/alice", user(json!({"federated": federated})), 403),
        (&bob, "PATCH /users/alice", user(json!({"options": {"multi_factor_auth_enabled": false}})), 403),
        (&bob, "PATCH /users/alice", user(json!({"options": {"multi_factor_auth_rules": null}})), 200),
        (&bob, "PATCH /users/alice", user(json!({"name": "other"})), 403),
        (&bob, "PATCH /users/frank", user(json!({"enabled": true})), 403),
        // What changes nothing of it stays bob's, and so do users with less.
        (&bob, "PATCH /users/alice", user(json!({"description": "the boss"})), 200),
        (&bob, "PATCH /users/frank", user(json!({"enabled": false})), 200),
        (&bob, "PATCH /users/eve", user(json!({"description": "x"})), 403),
        (&bob, "PATCH /users/bob", user(json!({"options": {"lock_password": true}})), 200),
        (&root, "PATCH /users/dave", user(json!({"password": "Tr0ub4dor&3"})), 200),
        (&root, "PATCH /users/frank", user(json!({"enabled": true})), 200),
    ] {
        let said = platform.call(who, what, body.clone()).await;
        assert_eq!(said.status, want, "{what} {body}: {said:?}");
        if want == 403 {
            assert_eq!(said.body["error"]["code"], 403, "{what}");
            assert_eq!(said.body["error"]["title"], "Forbidden", "{what}");
        }
    }
    let bob_of = platform.token("bob", domain("acme"));
    let said = platform.call(&bob_of, "PATCH /users/carol", user(json!({"password": "Tr0ub4dor&3"}))).await;
    assert_eq!(said.status, 403, "carol is in acme-devs now: {said:?}");
    assert!(said.message().contains("identity:update_user"), "{said:?}");
}

#[tokio::test]
async fn a_second_factor_is_nobody_elses_to_set() {
    let mut state = acme();
    assign(&mut state, "member bob project:web");
    let spec = ApplicationCredentialSpec {
        name: "ci".to_owned(),
        user: "bob".to_owned(),
        project: "web".to_owned(),
        roles: vec!["reader".to_owned()],
        unrestricted: true,
        ..Default::default()
    };
    put(&mut state, ApplicationCredential::new("ci", spec));
    let platform = Platform::of(state);
    let bob = platform.token("bob", domain("acme"));
    let root = platform.token("alice", TokenScope::System);
    let of_credential = platform.made(NewToken {
        application_credential: Some("ci".to_owned()),
        scope: TokenScope::Project { id: "web".to_owned(), domain: "acme".to_owned() },
        ..platform.new_token("bob")
    });
    let seed = |user: &str| json!({"credential": {"type": "totp", "blob": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "user_id": user}});
    for (who, what, body, want) in [
        (&bob, "POST /credentials", seed("alice"), 403),
        (&bob, "POST /credentials", seed("carol"), 403),
        (&bob, "POST /credentials", seed("bob"), 201),
        (&of_credential, "POST /credentials", seed("bob"), 403),
        (&root, "POST /credentials", seed("carol"), 201),
        (&bob, "POST /users/alice/credentials/OS-EC2", json!({"tenant_id": "web"}), 403),
        (&bob, "POST /users/bob/credentials/OS-EC2", json!({"tenant_id": "web"}), 201),
        (
            &bob,
            "POST /users/alice/application_credentials",
            json!({"application_credential": {"name": "x"}}),
            403,
        ),
        (
            &root,
            "POST /users/bob/application_credentials",
            json!({"application_credential": {"name": "x"}}),
            403,
        ),
        (
            &root,
            "POST /OS-TRUST/trusts",
            json!({"trust": {"trustor_user_id": "bob", "trustee_user_id": "alice", "impersonation": true,
                             "project_id": "web", "roles": [{"id": "member"}]}}),
            403,
        ),
    ] {
        let said = platform.call(who, what, body.clone()).await;
        assert_eq!(said.status, want, "{what} {body}: {said:?}");
    }
    // Another kind of credential does not become a seed by a change.
    let cert =
        json!({"credential": {"type": "cert", "blob": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "user_id": "bob"}});
    let made = platform.call(&of_credential, "POST /credentials", cert).await;
    let id = made.body["credential"]["id"].as_str().expect("an id").to_owned();
    let change = json!({"credential": {"type": "totp"}});
    let said = platform.call(&of_credential, &format!("PATCH /credentials/{id}"), change).await;
    assert_eq!(said.status, 403, "{said:?}");
}

#[tokio::test]
async fn federation_is_the_platforms_administrators_to_arrange() {
    let mut state = acme();
    assign(&mut state, "admin bob domain:acme");
    let platform = Platform::of(state);
    let bob = platform.token("bob", domain("acme"));
    let root = platform.token("alice", TokenScope::System);
    let rules = json!([{"local": [{"group": {"id": "acme-devs"}}], "remote": [{"type": "UserName"}]}]);
    for (what, body) in [
        ("PUT /OS-FEDERATION/identity_providers/p", json!({"identity_provider": {"domain_id": "acme"}})),
        ("PUT /OS-FEDERATION/mappings/m", json!({"mapping": {"rules": rules}})),
        ("PUT /OS-FEDERATION/identity_providers/p/protocols/o", json!({"protocol": {"mapping_id": "m"}})),
    ] {
        assert_eq!(platform.call(&bob, what, body.clone()).await.status, 403, "{what}");
        assert_eq!(platform.call(&root, what, body).await.status, 201, "{what}");
    }
}

#[tokio::test]
async fn a_trustees_password_is_a_way_to_what_the_trustor_gave() {
    let mut state = acme();
    let spec = TrustSpec {
        trustor: "alice".to_owned(),
        trustee: "carol".to_owned(),
        project: Some("lab".to_owned()),
        roles: vec!["admin".to_owned()],
        impersonation: true,
        ..TrustSpec::default()
    };
    put(&mut state, Trust::new("t", spec));
    let platform = Platform::of(state);
    let bob = platform.token("bob", domain("acme"));
    let body = user(json!({"password": "Tr0ub4dor&3"}));
    assert_eq!(platform.call(&bob, "PATCH /users/carol", body).await.status, 403);
}

#[tokio::test]
async fn default_roles_stay_what_they_are() {
    let platform = Platform::of(acme());
    let root = platform.token("alice", TokenScope::System);
    let role = |change: Value| json!({ "role": change });
    for id in ["admin", "manager", "member", "reader"] {
        let shown = platform.call(&root, &format!("GET /roles/{id}"), Value::Null).await;
        assert_eq!(shown.body["role"]["options"]["immutable"], true, "{shown:?}");
        for (what, body) in [
            (format!("PATCH /roles/{id}"), role(json!({"name": "other"}))),
            (format!("PATCH /roles/{id}"), role(json!({"description": "other"}))),
            (format!("DELETE /roles/{id}"), Value::Null),
        ] {
            let said = platform.call(&root, &what, body).await;
            assert_eq!(said.status, 403, "{what}: {said:?}");
            assert!(said.message().contains("immutable role resource"), "{what}: {said:?}");
        }
    }
    let lifted = role(json!({"options": {"immutable": false}}));
    assert_eq!(platform.call(&root, "PATCH /roles/reader", lifted).await.status, 200);
    let described = role(json!({"description": "Looks."}));
    assert_eq!(platform.call(&root, "PATCH /roles/reader", described).await.status, 200);
}
