//! Attempts to make more out of what somebody handed out, and out of a place in the organisation.

use std::collections::BTreeMap;

use gantry_identity_api::{
    ApplicationCredential, ApplicationCredentialSpec, DEFAULT_DOMAIN, Domain, DomainSpec, Project,
    ProjectSpec, Role, RoleSpec, Trust, TrustSpec, User, UserSpec, extra,
};
use gantry_kube_types::UserInfo;
use http::Request;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::tests::Platform;
use crate::directory::State;
use crate::directory::assignments::Target;
use crate::directory::tests::{assign, put};
use crate::policy::{Act, Authority, Subject, may};
use crate::tenancy::callers::{Caller, Scope};
use crate::tenancy::tests::{change, organisations};
use crate::token::{NewToken, TokenScope};

fn project(id: &str) -> TokenScope {
    TokenScope::Project { id: id.to_owned(), domain: "acme".to_owned() }
}

fn trust(project: Option<&str>, roles: &[&str]) -> TrustSpec {
    TrustSpec {
        trustor: "alice".to_owned(),
        trustee: "bob".to_owned(),
        project: project.map(str::to_owned),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        impersonation: true,
        ..TrustSpec::default()
    }
}

#[tokio::test]
async fn what_was_entrusted_does_not_become_all_of_the_trustor() {
    let mut state = organisations(&["admin alice system", "admin alice project:web"]);
    put(&mut state, Trust::new("reads", trust(Some("web"), &["reader"])));
    put(&mut state, Trust::new("nothing", trust(None, &[])));
    let platform = Platform::of(state);
    let entrusted = |trust: &str, scope: TokenScope| {
        platform.made(NewToken { trust: Some(trust.to_owned()), scope, ..platform.new_token("alice") })
    };
    let reads = entrusted("reads", project("web"));
    let again = |token: &str, scope: Value| json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": scope}});
    for scope in [json!("unscoped"), json!({"system": {"all": true}}), json!({"project": {"id": "web"}})] {
        let said = platform.call("", "POST /auth/tokens", again(&reads, scope.clone())).await;
        assert_eq!(said.status, 403, "{scope}: {said:?}");
    }
    // One without a project is good for no role, at no door.
    let nothing = entrusted("nothing", TokenScope::Unscoped);
    for what in ["GET /users", "GET /users/eve", "GET /projects/lab"] {
        assert_eq!(platform.call(&nothing, what, Value::Null).await.status, 403, "{what}");
    }
    let create = json!({"application_credential": {"name": "x"}});
    for token in [&nothing, &reads] {
        let said = platform.call(token, "POST /users/alice/application_credentials", create.clone()).await;
        assert_eq!(said.status, 403, "{said:?}");
        let info = platform.core.validate(token).expect("good").info.clone();
        let state = platform.core.directory.read();
        let caller = Caller::of(&state, &info);
        assert_ne!(caller.scope, Scope::Whole);
        let own = Subject::Credential { user: "alice" };
        assert!(!may(&state, &caller.authority, Act::Create, &own), "kubectl makes no credential with it");
    }
    // It ends with the trust, whatever its scope.
    crate::directory::tests::forget::<Trust>(&platform.core.directory, "nothing");
    assert!(platform.core.validate(&nothing).is_err());
}

#[tokio::test]
async fn a_trust_is_used_as_often_as_it_says() {
    let mut state = organisations(&["admin alice project:web"]);
    put(&mut state, Trust::new("twice", TrustSpec { uses_max: Some(2), ..trust(Some("web"), &["reader"]) }));
    let platform = Platform::of(state);
    let bob = platform.token("bob", TokenScope::Unscoped);
    let body = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": bob}},
                               "scope": {"OS-TRUST:trust": {"id": "twice"}}}});
    for want in [201, 201, 403] {
        let said = platform.call("", "POST /auth/tokens", body.clone()).await;
        assert_eq!(said.status, want, "{said:?}");
    }
}

