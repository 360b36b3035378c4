//! Who asks: the authenticators in their order, anonymous last.

use std::sync::Arc;

use gantry_kube_types::{Authenticator, ConnectionInfo, StatusError, UserInfo};
use http::HeaderMap;

/// In the extensions of requests to `Delegated` routes whose credential the front door's
/// authenticators refuse: the handler may know it, or must answer 401.
#[derive(Clone, Debug)]
pub struct AuthenticationFailed(pub StatusError);

#[derive(Clone, Default)]
pub(crate) struct Chain(pub(crate) Vec<Arc<dyn Authenticator>>);

impl Chain {
    /// The first authenticator that knows the caller decides. A bad credential does not hide a good
    /// one of another kind; with bad ones alone the request is refused rather than made anonymous.
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: &ConnectionInfo,
    ) -> Result<UserInfo, StatusError> {
        let mut refused = None;
        for authenticator in &self.0 {
            match authenticator.authenticate(headers, connection).await {
                Ok(Some(user)) => return Ok(user),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "credential refused");
                    refused.get_or_insert(error);
                }
            }
        }
        match refused {
            // The reason stays in the log: it would tell an attacker what to try next.
            Some(error) if error.code == 401 => Err(StatusError::unauthorized()),
            Some(error) => Err(error),
            None if headers.contains_key(http::header::AUTHORIZATION) => Err(StatusError::unauthorized()),
            None => Ok(UserInfo::anonymous()),
        }
    }
}
