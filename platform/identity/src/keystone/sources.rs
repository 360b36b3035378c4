//! `/OS-FEDERATION/identity_providers/…`: signing in through an OpenID provider or with another Keystone's token.
//!
//! The routes are open to everybody: whoever comes here has no token of ours yet.

use axum::extract::{FromRequest, Path, Request};
use axum::routing::{get, post};
use gantry_identity_api::ProviderType;
use gantry_identity_sources::{ExternalUser, OidcDevicePoll, SourceError};
use http::StatusCode;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::auth::answer;
use super::call::{Answer, Api, Body, Visit, object, shown, text};
use super::errors::ApiError;
use super::routes::Routes;
use super::schema::Json;
use crate::errors::IdentityError;
use crate::lockout::Attempt;
use crate::providers::{Built, Source};

/// The routes.
pub(crate) fn routes() -> Routes {
    let below = |path: &str| format!("/OS-FEDERATION/identity_providers/{{identity_provider}}/{path}");
    Routes::new()
        .route(&below("login"), get(endpoints))
        .route(&below("protocols/openid/auth"), post(openid))
        .route(&below("protocols/openid/device"), post(device))
        .route(&below("protocols/keystone/auth"), post(keystone))
}

/// The body of a request that may have none.
struct Maybe(Json);

impl FromRequest<Api> for Maybe {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let empty = request.headers().get(http::header::CONTENT_LENGTH).is_none_or(|length| length == "0")
            && !request.headers().contains_key(http::header::TRANSFER_ENCODING);
        if empty { Ok(Self(Json::new())) } else { Ok(Self(Body::from_request(request, api).await?.0)) }
    }
}

/// `GET …/login`: what a command needs to send a browser to the provider.
async fn endpoints(visit: Visit, Path(name): Path<String>) -> Answer {
    let built = visit.core.provider(&name, ProviderType::Oidc).await?;
    let oidc = built.oidc()?;
    let found = oidc.endpoints().await.map_err(unavailable)?;
    let login = json!({
        "issuer": found.issuer,
        "client_id": found.client_id,
        "scopes": found.scopes,
        "authorization_endpoint": found.authorization.as_str(),
        "device_authorization_endpoint": found.device_authorization.as_ref().map(|url| url.as_str()),
    });
    Ok(shown(StatusCode::OK, "login", object(login)))
}

/// `POST …/protocols/openid/device`: begins a sign-in on another device.
async fn device(visit: Visit, Path(name): Path<String>) -> Answer {
    let built = visit.core.provider(&name, ProviderType::Oidc).await?;
    let oidc = built.oidc()?;
    // Refused to whoever has failed too often; how it ends is counted where it ends.
    drop(visit.core.begin_outside(&built, &visit.origin).await?);
    let begun = oidc.device_begin().await.map_err(unavailable)?;
    let device = json!({
        "device_code": begun.device_code.expose_secret(),
        "user_code": begun.user_code,
        "verification_uri": begun.verification_uri,
        "verification_uri_complete": begun.verification_uri_complete,
        "expires_in": begun.expires_in_seconds,
        "interval": begun.interval_seconds,
    });
    Ok(shown(StatusCode::OK, "device", object(device)))
}

