//! Sessions through the real handlers, as the front door hands requests to them.

use axum::body::Body;
use gantry_kube_types::{Authenticator as _, ConnectionInfo, UserInfo};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::authenticator::SessionAuthenticator;
use crate::core::Settings;
use crate::keystone::tests::Platform;
use crate::lockout::Source;
use crate::login::secrets::keep_totp_seed;
use crate::password::{Password, PasswordOptions};
use crate::tenancy::tests::{change, organisations};
use crate::totp::TotpSeed;

pub(super) const PASSWORD: &str = "correct horse battery";
const NEW: &str = "staple correct horse";

/// The component, its door for browsers, and what stands before it of the front door.
pub(super) struct World {
    pub(super) platform: Platform,
    router: axum::Router,
    sessions: SessionAuthenticator,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Said {
    /// What a browser keeps of the cookie: `NAME=VALUE`.
    pub(super) fn cookie(&self) -> String {
        let line = self.headers.get(SET_COOKIE).unwrap_or_else(|| panic!("no cookie: {self:?}"));
        line.to_str().expect("text").split(';').next().expect("a pair").to_owned()
    }

    pub(super) fn token(&self) -> String {
        self.cookie().split_once('=').expect("a value").1.to_owned()
    }
}

impl World {
    pub(super) async fn of(assignments: &[&str], set: impl FnOnce(&mut Settings)) -> Self {
        let mut state = organisations(assignments);
        change::<gantry_identity_api::User>(&mut state, "bob", |bob| {
            let options = &mut bob.spec.options;
            options.multi_factor_auth_enabled = Some(true);
            options.multi_factor_auth_rules = Some(vec![vec!["password".to_owned(), "totp".to_owned()]]);
        });
        let platform = Platform::with(state, set);
        for id in ["alice", "bob"] {
            let (password, now) = (Password::new(PASSWORD), Timestamp::now());
            let set =
                platform.core.passwords.set(id, Source::Unknown, password, PasswordOptions::default(), now);
            set.await.expect("a password");
        }
        let router = super::router(platform.core.clone());
        let sessions = SessionAuthenticator::new(platform.core.clone());
        Self { platform, router, sessions }
    }

    /// `what` is `METHOD /path below /identity/session`.
    pub(super) async fn ask(&self, what: &str, headers: &[(&str, &str)], body: Value) -> Said {
        let (method, path) = what.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(format!("/identity/session{path}"));
        request = request.header("host", "gantry.test");
        if !body.is_null() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(request.body(body).expect("a request")).await
    }