#[tokio::test]
async fn a_credential_hands_on_what_it_is_good_for() {
    let mut state = organisations(&["admin alice project:web", "admin alice project:ops"]);
    let spec = ApplicationCredentialSpec {
        name: "looks".to_owned(),
        user: "alice".to_owned(),
        project: "web".to_owned(),
        roles: vec!["reader".to_owned()],
        unrestricted: true,
        ..Default::default()
    };
    put(&mut state, ApplicationCredential::new("looks", spec));
    let platform = Platform::of(state);
    let looks = platform.made(NewToken {
        application_credential: Some("looks".to_owned()),
        scope: project("web"),
        ..platform.new_token("alice")
    });
    let alice = platform.token("alice", project("web"));
    let give = |project: &str, role: &str| {
        json!({"trust": {"trustor_user_id": "alice", "trustee_user_id": "bob", "impersonation": false,
                         "project_id": project, "roles": [{"id": role}]}})
    };
    for (token, project, role, want) in [
        (&looks, "web", "admin", 404),
        (&looks, "ops", "reader", 404),
        (&looks, "web", "reader", 201),
        (&alice, "web", "admin", 201),
        (&alice, "ops", "admin", 404),
    ] {
        let said = platform.call(token, "POST /OS-TRUST/trusts", give(project, role)).await;
        assert_eq!(said.status, want, "{project} {role}: {said:?}");
    }
}

#[tokio::test]
async fn a_manager_of_a_project_leaves_what_it_has_from_above() {
    let platform = Platform::of(organisations(&["manager bob project:web", "manager alice domain:acme"]));
    let bob = platform.token("bob", project("web"));
    let alice = platform.token("alice", TokenScope::Domain("acme".to_owned()));
    for (token, change, want) in [
        (&bob, json!({"name": "other"}), 403),
        (&bob, json!({"enabled": false}), 403),
        (&bob, json!({"description": "ours", "tags": ["red"]}), 200),
        (&alice, json!({"name": "other"}), 200),
    ] {
        let said = platform.call(token, "PATCH /projects/web", json!({"project": change})).await;
        assert_eq!(said.status, want, "{change}: {said:?}");
    }
}

/// The default domain with its project `admin`; dora administers the domain, erin the project.
fn with_admin_project(assignments: &[&str]) -> State {
    let mut state = organisations(&[]);
    put(&mut state, Domain::new(DEFAULT_DOMAIN, DomainSpec { enabled: true, ..Default::default() }));
    let spec = ProjectSpec { domain: DEFAULT_DOMAIN.to_owned(), enabled: true, ..Default::default() };
    put(&mut state, Project::new("admin", spec));
    for user in ["dora", "erin"] {
        let spec = UserSpec { domain: DEFAULT_DOMAIN.to_owned(), enabled: true, ..Default::default() };
        put(&mut state, User::new(user, spec));
    }
    assignments.iter().for_each(|text| assign(&mut state, text));
    state
}

#[tokio::test]
async fn a_domains_administrator_does_not_become_the_platforms() {
    let state = with_admin_project(&[
        "admin dora domain:default",
        "admin dora domain:default inherited",
        "admin erin project:admin",
    ]);
    let platform = Platform::of(state);
    let dora = platform.token("dora", TokenScope::Domain(DEFAULT_DOMAIN.to_owned()));
    let in_admin = TokenScope::Project { id: "admin".to_owned(), domain: DEFAULT_DOMAIN.to_owned() };
    let erin = platform.token("erin", in_admin.clone());
    for (what, body) in [
        ("PUT /projects/admin/users/dora/roles/admin", Value::Null),
        ("PUT /projects/admin/users/dora/roles/reader", Value::Null),
        ("PATCH /users/erin", json!({"user": {"password": "Tr0ub4dor&3"}})),
        ("PATCH /projects/admin", json!({"project": {"enabled": false}})),
        ("DELETE /projects/admin", Value::Null),
    ] {
        assert_eq!(platform.call(&dora, what, body).await.status, 403, "{what}");
    }
    // What is inherited from the domain does not hold there.
    let inherited = platform.token("dora", in_admin);
    assert!(platform.core.validate(&inherited).is_err());
    assert_eq!(platform.call(&erin, "GET /users", Value::Null).await.status, 200, "erin is the platform's");
    assert_eq!(
        platform.call(&erin, "PUT /projects/admin/users/dora/roles/reader", Value::Null).await.status,
        204
    );
    let state = platform.core.directory.read();
    let found = state.users.get("dora").expect("a user");
    let whole = Authority::whole("dora", state.grants(found));
    let admin = Target::Project("admin".into());
    let actor = crate::directory::assignments::Actor::User("dora".into());
    let subject = Subject::Assignment { role: "admin", actor: &actor, target: &admin };
    assert!(!may(&state, &whole, Act::Create, &subject));
}

