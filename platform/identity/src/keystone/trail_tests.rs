//! What is left in the audit trail: whose deed it was, on what, and under which request's id.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_identity_api::extra::TOKEN_ID;
use gantry_kube_types::{
    AUDIT_ID, AuditClosed, AuditEvent, AuditLike, AuditNotes, AuditPlan, AuditSink, Authenticator,
    ConnectionInfo, RequestInfo, UserInfo, audit_annotations,
};
use http::{HeaderMap, HeaderValue, Request};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::tests::Platform;
use crate::authenticator::PasswordAuthenticator;
use crate::login::Origin;
use crate::password::Password;
use crate::tenancy::tests::organisations;
use crate::token::TokenScope;

/// Keeps events in memory.
#[derive(Default)]
struct Kept(Mutex<Vec<AuditEvent>>);

impl Kept {
    fn of(platform: &Platform) -> Arc<Self> {
        let kept = Arc::new(Self::default());
        platform.core.audit_to(kept.clone());
        kept
    }

    /// What came since the last call.
    fn taken(&self) -> Vec<AuditEvent> {
        std::mem::take(&mut *self.0.lock().expect("not poisoned"))
    }

    /// `user verb resource/name` of what came.
    fn lines(&self) -> Vec<String> {
        let line = |e: &AuditEvent| {
            format!("{} {} {}/{}", e.user.username, e.verb, e.object.resource, e.object.name)
        };
        self.taken().iter().map(line).collect()
    }
}

#[async_trait::async_trait]
impl AuditSink for Kept {
    fn plan(&self, _: &UserInfo, _: &RequestInfo) -> AuditPlan {
        AuditPlan::default()
    }

    fn try_reserve(&self) -> bool {
        true
    }

    async fn reserve(&self) -> Result<(), AuditClosed> {
        Ok(())
    }

    fn commit(&self, event: Box<AuditEvent>) -> Option<AuditLike> {
        self.0.lock().expect("not poisoned").push(*event);
        None
    }

    fn release(&self) {
        // There are as many places as are asked for.
    }
}

#[tokio::test]
async fn who_revokes_a_token_did_it_and_not_whose_it_is() {
    let platform = Platform::of(organisations(&["admin alice system"]));
    let kept = Kept::of(&platform);
    let [admin, bobs] = [("alice", TokenScope::System), ("bob", TokenScope::Unscoped)]
        .map(|(user, scope)| platform.token(user, scope));
    let session = |token: &str| platform.core.validate(token).expect("good");
    let (alice, bob) = (session(&admin).info.username.clone(), session(&bobs));
    assert_ne!(alice, bob.info.username);
    let said =
        platform.call_with(&admin, "DELETE /auth/tokens", Value::Null, &[("x-subject-token", &bobs)]).await;
    assert_eq!(said.status, 204, "{said:?}");
    let [event] = kept.taken().try_into().expect("one event");
    assert_eq!((event.user.username.as_str(), event.verb.as_str()), (alice.as_str(), "token-revoked"));
    assert_eq!(event.object.name, "bob");
    assert!(event.annotations.contains(&(TOKEN_ID.into(), bob.claims.id.clone())), "{event:?}");

    // With the token itself: a logout, and one's own deed.
    let own = [("x-subject-token", admin.as_str())];
    assert_eq!(platform.call_with(&admin, "DELETE /auth/tokens", Value::Null, &own).await.status, 204);
    assert_eq!(kept.lines(), [format!("{alice} logout users/alice")]);
}

#[tokio::test]
async fn a_lock_out_and_its_end_are_told() {
    let platform = Platform::with(organisations(&[]), |settings| {
        settings.security_compliance.lockout_failure_attempts = 1;
    });
    let kept = Kept::of(&platform);
    let origin = Origin::default();
    let by = || UserInfo::authenticated("acme/root", &[]);
    let core = &platform.core;
    core.set_password("alice", Password::new("first-of-alice"), by(), &origin).await.expect("set");
    assert_eq!(kept.lines(), ["acme/root password-reset users/alice"], "nobody was locked out");
    let body = json!({"auth": {"identity": {"methods": ["password"],
        "password": {"user": {"id": "alice", "password": "wrong"}}}}});
    assert_eq!(platform.call("", "POST /auth/tokens", body).await.status, 401);
    let anonymous = UserInfo::anonymous();
    let told = kept.lines();
    assert_eq!(told[0], format!("{} locked-out users/alice", anonymous.username), "{told:?}");
    core.set_password("alice", Password::new("second-of-alice"), by(), &origin).await.expect("set");
    let want = ["acme/root unlocked users/alice", "acme/root password-reset users/alice"];
    assert_eq!(kept.lines(), want);
}

