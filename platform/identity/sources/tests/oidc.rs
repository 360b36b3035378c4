//! The OpenID Connect client against npm's oidc-provider.

use gantry_identity_sources::{OidcBegun, OidcCallback, OidcDevicePoll, OidcLogin, OidcSource, SourceError};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;

use crate::oidc_provider::{OidcProvider, WEB_REDIRECT, new_key};
use crate::slapd::secret;

const LOOPBACK: &str = "http://127.0.0.1:45671/callback";

fn callback(url: &Url) -> OidcCallback {
    let query: serde_json::Map<String, Value> =
        url.query_pairs().map(|(k, v)| (k.into_owned(), Value::String(v.into_owned()))).collect();
    serde_json::from_value(Value::Object(query)).expect("a callback")
}

/// `url` with one parameter changed.
fn with(url: &Url, name: &str, value: &str) -> Url {
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().filter(|(k, _)| k != name).collect();
    let mut changed = url.clone();
    changed.query_pairs_mut().clear().extend_pairs(pairs).append_pair(name, value);
    changed
}

fn why<T: std::fmt::Debug>(outcome: Result<T, SourceError>) -> String {
    match outcome.expect_err("it must be refused") {
        SourceError::Rejected { why } => why,
        other => panic!("another error: {other}"),
    }
}

async fn signed_in(provider: &OidcProvider, source: &OidcSource, user: &str) -> OidcLogin {
    let begun = source.begin(WEB_REDIRECT, Some("/projects")).await.expect("it begins");
    // Refresh tokens are given when the person is asked for them.
    let url = with(&begun.url, "prompt", "consent");
    let back = provider.browser().sign_in(url, user, WEB_REDIRECT).await.expect("the provider sends us back");
    source.finish(&callback(&back), &begun.binding).await.expect("it fits together")
}

#[tokio::test]
async fn a_person_signs_in_stays_and_leaves() {
    let Some(provider) = OidcProvider::start().await else { return };
    let source = provider.source(|_| {});
    source.test().await.expect("the provider is well");
    let login = signed_in(&provider, &source, "alice").await;
    assert_eq!((login.user.id.as_str(), login.user.name.as_str()), ("alice", "alice"));
    assert_eq!(login.user.display_name.as_deref(), Some("Alice Example"));
    assert_eq!(login.user.email.as_deref(), Some("alice@example.org"));
    let groups: Vec<&str> = login.user.groups.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(groups, ["idp:devs", "idp:ops"]);
    assert_eq!(login.return_to.as_deref(), Some("/projects"));
    assert_eq!(login.claims["realm"], json!({"roles": ["r1"]}));

    let refresh = login.refresh_token.expect("offline_access was asked for");
    let again = source.refresh(&refresh, "alice").await.expect("the session goes on");
    assert_eq!(again.user, login.user);
    let rotated = again.refresh_token.unwrap_or(refresh);
    assert!(why(source.refresh(&rotated, "bob").await).contains("somebody else"));
    let ended = source.refresh(&secret("not-a-refresh-token"), "alice").await.expect_err("no such session");
    assert_eq!(ended, SourceError::BadCredentials);

    let id_token = login.id_token.expect("an ID token");
    let bye = "https://gantry.example/bye";
    let url = source.end_session_url(Some(&id_token), Some(bye)).await.expect("a URL").expect("it has one");
    let left = provider.browser().sign_in(url, "alice", bye).await;
    assert!(left.is_ok(), "{left:?}");
    let elsewhere = source.end_session_url(None, Some("https://evil.example")).await;
    assert!(why(elsewhere).contains("may not come back"));
}

#[tokio::test]
async fn claims_of_the_userinfo_endpoint_are_taken_too() {
    let Some(mut provider) = OidcProvider::prepare() else { return };
    provider.claims_in_id_token = false;
    provider.run().await;
    let source = provider
        .source(|c| (c.userinfo, c.claims.groups) = (true, Some(vec!["realm".into(), "roles".into()])));
    let login = signed_in(&provider, &source, "mallory").await;
    assert_eq!(login.user.email, None, "an address that is not verified");
    assert_eq!(login.user.groups.len(), 1);
    assert_eq!(login.user.groups[0].name, "idp:r1");
    let without = provider.source(|_| {});
    let begun = without.begin(WEB_REDIRECT, None).await.expect("it begins");
    let back = provider.browser().sign_in(begun.url, "alice", WEB_REDIRECT).await.expect("back");
    let error = without.finish(&callback(&back), &begun.binding).await.expect_err("no name in the ID token");
    assert!(matches!(error, SourceError::Misconfigured { .. }), "{error}");
}