#[tokio::test]
async fn a_call_is_made_by_whom_the_trail_says() {
    let platform = Platform::of(organisations(&["admin alice system", "member bob project:web"]));
    let (alice, bob) = (platform.token("alice", TokenScope::System), platform.token("bob", project("web")));
    let info = |token: &str| platform.core.validate(token).expect("good").info.clone();
    let somebody = UserInfo::authenticated("system:serviceaccount:web-dev:robot", &[]);
    let mut acting = info(&bob);
    acting.extra = BTreeMap::new();
    for (said_by_door, want) in [
        (Some(info(&alice)), 200),
        (None, 200),
        (Some(info(&bob)), 401),
        (Some(somebody), 401),
        (Some(acting), 401),
        (Some(UserInfo::anonymous()), 401),
    ] {
        let request = Request::builder().uri("/identity/v3/users/eve").header("x-auth-token", &alice);
        let mut request = request.body(axum::body::Body::empty()).expect("a request");
        if let Some(info) = said_by_door.clone() {
            request.extensions_mut().insert(info);
        }
        assert_eq!(platform.send(request).await.status, want, "{said_by_door:?}");
    }
}

#[tokio::test]
async fn services_read_a_token_for_a_while_after_its_end() {
    let mut state = organisations(&["admin alice system", "member bob project:web", "admin eve project:lab"]);
    put(&mut state, Role::new("svc", RoleSpec { name: Some("service".to_owned()), ..RoleSpec::default() }));
    assign(&mut state, "svc alice project:web");
    change::<User>(&mut state, "alice", |u| u.spec.groups.clear());
    let platform = Platform::of(state);
    let ended = |hours: i64| {
        let then = Timestamp::now().checked_sub(SignedDuration::from_hours(hours + 1)).expect("a time");
        let expires_at = then.checked_add(SignedDuration::from_hours(1)).ok();
        let new = NewToken {
            authenticated_at: then,
            expires_at,
            scope: project("web"),
            ..platform.new_token("bob")
        };
        platform.core.tokens.issue(new, then).expect("issued").token
    };
    let (lately, long_ago) = (ended(1), ended(49));
    let service = platform.token("alice", project("web"));
    let root = platform.token("alice", TokenScope::System);
    let tenant =
        platform.token("eve", TokenScope::Project { id: "lab".to_owned(), domain: "globex".to_owned() });
    let bob = platform.token("bob", project("web"));
    for (who, what, subject, want) in [
        (&service, "GET /auth/tokens?allow_expired=1", &lately, 200),
        (&root, "GET /auth/tokens?allow_expired=1", &lately, 200),
        (&service, "GET /auth/tokens", &lately, 404),
        (&service, "GET /auth/tokens?allow_expired=0", &lately, 404),
        (&service, "GET /auth/tokens?allow_expired=1", &long_ago, 404),
        (&tenant, "GET /auth/tokens?allow_expired=1", &lately, 404),
        (&bob, "GET /auth/tokens?allow_expired=1", &lately, 404),
        (&service, "DELETE /auth/tokens?allow_expired=1", &lately, 404),
    ] {
        let said = platform.call_with(who, what, Value::Null, &[("x-subject-token", subject)]).await;
        assert_eq!(said.status, want, "{what}: {said:?}");
    }
    assert_eq!(platform.call(&lately, "GET /users/bob", Value::Null).await.status, 401, "it opens nothing");
    change_of(&platform, "bob", |u| u.spec.enabled = false);
    let headers = [("x-subject-token", lately.as_str())];
    let said = platform.call_with(&service, "GET /auth/tokens?allow_expired=1", Value::Null, &headers).await;
    assert_eq!(said.status, 404, "whose user is gone, is gone");
}

