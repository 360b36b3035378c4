//! Signing in at an OpenID provider: the code flow with PKCE, from a browser and back to it.

use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::response::IntoResponse;
use gantry_identity_api::ProviderType;
use gantry_identity_sources::{OidcCallback, SourceError};
use http::StatusCode;
use http::header::{LOCATION, SET_COOKIE};
use secrecy::{ExposeSecret, SecretString};

use super::{CALLBACK, cookie, provider_of};
use crate::errors::IdentityError;
use crate::keystone::{Answer, ApiError, Call, Visit, unavailable};

/// How long a browser keeps what binds a sign-in to it; the provider's own bound is in what is sealed.
const SIGN_IN_SECONDS_MAX: u64 = 3600;
const RETURN_TO_BYTES_MAX: usize = 1024;
/// Where a sign-in ends that did not say.
const HOME: &str = "/";
/// A session ends here whether or not its provider answers.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// `GET /identity/session/begin?provider=NAME&return_to=/path`: to the provider.
pub(super) async fn begin(visit: Visit) -> Answer {
    let name = visit.query.get("provider").ok_or_else(|| ApiError::expecting("provider", "query"))?;
    let return_to = visit.query.get("return_to").unwrap_or(HOME);
    if !is_path_of_ours(return_to) {
        return Err(ApiError::invalid("return_to is a path of this server, such as /console."));
    }
    let built = visit.core.provider(name, ProviderType::Oidc).await?;
    // Refused to whoever has failed too often; how it ends is counted where it ends.
    drop(visit.core.begin_outside(&built, &visit.origin).await?);
    let back = format!("{}{CALLBACK}", visit.core.config.external_url);
    let begun = built.oidc()?.begin(&back, Some(return_to)).await.map_err(|error| match error {
        SourceError::Rejected { .. } => ApiError::refused(format!(
            "{name} signs nobody in at a browser: {back} is not among its redirectUris."
        )),
        other => unavailable(other),
    })?;
    let binding = cookie::sign_in(&built.id(), begun.binding.expose_secret(), SIGN_IN_SECONDS_MAX)?;
    Ok((StatusCode::FOUND, [(LOCATION, begun.url.to_string())], [(SET_COOKIE, binding)]).into_response())
}

/// `GET /identity/session/callback`: back from the provider, once, in the browser that began.
///
/// What went wrong is in the audit trail. The browser is told what to do.
pub(super) async fn callback(visit: Visit, answer: Result<Query<OidcCallback>, QueryRejection>) -> Answer {
    let Ok(Query(answer)) = answer else { return Err(begin_again(StatusCode::BAD_REQUEST)) };
    let begun = cookie::read_sign_in(&visit.headers);
    let (provider, sealed) = begun.ok_or_else(|| begin_again(StatusCode::BAD_REQUEST))?;
    let built = visit.core.provider(provider, ProviderType::Oidc).await;
    let built = built.map_err(|error| match error {
        IdentityError::NotFound { .. } => begin_again(StatusCode::BAD_REQUEST),
        other => other.into(),
    })?;
    let attempt = visit.core.begin_outside(&built, &visit.origin).await?;
    let login = match built.oidc()?.finish(&answer, &SecretString::from(sealed)).await {
        Ok(login) => login,
        Err(error) => {
            // Who does not want to sign in after all has guessed nothing.
            let attempt = answer.error.is_none().then_some(attempt);
            visit.core.failed_outside(&built, &error, attempt, &visit.origin).await?;
            return Err(match error {
                SourceError::BadCredentials | SourceError::Rejected { .. } | SourceError::Disabled { .. } => {
                    begin_again(StatusCode::UNAUTHORIZED)
                }
                other => unavailable(other),
            });
        }
    };
    let issued = visit.core.signed_in_outside(&built, &login.user, attempt, &visit.origin).await;
    let issued = issued.map_err(|error| match error {
        IdentityError::Unauthorized | IdentityError::MoreRequired { .. } => {
            ApiError::refused("The provider knows you, and you may not sign in here. Ask your administrator.")
        }
        other => other.into(),
    })?;
    let session = super::begin(&visit, &issued).await?;
    // It was sealed here; looked at again, since it leads a browser.
    let to = login.return_to.filter(|path| is_path_of_ours(path)).unwrap_or_else(|| HOME.to_owned());
    let mut response = (StatusCode::SEE_OTHER, [(LOCATION, to)]).into_response();
    response.headers_mut().append(SET_COOKIE, session);
    response.headers_mut().append(SET_COOKIE, cookie::sign_in_ended());
    Ok(response)
}

/// A page of the provider where the session ends there too; `None` where it has none, or does not answer.
pub(super) async fn end_session_url(call: &Call) -> Option<String> {
    let built = call.core.provider(&provider_of(call)?, ProviderType::Oidc).await.ok()?;
    let back = built.spec().config.get("postLogoutRedirectUris").and_then(|uris| uris.get(0)?.as_str());
    let url = built.oidc().ok()?.end_session_url(None, back);
    match tokio::time::timeout(GOODBYE_TIMEOUT, url).await {
        Ok(Ok(url)) => url.map(String::from),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a provider's page for the end of a session is not known");
            None
        }
        Err(_) => None,
    }
}

/// Is it a path that a browser reads as one of this server, and not as another's address?
fn is_path_of_ours(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    path.len() <= RETURN_TO_BYTES_MAX
        && !rest.starts_with('/')
        // Browsers read it as a slash, and leave tabs and line ends out.
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

fn begin_again(status: StatusCode) -> ApiError {
    let why = "Not signed in. Begin again, in one browser, without long waits and with cookies allowed.";
    ApiError::new(status, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_returns_to_this_server_alone() {
        for path in
            ["/", "/console", "/console/projects?a=b&c=%2f%2fx#top", "/.//x", "/a//b", "/%09/evil.test"]
        {
            assert!(is_path_of_ours(path), "{path}");
        }
        let long = format!("/{}", "x".repeat(RETURN_TO_BYTES_MAX));
        for path in [
            "",
            "console",
            "//evil.test",
            "///evil.test",
            "/\\evil.test",
            "\\\\evil.test",
            "/x\\..\\..",
            "/\t/evil.test",
            "/\n/evil.test",
            "/x\r\nSet-Cookie: a=b",
            "/x\0",
            "/x y",
            "/\u{ff0f}evil.test",
            " /x",
            "https://evil.test",
            "https:/evil.test",
            "javascript:alert(1)",
            "?x",
            "#x",
            &long,
        ] {
            assert!(!is_path_of_ours(path), "{path:?}");
        }
    }
}