/// What an OpenID provider's answer is about.
enum Asked {
    Pending(&'static str),
    Known(Box<ExternalUser>),
}

/// `POST …/protocols/openid/auth`: a code, a device code, or an ID token as `Authorization: Bearer`.
async fn openid(visit: Visit, Path(name): Path<String>, Maybe(body): Maybe) -> Answer {
    let built = visit.core.provider(&name, ProviderType::Oidc).await?;
    let oidc = built.oidc()?;
    let attempt = visit.core.begin_outside(&built, &visit.origin).await?;
    let secret = |name: &str| text(&body, name).map(SecretString::from);
    let required = |name: &str| ApiError::expecting(name, "request body");
    let asked = if let Some(code) = secret("device_code") {
        match oidc.device_poll(&code).await {
            Ok(OidcDevicePoll::Pending) => Ok(Asked::Pending("authorization_pending")),
            Ok(OidcDevicePoll::SlowDown) => Ok(Asked::Pending("slow_down")),
            Ok(OidcDevicePoll::Done(login)) => Ok(Asked::Known(Box::new(login.user))),
            Err(error) => Err(error),
        }
    } else if let Some(code) = secret("code") {
        let verifier = secret("code_verifier").ok_or_else(|| required("code_verifier"))?;
        let redirect = text(&body, "redirect_uri").ok_or_else(|| required("redirect_uri"))?;
        let nonce = text(&body, "nonce").ok_or_else(|| required("nonce"))?;
        let login = oidc.exchange(&code, &verifier, redirect, nonce).await;
        login.map(|login| Asked::Known(Box::new(login.user)))
    } else {
        let token = bearer(&visit).ok_or_else(|| required("code or device_code"))?;
        oidc.verify(&token).await.map(|login| Asked::Known(Box::new(login.user)))
    };
    match asked {
        // Nothing was learnt: it counts as neither.
        Ok(Asked::Pending(word)) => {
            Err(ApiError::invalid("The person has not finished.").with("title", json!(word)))
        }
        Ok(Asked::Known(user)) => signed_in(&visit, &built, &user, attempt).await,
        Err(error) => Err(failed(&visit, &built, error, attempt).await?),
    }
}

/// `POST …/protocols/keystone/auth`: a token of the other Keystone, as `Authorization: Bearer` or `{"token": …}`.
async fn keystone(visit: Visit, Path(name): Path<String>, Maybe(body): Maybe) -> Answer {
    let built = visit.core.provider(&name, ProviderType::Keystone).await?;
    let Source::Keystone(keystone) = &built.source else { return Err(ApiError::unauthorized()) };
    let attempt = visit.core.begin_outside(&built, &visit.origin).await?;
    let token = text(&body, "token").map(SecretString::from).or_else(|| bearer(&visit));
    let token = token.ok_or_else(|| ApiError::expecting("token", "request body"))?;
    let user = match keystone.validate(&token).await {
        Ok(identity) if !built.counts(&visit.state(), &identity.user) => Err(SourceError::BadCredentials),
        // A token with a scope tells the roles of that scope alone.
        Ok(identity) if built.options.keep_roles && identity.scope.is_some() => {
            let grants = keystone.grants(&identity.user.id).await;
            grants.map(|grants| ExternalUser { grants, ..identity.user })
        }
        Ok(identity) => Ok(identity.user),
        Err(error) => Err(error),
    };
    match user {
        Ok(user) => signed_in(&visit, &built, &user, attempt).await,
        Err(error) => Err(failed(&visit, &built, error, attempt).await?),
    }
}

fn bearer(visit: &Visit) -> Option<SecretString> {
    let (scheme, token) = visit.header(AUTHORIZATION.as_str())?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| SecretString::from(token.trim()))
}

/// The person is known: a token for their shadow.
async fn signed_in(visit: &Visit, built: &Built, user: &ExternalUser, attempt: Attempt) -> Answer {
    let issued = visit.core.signed_in_outside(built, user, attempt, &visit.origin).await?;
    answer(visit, StatusCode::CREATED, &issued.session, &issued.token)
}

/// The provider says no, or nothing.
async fn failed(
    visit: &Visit,
    built: &Built,
    error: SourceError,
    attempt: Attempt,
) -> Result<ApiError, ApiError> {
    visit.core.failed_outside(built, &error, Some(attempt), &visit.origin).await?;
    Ok(match error {
        SourceError::BadCredentials | SourceError::Rejected { .. } | SourceError::Disabled { .. } => {
            ApiError::unauthorized()
        }
        other => unavailable(other),
    })
}

pub(crate) fn unavailable(error: SourceError) -> ApiError {
    IdentityError::Unavailable(error.to_string()).into()
}