fn change_of(platform: &Platform, user: &str, change: impl FnOnce(&mut User)) {
    let mut found = (**platform.core.directory.read().users.get(user).expect("a user")).clone();
    change(&mut found);
    crate::directory::tests::show(&platform.core.directory, found);
}

#[tokio::test]
async fn a_password_says_when_it_ends() {
    let platform = Platform::with(organisations(&["admin alice system"]), |settings| {
        settings.security_compliance.password_expires_days = 90;
    });
    let root = platform.token("alice", TokenScope::System);
    let user = |more: Value| {
        let mut user = json!({"name": "fred", "domain_id": "acme", "password": "Tr0ub4dor&3"});
        user.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        json!({ "user": user })
    };
    let made = platform.call(&root, "POST /users", user(json!({}))).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.body["user"]["id"].as_str().expect("an id").to_owned();
    let shown = || async {
        let said = platform.call(&root, &format!("GET /users/{id}"), Value::Null).await;
        said.body["user"]["password_expires_at"].as_str().map(str::to_owned)
    };
    let first = shown().await.expect("it ends");
    assert_eq!(made.body["user"]["password_expires_at"], first.as_str());
    let in_status = || {
        let state = platform.core.directory.read();
        let found = state.users.get(&id).expect("a user");
        found.status.as_ref().and_then(|s| s.password_expires_at.clone()).map(|at| at.0)
    };
    let days = in_status().expect("kubectl shows it").duration_since(Timestamp::now()).as_hours() / 24;
    assert!((89..=90).contains(&days), "{days}");
    let reset = json!({"user": {"password": "c0rrect-H0rse"}});
    assert_eq!(platform.call(&root, &format!("PATCH /users/{id}"), reset).await.status, 200);
    let second = shown().await.expect("it ends");
    assert!(second >= first, "{second} after {first}");
    let own = json!({"user": {"original_password": "c0rrect-H0rse", "password": "b4ttery-St4ple"}});
    assert_eq!(platform.call("", &format!("POST /users/{id}/password"), own).await.status, 204);
    let kept = platform.core.passwords.record(&id).await.expect("a vault").expect("a password");
    assert_eq!(
        in_status(),
        kept.current.expires.map(crate::core::whole_seconds),
        "each password has its own end"
    );
    let never = user(json!({"name": "gina", "options": {"ignore_password_expiry": true}}));
    let made = platform.call(&root, "POST /users", never).await;
    assert_eq!(made.body["user"]["password_expires_at"], Value::Null, "{made:?}");
    assert!(!platform.core.validate(&root).expect("good").info.extra.contains_key(extra::TRUST));
}

