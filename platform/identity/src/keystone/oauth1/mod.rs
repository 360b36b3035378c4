//! `/OS-OAUTH1` and `/users/{user}/OS-OAUTH1`: programs that users let act for them. Consumers, request tokens and
//! access tokens are records; their secrets lie in the vault.

mod signature;

use std::collections::BTreeSet;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use gantry_identity_api::KeystoneRecord;
use gantry_kube_types::SecurityEvent;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::call::{Answer, Body, Call, Visit, done, fresh_id, object, shown, text};
use super::errors::ApiError;
use super::query::encode;
use super::records::{
    Naming, Readers, Records, Scope, all, as_is, brings_nothing, duplicate, find, kept_by_nothing,
    new_object, no_defaults, object_name,
};
use super::roles::Roles;
use super::routes::Routes;
use super::schema::{Form, Json, Shape, null};
use super::timestamps;
use super::trusts::roles_to_give;
use super::typed::{full as full_role, list_of, store_change};
use super::users::plain;
use crate::directory::State;
use crate::directory::assignments::Target;
use crate::policy::{Act, Subject};
use crate::vault::{SecretBytes, SecretKey, SecretKind};
use signature::Parameters;

pub(super) const REQUEST_TOKENS: &str = "oauth_request_tokens";
/// The user stands where others have the parent.
pub(super) const ACCESS_TOKENS: &str = "access_tokens";
/// Which of a request token's secrets the user tells the consumer.
const VERIFIER: &str = "verifier";
const REQUEST_LIFETIME: SignedDuration = SignedDuration::from_hours(8);
const ACCESS_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// How far the client's clock may be from ours, either way.
const CLOCK_SECONDS_MAX: i64 = 600;

const CONSUMER: Shape = Shape::open("consumer", &[null("description", Form::Text)]);

static CONSUMERS: Records = Records {
    plural: "consumers",
    word: "Consumer",
    action: "consumer",
    path: "/OS-OAUTH1/consumers",
    naming: Naming::Ours,
    new: CONSUMER,
    change: CONSUMER,
    defaults: no_defaults,
    filters: &[],
    readers: Readers::Administrators,
    check: |_, _, body, old| match body.get("secret") {
        Some(_) if old.is_some() => Err(ApiError::invalid("The secret of a consumer cannot be changed.")),
        _ => Ok(()),
    },
    keeps: kept_by_nothing,
    brings: brings_nothing,
    takes: tokens_of,
    not_found: |_, _| ApiError::gone("Consumer not found"),
    conflict: duplicate,
    shown: as_is,
};

/// The routes.
pub(crate) fn routes() -> Routes {
    let consumers = "/OS-OAUTH1/consumers";
    let tokens = "/users/{user}/OS-OAUTH1/access_tokens";
    Routes::new()
        .route(consumers, get(|call: Call| async move { CONSUMERS.list(&call, None) }).post(create_consumer))
        .route(
            &format!("{consumers}/{{consumer}}"),
            get(show_consumer).patch(update_consumer).delete(delete_consumer),
        )
        .route("/OS-OAUTH1/request_token", post(request_token))
        .route("/OS-OAUTH1/authorize/{request_token}", put(authorize))
        .route("/OS-OAUTH1/access_token", post(access_token))
        .route(tokens, get(list_tokens))
        .route(&format!("{tokens}/{{access_token}}"), get(show_token).delete(delete_token))
        .route(&format!("{tokens}/{{access_token}}/roles"), get(list_roles))
        .route(&format!("{tokens}/{{access_token}}/roles/{{role}}"), get(show_role))
}

fn consumer(id: &str) -> Scope<'_> {
    Scope { parent: None, id }
}

fn key(owner: &str, id: &str) -> SecretKey {
    SecretKey::new(SecretKind::OAuth, owner, id)
}

/// The secrets of an access token, or of a request token.
pub(super) fn secrets(token: &KeystoneRecord) -> Vec<SecretKey> {
    let (id, parent) = (&token.spec.id, token.spec.parent.as_deref());
    match text(&token.spec.attributes, "consumer_id") {
        _ if token.spec.collection == ACCESS_TOKENS => parent.map(|user| key(user, id)).into_iter().collect(),
        Some(consumer) => vec![key(consumer, id), key(id, VERIFIER)],
        None => vec![key(id, VERIFIER)],
    }
}

