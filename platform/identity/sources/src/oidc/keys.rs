//! A provider's public keys (RFC 7517), kept fresh.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::config::OidcLimits;
use crate::SourceError;
use crate::http::Http;

const KEYS_MAX: usize = 64;
const RSA_BYTES_MIN: usize = 2048 / 8;

/// The keys that can check a signature. Symmetric ones, ones for encryption and ones of unknown kinds are
/// left out when the document is read.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    fn read(document: Document) -> Self {
        // One key of a kind that we do not know must not hide the others.
        let known = document.keys.into_iter().take(KEYS_MAX).filter_map(|v| serde_json::from_value(v).ok());
        Self { keys: known.filter_map(|jwk: Jwk| Key::read(&jwk)).collect() }
    }

    #[cfg(test)]
    pub(super) fn parse(text: &str) -> Self {
        Self::read(serde_json::from_str(text).expect("a key set"))
    }

    /// The keys that may have made a signature: those with the token's key id, or all if it names none.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |key: &&Key| {
            key.algorithms.contains(&algorithm) && id.is_none_or(|id| key.id.as_deref() == Some(id))
        };
        self.keys.iter().filter(fits).map(|key| &key.key)
    }
}

impl Key {
    fn read(jwk: &Jwk) -> Option<Self> {
        use Algorithm as A;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let modulus = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&rsa.n).ok()?;
                let bytes = modulus.iter().skip_while(|byte| **byte == 0).count();
                if bytes < RSA_BYTES_MIN {
                    return None;
                }
                vec![A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512]
            }
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => vec![A::ES256],
                EllipticCurve::P384 => vec![A::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => vec![A::EdDSA],
            _ => return None,
        };
        if let Some(named) = jwk.common.key_algorithm {
            let named = Algorithm::try_from(named).ok()?;
            algorithms.retain(|algorithm| *algorithm == named);
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        Some(Self { id: jwk.common.key_id.clone(), algorithms, key })
    }
}

/// The keys as last fetched.
pub(super) struct KeyCache {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// When they were last asked for, with or without an answer.
    asked: Option<Instant>,
}

impl KeyCache {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::default()) }
    }

    /// The keys. `unknown`: a token names a key that is not among them, so they are asked for again, though
    /// not more often than the limits say: tokens are made up at no cost.
    pub(super) async fn get(
        &self,
        http: &Http,
        uri: &Url,
        limits: &OidcLimits,
        unknown: bool,
    ) -> Result<Arc<KeySet>, SourceError> {
        // Held while asking: who comes meanwhile waits for the same answer.
        let mut state = self.state.lock().await;
        let fresh = Duration::from_secs(limits.metadata_seconds_max);
        let pause = Duration::from_secs(limits.keys_refetch_seconds_min);
        let rested = state.asked.is_none_or(|asked| asked.elapsed() >= pause);
        if let Some((keys, fetched)) = &state.keys {
            let wanted = unknown || fetched.elapsed() >= fresh;
            if !wanted || !rested {
                return Ok(keys.clone());
            }
        } else if !rested {
            return Err(SourceError::unavailable(http.name(), "its keys could not be read a moment ago"));
        }
        state.asked = Some(Instant::now());
        match http.get_json::<Document>(uri.clone()).await {
            Ok(document) => {
                let keys = Arc::new(KeySet::read(document));
                state.keys = Some((keys.clone(), Instant::now()));
                Ok(keys)
            }
            Err(error) => {
                let stale = Duration::from_secs(limits.metadata_stale_seconds_max);
                match &state.keys {
                    Some((keys, fetched)) if fetched.elapsed() < stale => {
                        tracing::warn!(%error, "keys are not fresh");
                        Ok(keys.clone())
                    }
                    _ => Err(error),
                }
            }
        }
    }
}
