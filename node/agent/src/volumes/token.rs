//! Bound service account tokens for projected volumes, renewed well before they expire.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, Volume};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::pods::spec;

/// A token lives this long unless the volume says otherwise.
const LIFETIME_DEFAULT_SECONDS: i64 = 3600;
/// No token is used for longer than this, however long it lives.
const USE_MAX: Duration = Duration::from_secs(24 * 3600);

struct Token {
    value: String,
    renew_at: Timestamp,
}

/// Tokens of one pod by volume and source.
#[derive(Default)]
pub(crate) struct Tokens(BTreeMap<(String, usize), Token>);

impl Tokens {
    /// The tokens of a projected volume, by their place among its sources; requests those that are missing or old.
    pub(crate) async fn of(
        &mut self,
        client: &Client,
        pod: &Pod,
        volume: &Volume,
        now: Timestamp,
    ) -> Result<Vec<(usize, String)>, String> {
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        let mut result = Vec::new();
        for (index, source) in sources.enumerate() {
            let Some(wanted) = &source.service_account_token else { continue };
            let key = (volume.name.clone(), index);
            let old = self.0.get(&key).is_none_or(|token| now >= token.renew_at);
            if old {
                let audience = wanted.audience.as_deref().filter(|a| !a.is_empty());
                let seconds = wanted.expiration_seconds.unwrap_or(LIFETIME_DEFAULT_SECONDS);
                match request(client, pod, audience, seconds, now).await {
                    Ok(token) => {
                        self.0.insert(key.clone(), token);
                    }
                    // An old token that still works is better than none.
                    Err(error) if !self.0.contains_key(&key) => return Err(error),
                    Err(error) => {
                        tracing::warn!(pod = %spec::display(pod), %error, "service account token not renewed")
                    }
                }
            }
            result.extend(self.0.get(&key).map(|token| (index, token.value.clone())));
        }
        Ok(result)
    }

    /// When the next token has to be renewed.
    pub(crate) fn renew_at(&self) -> Option<Timestamp> {
        self.0.values().map(|token| token.renew_at).min()
    }
}

async fn request(
    client: &Client,
    pod: &Pod,
    audience: Option<&str>,
    seconds: i64,
    now: Timestamp,
) -> Result<Token, String> {
    let account =
        spec::pod_spec(pod).service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
    let body = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: audience.map(|a| vec![a.to_owned()]),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(spec::name(pod).to_owned()),
                uid: Some(spec::uid(pod).to_owned()),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), spec::namespace(pod));
    let answer = api
        .create_token_request(account, &PostParams::default(), &body)
        .await
        .map_err(|error| format!("failed to fetch token: {error}"))?;
    let status = answer.status.ok_or("failed to fetch token: the answer has no status")?;
    let value = status.token.ok_or("failed to fetch token: the answer has no token")?;
    let expires = status.expiration_timestamp.map_or(now, |t| t.0);
    Ok(Token { renew_at: renew_at(now, expires), value })
}

/// Four fifths of the life, at most a day.
fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = Duration::try_from(expires.duration_since(now)).unwrap_or(Duration::ZERO);
    now.checked_add((life * 4 / 5).min(USE_MAX)).unwrap_or(expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_in_time() {
        let at = |s: i64| Timestamp::from_second(s).expect("in range");
        assert_eq!(renew_at(at(0), at(3600)), at(2880));
        assert_eq!(renew_at(at(0), at(10 * 86_400)), at(86_400));
        assert_eq!(renew_at(at(10), at(5)), at(10));
    }
}
