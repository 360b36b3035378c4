//! Signing in with a password, and a one-time password where that is asked for.

use axum::http::{HeaderMap, Method as HttpMethod, Uri};
use gantry_identity_api::DEFAULT_DOMAIN;
use gantry_kube_types::is_foreign_page;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::{answer, begin};
use crate::directory::table::Entry;
use crate::errors::IdentityError;
use crate::keystone::{Answer, ApiError, Body, Visit, rules_left, text};
use crate::login::{DomainRef, LoginRequest, Method, ScopeRequest, UserRef};
use crate::password::Password;

const MEMBERS: &[&str] = &["domain", "user", "password", "passcode", "newPassword", "receipt"];

/// `POST /identity/session`, with `{domain, user, password, passcode, newPassword, receipt}`.
pub(super) async fn sign_in(visit: Visit, method: HttpMethod, uri: Uri, body: ReadableBody) -> Answer {
    // Nobody is to be signed in as somebody else by a page that they look at.
    if is_foreign_page(&method, &uri, &visit.headers) {
        return Err(ApiError::refused("A page of another site cannot sign in here."));
    }
    let Body(body) = body.0;
    if let Some(name) = body.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        return Err(ApiError::invalid(format!("There is no {name:?}; there are {}.", MEMBERS.join(", "))));
    }
    let wrong = MEMBERS.iter().find(|name| body.get(**name).is_some_and(|value| !value.is_string()));
    if let Some(name) = wrong {
        return Err(ApiError::invalid(format!("{name:?} is a text.")));
    }
    let user = text(&body, "user").ok_or_else(|| ApiError::expecting("user", "request body"))?;
    let user = UserRef::Name { name: user.to_owned(), domain: domain(text(&body, "domain")) };
    let (password, passcode, receipt) =
        (text(&body, "password"), text(&body, "passcode"), text(&body, "receipt"));
    let password = match (password, text(&body, "newPassword")) {
        (Some(old), Some(new)) => {
            change(&visit, &user, old, new).await?;
            Some(new)
        }
        (None, Some(_)) => return Err(ApiError::expecting("password", "request body")),
        (password, None) => password,
    };
    let by_password =
        password.map(|password| Method::Password { user: user.clone(), password: Password::new(password) });
    let by_passcode = passcode.map(|passcode| Method::Totp { user, passcode: passcode.to_owned() });
    let methods: Vec<Method> = by_password.into_iter().chain(by_passcode).collect();
    if methods.is_empty() {
        return Err(ApiError::expecting("password", "request body"));
    }
    // Good for all that the user has: one of a project could not become another's.
    let scope = ScopeRequest::Unscoped;
    let request =
        LoginRequest { methods, scope, receipt: receipt.map(str::to_owned), ..LoginRequest::default() };
    let issued = visit.core.login(request, &visit.origin).await.map_err(|error| refusal(&visit, error))?;
    let cookie = begin(&visit, &issued).await?;
    Ok(answer(&visit, &issued.session, cookie))
}

/// A body that no form of a page elsewhere can send without asking first (Fetch, CORS).
pub(super) struct ReadableBody(Body);

impl<S: Send + Sync> axum::extract::FromRequest<S> for ReadableBody {
    type Rejection = ApiError;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            let why = "The body is JSON: Content-Type: application/json.";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        Body::from_request(request, state).await.map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn domain(name: Option<&str>) -> DomainRef {
    match name {
        None | Some("") => DomainRef::Id(DEFAULT_DOMAIN.to_owned()),
        Some(name) => DomainRef::Name(name.to_owned()),
    }
}

/// The password is changed by who knows it, also one that has ended. What is wrong of an unknown user takes as long.
async fn change(visit: &Visit, user: &UserRef, old: &str, new: &str) -> Result<(), ApiError> {
    let id = user.find(&visit.state()).map_or_else(|| user.text(), |found| found.id());
    visit.core.change_password(&id, Password::new(old), Password::new(new), &visit.origin).await?;
    Ok(())
}

/// Says what is to be done next, where that is more than to try again.
fn refusal(visit: &Visit, error: IdentityError) -> ApiError {
    match error {
        IdentityError::MoreRequired { receipt, user, methods } => {
            let left = rules_left(&visit.state(), &user, &methods);
            let why = "One more proof is needed: send it with the receipt.";
            ApiError::new(StatusCode::UNAUTHORIZED, why)
                .with("receipt", json!(receipt))
                .with("requiredMethods", json!(left))
        }
        IdentityError::PasswordExpired(_) => {
            let why = "The password has to be changed first: send newPassword with it.";
            ApiError::new(StatusCode::UNAUTHORIZED, why).with("passwordExpired", json!(true))
        }
        IdentityError::Unauthorized => {
            let why = "Not signed in: the name, the password or the code is wrong, or it is too early to try again.";
            ApiError::new(StatusCode::UNAUTHORIZED, why)
        }
        other => other.into(),
    }
}
