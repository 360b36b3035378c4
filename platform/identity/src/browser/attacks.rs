//! Attempts to get a session without a right to it, to keep one that has ended, and to lead a browser astray.

use axum::body::Body;
use gantry_identity_api::{Domain, IdentityProvider, IdentityProviderSpec, ProviderType, User};
use http::Request;
use http::header::SET_COOKIE;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::tests::{PASSWORD, World};
use crate::directory::tests::show;
use crate::token::NewToken;

fn cookie(token: &str) -> String {
    format!("__Host-gantry-session={token}")
}

#[tokio::test]
async fn a_bad_token_is_no_better_in_a_cookie() {
    let world = World::of(&["member alice project:web"], |_| {}).await;
    let platform = &world.platform;
    let now = Timestamp::now();
    let good = platform.made(platform.new_token("alice"));
    let hour = SignedDuration::from_hours(1);
    let expired = platform.core.tokens.issue(
        NewToken {
            authenticated_at: now - hour - hour,
            expires_at: Some(now - hour),
            ..platform.new_token("alice")
        },
        now - hour - hour,
    );
    let expired = expired.expect("issued").token;
    let audiences = vec!["elsewhere".to_owned()];
    let elsewhere = platform.made(NewToken { audiences, ..platform.new_token("alice") });
    let (head, signature) = good.rsplit_once('.').expect("a signature");
    let changed = format!("{head}.{}", signature.chars().rev().collect::<String>());
    for (what, cookie) in [
        ("expired", cookie(&expired)),
        ("for others", cookie(&elsewhere)),
        ("a changed signature", cookie(&changed)),
        ("no signature", cookie(&format!("{head}."))),
        ("twice", format!("{}; {}", cookie(&good), cookie(&good))),
        ("a good one and a bad one", format!("{}; {}", cookie(&good), cookie("x"))),
        ("another name", format!("gantry-session={good}")),
        ("quoted", cookie(&format!("\"{good}\""))),
        ("oversize", cookie(&"x".repeat(60_000))),
    ] {
        for request in ["GET ", "DELETE ", "POST /scope"] {
            let said = world.with(&cookie, request, json!({ "project": { "id": "web" } })).await;
            assert_eq!(said.status, 401, "{request}: {what}");
            assert!(!said.headers.contains_key(SET_COOKIE), "{request}: {what}");
        }
    }
    assert_eq!(world.with(&cookie(&good), "GET ", Value::Null).await.status, 200, "the good one");
}

#[tokio::test]
async fn a_session_ends_with_whose_it_is() {
    let world = World::of(&["member alice project:web"], |_| {}).await;
    let signed_in = async || world.sign_in("alice", json!({})).await.cookie();
    let status = async |cookie: &str| world.with(cookie, "GET ", Value::Null).await.status;
    let directory = &world.platform.core.directory;
    let user = directory.read().users.get("alice").expect("alice").as_ref().clone();
    let first = signed_in().await;
    assert_eq!(status(&first).await, 200);
    let with = |enabled: bool| {
        let mut user: User = user.clone();
        user.spec.enabled = enabled;
        show(directory, user);
    };
    with(false);
    assert_eq!(status(&first).await, 401, "disabled");
    with(true);
    let second = signed_in().await;
    let mut domain: Domain = directory.read().domains.get("acme").expect("acme").as_ref().clone();
    domain.spec.enabled = false;
    show(directory, domain);
    assert_eq!(status(&second).await, 401, "the domain is disabled");
}