#[tokio::test]
async fn an_address_that_tries_many_names_is_told_of_once() {
    let platform = Platform::with(organisations(&[]), |settings| settings.lockout.address.free = 1);
    let kept = Kept::of(&platform);
    let door = PasswordAuthenticator(platform.core.clone());
    let peer = "192.0.2.7:4711".parse().ok();
    let connection = ConnectionInfo { peer, ..ConnectionInfo::default() };
    for (attempt, want) in
        [(1, &["login-failed"][..]), (2, &["locked-out", "login-failed"]), (3, &["login-failed"])]
    {
        let basic = STANDARD.encode(format!("acme/nobody{attempt}:guess"));
        let basic = HeaderValue::from_str(&format!("Basic {basic}")).expect("a header");
        let id = format!("request-{attempt}");
        let headers = HeaderMap::from_iter([
            (http::header::AUTHORIZATION, basic),
            (AUDIT_ID.parse().expect("a name"), id.parse().expect("a header")),
        ]);
        assert!(door.authenticate(&headers, &connection).await.is_err());
        let events = kept.taken();
        let verbs: Vec<&str> = events.iter().map(|event| event.verb.as_str()).collect();
        assert_eq!(verbs, want, "attempt {attempt}");
        assert!(events.iter().all(|event| event.id == id), "found by the request's id: {events:?}");
        if let [locked, _] = &events[..] {
            assert_eq!(
                (locked.object.resource.as_str(), locked.object.name.as_str()),
                ("addresses", "192.0.2.7")
            );
        }
    }
}

#[tokio::test]
async fn a_new_signing_key_is_told_of() {
    let platform = Platform::of(organisations(&[]));
    let kept = Kept::of(&platform);
    let own = crate::own_user();
    let now = Timestamp::now();
    let signing = |at: Timestamp| platform.core.tokens.keys().set().signing(at).id().to_owned();
    platform.core.tend_keys(now).await.expect("tended");
    assert_eq!(kept.lines(), [format!("{} signing-key-rotated signingkeys/{}", own.username, signing(now))]);
    platform.core.tend_keys(now).await.expect("tended");
    assert_eq!(kept.lines(), [""; 0]);
    let later = now.checked_add(SignedDuration::from_hours(30 * 24)).expect("in range");
    platform.core.tend_keys(later).await.expect("tended");
    let next = signing(later.checked_add(SignedDuration::from_hours(3)).expect("in range"));
    assert_ne!(next, signing(now));
    assert_eq!(kept.lines(), [format!("{} signing-key-rotated signingkeys/{next}", own.username)]);
}

#[tokio::test]
async fn a_record_names_what_a_call_is_about() {
    let platform = Platform::of(organisations(&["admin alice system"]));
    let admin = platform.token("alice", TokenScope::System);
    let notes = async |method: &str, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(format!("/identity/v3{path}"));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.header("x-auth-token", &admin).body(body.into()).expect("a request");
        let answer = platform.answer(request).await;
        (answer.status().as_u16(), answer.extensions().get::<AuditNotes>().cloned())
    };
    let (status, read) = notes("GET", "/projects/web", Value::Null).await;
    let read = read.expect("notes");
    let object = read.object.expect("an object");
    assert_eq!(status, 200);
    assert_eq!((object.resource.as_str(), object.name.as_str()), ("projects", "web"));
    let whose = [(audit_annotations::OBJECT_DOMAIN, "acme"), (audit_annotations::PROJECT, "web")];
    assert_eq!(read.annotations, whose.map(|(key, id)| (key.into(), id.to_owned())), "for its managers");
    let (status, refused) = notes("GET", "/users/none", Value::Null).await;
    assert_eq!((status, refused.and_then(|n| n.object).map(|o| o.name)), (404, Some("none".to_owned())));
    let role = json!({"role": {"name": "looker"}});
    let (status, made) = notes("POST", "/roles", role).await;
    let made = made.expect("notes");
    assert_eq!((status, made.object.map(|o| o.resource)), (201, Some("roles".to_owned())));
    assert!(made.name.is_some_and(|id| id.len() == 32), "the new id");
    assert!(notes("GET", "/auth/catalog", Value::Null).await.1.is_none());
}

#[tokio::test]
async fn a_role_in_a_project_is_its_managers_to_see() {
    let platform = Platform::of(organisations(&["admin alice system"]));
    let kept = Kept::of(&platform);
    let admin = platform.token("alice", TokenScope::System);
    for (place, want) in [("projects/web", Some("web")), ("domains/acme", None)] {
        let what = format!("PUT /{place}/users/bob/roles/reader");
        assert_eq!(platform.call(&admin, &what, Value::Null).await.status, 204, "{place}");
        let [event] = kept.taken().try_into().expect("one event");
        let found = event.annotations.iter().find(|(key, _)| key == audit_annotations::PROJECT);
        assert_eq!(found.map(|(_, project)| project.as_str()), want, "{place}");
    }
}