async fn create_consumer(call: Call, body: Body) -> Answer {
    CONSUMERS.require(&call, &call.state(), Act::Create, "create_consumer")?;
    let mut body = body.new_object(&CONSUMER)?;
    body.remove("secret");
    let (id, secret) = (fresh_id(), fresh_id());
    call.core.vault.put(key(&id, ""), SecretBytes::from(secret.as_str())).await?;
    let made = CONSUMERS.store(&call, None, &id, &mut body).await?;
    call.record(SecurityEvent::CredentialCreated, "consumers", &id).await?;
    let mut all = CONSUMERS.full(&call, &made, false);
    all.insert("secret".to_owned(), json!(secret));
    Ok(shown(StatusCode::CREATED, "consumer", all))
}

async fn show_consumer(call: Call, Path(id): Path<String>) -> Answer {
    CONSUMERS.get(&call, &consumer(&id))
}

async fn update_consumer(call: Call, Path(id): Path<String>, body: Body) -> Answer {
    CONSUMERS.update(&call, consumer(&id), body).await
}

async fn delete_consumer(call: Call, Path(id): Path<String>) -> Answer {
    let answer = CONSUMERS.delete(&call, consumer(&id)).await?;
    call.core.vault.delete_owner(&id).await?;
    call.record(SecurityEvent::CredentialDeleted, "consumers", &id).await?;
    Ok(answer)
}

/// The tokens that go with a consumer.
fn tokens_of(state: &State, consumer: &KeystoneRecord) -> Vec<String> {
    let of = |collection| {
        let tokens = all(state, collection, None);
        tokens.filter(|t| text(&t.spec.attributes, "consumer_id") == Some(&consumer.spec.id))
    };
    let tokens = of(REQUEST_TOKENS).chain(of(ACCESS_TOKENS));
    tokens.map(|t| object_name(&t.spec.collection, t.spec.parent.as_deref(), &t.spec.id)).collect()
}

/// The parameters of a signed request, whose clock is near ours.
fn parameters(visit: &Visit) -> Result<Parameters, ApiError> {
    let header = visit.header("authorization").and_then(Parameters::of_header);
    let parameters = header.ok_or_else(|| ApiError::malformed("Expecting OAuth headers."))?;
    let at = parameters.get("oauth_timestamp").and_then(|at| at.parse::<i64>().ok());
    let now = visit.core.now().as_second();
    if at.is_none_or(|at| now.saturating_sub(at).saturating_abs() > CLOCK_SECONDS_MAX) {
        return Err(ApiError::unauthorized());
    }
    Ok(parameters)
}

/// Checks the signature with the consumer's secret and that of the request token, where there is one.
async fn check_signature(
    visit: &Visit,
    parameters: &Parameters,
    token_secret: &str,
) -> Result<String, ApiError> {
    let id = parameters.get("oauth_consumer_key").unwrap_or_default().to_owned();
    {
        find(&visit.state(), CONSUMERS.plural, None, &id).ok_or_else(ApiError::unauthorized)?;
    }
    let secret = visit.core.vault.get(key(&id, "")).await?.ok_or_else(ApiError::unauthorized)?;
    let secret = String::from_utf8_lossy(secret.expose()).into_owned();
    let url = visit.own_url();
    let url = url.split('?').next().unwrap_or_default();
    if parameters.verify("POST", url, visit.query.pairs(), &secret, token_secret) {
        Ok(id)
    } else {
        Err(ApiError::unauthorized())
    }
}

/// OAuth answers are forms.
fn form(pairs: &[(&str, &str)]) -> Response {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
    (StatusCode::CREATED, [(CONTENT_TYPE, "application/x-www-form-urlencoded")], pairs.join("&"))
        .into_response()
}

fn after(now: Timestamp, lifetime: SignedDuration) -> String {
    timestamps::zulu(now.checked_add(lifetime).unwrap_or(Timestamp::MAX))
}

