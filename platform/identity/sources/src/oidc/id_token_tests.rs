//! Tokens that must not count, beside one that does.

use super::*;
use jsonwebtoken::{EncodingKey, Header as JwtHeader};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::json;

const NOW: i64 = 1_800_000_000;

struct Signer {
    pem: String,
    jwks: String,
    x: String,
}

fn signer(kid: &str) -> Signer {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let point = pair.der_bytes();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
    let jwks = json!({"keys": [
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "shared", "alg": "HS256"},
        {"kty": "EC", "crv": "secp256k1", "x": x, "y": y, "kid": "odd"},
        {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "encrypts", "use": "enc"},
        {"kty": "RSA", "n": "3Q", "e": "AQAB", "kid": "short"},
        {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "use": "sig", "alg": "ES256"},
    ]});
    Signer { pem: pair.serialize_pem(), jwks: jwks.to_string(), x }
}

fn claims() -> Value {
    json!({"iss": "https://idp", "aud": "client", "sub": "s1", "exp": NOW + 300, "iat": NOW - 5, "nonce": "n1"})
}

fn sign(signer: &Signer, kid: Option<&str>, claims: &Value) -> String {
    let mut header = JwtHeader::new(Algorithm::ES256);
    header.kid = kid.map(str::to_owned);
    let key = EncodingKey::from_ec_pem(signer.pem.as_bytes()).expect("a key");
    jsonwebtoken::encode(&header, claims, &key).expect("a token")
}

fn expected<'a>() -> Expected<'a> {
    Expected {
        issuer: "https://idp",
        client_id: "client",
        nonce: Some("n1"),
        algorithms: &[SigningAlgorithm::ES256, SigningAlgorithm::RS256],
        leeway_seconds: 30,
        now_seconds: NOW,
        access_token: Some("access"),
        code: None,
    }
}

fn why(outcome: Result<Map<String, Value>, Refusal>) -> String {
    match outcome {
        Ok(_) => "accepted".to_owned(),
        Err(Refusal::UnknownKey) => "unknown key".to_owned(),
        Err(Refusal::Because(why)) => why,
    }
}

#[test]
fn claims_that_are_not_ours_are_refused() {
    let signer = signer("k1");
    let keys = KeySet::parse(&signer.jwks);
    let changes: &[(&str, Value, &str)] = &[
        ("sub", json!("s1"), "accepted"),
        ("iss", json!("https://idp/"), "another issuer"),
        ("iss", json!(["https://idp"]), "another issuer"),
        ("aud", json!("other"), "somebody else"),
        ("aud", json!(null), "somebody else"),
        ("aud", json!(["client"]), "accepted"),
        ("aud", json!(["client", "other"]), "another client"),
        ("azp", json!("other"), "another client"),
        ("azp", json!("client"), "accepted"),
        ("exp", json!(NOW - 29), "accepted"),
        ("exp", json!(NOW - 30), "expired"),
        ("exp", json!(null), "when it expires"),
        ("exp", json!("9999999999"), "when it expires"),
        ("iat", json!(NOW + 30), "accepted"),
        ("iat", json!(NOW + 31), "future"),
        ("iat", json!(null), "when it was issued"),
        ("nbf", json!(NOW + 31), "not valid yet"),
        ("nbf", json!("soon"), "not valid yet"),
        ("nbf", json!(NOW), "accepted"),
        ("nonce", json!("n2"), "nonce"),
        ("nonce", json!(null), "nonce"),
        ("sub", json!(""), "subject"),
        ("sub", json!(7), "subject"),
        ("sub", json!("s".repeat(256)), "subject"),
        ("at_hash", json!(half_hash(Algorithm::ES256, "access")), "accepted"),
        ("at_hash", json!(half_hash(Algorithm::ES256, "other")), "at_hash"),
        ("at_hash", json!(1), "at_hash"),
    ];
    for (claim, value, reason) in changes {
        let mut claims = claims();
        claims[*claim] = value.clone();
        let outcome = why(verify(&sign(&signer, Some("k1"), &claims), &keys, &expected()));
        assert!(outcome.contains(reason), "{claim} = {value}: {outcome}");
    }
}

#[test]
fn signatures_that_anybody_can_make_are_refused() {
    let (ours, theirs) = (signer("k1"), signer("k1"));
    let keys = KeySet::parse(&ours.jwks);
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let body = part(claims());
    let unsigned = |alg: &str| format!("{}.{body}.", part(json!({"alg": alg, "kid": "k1"})));
    let hmac = |secret: &[u8], kid: &str| {
        let mut header = JwtHeader::new(Algorithm::HS256);
        header.kid = Some(kid.to_owned());
        jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).expect("a token")
    };
    let good = sign(&ours, Some("k1"), &claims());
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let other_body = part(
        json!({"iss": "https://idp", "aud": "client", "sub": "root", "exp": NOW + 300, "iat": NOW, "nonce": "n1"}),
    );
    let header = head.split('.').next().expect("a header");
    let cases = [
        (good.clone(), "accepted"),
        (sign(&ours, None, &claims()), "accepted"),
        (unsigned("none"), "does not count"),
        (unsigned("None"), "does not count"),
        (unsigned("nOnE"), "does not count"),
        (unsigned(""), "does not count"),
        (format!("{}.{body}.", part(json!({"kid": "k1"}))), "header"),
        (hmac(ours.x.as_bytes(), "k1"), "does not count"),
        (hmac(ours.jwks.as_bytes(), "k1"), "does not count"),
        (hmac(ours.pem.as_bytes(), "k1"), "does not count"),
        (hmac(b"secretsecretsecretsecret", "shared"), "does not count"),
        (sign(&theirs, Some("k1"), &claims()), "signature"),
        (sign(&theirs, None, &claims()), "signature"),
        (sign(&ours, Some("k2"), &claims()), "unknown key"),
        (sign(&ours, Some("encrypts"), &claims()), "unknown key"),
        (sign(&ours, Some("odd"), &claims()), "unknown key"),
        (format!("{head}."), "signature"),
        (format!("{header}.{other_body}.{signature}"), "signature"),
        (format!("{}.{body}.{signature}", part(json!({"alg": "RS256", "kid": "k1"}))), "unknown key"),
        (format!("{}.{body}.{signature}", part(json!({"alg": "ES384", "kid": "k1"}))), "does not count"),
        (
            format!("{}.{body}.{signature}", part(json!({"alg": "ES256", "kid": "k1", "crit": ["x"]}))),
            "extension",
        ),
        (format!("{good}.{body}"), "no signed token"),
        (body.clone(), "no signed token"),
        (String::new(), "no signed token"),
        ("a.b.c".to_owned(), "header"),
        (format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX)), "no signed token"),
    ];
    for (token, reason) in cases {
        let outcome = why(verify(&token, &keys, &expected()));
        assert!(outcome.contains(reason), "{}: {outcome}, not {reason}", &token[..token.len().min(200)]);
    }
}
