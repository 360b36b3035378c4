//! Attempts to learn who exists, by what is answered and by the work behind the answer. The work is counted and not
//! timed: what takes noticeable time is a slow hash, a digest, a look into the vault, a commit of it.

use axum::body::Body;
use gantry_identity_api::{ApplicationCredential, ApplicationCredentialSpec, Domain, User, UserSpec};
use gantry_kube_types::RequestId;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::tests::Platform;
use crate::core::Settings;
use crate::directory::State;
use crate::directory::tests::put;
use crate::lockout::Source;
use crate::login::secrets::{check_given_secret, keep_application_secret, keep_totp_seed};
use crate::password::{Password, PasswordOptions};
use crate::tenancy::tests::{change, organisations};
use crate::totp::TotpSeed;
use crate::vault::{SecretBytes, SecretKey, SecretKind};
use crate::work::digests;

const PASSWORD: &str = "correct horse battery";
const CHOSEN: &str = "a secret of somebody's own";
const OLD: &str = "MshzZPhUNWTNNdtBe2Vj5dFTaMZkWZ9KNwDh51VHDDwSjvXnbUTFzE9WdPVhj_Ik";

/// What one attempt cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Work {
    slow_hashes: u64,
    digests: u64,
    reads: u64,
    commits: u64,
}

/// An answer as it goes out, without what is different in every answer: the request's id.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

struct World {
    platform: Platform,
    seed: TotpSeed,
    /// The secret of the credential `made`.
    made: String,
}

/// `alice` has everything, `bob` nothing to sign in with, `dan` is disabled, `olga`'s domain is.
fn people() -> State {
    let mut state = organisations(&["member alice project:web", "member dan project:web"]);
    for (id, domain, enabled) in [("dan", "acme", false), ("olga", "off", true)] {
        let spec = UserSpec { domain: domain.to_owned(), enabled, ..UserSpec::default() };
        put(&mut state, User::new(id, spec));
    }
    put(&mut state, Domain::new("off", Default::default()));
    change::<Domain>(&mut state, "off", |d| d.spec.enabled = false);
    for (id, user) in [
        ("made", "alice"),
        ("chosen", "alice"),
        ("old", "alice"),
        ("ended", "alice"),
        ("of-dan", "dan"),
        ("chosen-of-dan", "dan"),
    ] {
        let spec = ApplicationCredentialSpec {
            name: id.to_owned(),
            user: user.to_owned(),
            project: "web".to_owned(),
            roles: vec!["member".to_owned()],
            expires_at: (id == "ended").then(|| Time(Timestamp::now() - SignedDuration::from_hours(1))),
            ..Default::default()
        };
        put(&mut state, ApplicationCredential::new(id, spec));
    }
    state
}

impl World {
    /// Where guesses are not slowed down, unless `set` says otherwise.
    async fn new(set: impl FnOnce(&mut Settings)) -> Self {
        let platform = Platform::with(people(), |settings| {
            settings.lockout.user.free = 1000;
            settings.lockout.address.free = 1000;
            set(settings);
        });
        let core = &platform.core;
        for id in ["alice", "dan", "olga"] {
            let (password, now) = (Password::new(PASSWORD), Timestamp::now());
            let set = core.passwords.set(id, Source::Unknown, password, PasswordOptions::default(), now);
            set.await.expect("a password");
        }
        let seed = TotpSeed::generate().expect("random numbers");
        for id in ["alice", "dan"] {
            keep_totp_seed(&core.vault, id, "phone", &seed).await.expect("kept");
        }
        let mut made = String::new();
        for (id, given) in [
            ("made", None),
            ("ended", None),
            ("of-dan", None),
            ("chosen", Some(CHOSEN)),
            ("chosen-of-dan", Some(CHOSEN)),
        ] {
            let given = given.map(Password::new);
            let secret =
                keep_application_secret(&core.vault, &core.passwords, id, given).await.expect("kept");
            if id == "made" {
                made = secret.expose().to_owned();
            }
        }
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(OLD)));
        let key = SecretKey::only(SecretKind::ApplicationCredential, "old");
        core.vault.put(key, SecretBytes::from(digest)).await.expect("kept");
        Self { platform, seed, made }
    }

    async fn sign_in(&self, identity: &Value) -> (Work, Answer) {
        let core = &self.platform.core;
        let done = || {
            let (reads, commits) = core.vault.done();
            Work { slow_hashes: core.passwords.hasher().computed(), digests: digests(), reads, commits }
        };
        let body = json!({ "auth": { "identity": identity } }).to_string();
        let before = done();
        let mut request =
            Request::post("/identity/v3/auth/tokens").body(Body::from(body)).expect("a request");
        request.extensions_mut().insert(RequestId(format!("{before:?}")));
        let answer = self.platform.answer(request).await;
        let after = done();
        let (mut head, body) = answer.into_parts();
        assert!(head.headers.remove("x-openstack-request-id").is_some(), "every answer has one");
        let body = body.collect().await.expect("a body").to_bytes().to_vec();
        let work = Work {
            slow_hashes: after.slow_hashes - before.slow_hashes,
            digests: after.digests - before.digests,
            reads: after.reads - before.reads,
            commits: after.commits - before.commits,
        };
        (work, Answer { status: head.status, headers: head.headers, body })
    }

    /// All are refused in the same words at the same cost, which is given back.
    async fn all_alike(&self, attempts: &[(&str, Value)]) -> Work {
        let mut first: Option<(Work, Answer)> = None;
        for (what, identity) in attempts {
            let (work, answer) = self.sign_in(identity).await;
            assert_eq!(answer.status, 401, "{what}");
            match &first {
                None => first = Some((work, answer)),
                Some((like, said)) => {
                    assert_eq!(work, *like, "{what} costs what {} does", attempts[0].0);
                    assert_eq!(answer, *said, "{what} is answered as {} is", attempts[0].0);
                }
            }
        }
        first.expect("attempts").0
    }

    async fn is_let_in(&self, identity: &Value) -> Work {
        let (work, answer) = self.sign_in(identity).await;
        assert_eq!(answer.status, 201, "{identity}: {}", String::from_utf8_lossy(&answer.body));
        work
    }

    /// A code that none of the steps around now has.
    fn wrong_code(&self) -> String {
        let near = |n: i64| self.seed.code(Timestamp::now() + SignedDuration::from_secs(30 * n));
        let near: Vec<String> = (-4..=4).map(near).collect();
        (0..).map(|n| format!("{n:06}")).find(|code| !near.contains(code)).expect("a million codes")
    }
}