/// `POST /OS-OAUTH1/request_token`: a consumer asks to act in a project.
async fn request_token(visit: Visit) -> Answer {
    let parameters = parameters(&visit)?;
    let project = visit.header("requested-project-id").unwrap_or_default().to_owned();
    let consumer = check_signature(&visit, &parameters, "").await?;
    {
        if visit.state().projects.get(&project).is_none() {
            return Err(ApiError::not_found("project", &project));
        }
    }
    let (id, secret) = (fresh_id(), fresh_id());
    let expires = after(visit.core.now(), REQUEST_LIFETIME);
    let attributes = object(json!({ "consumer_id": consumer, "project_id": project, "expires_at": expires }));
    visit.core.vault.put(key(&consumer, &id), SecretBytes::from(secret.as_str())).await?;
    visit.core.objects.create(&new_object(REQUEST_TOKENS, None, &id, attributes)).await?;
    Ok(form(&[("oauth_token", &id), ("oauth_token_secret", &secret), ("oauth_expires_at", &expires)]))
}

fn request_of(state: &State, id: &str, now: Timestamp) -> Result<Json, ApiError> {
    let found = find(state, REQUEST_TOKENS, None, id).map(|r| r.spec.attributes.clone());
    let live = |a: &Json| text(a, "expires_at").and_then(timestamps::parse).is_some_and(|at| at > now);
    found.filter(live).ok_or_else(|| ApiError::gone("Request token not found"))
}

/// `PUT /OS-OAUTH1/authorize/{request_token}`: the user says with which roles.
async fn authorize(call: Call, Path(id): Path<String>, body: Body) -> Answer {
    let roles = {
        let state = call.state();
        let subject = Subject::Credential { user: call.user() };
        call.require(&state, Act::Create, &subject, "authorize_request_token")?;
        let request = request_of(&state, &id, call.core.now())?;
        let project = Target::Project(text(&request, "project_id").unwrap_or_default().into());
        let own = roles_to_give(&state, &call.session.authority, &call.session.user, &project);
        let asked = body.0.get("roles").and_then(Value::as_array).cloned().unwrap_or_default();
        let role = |asked: &Value| {
            let by = |name: &str| asked.get(name).and_then(Value::as_str);
            let found = match (by("id"), by("name")) {
                (Some(id), _) => state.roles.get(id),
                (_, Some(name)) => state.roles.by_name(None, name),
                _ => None,
            };
            found.and_then(|r| r.metadata.name.clone()).filter(|id| own.contains(id))
        };
        let roles: Option<BTreeSet<String>> = asked.iter().map(role).collect();
        let roles = roles.filter(|roles| !roles.is_empty());
        roles.ok_or_else(|| {
            ApiError::new(StatusCode::UNAUTHORIZED, "authorizing user does not have role required")
        })?
    };
    let verifier = fresh_id();
    call.core.vault.put(key(&id, VERIFIER), SecretBytes::from(verifier.as_str())).await?;
    let user = call.user().to_owned();
    let change = |_: &State, record: &mut KeystoneRecord| {
        record.spec.attributes.extend(object(json!({ "authorizing_user_id": user, "role_ids": roles })));
        Ok(())
    };
    store_change(&call, &object_name(REQUEST_TOKENS, None, &id), change).await?;
    plain(json!({ "token": { "oauth_verifier": verifier } }))
}

/// `POST /OS-OAUTH1/access_token`: the consumer gets what the user agreed to. A request token is good for one.
async fn access_token(visit: Visit) -> Answer {
    let parameters = parameters(&visit)?;
    let id = parameters.get("oauth_token").unwrap_or_default().to_owned();
    let request = request_of(&visit.state(), &id, visit.core.now())?;
    let consumer = text(&request, "consumer_id").unwrap_or_default().to_owned();
    let vault = &visit.core.vault;
    let secret = vault.get(key(&consumer, &id)).await?.ok_or_else(ApiError::unauthorized)?;
    let signed_by = check_signature(&visit, &parameters, &String::from_utf8_lossy(secret.expose())).await?;
    let verifier = vault.get(key(&id, VERIFIER)).await?.ok_or_else(ApiError::unauthorized)?;
    let shown = parameters.get("oauth_verifier").unwrap_or_default();
    // Digests, so that the time of the comparison says nothing of the verifier.
    let same = Sha256::digest(verifier.expose()) == Sha256::digest(shown.as_bytes());
    let user = text(&request, "authorizing_user_id").ok_or_else(ApiError::unauthorized)?.to_owned();
    if !same || signed_by != consumer {
        return Err(ApiError::unauthorized());
    }
    // Whoever deletes the request token has it; a second with the same one finds it gone.
    visit.core.objects.delete::<KeystoneRecord>(&object_name(REQUEST_TOKENS, None, &id)).await?;
    vault.delete(key(&consumer, &id)).await?;
    vault.delete_owner(&id).await?;
    let (access, secret) = (fresh_id(), fresh_id());
    let expires = after(visit.core.now(), ACCESS_LIFETIME);
    let attributes = object(json!({
        "consumer_id": consumer,
        "project_id": request.get("project_id"),
        "authorizing_user_id": user,
        "role_ids": request.get("role_ids"),
        "expires_at": expires,
    }));
    vault.put(key(&user, &access), SecretBytes::from(secret.as_str())).await?;
    visit.core.objects.create(&new_object(ACCESS_TOKENS, Some(&user), &access, attributes)).await?;
    Ok(form(&[("oauth_token", &access), ("oauth_token_secret", &secret), ("oauth_expires_at", &expires)]))
}

