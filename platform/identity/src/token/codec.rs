//! The compact form (RFC 7515, 7.1): `HEADER.CLAIMS.SIGNATURE`, each in base64url without padding.
//!
//! The header is compared, not interpreted: it is, byte for byte, what one of our keys writes. So there is
//! no `alg` to confuse, no `jku`, `jwk` or `crit` to fall for.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::{Claims, Wire};
use super::{IssueError, TOKEN_BYTES_MAX, TokenError};
use crate::keys::{KeySet, SigningKey};

pub(super) fn encode(key: &SigningKey, claims: &Claims, issuer: &str) -> Result<String, IssueError> {
    let body = serde_json::to_vec(&Wire::new(claims, issuer)).expect("strings and numbers are always JSON");
    let mut token = String::with_capacity(key.header().len() + body.len() * 4 / 3 + 96);
    token.push_str(key.header());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(&body, &mut token);
    let signature = key.sign(token.as_bytes()).ok_or(IssueError::Random)?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    match token.len() {
        bytes if bytes > TOKEN_BYTES_MAX => Err(IssueError::TooLong { bytes }),
        _ => Ok(token),
    }
}

/// Checks form, key, signature and issuer; nothing that changes with time. Gives the key too.
pub(super) fn decode(
    keys: &KeySet,
    token: &str,
    issuer: &str,
) -> Result<(Arc<SigningKey>, Claims), TokenError> {
    let (header, body, signature, signed) = split(token).ok_or(TokenError::Foreign)?;
    let Some(key) = keys.all().iter().rev().find(|key| key.header() == header) else {
        return Err(if says_ours(body, issuer) { TokenError::Header } else { TokenError::Foreign });
    };
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
    if !key.verify(signed.as_bytes(), &signature) {
        return Err(TokenError::Signature);
    }
    let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Malformed)?;
    let wire: Wire = serde_json::from_slice(&body).map_err(|_| TokenError::Malformed)?;
    let claims = wire.into_claims(issuer).ok_or(TokenError::Malformed)?;
    Ok((key.clone(), claims))
}

/// Header, claims, signature, and what is signed.
fn split(token: &str) -> Option<(&str, &str, &str, &str)> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, body) = signed.split_once('.')?;
    (!body.contains('.')).then_some((header, body, signature, signed))
}

/// Whose token it claims to be; believed by nobody.
fn says_ours(body: &str, issuer: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Issuer<'a> {
        #[serde(borrow)]
        iss: std::borrow::Cow<'a, str>,
    }
    let Ok(body) = URL_SAFE_NO_PAD.decode(body) else { return false };
    serde_json::from_slice::<Issuer<'_>>(&body).is_ok_and(|said| said.iss == issuer)
}
