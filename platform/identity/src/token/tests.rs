use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::keys::{KeyRing, KeySchedule};

const ISSUER: &str = "https://gantry.example:6443/identity";

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
}

pub(super) fn ring(directory: &TempDir) -> KeyRing {
    KeyRing::open(directory.path(), KeySchedule::default(), at(0)).expect("keys")
}

pub(super) fn claims() -> Claims {
    let new = new();
    let issued_at = Timestamp::from_microsecond(1_700_000_000_123_456).expect("a time");
    Claims {
        audiences: vec!["gantry".to_owned()],
        methods: new.methods,
        scope: new.scope,
        ..Claims::unscoped("AAAAAAAAAAAAAAAAAAAAAA", &new.user, &new.user_domain, issued_at..at(3600))
    }
}

fn new() -> NewToken {
    NewToken {
        user: "0123456789abcdef0123456789abcdef".to_owned(),
        user_domain: "default".to_owned(),
        authenticated_at: at(0),
        methods: vec!["password".to_owned()],
        scope: TokenScope::Project {
            id: "fedcba9876543210fedcba9876543210".to_owned(),
            domain: "default".to_owned(),
        },
        ..NewToken::default()
    }
}

struct World {
    tokens: Tokens,
    _directory: TempDir,
}

fn world() -> World {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tokens = Tokens::new(Arc::new(ring(&directory)), TokensConfig::new(ISSUER, "gantry"));
    World { tokens, _directory: directory }
}

impl World {
    fn issue(&self, change: impl FnOnce(&mut NewToken)) -> String {
        let mut new = new();
        change(&mut new);
        self.tokens.issue(new, at(0)).expect("issued").token
    }

    /// Signs any claims with the true key, as a bug of ours might.
    fn sign(&self, change: impl FnOnce(&mut Value)) -> String {
        let token = self.issue(|_| ());
        let mut claims = part(&token, 1);
        change(&mut claims);
        let signed = format!("{}.{}", token.split('.').next().expect("a header"), encode(&claims));
        let set = self.tokens.keys().set();
        let signature = set.signing(at(0)).sign(signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Twice: what memory answers must be what the signature said.
    fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        let first = self.tokens.verify(token, Checks::at(at(1)));
        assert_eq!(self.tokens.verify(token, Checks::at(at(1))), first);
        first
    }
}

fn part(token: &str, n: usize) -> Value {
    let part = token.split('.').nth(n).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[test]
fn a_token_is_short_and_says_what_was_asked() {
    let world = world();
    let token = world.issue(|_| ());
    assert!(token.len() < 600, "{} bytes: {}", token.len(), part(&token, 1));
    let claims = world.verify(&token).expect("good");
    assert_eq!((claims.issued_at, claims.expires_at), (at(0), at(4 * 3600)));
    assert_eq!(claims.audit_ids(), [claims.id.as_str()]);
    let child = world.issue(|new| {
        new.chain = Some(claims.chain_id().to_owned());
        new.expires_at = Some(claims.expires_at);
    });
    let child = world.verify(&child).expect("good");
    assert_eq!(child.audit_ids(), [child.id.as_str(), claims.id.as_str()]);
    let header = part(&token, 0);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("ES256"), &json!("JWT")));
    assert!(!format!("{:?}", world.tokens.issue(new(), at(0))).contains("eyJ"), "a token is a secret");
}

#[test]
fn others_can_verify_by_the_published_keys() {
    // With another implementation than the one that signs.
    let world = world();
    let new = |new: &mut NewToken| {
        new.audiences = vec!["cluster-b".to_owned(), "gantry".to_owned()];
        new.profile =
            Some(Profile { username: "acme/alice".to_owned(), groups: vec!["acme/devs".to_owned()] });
    };
    let token = world.issue(new);
    let jwk = &world.tokens.keys().jwks()["keys"][0];
    assert_eq!(part(&token, 0)["kid"], jwk["kid"]);
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("text")).expect("base64");
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let (signed, signature) = token.rsplit_once('.').expect("parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    key.verify(signed.as_bytes(), &signature).expect("the published key verifies");
    let claims = part(&token, 1);
    for (name, value) in [
        ("iss", json!(ISSUER)),
        ("aud", json!(["cluster-b", "gantry"])),
        ("preferred_username", json!("acme/alice")),
        ("groups", json!(["acme/devs"])),
        ("exp", json!(at(4 * 3600).as_second())),
        ("nbf", json!(at(0).as_second())),
    ] {
        assert_eq!(claims[name], value, "{name}");
    }
}