fn named(domain: &str, name: &str) -> Value {
    json!({ "name": name, "domain": { "name": domain } })
}

fn with(mut user: Value, key: &str, value: &str) -> Value {
    user[key] = value.into();
    user
}

fn password(user: Value, password: &str) -> Value {
    json!({ "methods": ["password"], "password": { "user": with(user, "password", password) } })
}

fn totp(user: Value, code: &str) -> Value {
    json!({ "methods": ["totp"], "totp": { "user": with(user, "passcode", code) } })
}

fn credential(credential: Value, secret: &str) -> Value {
    json!({ "methods": ["application_credential"], "application_credential": with(credential, "secret", secret) })
}

/// Everybody who cannot sign in, whatever they know.
fn nobodies() -> Vec<(&'static str, Value)> {
    vec![
        ("an unknown user", named("acme", "mallory")),
        ("an unknown id", json!({ "id": "0a1b2c" })),
        ("a disabled user", named("acme", "dan")),
        ("a disabled user's id", json!({ "id": "dan" })),
        ("an unknown domain", named("nowhere", "alice")),
        ("a disabled domain", named("off", "olga")),
        ("another domain", named("globex", "alice")),
    ]
}

#[tokio::test]
async fn passwords_do_not_tell_who_exists() {
    let world = World::new(|_| {}).await;
    let mut attempts = vec![
        ("a wrong password", password(named("acme", "alice"), "wrong")),
        ("a wrong password by id", password(json!({ "id": "alice" }), "wrong")),
        ("a user without a password", password(named("acme", "bob"), PASSWORD)),
    ];
    attempts.extend(nobodies().into_iter().map(|(what, user)| (what, password(user, PASSWORD))));
    let cost = world.all_alike(&attempts).await;
    assert_eq!((cost.slow_hashes, cost.commits), (1, 0));
    let cost = world.is_let_in(&password(named("acme", "alice"), PASSWORD)).await;
    assert_eq!(cost.slow_hashes, 1);
    let long = "x".repeat(crate::password::PASSWORD_BYTES_MAX + 1);
    let users = nobodies().into_iter().chain([("alice", named("acme", "alice"))]);
    let attempts: Vec<_> = users.map(|(what, user)| (what, password(user, &long))).collect();
    assert_eq!(world.all_alike(&attempts).await.slow_hashes, 0, "too long for everybody");
}

