//! The client of another Keystone, against OpenStack's.

use gantry_identity_sources::{
    ExternalGrant, ExternalScope, KeystoneAccount, KeystoneConfig, KeystoneSource, SourceError,
};
use gantry_testkit::Keystone;
use serde_json::{Value, json};

use crate::peers::eventually;
use crate::slapd::secret;

/// `SCOPE/ROLE` of each grant, in order.
fn shown(grants: &[ExternalGrant]) -> Vec<String> {
    let scope = |scope: &ExternalScope| match scope {
        ExternalScope::System => "system".to_owned(),
        ExternalScope::Domain(domain) => domain.name.clone(),
        ExternalScope::Project { project, domain } => format!("{}:{}", domain.name, project.name),
    };
    let mut all: Vec<String> =
        grants.iter().map(|g| format!("{}/{}", scope(&g.scope), g.role.name)).collect();
    all.sort();
    all
}

fn config(keystone: &Keystone) -> KeystoneConfig {
    let account = KeystoneAccount {
        user: "gantry".into(),
        user_domain: "Default".into(),
        project: None,
        project_domain: "Default".into(),
    };
    let mut config = KeystoneConfig::new(&keystone.url, account);
    config.http.insecure_http = true;
    config
}

fn source_of(keystone: &Keystone, change: impl FnOnce(&mut KeystoneConfig)) -> KeystoneSource {
    let mut config = config(keystone);
    change(&mut config);
    KeystoneSource::new(config, Keystone::SERVICE_PASSWORD.into()).expect("the configuration is right")
}

struct World {
    keystone: Keystone,
    alice: String,
    acme: String,
}

/// Alice of Acme is a member of the project `web`, by her group a reader of `shop`, and reader of the system.
async fn world() -> Option<World> {
    let keystone = Keystone::start().await?;
    let acme = keystone.domain("acme").await;
    let alice = keystone.user("alice", &acme, "pw of alice").await;
    keystone.user("bob", "default", "pw of bob").await;
    let (web, shop) = (keystone.project("web", &acme).await, keystone.project("shop", &acme).await);
    let devs = keystone.group("devs", &acme).await;
    let put = async |path: String| keystone.call("PUT", &path, Value::Null).await;
    put(format!("/groups/{devs}/users/{alice}")).await;
    put(format!("/projects/{web}/users/{alice}/roles/{}", keystone.role("member"))).await;
    put(format!("/projects/{shop}/groups/{devs}/roles/{}", keystone.role("reader"))).await;
    put(format!("/domains/{acme}/users/{alice}/roles/{}", keystone.role("manager"))).await;
    put(format!("/system/groups/{devs}/roles/{}", keystone.role("reader"))).await;
    Some(World { keystone, alice, acme })
}

fn web() -> Value {
    json!({"project": {"name": "web", "domain": {"name": "acme"}}})
}

/// With what her group has on the system.
const EVERYTHING: [&str; 7] = [
    "acme/manager",
    "acme/member",
    "acme/reader",
    "acme:shop/reader",
    "acme:web/member",
    "acme:web/reader",
    "system/reader",
];

/// One story after the other on one server: it takes longer to start than all of them.
#[tokio::test]
async fn another_keystone_is_asked() {
    let Some(mut world) = world().await else { return };
    people_keep_their_roles(&world).await;
    an_account_that_may_too_little_is_told(&world).await;
    a_listing_holds_everybody_as_a_login_does(&world).await;
    validated_tokens_are_kept_for_a_short_while(&mut world.keystone).await;
}

async fn people_keep_their_roles(World { keystone, alice, acme }: &World) {
    let source = source_of(keystone, |_| {});
    source.test().await.expect("all is well");

    let token = keystone.token("alice", "acme", "pw of alice", web()).await;
    let scoped = source.validate(&secret(&token)).await.expect("her token");
    assert_eq!((&scoped.user.id, scoped.user.name.as_str()), (alice, "alice"));
    assert_eq!(scoped.user.domain.as_ref().map(|d| d.id.as_str()), Some(acme.as_str()));
    assert_eq!(shown(&scoped.user.grants), ["acme:web/member", "acme:web/reader"]);
    assert!(matches!(&scoped.scope, Some(ExternalScope::Project { project, .. }) if project.name == "web"));
    assert_eq!(scoped.methods, ["password"]);
    assert_eq!(scoped.user.groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), ["devs"]);

    let token = keystone.token("alice", "acme", "pw of alice", json!({"unscoped": {}})).await;
    let unscoped = source.validate(&secret(&token)).await.expect("her token");
    assert_eq!(
        (unscoped.scope, shown(&unscoped.user.grants)),
        (None, EVERYTHING.map(str::to_owned).to_vec())
    );

    let signed_in = source.authenticate("alice", "acme", &secret("pw of alice")).await.expect("her password");
    assert_eq!(signed_in.user, unscoped.user);
    for (user, domain, password) in [
        ("alice", "acme", "pw of bob"),
        ("alice", "acme", ""),
        ("alice", "Default", "pw of alice"),
        ("alice", "nowhere", "pw of alice"),
        ("nobody", "acme", "pw of alice"),
        ("", "acme", "x"),
        ("alice\"}", "acme", "pw of alice"),
    ] {
        let refused = source.authenticate(user, domain, &secret(password)).await;
        assert_eq!(refused.err(), Some(SourceError::BadCredentials), "{user} {domain} {password}");
    }
    for token in ["", "made-up", "a b", "ü", "x\ny", &"g".repeat(9_000)] {
        let refused = source.validate(&secret(token)).await;
        assert_eq!(refused.err(), Some(SourceError::BadCredentials), "{token:?}");
    }
    let system = source.grants(&keystone_user(keystone, "gantry").await).await.expect("our own roles");
    assert_eq!(shown(&system), ["system/reader"]);
}

