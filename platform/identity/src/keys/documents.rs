//! What others verify our tokens by (OpenID Connect Discovery 1.0, RFC 7517).

use std::sync::Arc;

use serde_json::{Value, json};

use super::SigningKey;

/// The key set: the public halves.
pub(super) fn jwks(keys: &[Arc<SigningKey>]) -> Value {
    let keys: Vec<Value> = keys.iter().map(|key| key.to_jwk()).collect();
    json!({ "keys": keys })
}

/// `ISSUER/.well-known/openid-configuration`. `issuer` is the `iss` of the tokens, to the letter; the key
/// set is at `jwks_uri`.
pub fn openid_configuration(issuer: &str, jwks_uri: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["aud", "exp", "groups", "iat", "iss", "jti", "nbf", "preferred_username", "sub"],
    })
}