#[tokio::test]
async fn a_sign_in_that_was_tampered_with_is_refused() {
    let Some(provider) = OidcProvider::start().await else { return };
    let source = provider.source(|_| {});
    let begin = async || source.begin(WEB_REDIRECT, None).await.expect("it begins");
    let go =
        async |url: &Url| provider.browser().sign_in(url.clone(), "alice", WEB_REDIRECT).await.expect("back");
    let finish = async |begun: &OidcBegun, back: &Url| source.finish(&callback(back), &begun.binding).await;

    let (ours, theirs) = (begin().await, begin().await);
    let (our_back, their_back) = (go(&ours.url).await, go(&theirs.url).await);
    assert!(why(finish(&ours, &their_back).await).contains("state"), "another person's answer");
    assert!(why(finish(&ours, &with(&our_back, "state", "guessed")).await).contains("state"));
    assert!(why(finish(&ours, &with(&our_back, "state", "")).await).contains("state"));
    let no_cookie = source.finish(&callback(&our_back), &secret("")).await;
    assert!(why(no_cookie).contains("began no sign-in"));
    let stolen = our_back.clone();
    finish(&ours, &our_back).await.expect("none of this spoilt the real one");
    assert!(why(finish(&ours, &stolen).await).contains("already"), "a state is used once");

    let begun = begin().await;
    let back = go(&with(&begun.url, "nonce", "of-the-attacker")).await;
    assert!(why(finish(&begun, &back).await).contains("nonce"));

    let begun = begin().await;
    let back = go(&begun.url).await;
    let mixed = with(&back, "iss", "https://other.example");
    assert!(why(finish(&begun, &mixed).await).contains("iss"));

    let (begun, other) = (begin().await, begin().await);
    let (back, their_back) = (go(&begun.url).await, go(&other.url).await);
    let code = their_back.query_pairs().find(|(k, _)| k == "code").expect("a code").1.into_owned();
    let injected = with(&back, "code", &code);
    assert!(why(finish(&begun, &injected).await).contains("invalid_grant"), "PKCE binds the code");

    let begun = begin().await;
    let challenge = with(&begun.url, "code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    let back = go(&challenge).await;
    assert!(why(finish(&begun, &back).await).contains("invalid_grant"), "another verifier");

    let begun = begin().await;
    let denied =
        Url::parse(&format!("{WEB_REDIRECT}?error=access_denied&iss={}", provider.issuer)).expect("a URL");
    let state = begun.url.query_pairs().find(|(k, _)| k == "state").expect("a state").1.into_owned();
    assert!(why(finish(&begun, &with(&denied, "state", &state)).await).contains("access_denied"));
}

#[tokio::test]
async fn a_sign_in_comes_back_to_registered_places_only() {
    let Some(provider) = OidcProvider::start().await else { return };
    let source = provider.source(|_| {});
    for place in
        ["https://evil.example/console/callback", "https://gantry.example/console/callback/..", LOOPBACK, ""]
    {
        assert!(why(source.begin(place, None).await).contains("redirectUris"), "{place}");
        let exchanged = source.exchange(&secret("c"), &secret("v"), place, "n").await;
        assert!(why(exchanged).contains("redirectUris"), "{place}");
    }
    // Were it changed on the way, the provider refuses.
    let begun = source.begin(WEB_REDIRECT, None).await.expect("it begins");
    let elsewhere = with(&begun.url, "redirect_uri", "https://evil.example/");
    let page = provider.browser().sign_in(elsewhere, "alice", "https://evil.example/").await;
    assert!(page.is_err_and(|page| page.contains("redirect_uri")));
}

#[tokio::test]
async fn a_command_signs_in_over_a_loopback_redirect() {
    let Some(provider) = OidcProvider::start().await else { return };
    let source = provider.source(|c| {
        c.client_id = "cli".into();
        c.redirect_uris = vec!["http://127.0.0.1/callback".into()];
    });
    let begun = source.begin(LOOPBACK, None).await.expect("any port");
    let back = provider.browser().sign_in(begun.url, "alice", LOOPBACK).await.expect("back");
    let login = source.finish(&callback(&back), &begun.binding).await.expect("it fits together");
    assert_eq!(login.user.name, "alice");

    // A command that makes state, nonce and verifier itself.
    let endpoints = source.endpoints().await.expect("they are known");
    let verifier = "a-verifier-of-at-least-forty-three-letters-0123456789";
    let challenge = ring::digest::digest(&ring::digest::SHA256, verifier.as_bytes());
    let challenge = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, challenge);
    let mut url = endpoints.authorization;
    url.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", &endpoints.client_id),
        ("redirect_uri", LOOPBACK),
        ("scope", &endpoints.scopes.join(" ")),
        ("state", "s"),
        ("nonce", "n1"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    let mut codes = Vec::new();
    for _ in 0..2 {
        let back = provider.browser().sign_in(url.clone(), "alice", LOOPBACK).await.expect("back");
        codes.push(callback(&back).code.expect("a code"));
    }
    let wrong = source.exchange(&codes[0], &secret(verifier), LOOPBACK, "n2").await;
    assert!(why(wrong).contains("nonce"));
    let login = source.exchange(&codes[1], &secret(verifier), LOOPBACK, "n1").await.expect("it fits");
    assert_eq!(login.user.name, "alice");
    let twice = source.exchange(&codes[1], &secret(verifier), LOOPBACK, "n1").await;
    assert!(why(twice).contains("invalid_grant"));
}

#[tokio::test]
async fn a_person_signs_in_on_another_device() {
    let Some(provider) = OidcProvider::start().await else { return };
    let source = provider.source(|_| {});
    let device = source.device_begin().await.expect("it begins");
    assert!(device.interval_seconds >= 1 && device.expires_in_seconds > 60);
    let pending = source.device_poll(&device.device_code).await.expect("an answer");
    assert!(matches!(pending, OidcDevicePoll::Pending), "{pending:?}");
    let complete = device.verification_uri_complete.expect("it has one");
    assert!(complete.contains(&device.user_code), "{complete}");
    let url = Url::parse(&complete).expect("a URL");
    let page = provider.browser().sign_in(url, "alice", "nowhere:").await.expect_err("it ends with a page");
    assert!(page.contains("Success") || page.contains("success"), "{page}");
    match source.device_poll(&device.device_code).await.expect("an answer") {
        OidcDevicePoll::Done(login) => assert_eq!(login.user.name, "alice"),
        other => panic!("{other:?}"),
    }
    assert!(
        why(source.device_poll(&device.device_code).await).contains("invalid_grant"),
        "a code works once"
    );
    assert!(why(source.device_poll(&secret("made-up")).await).contains("invalid_grant"));
}

#[tokio::test]
async fn forged_tokens_are_refused_against_the_published_keys() {
    let Some(provider) = OidcProvider::start().await else { return };
    let source = provider.source(|_| {});
    let login = signed_in(&provider, &source, "alice").await;
    let genuine = login.id_token.expect("an ID token");
    assert_eq!(source.verify(&genuine).await.expect("it is genuine").user.name, "alice");

    let (pem, kid) = provider.key.clone();
    let claims = Value::Object(login.claims);
    let sign = |algorithm: Algorithm, key: &EncodingKey, claims: &Value| {
        let mut header = Header::new(algorithm);
        header.kid = Some(kid.clone());
        SecretString::from(jsonwebtoken::encode(&header, claims, key).expect("a token"))
    };
    let real = EncodingKey::from_ec_pem(pem.as_bytes()).expect("the provider's own key");
    source.verify(&sign(Algorithm::ES256, &real, &claims)).await.expect("what we sign is as good");
    let published = provider_keys(&provider).await;
    let x = published["keys"][0]["x"].as_str().expect("a coordinate").to_owned();
    let changed = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        sign(Algorithm::ES256, &real, &changed)
    };
    let now = jiff::Timestamp::now().as_second();
    let parts: Vec<&str> = genuine.expose_secret().split('.').collect();
    let part = |value: Value| {
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, value.to_string())
    };
    let stranger = EncodingKey::from_ec_pem(new_key().as_bytes()).expect("a key");
    let forged: Vec<(&str, SecretString)> = vec![
        ("expired", changed("exp", json!(now - 3_600))),
        ("somebody else", changed("aud", json!("cli"))),
        ("another issuer", changed("iss", json!("https://other.example"))),
        ("signature", sign(Algorithm::ES256, &stranger, &claims)),
        ("does not count", format!("{}.{}.", part(json!({"alg": "none", "kid": kid})), parts[1]).into()),
        ("does not count", sign(Algorithm::HS256, &EncodingKey::from_secret(x.as_bytes()), &claims)),
        ("does not count", sign(Algorithm::HS256, &EncodingKey::from_secret(pem.as_bytes()), &claims)),
        (
            "does not count",
            sign(Algorithm::HS256, &EncodingKey::from_secret(published.to_string().as_bytes()), &claims),
        ),
        ("signature", format!("{}.{}.{}", parts[0], part(json!({"sub": "root"})), parts[2]).into()),
        ("signature", format!("{}.{}.", parts[0], parts[1]).into()),
    ];
    for (reason, token) in forged {
        let refused = why(source.verify(&token).await);
        assert!(refused.contains(reason), "{refused}, not {reason}");
    }
}

