//! Is this ID token what was asked for? (OpenID Connect Core 1.0, section 3.1.3.7). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::config::SigningAlgorithm;
use super::keys::KeySet;

const TOKEN_BYTES_MAX: usize = 64 * 1024;
const SUBJECT_BYTES_MAX: usize = 255;

/// What a token must say.
pub(super) struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    /// `None`: the flow has no nonce (device, refresh, a token brought along).
    pub nonce: Option<&'a str>,
    pub algorithms: &'a [SigningAlgorithm],
    pub leeway_seconds: u64,
    pub now_seconds: i64,
    /// The access token and the code that came with it, which it may be bound to.
    pub access_token: Option<&'a str>,
    pub code: Option<&'a str>,
}

/// Why a token does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No key with its id: the provider may have changed keys.
    UnknownKey,
    /// Anything else.
    Because(String),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

fn no<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Because(why.into()))
}

/// The claims, once signature and contents are found right.
pub(super) fn verify(
    token: &str,
    keys: &KeySet,
    expected: &Expected<'_>,
) -> Result<Map<String, Value>, Refusal> {
    let (claims, algorithm) = signed_claims(token, keys, expected)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return no("the ID token is of another issuer");
    }
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !audiences.contains(&expected.client_id) {
        return no("the ID token is for somebody else");
    }
    match claims.get("azp") {
        None if audiences.len() == 1 => {}
        Some(Value::String(azp)) if azp == expected.client_id => {}
        _ => return no("the ID token was issued to another client"),
    }
    check_times(&claims, expected)?;
    match text("sub") {
        Some(subject) if !subject.is_empty() && subject.len() <= SUBJECT_BYTES_MAX => {}
        _ => return no("the ID token names no subject"),
    }
    if expected.nonce.is_some() && text("nonce") != expected.nonce {
        return no("the ID token is of another sign-in (nonce)");
    }
    for (claim, bound) in [("at_hash", expected.access_token), ("c_hash", expected.code)] {
        if let (Some(hash), Some(bound)) = (claims.get(claim), bound)
            && hash.as_str() != Some(&half_hash(algorithm, bound))
        {
            return no(format!("the ID token does not belong to what it came with ({claim})"));
        }
    }
    Ok(claims)
}

fn signed_claims(
    token: &str,
    keys: &KeySet,
    expected: &Expected<'_>,
) -> Result<(Map<String, Value>, Algorithm), Refusal> {
    if token.len() > TOKEN_BYTES_MAX || token.split('.').count() != 3 {
        return no("the ID token is no signed token");
    }
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).ok();
    let Some(header) = header.and_then(|bytes| serde_json::from_slice::<Header>(&bytes).ok()) else {
        return no("the ID token has no readable header");
    };
    let named = SigningAlgorithm::named(&header.alg).filter(|a| expected.algorithms.contains(a));
    let Some(algorithm) = named.map(SigningAlgorithm::algorithm) else {
        return no(format!("a signature of the kind {:?} does not count", header.alg));
    };
    if header.crit.is_some() {
        return no("the ID token asks for an extension that is not understood");
    }
    // Contents are compared by the caller, with a clock that is passed in.
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    let mut tried = false;
    for key in keys.candidates(header.kid.as_deref(), algorithm) {
        tried = true;
        if let Ok(data) = jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation) {
            return Ok((data.claims, algorithm));
        }
    }
    if tried { no("the ID token's signature is wrong") } else { Err(Refusal::UnknownKey) }
}

fn check_times(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), Refusal> {
    let number = |name: &str| claims.get(name).map(|value| value.as_f64());
    let (now, leeway) = (expected.now_seconds as f64, expected.leeway_seconds as f64);
    match number("exp") {
        Some(Some(exp)) if now < exp + leeway => {}
        Some(Some(_)) => return no("the ID token has expired"),
        _ => return no("the ID token does not say when it expires"),
    }
    match number("iat") {
        Some(Some(iat)) if iat <= now + leeway => {}
        Some(Some(_)) => return no("the ID token is from the future"),
        _ => return no("the ID token does not say when it was issued"),
    }
    match number("nbf") {
        None => Ok(()),
        Some(Some(nbf)) if nbf <= now + leeway => Ok(()),
        Some(_) => no("the ID token is not valid yet"),
    }
}

/// The left half of the hash that belongs to the signature, as `at_hash` and `c_hash` hold it.
fn half_hash(algorithm: Algorithm, bound: &str) -> String {
    use ring::digest::{SHA256, SHA384, SHA512, digest};
    let hash = match algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => &SHA384,
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => &SHA512,
        _ => &SHA256,
    };
    let whole = digest(hash, bound.as_bytes());
    URL_SAFE_NO_PAD.encode(&whole.as_ref()[..whole.as_ref().len() / 2])
}

#[cfg(test)]
#[path = "id_token_tests.rs"]
mod tests;