#[tokio::test]
async fn codes_do_not_tell_who_exists() {
    let world = World::new(|_| {}).await;
    let wrong = world.wrong_code();
    let mut attempts = vec![
        ("a wrong code", totp(named("acme", "alice"), &wrong)),
        ("a user without an authenticator", totp(named("acme", "bob"), &wrong)),
    ];
    attempts.extend(nobodies().into_iter().map(|(what, user)| (what, totp(user, &wrong))));
    let cost = world.all_alike(&attempts).await;
    assert_eq!((cost.slow_hashes, cost.commits), (0, 0), "nothing is written that everybody can cause");
    assert!(cost.digests > 0, "codes are computed");
    // Who has no seed is not let in by the codes of the one that stands for it.
    let code = TotpSeed::of_nobody().code(Timestamp::now());
    let near = |n: i64| world.seed.code(Timestamp::now() + SignedDuration::from_secs(30 * n));
    if (-4..=4).all(|n| near(n) != code) {
        let mut attempts = vec![("a user without an authenticator", totp(named("acme", "bob"), &code))];
        attempts.extend(nobodies().into_iter().map(|(what, user)| (what, totp(user, &code))));
        world.all_alike(&attempts).await;
    }
    let code = totp(named("acme", "alice"), &world.seed.code(Timestamp::now()));
    assert_eq!(world.is_let_in(&code).await.commits, 1, "the code is used up");
    let (_, answer) = world.sign_in(&code).await;
    assert_eq!(answer.status, 401, "a code is good once");
}

#[tokio::test]
async fn secrets_of_credentials_do_not_tell_which_exist() {
    let world = World::new(|_| {}).await;
    let by_id = |id: &str| json!({ "id": id });
    let of = |user: Value, name: &str| json!({ "name": name, "user": user });
    let credentials = || {
        vec![
            ("one with a generated secret", by_id("made")),
            ("one with a chosen secret", by_id("chosen")),
            ("one from before", by_id("old")),
            ("one that does not exist", by_id("0a1b2c")),
            ("one that has ended", by_id("ended")),
            ("a disabled user's", by_id("of-dan")),
            ("a disabled user's with a chosen secret", by_id("chosen-of-dan")),
            ("one by its name", of(named("acme", "alice"), "made")),
            ("one with a chosen secret by its name", of(named("acme", "alice"), "chosen")),
            ("a name that the user does not have", of(named("acme", "alice"), "unknown")),
            ("an unknown user's", of(named("acme", "mallory"), "made")),
            ("an unknown domain's", of(named("nowhere", "alice"), "made")),
        ]
    };
    let attempts = |secret: &str| -> Vec<(&str, Value)> {
        credentials().into_iter().map(|(what, which)| (what, credential(which, secret))).collect()
    };
    let generated = format!("gac_{}", "A".repeat(64));
    let cost = world.all_alike(&attempts(&generated)).await;
    assert_eq!((cost.slow_hashes, cost.digests, cost.commits), (0, 1, 0));
    let cost = world.all_alike(&attempts("wrong")).await;
    assert_eq!((cost.slow_hashes, cost.commits), (1, 0));
    let long = "x".repeat(crate::password::PASSWORD_BYTES_MAX + 1);
    world.all_alike(&attempts(&long)).await;
    // Each is let in by its own secret, and programs do not wait for a slow hash.
    for (which, secret, slow_hashes) in [
        (by_id("made"), world.made.as_str(), 0),
        (of(named("acme", "alice"), "made"), world.made.as_str(), 0),
        (by_id("chosen"), CHOSEN, 1),
        (by_id("old"), OLD, 1),
    ] {
        assert_eq!(world.is_let_in(&credential(which, secret)).await.slow_hashes, slow_hashes);
    }
    for (which, secret) in [("chosen", world.made.as_str()), ("made", CHOSEN), ("chosen-of-dan", CHOSEN)] {
        let (_, answer) = world.sign_in(&credential(by_id(which), secret)).await;
        assert_eq!(answer.status, 401, "{which}");
    }
    assert!(check_given_secret(&Password::new(CHOSEN)).is_ok());
    assert!(
        check_given_secret(&Password::new(&*world.made)).is_err(),
        "it would be compared as a generated one"
    );
}

/// The waits grow for names that do not exist as for those that do, and a lock-out looks as a wrong password does.
#[tokio::test]
async fn waits_and_lock_outs_do_not_tell_who_exists() {
    let attempts =
        nobodies().into_iter().chain([("alice", named("acme", "alice")), ("bob", named("acme", "bob"))]);
    let attempts: Vec<(&str, Value)> = attempts.collect();
    for locks in [false, true] {
        let world = World::new(|settings| {
            settings.lockout.user.free = 2;
            settings.lockout.user.wait_ms_min = 600_000;
            settings.lockout.user.wait_ms_max = 600_000;
            if locks {
                settings.security_compliance.lockout_failure_attempts = 3;
            }
        })
        .await;
        let mut first = None;
        for (what, user) in &attempts {
            let mut statuses = Vec::new();
            for _ in 0..5 {
                // Nobody knows it: the right one would end alice's counting.
                statuses.push(world.sign_in(&password(user.clone(), "wrong")).await.1.status.as_u16());
            }
            assert_eq!(*first.get_or_insert_with(|| statuses.clone()), statuses, "{what}, lock-out: {locks}");
        }
        let want = if locks { [401; 5] } else { [401, 401, 401, 429, 429] };
        assert_eq!(first.expect("attempts"), want);
    }
}