async fn keystone_user(keystone: &Keystone, name: &str) -> String {
    let found = keystone.call("GET", &format!("/users?name={name}"), Value::Null).await;
    found["users"][0]["id"].as_str().expect("an id").to_owned()
}

async fn a_listing_holds_everybody_as_a_login_does(World { keystone, alice, acme }: &World) {
    let source = source_of(keystone, |_| {});
    let login = source.authenticate("alice", "acme", &secret("pw of alice")).await.expect("her password");
    let listing = source.list().await.expect("a listing");
    let names: Vec<&str> = listing.users.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(listing.users.iter().find(|u| u.id == *alice), Some(&login.user));
    assert_eq!(listing.groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), ["devs"]);

    let one = source_of(keystone, |c| c.domains = vec!["acme".into()]);
    assert_eq!(one.list().await.expect("a listing").users, [login.user]);
    let foreign = one.authenticate("bob", "Default", &secret("pw of bob")).await;
    assert_eq!(foreign.err(), Some(SourceError::BadCredentials), "a domain that does not count");

    let enabled = async |source: &KeystoneSource| {
        let listing = source.list().await.expect("a listing");
        listing.users.iter().find(|u| u.id == *alice).expect("she is still listed").enabled
    };
    keystone.call("PATCH", &format!("/users/{alice}"), json!({"user": {"enabled": false}})).await;
    assert!(!enabled(&source).await);
    let refused = source.authenticate("alice", "acme", &secret("pw of alice")).await;
    assert_eq!(refused.err(), Some(SourceError::BadCredentials));
    keystone.call("PATCH", &format!("/users/{alice}"), json!({"user": {"enabled": true}})).await;
    assert!(enabled(&source).await);
    keystone.call("PATCH", &format!("/domains/{acme}"), json!({"domain": {"enabled": false}})).await;
    assert!(!enabled(&source).await, "with the domain, its people");
    keystone.call("PATCH", &format!("/domains/{acme}"), json!({"domain": {"enabled": true}})).await;

    let few = source_of(keystone, |c| c.limits.users_max = 1);
    assert!(matches!(few.list().await, Err(SourceError::TooLarge { what: "users", max: 1, .. })));
    let few = source_of(keystone, |c| c.limits.assignments_max = 2);
    assert!(matches!(few.list().await, Err(SourceError::TooLarge { what: "role_assignments", .. })));
}

async fn validated_tokens_are_kept_for_a_short_while(keystone: &mut Keystone) {
    let cached = source_of(keystone, |c| c.limits.cache_seconds_max = 600);
    let direct = source_of(keystone, |c| c.limits.cache_seconds_max = 0);
    let token = keystone.token("alice", "acme", "pw of alice", web()).await;
    let token = secret(&token);
    let first = cached.validate(&token).await.expect("her token");
    assert_eq!(direct.validate(&token).await.as_ref(), Ok(&first));
    keystone.revoke(secrecy::ExposeSecret::expose_secret(&token)).await;
    assert_eq!(direct.validate(&token).await.err(), Some(SourceError::BadCredentials), "at once");
    assert_eq!(cached.validate(&token).await.as_ref(), Ok(&first), "within the bound");
    cached.forget();
    assert_eq!(cached.validate(&token).await.err(), Some(SourceError::BadCredentials));

    // Our own token ends with a password change: a new one is asked for, and what cannot be got is told.
    let account = keystone_user(keystone, "gantry").await;
    let other = keystone.token("alice", "acme", "pw of alice", web()).await;
    let path = format!("/users/{account}");
    keystone.call("PATCH", &path, json!({"user": {"password": "another-secret-11"}})).await;
    let error = direct.validate(&secret(&other)).await.expect_err("our password is wrong now");
    assert!(matches!(error, SourceError::Misconfigured { .. }), "{error}");
    assert!(!format!("{error:?}").contains(Keystone::SERVICE_PASSWORD));
    keystone.call("PATCH", &path, json!({"user": {"password": Keystone::SERVICE_PASSWORD}})).await;
    // Tokens made within the second of the change are taken for revoked.
    eventually("our account is back", async || direct.validate(&secret(&other)).await.is_ok()).await;
    keystone.stop();
    let error = direct.validate(&secret(&other)).await.expect_err("it is gone");
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error}");
}

async fn an_account_that_may_too_little_is_told(World { keystone, alice, .. }: &World) {
    let weak = {
        let mut config = config(keystone);
        config.account.user = "alice".into();
        config.account.user_domain = "acme".into();
        config.account.project = Some("shop".into());
        config.account.project_domain = "acme".into();
        KeystoneSource::new(config, "pw of alice".into()).expect("well-formed")
    };
    for error in [weak.test().await.err(), weak.list().await.err(), weak.grants(alice).await.err()] {
        assert!(
            matches!(error, Some(SourceError::Misconfigured { ref why, .. }) if why.contains("403")),
            "{error:?}"
        );
    }
    let mut wrong = config(keystone);
    wrong.url = wrong.url.replace("/v3", "/v2.0");
    assert!(matches!(KeystoneSource::new(wrong, "x".into()).err(), Some(SourceError::Misconfigured { .. })));
}