async fn provider_keys(provider: &OidcProvider) -> Value {
    let ca = reqwest::Certificate::from_pem(provider.ca_pem.as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().expect("a client");
    let response = client.get(format!("{}/jwks", provider.issuer)).send().await.expect("an answer");
    response.json().await.expect("keys")
}

#[tokio::test]
async fn keys_rotate_and_are_not_asked_for_too_often() {
    let Some(mut provider) = OidcProvider::start().await else { return };
    let source = provider.source(|c| c.limits.keys_refetch_seconds_min = 0);
    let patient = provider.source(|c| c.limits.keys_refetch_seconds_min = 3_600);
    let old = signed_in(&provider, &source, "alice").await.id_token.expect("an ID token");
    patient.verify(&old).await.expect("it knows the key");
    provider.stop();
    provider.key = (new_key(), "key-2".to_owned());
    provider.run().await;
    let login = signed_in(&provider, &source, "alice").await;
    let new = login.id_token.expect("an ID token");
    source.verify(&new).await.expect("the new key was fetched");
    assert!(why(source.verify(&old).await).contains("nobody published"), "the old one is gone");
    assert!(why(patient.verify(&new).await).contains("nobody published"), "asked a moment ago");
    patient.verify(&old).await.expect("with what it has, it goes on");
    provider.stop();
    source.verify(&new).await.expect("known keys do while the provider is away");
    let error = source.begin(WEB_REDIRECT, None).await;
    assert!(error.is_ok(), "its description is known as well");
    let stranger = provider.source(|_| {});
    let error = stranger.begin(WEB_REDIRECT, None).await.expect_err("nothing is known yet");
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn an_id_token_expires() {
    let Some(mut provider) = OidcProvider::prepare() else { return };
    provider.id_token_seconds = 2;
    provider.run().await;
    let source = provider.source(|c| c.limits.leeway_seconds = 0);
    let token = signed_in(&provider, &source, "alice").await.id_token.expect("an ID token");
    crate::peers::eventually("the token expires", async || source.verify(&token).await.is_err()).await;
    assert!(why(source.verify(&token).await).contains("expired"));
}

#[tokio::test]
async fn what_an_operator_did_wrong_is_told() {
    let Some(provider) = OidcProvider::start().await else { return };
    let misconfigured = |error: SourceError, part: &str| {
        let text = format!("{error} {error:?}");
        assert!(matches!(error, SourceError::Misconfigured { .. }) && text.contains(part), "{text}");
    };
    let slash = provider.source(|c| c.issuer.push('/'));
    misconfigured(slash.test().await.expect_err("not exactly the issuer"), "calls itself");
    let none = provider.source(|c| c.algorithms = vec![gantry_identity_sources::SigningAlgorithm::PS512]);
    misconfigured(none.test().await.expect_err("no such key"), "no key");
    let mut plain = provider.config();
    plain.issuer = plain.issuer.replace("https:", "http:");
    misconfigured(OidcSource::new(plain, Default::default()).err().expect("plain http"), "https");
    let other_ca = OidcProvider::prepare().expect("it is installed").ca_pem;
    let stranger = provider.source(|c| c.http.ca_pem = Some(other_ca));
    let error = stranger.test().await.expect_err("signed by somebody else");
    assert!(error.to_string().contains("certificate"), "{error}");
    let small = provider.source(|c| c.http.body_bytes_max = 100);
    assert!(small.test().await.expect_err("too long").to_string().contains("longer than 100 bytes"));

    let wrong = gantry_identity_sources::OidcSecrets {
        client_secret: Some("wrong-secret-99".into()),
        sealing_key: None,
    };
    let wrong = OidcSource::new(provider.config(), wrong).expect("well-formed");
    let begun = wrong.begin(WEB_REDIRECT, None).await.expect("it begins");
    let back = provider.browser().sign_in(begun.url, "alice", WEB_REDIRECT).await.expect("back");
    let error = wrong.finish(&callback(&back), &begun.binding).await.expect_err("a wrong secret");
    assert!(!format!("{error:?}").contains("wrong-secret-99"));
    misconfigured(error, "invalid_client");
}