    pub(super) async fn send(&self, mut request: Request<Body>) -> Said {
        let known = self.sessions.authenticate(request.headers(), &ConnectionInfo::default()).await;
        let caller = known.ok().flatten().unwrap_or_else(UserInfo::anonymous);
        request.extensions_mut().insert(caller);
        let (head, body) = self.router.clone().oneshot(request).await.expect("an answer").into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Said {
            status: head.status.as_u16(),
            headers: head.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }

    pub(super) async fn with(&self, cookie: &str, what: &str, body: Value) -> Said {
        self.ask(what, &[("cookie", cookie)], body).await
    }

    pub(super) async fn sign_in(&self, user: &str, more: Value) -> Said {
        let mut body = json!({ "domain": "acme", "user": user, "password": PASSWORD });
        for (name, value) in more.as_object().expect("members") {
            body[name] = value.clone();
        }
        self.ask("POST ", &[], body).await
    }
}

#[tokio::test]
async fn a_session_begins_moves_and_ends() {
    let world = World::of(&["member alice project:web", "reader alice domain:acme"], |_| {}).await;
    let begun = world.sign_in("alice", json!({})).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    assert_eq!(begun.headers["cache-control"], "no-store");
    let line = begun.headers[SET_COOKIE].to_str().expect("text");
    assert!(line.starts_with("__Host-gantry-session=ey") && line.contains("; HttpOnly;"), "{line}");
    let who = world.with(&begun.cookie(), "GET ", Value::Null).await;
    assert_eq!((who.status, &who.body), (200, &begun.body));
    assert_eq!(who.body["username"], "acme/alice");
    assert_eq!(who.body["user"]["domain"]["name"], "acme");
    assert_eq!((&who.body["scope"], &who.body["methods"]), (&Value::Null, &json!(["password"])));
    assert_eq!(who.body["projects"][0]["name"], "web");
    assert_eq!(who.body["projects"][0]["roles"], json!(["member", "reader"]));
    assert_eq!(who.body["domains"][0]["roles"], json!(["reader"]));
    assert!(who.body["expiresAt"].is_string());

    let moved = world.with(&begun.cookie(), "POST /scope", json!({ "project": { "id": "web" } })).await;
    assert_eq!(moved.status, 200, "{moved:?}");
    assert_eq!(moved.body["scope"]["project"]["id"], "web");
    assert_eq!(
        moved.body["expiresAt"], begun.body["expiresAt"],
        "it lives no longer than what it was got with"
    );
    let old = world.with(&begun.cookie(), "GET ", Value::Null).await;
    assert_eq!(old.status, 401, "the browser has another");
    let claims = |said: &Said| world.platform.core.validate(&said.token()).expect("good").claims.clone();
    assert!(claims(&moved).chain.is_some());
    // Wider it does not become, as with every token.
    let wider = world.with(&moved.cookie(), "POST /scope", json!({ "domain": { "id": "acme" } })).await;
    assert_eq!(wider.status, 403, "{wider:?}");

    let ended = world.with(&moved.cookie(), "DELETE ", Value::Null).await;
    assert_eq!((ended.status, &ended.body), (200, &json!({ "endSessionUrl": null })));
    assert!(ended.headers[SET_COOKIE].to_str().is_ok_and(|line| line.ends_with("; Max-Age=0")));
    for what in ["GET ", "DELETE ", "POST /scope"] {
        let after = world.with(&moved.cookie(), what, json!({ "system": { "all": true } })).await;
        assert_eq!(after.status, 401, "{what}");
    }
}

#[tokio::test]
async fn a_session_ends_when_the_browser_gets_another() {
    let world = World::of(&["member alice project:web"], |_| {}).await;
    let (first, elsewhere) =
        (world.sign_in("alice", json!({})).await, world.sign_in("alice", json!({})).await);
    let again = json!({ "domain": "acme", "user": "alice", "password": "wrong" });
    assert_eq!(world.with(&first.cookie(), "POST ", again.clone()).await.status, 401);
    assert_eq!(world.with(&first.cookie(), "GET ", Value::Null).await.status, 200, "nothing has begun");
    let mut again = again;
    again["password"] = json!(PASSWORD);
    let second = world.with(&first.cookie(), "POST ", again.clone()).await;
    assert_eq!(second.status, 200, "{second:?}");
    for (session, status) in [(&first, 401), (&second, 200), (&elsewhere, 200)] {
        assert_eq!(world.with(&session.cookie(), "GET ", Value::Null).await.status, status);
    }
    // What is good for nothing any more is no hindrance.
    assert_eq!(world.with(&first.cookie(), "POST ", again).await.status, 200);
}

#[tokio::test]
async fn who_has_two_factors_shows_both() {
    let world = World::of(&["member bob project:web"], |_| {}).await;
    let seed = TotpSeed::generate().expect("random numbers");
    keep_totp_seed(&world.platform.core.vault, "bob", "phone", &seed).await.expect("kept");
    let first = world.sign_in("bob", json!({})).await;
    assert_eq!(first.status, 401);
    assert!(!first.headers.contains_key(SET_COOKIE), "{first:?}");
    assert_eq!(first.body["error"]["requiredMethods"], json!([["password", "totp"]]));
    let receipt = first.body["error"]["receipt"].as_str().expect("a receipt").to_owned();
    // The receipt is no token.
    let cookie = format!("__Host-gantry-session={receipt}");
    assert_eq!(world.with(&cookie, "GET ", Value::Null).await.status, 401);
    let passcode = seed.code(Timestamp::now());
    let rest = json!({ "domain": "acme", "user": "bob", "passcode": passcode, "receipt": receipt });
    let second = world.ask("POST ", &[], rest).await;
    assert_eq!(second.status, 200, "{second:?}");
    assert_eq!(second.body["methods"], json!(["totp", "password"]));
    // A receipt of somebody else completes nothing.
    let others = json!({ "domain": "acme", "user": "alice", "passcode": "000000", "receipt": receipt });
    assert_eq!(world.ask("POST ", &[], others).await.status, 401);
}

#[tokio::test]
async fn a_password_is_changed_while_signing_in_and_ends_the_sessions_of_before() {
    let world = World::of(&["member alice project:web"], |_| {}).await;
    let before = world.sign_in("alice", json!({})).await;
    let changed = world.sign_in("alice", json!({ "newPassword": NEW })).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(world.with(&before.cookie(), "GET ", Value::Null).await.status, 401);
    assert_eq!(world.with(&changed.cookie(), "GET ", Value::Null).await.status, 200);
    assert_eq!(world.sign_in("alice", json!({})).await.status, 401, "the old one");
    assert_eq!(world.sign_in("alice", json!({ "password": NEW })).await.status, 200);
    for user in ["alice", "nobody"] {
        let wrong =
            world.sign_in(user, json!({ "password": "wrong", "newPassword": "also long enough" })).await;
        assert_eq!(wrong.status, 401, "{user}: {wrong:?}");
    }
}

#[tokio::test]
async fn what_was_shown_explicitly_goes_first() {
    let world = World::of(&["member alice project:web"], |_| {}).await;
    let good = world.sign_in("alice", json!({})).await;
    let (cookie, token) = (good.cookie(), good.token());
    let known = async |lines: &[(&'static str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("a value"));
        }
        let known = world.sessions.authenticate(&headers, &ConnectionInfo::default()).await;
        known.map(|user| user.map(|user| user.username.clone())).map_err(|error| error.code)
    };
    let alice = Ok(Some("acme/alice".to_owned()));
    let twice = format!("{cookie}; {cookie}");
    for (lines, want) in [
        (vec![], Ok(None)),
        (vec![("cookie", "theme=dark")], Ok(None)),
        (vec![("cookie", cookie.as_str())], alice),
        (vec![("cookie", &cookie), ("authorization", "Bearer bad")], Ok(None)),
        (vec![("cookie", &cookie), ("authorization", "Basic YTpi")], Ok(None)),
        (vec![("cookie", &cookie), ("x-auth-token", "bad")], Ok(None)),
        (vec![("cookie", &twice)], Err(401)),
        (vec![("cookie", "__Host-gantry-session=")], Err(401)),
        (vec![("cookie", "__Host-gantry-session=a.b.c")], Err(401)),
    ] {
        assert_eq!(known(&lines).await, want, "{lines:?}");
    }
    assert_eq!(known(&[("cookie", &token)]).await, Ok(None), "a token without the name");
    // The handlers hold to it as well.
    let both = [("cookie", cookie.as_str()), ("x-auth-token", "bad")];
    assert_eq!(world.ask("GET ", &both, Value::Null).await.status, 401);
    let request = Request::get("/identity/session").header(COOKIE, &cookie);
    assert_eq!(world.send(request.body(Body::empty()).expect("a request")).await.status, 200);
}