fn full(call: &Call, record: &KeystoneRecord) -> Json {
    let mut all = record.spec.attributes.clone();
    all.remove("role_ids");
    let user = record.spec.parent.as_deref().unwrap_or_default();
    let link = call.url(&format!("users/{user}/OS-OAUTH1/access_tokens/{}", record.spec.id));
    all.insert("id".to_owned(), json!(record.spec.id));
    all.insert("links".to_owned(), json!({ "self": link, "roles": format!("{link}/roles") }));
    all
}

/// The access token, where the caller may do `act` with it.
fn token(
    call: &Call,
    state: &State,
    user: &str,
    id: &str,
    act: Act,
    action: &str,
) -> Result<KeystoneRecord, ApiError> {
    call.require(state, act, &Subject::Credential { user }, action)?;
    let found = find(state, ACCESS_TOKENS, Some(user), id);
    found.map(|r| (**r).clone()).ok_or_else(|| ApiError::gone("Access token not found"))
}

async fn list_tokens(call: Call, Path(user): Path<String>) -> Answer {
    let items = {
        let state = call.state();
        call.require(&state, Act::Read, &Subject::Credential { user: &user }, "list_access_tokens")?;
        all(&state, ACCESS_TOKENS, Some(&user)).map(|r| full(&call, r)).collect()
    };
    call.list(ACCESS_TOKENS, &["consumer_id"], items)
}

async fn show_token(call: Call, Path((user, id)): Path<(String, String)>) -> Answer {
    let found = token(&call, &call.state(), &user, &id, Act::Read, "get_access_token")?;
    Ok(shown(StatusCode::OK, "access_token", full(&call, &found)))
}

async fn delete_token(call: Call, Path((user, id)): Path<(String, String)>) -> Answer {
    {
        token(&call, &call.state(), &user, &id, Act::Delete, "delete_access_token")?;
    }
    call.core.objects.delete::<KeystoneRecord>(&object_name(ACCESS_TOKENS, Some(&user), &id)).await?;
    call.core.vault.delete(key(&user, &id)).await?;
    call.record(SecurityEvent::CredentialDeleted, ACCESS_TOKENS, &id).await?;
    done()
}

fn roles_of(state: &State, record: &KeystoneRecord) -> Vec<std::sync::Arc<gantry_identity_api::Role>> {
    let ids = record.spec.attributes.get("role_ids").and_then(Value::as_array);
    let ids = ids.into_iter().flatten().filter_map(Value::as_str);
    ids.filter_map(|id| state.roles.get(id).cloned()).collect()
}

async fn list_roles(call: Call, Path((user, id)): Path<(String, String)>) -> Answer {
    let roles = {
        let state = call.state();
        roles_of(&state, &token(&call, &state, &user, &id, Act::Read, "list_access_token_roles")?)
    };
    list_of::<Roles>(&call, roles)
}

async fn show_role(call: Call, Path((user, id, role)): Path<(String, String, String)>) -> Answer {
    let state = call.state();
    let found = token(&call, &state, &user, &id, Act::Read, "get_access_token_role")?;
    let roles = roles_of(&state, &found);
    let found = roles.iter().find(|r| r.metadata.name.as_deref() == Some(role.as_str()));
    let found = found.ok_or_else(|| ApiError::not_found("role", &role))?;
    Ok(shown(StatusCode::OK, "role", full_role::<Roles>(&call, found)))
}