#[test]
fn what_is_not_a_good_token_of_ours_is_refused() {
    use TokenError::*;
    let (world, stranger) = (world(), self::world());
    let good = world.issue(|_| ());
    assert!(world.verify(&good).is_ok(), "the honest token");
    let parts: Vec<&str> = good.split('.').collect();
    let (header, body, signature) = (parts[0], parts[1], parts[2]);
    let kid = part(&good, 0)["kid"].clone();
    let with_header = |value: Value| format!("{}.{body}.{signature}", encode(&value));
    let hmac = {
        let jwks = world.tokens.keys().set().jwks();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, jwks.as_bytes());
        let signed = format!("{}.{body}", encode(&json!({"alg": "HS256", "typ": "JWT", "kid": kid})));
        let mac = ring::hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
    };
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    flipped[40] ^= 1;
    let altered = {
        let mut claims = part(&good, 1);
        claims["sub"] = json!("admin");
        format!("{header}.{}.{signature}", encode(&claims))
    };
    let table = [
        ("nothing", String::new(), Foreign),
        ("no token", "abc".to_owned(), Foreign),
        ("dots", "..".to_owned(), Foreign),
        ("a Fernet token", "gAAAAABmZ2".repeat(20), Foreign),
        ("too long", "x".repeat(TOKEN_BYTES_MAX + 1), Foreign),
        ("four parts", format!("{good}.x"), Foreign),
        ("another issuer's", stranger_token(&stranger), Foreign),
        ("another key of our issuer", stranger.issue(|_| ()), Header),
        ("alg none", format!("{}.{body}.", encode(&json!({"alg": "none"}))), Header),
        ("alg none with kid", with_header(json!({"alg": "none", "kid": kid, "typ": "JWT"})), Header),
        ("alg none, signed", with_header(json!({"alg": "None", "kid": kid})), Header),
        ("an HMAC with the public key", hmac, Header),
        ("a key in the header", with_header(json!({"alg": "ES256", "kid": kid, "jwk": {}})), Header),
        ("critical extensions", with_header(json!({"alg": "ES256", "kid": kid, "crit": ["b64"]})), Header),
        ("a path as kid", with_header(json!({"alg": "ES256", "kid": "../../dev/null"})), Header),
        ("no signature", format!("{header}.{body}."), Signature),
        ("zeros as signature", format!("{header}.{body}.{}", URL_SAFE_NO_PAD.encode([0; 64])), Signature),
        ("a bent signature", format!("{header}.{body}.{}", URL_SAFE_NO_PAD.encode(flipped)), Signature),
        ("more behind the signature", format!("{good}AAAA"), Signature),
        ("padding", format!("{good}=="), Malformed),
        ("altered claims", altered, Signature),
        ("signed, but of another issuer", world.sign(|it| it["iss"] = json!("https://elsewhere")), Malformed),
        (
            "signed, without an end",
            world.sign(|it| drop(it.as_object_mut().map(|it| it.remove("exp")))),
            Malformed,
        ),
        ("signed, with times as text", world.sign(|it| it["exp"] = json!("never")), Malformed),
        ("signed, with a huge time", world.sign(|it| it["exp"] = json!(i64::MAX)), Malformed),
        ("another audience", world.issue(|it| it.audiences = vec!["vault".to_owned()]), Audience),
        ("no audience", world.sign(|it| it["aud"] = json!([])), Audience),
        ("a part of the audience", world.sign(|it| it["aud"] = json!("gantr")), Audience),
        ("expired", world.sign(|it| it["exp"] = json!(at(1).as_second())), Expired),
        (
            "of tomorrow",
            world.sign(|it| {
                it["iat"] = json!(at(86_400).as_second());
                it["nbf"] = it["iat"].clone();
            }),
            NotYet,
        ),
    ];
    for (what, token, error) in table {
        assert_eq!(world.verify(&token).err(), Some(error), "{what}");
    }
}

fn stranger_token(world: &World) -> String {
    world.sign(|claims| claims["iss"] = json!("https://kubernetes.default.svc.cluster.local"))
}