#[tokio::test]
async fn no_page_of_another_site_signs_anybody_in() {
    let world = World::of(&[], |_| {}).await;
    let body = json!({ "domain": "acme", "user": "alice", "password": PASSWORD });
    for (headers, want) in [
        (&[][..], 200),
        (&[("origin", "https://gantry.test")], 200),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("origin", "https://evil.test")], 403),
        (&[("origin", "null")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("sec-fetch-site", "same-site"), ("origin", "https://other.gantry.test")], 403),
    ] {
        assert_eq!(world.ask("POST ", headers, body.clone()).await.status, want, "{headers:?}");
    }
    // What a form can send without asking.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
        let request = Request::post("/identity/session").header("content-type", kind);
        let said = world.send(request.body(Body::from(body.to_string())).expect("a request")).await;
        assert_eq!(said.status, 415, "{kind}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_sign_in_tells_nothing() {
    let world = World::of(&[], |settings| {
        settings.lockout.user.free = 1000;
        settings.lockout.address.free = 1000;
    })
    .await;
    let mut answers = Vec::new();
    for change in [
        json!({ "password": "wrong" }),
        json!({ "user": "nobody" }),
        json!({ "domain": "nowhere" }),
        json!({ "user": "" }),
        json!({ "passcode": "000000" }),
        json!({ "receipt": "x.y.z" }),
        json!({ "user": "acme/alice" }),
    ] {
        let said = world.sign_in("alice", change.clone()).await;
        assert_eq!(said.status, 401, "{change}: {said:?}");
        answers.push(said.body);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    for body in [
        json!({}),
        json!({ "user": "alice" }),
        json!({ "user": "alice", "password": 4 }),
        json!({ "user": ["alice"], "password": PASSWORD }),
        json!({ "user": "alice", "newPassword": "x" }),
        json!({ "user": "alice", "password": PASSWORD, "scope": "system" }),
        json!([]),
    ] {
        assert_eq!(world.ask("POST ", &[], body.clone()).await.status, 400, "{body}");
    }
    let huge = json!({ "user": "alice", "password": "x".repeat(200_000) });
    assert_eq!(world.ask("POST ", &[], huge).await.status, 413);
}

#[tokio::test]
async fn guesses_are_slowed_down_as_at_every_door() {
    let world = World::of(&[], |settings| {
        settings.security_compliance.lockout_failure_attempts = 2;
        settings.lockout.user.free = 1000;
        settings.lockout.address.free = 1000;
    })
    .await;
    for _ in 0..2 {
        assert_eq!(world.sign_in("alice", json!({ "password": "wrong" })).await.status, 401);
    }
    assert_eq!(world.sign_in("alice", json!({})).await.status, 401, "locked out, with the right password");
}

#[tokio::test]
async fn a_browser_is_led_to_known_providers_and_back_to_paths_of_ours() {
    // The certificate roots of the client need a provider, as the process has one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = World::of(&[], |_| {}).await;
    let provider = |name: &str, kind: ProviderType, enabled: bool, domain: &str| {
        let config = json!({ "issuer": "https://127.0.0.1:9", "clientId": "gantry", "redirectUris": [] });
        let Value::Object(config) = config else { unreachable!("an object") };
        let spec = IdentityProviderSpec {
            name: Some(name.to_owned()),
            provider_type: kind,
            domain: domain.to_owned(),
            enabled,
            config,
            description: if name == "corporate" { "ACME's own".to_owned() } else { String::new() },
            ..IdentityProviderSpec::default()
        };
        show(&world.platform.core.directory, IdentityProvider::new(&format!("id-{name}"), spec));
    };
    provider("corporate", ProviderType::Oidc, true, "acme");
    provider("also", ProviderType::Oidc, true, "globex");
    provider("off", ProviderType::Oidc, false, "acme");
    provider("ldap", ProviderType::Ldap, true, "acme");
    let listed = world.ask("GET /providers", &[], Value::Null).await;
    let want = json!({ "password": true, "providers": [
        { "name": "corporate", "domain": "acme", "text": "ACME's own" },
        { "name": "also", "domain": "globex", "text": "also" },
    ]});
    assert_eq!((listed.status, &listed.body), (200, &want));
    for (query, want) in [
        ("", 400),
        ("?provider=nobody", 404),
        ("?provider=off", 404),
        ("?provider=ldap", 404),
        ("?provider=corporate&return_to=//evil.test", 400),
        ("?provider=corporate&return_to=https://evil.test/", 400),
        ("?provider=corporate&return_to=%2f%2fevil.test", 400),
        ("?provider=corporate&return_to=/%5Cevil.test", 400),
        ("?provider=corporate&return_to=/%0d%0aSet-Cookie:x=y", 400),
        // Twice: the first counts, and nothing of the second.
        ("?provider=corporate&return_to=//evil.test&return_to=/", 400),
        ("?provider=corporate&return_to=/&return_to=//evil.test", 403),
        // Not registered for browsers: said before the provider is asked for anything.
        ("?provider=corporate&return_to=/console", 403),
    ] {
        let said = world.ask(&format!("GET /begin{query}"), &[], Value::Null).await;
        assert_eq!(said.status, want, "{query}: {said:?}");
        assert!(!said.headers.contains_key("location") && !said.headers.contains_key(SET_COOKIE), "{query}");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_none() {
    let world = World::of(&[], |_| {}).await;
    for (query, cookie) in [
        ("", ""),
        ("?state=x&code=y", ""),
        ("?state=x&code=y", "__Secure-gantry-sign-in=nodot"),
        ("?state=x&code=y", "__Secure-gantry-sign-in=nobody.sealed"),
        ("?state=x&code=y", "__Secure-gantry-sign-in=a.b; __Secure-gantry-sign-in=a.b"),
        ("?state=x&state=z&code=y", "__Secure-gantry-sign-in=nobody.sealed"),
        ("?error=access_denied", "__Secure-gantry-sign-in=nobody.sealed"),
    ] {
        let said = world.ask(&format!("GET /callback{query}"), &[("cookie", cookie)], Value::Null).await;
        assert_eq!(said.status, 400, "{query} {cookie}: {said:?}");
        assert!(!said.headers.contains_key(SET_COOKIE) && !said.headers.contains_key("location"), "{query}");
        let message = said.body["error"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("Not signed in. Begin again"), "{message}");
    }
}