#[tokio::test]
async fn a_token_ends_with_what_it_was_made_with_also_while_nothing_changes() {
    let mut state = organisations(&["member alice project:web"]);
    let soon = Timestamp::now().checked_add(SignedDuration::from_secs(60)).expect("a time");
    let at = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(soon));
    let spec = ApplicationCredentialSpec {
        name: "short".to_owned(),
        user: "alice".to_owned(),
        project: "web".to_owned(),
        roles: vec!["member".to_owned()],
        expires_at: at.clone(),
        ..Default::default()
    };
    put(&mut state, ApplicationCredential::new("short", spec));
    put(&mut state, Trust::new("short", TrustSpec { expires_at: at, ..trust(Some("web"), &["member"]) }));
    let platform = Platform::of(state);
    let made = |new: NewToken| platform.core.tokens.issue(new, Timestamp::now()).expect("issued").claims;
    let id = Some("short".to_owned());
    let alice = || NewToken { scope: project("web"), ..platform.new_token("alice") };
    for claims in [
        made(NewToken { application_credential: id.clone(), ..alice() }),
        made(NewToken { trust: id.clone(), ..alice() }),
    ] {
        assert!(platform.core.session(claims.clone(), Timestamp::now()).is_some());
        assert!(platform.core.session(claims, soon).is_none(), "the session of before is not good any more");
    }
}

#[tokio::test]
async fn who_sees_everything_does_not_see_secrets() {
    let mut state = organisations(&["reader bob system", "admin eve system", "reader alice project:web"]);
    change::<User>(&mut state, "bob", |u| u.spec.groups.clear());
    let spec = ApplicationCredentialSpec {
        name: "looks".to_owned(),
        user: "alice".to_owned(),
        project: "web".to_owned(),
        roles: vec!["reader".to_owned()],
        ..Default::default()
    };
    put(&mut state, ApplicationCredential::new("looks", spec));
    let platform = Platform::of(state);
    let alice = platform.token("alice", project("web"));
    const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    let body = json!({"credential": {"type": "totp", "blob": SEED, "user_id": "alice"}});
    let made = platform.call(&alice, "POST /credentials", body).await;
    assert_eq!(made.body["credential"]["blob"], SEED, "{made:?}");
    let id = made.body["credential"]["id"].as_str().expect("an id").to_owned();
    let handed_out = platform.made(NewToken {
        application_credential: Some("looks".to_owned()),
        scope: project("web"),
        ..platform.new_token("alice")
    });
    let (bob, eve) = (platform.token("bob", TokenScope::System), platform.token("eve", TokenScope::System));
    for (who, token, want) in
        [("alice", &alice, SEED), ("bob", &bob, ""), ("eve", &eve, SEED), ("ci", &handed_out, "")]
    {
        let one = platform.call(token, &format!("GET /credentials/{id}"), Value::Null).await;
        assert_eq!(
            (one.status, one.body["credential"]["blob"].as_str()),
            (200, Some(want)),
            "{who}: {one:?}"
        );
        let all = platform.call(token, "GET /credentials", Value::Null).await;
        assert_eq!(all.body["credentials"][0]["blob"], want, "{who}: {all:?}");
    }
}

#[tokio::test]
async fn what_was_opened_with_a_trust_stands_while_the_trust_does() {
    for (what, status) in [("PATCH /users/alice", 200), ("DELETE /OS-TRUST/trusts/lent", 204)] {
        let mut state = organisations(&["member alice project:web", "admin eve system"]);
        put(&mut state, Trust::new("lent", trust(Some("web"), &["member"])));
        let platform = Platform::of(state);
        let lent = platform.made(NewToken {
            trust: Some("lent".to_owned()),
            scope: project("web"),
            ..platform.new_token("bob")
        });
        let (info, since) = (platform.core.validate(&lent).expect("good").info.clone(), Timestamp::now());
        let (before, own) = (platform.core.standing_version(), platform.token("bob", TokenScope::Unscoped));
        let own = platform.core.validate(&own).expect("good").info.clone();
        assert!(platform.core.still_good(&info, since));
        let by = match status {
            204 => platform.token("alice", project("web")),
            _ => platform.token("eve", TokenScope::System),
        };
        let said = platform.call(&by, what, json!({"user": {"enabled": false}})).await;
        assert_eq!(said.status, status, "{said:?}");
        assert_ne!(platform.core.standing_version(), before, "{what}");
        assert!(!platform.core.still_good(&info, since), "{what}");
        assert!(platform.core.still_good(&own, since), "{what}: bob is who he was");
    }
}