#[test]
fn time_audience_and_keys_are_asked_every_time() {
    let world = world();
    let token = world.issue(|new| new.expires_at = Some(at(100)));
    let check = |checks| world.tokens.verify(&token, checks).map(drop);
    let vault = ["vault".to_owned()];
    assert_eq!(check(Checks::at(at(99))), Ok(()));
    assert_eq!(check(Checks::at(at(100))), Err(TokenError::Expired), "also from memory");
    let window = Checks { expired_for: SignedDuration::from_secs(50), ..Checks::at(at(149)) };
    assert_eq!(check(window), Ok(()), "allow_expired");
    assert_eq!(check(Checks { now: at(150), ..window }), Err(TokenError::Expired));
    assert_eq!(check(Checks::at(at(99)).audiences(&vault)), Err(TokenError::Audience));
    assert_eq!(check(Checks::at(at(-4))), Ok(()), "clocks differ a little");
    assert_eq!(check(Checks::at(at(-6))), Err(TokenError::NotYet));

    let keys = world.tokens.keys().clone();
    let first = keys.set().all()[0].id().to_owned();
    keys.rotate_now(at(50)).expect("rotated");
    assert_eq!(check(Checks::at(at(60))), Ok(()), "the old key is still published");
    keys.withdraw(&first).expect("withdrawn");
    assert_eq!(check(Checks::at(at(60))), Err(TokenError::Header), "void at once, also from memory");
}

#[test]
fn lifetimes_are_bounded() {
    let world = world();
    let issue = |expires_at| {
        let new = NewToken { expires_at: Some(expires_at), ..new() };
        world.tokens.issue(new, at(0)).map(|issued| issued.claims.expires_at)
    };
    assert_eq!(issue(at(60)), Ok(at(60)));
    assert_eq!(issue(Timestamp::MAX), Ok(at(86_400)));
    assert_eq!(issue(at(0)), Err(IssueError::Lifetime));
    assert_eq!(issue(at(-60)), Err(IssueError::Lifetime));
    let new = NewToken { roles: Some(vec!["x".repeat(100); 100]), ..new() };
    assert!(matches!(world.tokens.issue(new, at(0)), Err(IssueError::TooLong { .. })));
    let future = NewToken { authenticated_at: at(500), ..self::new() };
    assert_eq!(world.tokens.issue(future, at(0)).expect("issued").claims.issued_at, at(0));
}

fn any_scope() -> impl Strategy<Value = TokenScope> {
    prop_oneof![
        Just(TokenScope::Unscoped),
        Just(TokenScope::System),
        "\\PC{0,40}".prop_map(TokenScope::Domain),
        ("\\PC{0,40}", "default|[a-f0-9]{32}").prop_map(|(id, domain)| TokenScope::Project { id, domain }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_token_reads_as_it_was_written(
        scope in any_scope(),
        user in "\\PC{1,40}",
        micros in 0_i64..1_000_000_000,
        roles in prop::option::of(prop::collection::vec("[a-z]{1,8}", 0..4)),
        trust in prop::option::of("[a-f0-9]{32}"),
        credential in prop::option::of("[a-f0-9]{32}"),
        groups in prop::option::of(prop::collection::vec("\\PC{0,12}", 0..4)),
        audiences in prop::collection::vec("[a-z]{1,8}", 0..3),
    ) {
        let world = world();
        let new = NewToken {
            user, scope, roles, trust, audiences,
            application_credential: credential,
            authenticated_at: Timestamp::from_microsecond(at(0).as_microsecond() + micros).expect("a time"),
            federation: groups.clone().map(|groups| Federation { provider: "i".into(), protocol: "p".into(), groups }),
            profile: groups.map(|groups| Profile { username: "a/b".into(), groups }),
            oauth: Some(OAuth { consumer: "c".into(), access_token: "a".into() }),
            ..new()
        };
        let issued = world.tokens.issue(new, at(2000)).expect("issued");
        let fresh = Tokens::new(world.tokens.keys().clone(), world.tokens.config().clone());
        let audiences = issued.claims.audiences.clone();
        let read = fresh.verify(&issued.token, Checks::at(at(2000)).audiences(&audiences)).expect("good");
        prop_assert_eq!(read, issued.claims);
    }

    #[test]
    fn no_garbage_is_taken(garbage in "\\PC{0,200}|[A-Za-z0-9_-]{1,40}\\.[A-Za-z0-9_-]{1,80}\\.[A-Za-z0-9_-]{1,90}") {
        let world = world();
        prop_assert_eq!(world.verify(&garbage).err(), Some(TokenError::Foreign));
    }

    #[test]
    fn no_changed_byte_is_taken(at_byte in 0_usize..500, byte in any::<u8>()) {
        let world = world();
        let token = world.issue(|_| ());
        let mut changed = token.clone().into_bytes();
        let at_byte = at_byte % changed.len();
        changed[at_byte] = byte & 0x7f;
        let changed = String::from_utf8(changed).expect("ASCII");
        prop_assert!(changed == token || world.verify(&changed).is_err());
    }
}
