//! `/credentials` and `/users/{user}/credentials/OS-EC2`: secrets of users for other systems. The blob lies in the
//! vault; a TOTP seed also feeds sign-in.

use super::routes::Routes;
use axum::extract::Path;
use axum::routing::get;
use gantry_identity_api::KeystoneRecord;
use gantry_kube_types::SecurityEvent;
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::call::{Answer, Body, Call, done, fresh_id, object, shown, text};
use super::errors::ApiError;
use super::records::{all, find, new_object, object_name};
use super::schema::{Field, Form, Json, Shape, bad, may, must, null};
use super::typed::store_change;
use crate::admission::outranks;
use crate::directory::State;
use crate::login::secrets::{forget_totp_seed, keep_totp_seed};
use crate::policy::{Act, Subject};
use crate::totp::TotpSeed;
use crate::vault::{SecretBytes, SecretKey, SecretKind};

/// The collection of every credential.
pub(crate) const COLLECTION: &str = "credentials";
/// The type whose blob is a seed of one-time passwords.
const TOTP: &str = "totp";
const FILTERS: &[&str] = &["user_id", "type", "project_id"];
const FIELDS: &[Field] = &[
    must("type", Form::Name(255)),
    must("blob", Form::Text),
    must("user_id", Form::Text),
    null("project_id", Form::Text),
];
const NEW: Shape = Shape::open("credential", FIELDS);
const CHANGE: Shape = Shape::open(
    "credential",
    &[
        may("type", Form::Name(255)),
        may("blob", Form::Text),
        null("user_id", Form::Text),
        null("project_id", Form::Text),
    ],
);

/// The routes.
pub(crate) fn routes() -> Routes {
    let ec2 = "/users/{user}/credentials/OS-EC2";
    Routes::new()
        .route("/credentials", get(list).post(create))
        .route("/credentials/{credential}", get(show).patch(update).delete(delete))
        .route(ec2, get(ec2_list).post(ec2_create))
        .route(&format!("{ec2}/{{credential}}"), get(ec2_show).delete(ec2_delete))
}

fn owner(record: &KeystoneRecord) -> &str {
    text(&record.spec.attributes, "user_id").unwrap_or_default()
}

fn kind(record: &KeystoneRecord) -> &str {
    text(&record.spec.attributes, "type").unwrap_or_default()
}

fn key(user: &str, id: &str) -> SecretKey {
    SecretKey::new(SecretKind::Credential, user, id)
}

/// The blob, and the seed that a sign-in asks.
pub(super) fn secrets(record: &KeystoneRecord) -> Vec<SecretKey> {
    let (user, id) = (owner(record), record.spec.id.as_str());
    let seed = (kind(record) == TOTP).then(|| SecretKey::new(SecretKind::Totp, user, id));
    std::iter::once(key(user, id)).chain(seed).collect()
}

/// The attributes with the blob.
async fn full(call: &Call, record: &KeystoneRecord) -> Result<Json, ApiError> {
    let id = &record.spec.id;
    let mut all = record.spec.attributes.clone();
    let blob = if may_open(call, record) { blob(call, record).await? } else { String::new() };
    all.insert("blob".to_owned(), json!(blob));
    all.insert("id".to_owned(), json!(id));
    all.insert("links".to_owned(), json!({ "self": call.url(&format!("credentials/{id}")) }));
    Ok(all)
}

/// Is the secret shown? To its user, but for a second factor not by what the user handed out; and to whoever could
/// become the user anyway. Who only sees everything, a reader of the system, does not see secrets.
fn may_open(call: &Call, record: &KeystoneRecord) -> bool {
    let own = owner(record) == call.user() && !(kind(record) == TOTP && call.is_delegated());
    own || outranks(&call.state(), &call.session.authority, owner(record)).is_ok() && !call.is_delegated()
}

async fn blob(call: &Call, record: &KeystoneRecord) -> Result<String, ApiError> {
    let kept = call.core.vault.get(key(owner(record), &record.spec.id)).await?;
    Ok(kept.map(|blob| String::from_utf8_lossy(blob.expose()).into_owned()).unwrap_or_default())
}

/// The credential, where the caller may do `act` with it.
fn allowed(call: &Call, state: &State, id: &str, act: Act, action: &str) -> Result<KeystoneRecord, ApiError> {
    let Some(found) = find(state, COLLECTION, None, id) else {
        return Err(call.absent(state, action, ApiError::not_found("credential", id)));
    };
    call.require(state, act, &Subject::Credential { user: owner(found) }, action)?;
    Ok((**found).clone())
}

async fn list(call: Call) -> Answer {
    let found: Vec<KeystoneRecord> = {
        let state = call.state();
        let seen = all(&state, COLLECTION, None)
            .filter(|r| call.may(&state, Act::Read, &Subject::Credential { user: owner(r) }));
        // Filtered before blobs are opened.
        seen.filter(|r| call.query.matches(FILTERS, &r.spec.attributes)).map(|r| (**r).clone()).collect()
    };
    let mut items = Vec::new();
    for record in &found {
        items.push(full(&call, record).await?);
    }
    call.list("credentials", FILTERS, items)
}

async fn show(call: Call, Path(id): Path<String>) -> Answer {
    let found = allowed(&call, &call.state(), &id, Act::Read, "get_credential")?;
    Ok(shown(StatusCode::OK, "credential", full(&call, &found).await?))
}

/// Checks what depends on the credential's type.
fn check_type(attributes: &Json, blob: &str) -> Result<(), ApiError> {
    match text(attributes, "type") {
        Some("ec2") if text(attributes, "project_id").is_none() => {
            Err(bad("credential", &Value::Object(attributes.clone()), "'project_id' is a required property"))
        }
        Some("ec2") => {
            access_of(blob).map(drop).ok_or_else(|| ApiError::invalid("Invalid blob in credential"))
        }
        Some(TOTP) if TotpSeed::from_base32(blob).is_none() => Err(ApiError::invalid(
            "Invalid blob in credential: a base32 secret of at least 10 bytes is expected",
        )),
        _ => Ok(()),
    }
}

/// The access key in the blob of an EC2 credential.
fn access_of(blob: &str) -> Option<String> {
    let blob: Value = serde_json::from_str(blob).ok()?;
    Some(blob.get("access")?.as_str()?.to_owned())
}

/// EC2 credentials are found by their access key.
fn ec2_id(access: &str) -> String {
    hex::encode(Sha256::digest(access.as_bytes()))
}

async fn create(call: Call, body: Body) -> Answer {
    let mut body = body.new_object(&NEW)?;
    let blob = body.remove("blob").and_then(|b| b.as_str().map(str::to_owned)).unwrap_or_default();
    body.entry("project_id").or_insert(Value::Null);
    let id = match text(&body, "type") {
        Some("ec2") => access_of(&blob).map(|access| ec2_id(&access)).unwrap_or_default(),
        _ => fresh_id(),
    };
    let user = text(&body, "user_id").unwrap_or_default().to_owned();
    {
        let state = call.state();
        call.require(&state, Act::Create, &Subject::Credential { user: &user }, "create_credential")?;
        may_seed(&call, &state, &body, "create_credential")?;
        check_type(&body, &blob)?;
        if state.users.get(&user).is_none() {
            return Err(ApiError::not_found("user", &user));
        }
    }
    let made = store(&call, &id, body, blob).await?;
    Ok(shown(StatusCode::CREATED, "credential", full(&call, &made).await?))
}

/// A seed is a way to sign in with all rights of its user, so it takes all of them: not for whoever has less than the
/// user, and not by what the user has handed out for less.
fn may_seed(call: &Call, state: &State, attributes: &Json, action: &str) -> Result<(), ApiError> {
    if text(attributes, "type") != Some(TOTP) {
        return Ok(());
    }
    if call.is_delegated() {
        return Err(ApiError::forbidden_since(action, "a second factor is its user's own to change"));
    }
    let user = text(attributes, "user_id").unwrap_or_default();
    if user == call.user() {
        return Ok(());
    }
    call.within_rights(state, |state, who| outranks(state, who, user), action)
}

/// Keeps the secret, then the object: what is seen can be opened.
async fn store(call: &Call, id: &str, attributes: Json, blob: String) -> Result<KeystoneRecord, ApiError> {
    let user = text(&attributes, "user_id").unwrap_or_default().to_owned();
    let is_totp = text(&attributes, "type") == Some(TOTP);
    {
        if find(&call.state(), COLLECTION, None, id).is_some() {
            return Err(ApiError::conflict("credential", &format!("Duplicate ID, {id}")));
        }
    }
    let record = new_object(COLLECTION, None, id, attributes);
    keep(call, &user, id, is_totp, &blob).await?;
    let made = call.core.objects.create(&record).await?;
    call.record(SecurityEvent::CredentialCreated, "credentials", id).await?;
    Ok(made)
}

async fn keep(call: &Call, user: &str, id: &str, is_totp: bool, blob: &str) -> Result<(), ApiError> {
    if let Some(seed) = TotpSeed::from_base32(blob).filter(|_| is_totp) {
        keep_totp_seed(&call.core.vault, user, id, &seed).await?;
        call.record(SecurityEvent::SecondFactorChanged, "users", user).await?;
    }
    Ok(call.core.vault.put(key(user, id), SecretBytes::from(blob)).await?)
}

async fn update(call: Call, Path(id): Path<String>, body: Body) -> Answer {
    let found = allowed(&call, &call.state(), &id, Act::Update, "update_credential")?;
    let mut body = body.change(&CHANGE)?;
    let new_blob = body.remove("blob").and_then(|b| b.as_str().map(str::to_owned));
    let mut attributes = found.spec.attributes.clone();
    attributes.extend(body.clone());
    if text(&attributes, "user_id") != Some(owner(&found)) {
        return Err(ApiError::refused("The user of a credential cannot change."));
    }
    for attributes in [&found.spec.attributes, &attributes] {
        may_seed(&call, &call.state(), attributes, "update_credential")?;
    }
    let old_blob = blob(&call, &found).await?;
    let new_blob = new_blob.unwrap_or_else(|| old_blob.clone());
    check_type(&attributes, &new_blob)?;
    if kind(&found) == "ec2" && access_of(&new_blob) != access_of(&old_blob) {
        return Err(ApiError::refused("The access key of an EC2 credential cannot change."));
    }
    if kind(&found) == TOTP {
        forget_totp_seed(&call.core.vault, owner(&found), &id).await?;
    }
    keep(&call, owner(&found), &id, text(&attributes, "type") == Some(TOTP), &new_blob).await?;
    let change = |_: &State, record: &mut KeystoneRecord| {
        record.spec.attributes.extend(body.clone());
        record.spec.attributes.remove("id");
        Ok(())
    };
    let changed = store_change(&call, &object_name(COLLECTION, None, &id), change).await?;
    Ok(shown(StatusCode::OK, "credential", full(&call, &changed).await?))
}

async fn delete(call: Call, Path(id): Path<String>) -> Answer {
    let found = allowed(&call, &call.state(), &id, Act::Delete, "delete_credential")?;
    may_seed(&call, &call.state(), &found.spec.attributes, "delete_credential")?;
    remove(&call, &found).await
}

async fn remove(call: &Call, record: &KeystoneRecord) -> Answer {
    let (user, id) = (owner(record), &record.spec.id);
    if kind(record) == TOTP {
        forget_totp_seed(&call.core.vault, user, id).await?;
    }
    call.core.objects.delete::<KeystoneRecord>(&object_name(COLLECTION, None, id)).await?;
    call.core.vault.delete(key(user, id)).await?;
    call.record(SecurityEvent::CredentialDeleted, "credentials", id).await?;
    done()
}

/// An EC2 credential in the words of its own API.
async fn ec2_full(call: &Call, record: &KeystoneRecord) -> Result<Json, ApiError> {
    let blob = if may_open(call, record) { blob(call, record).await? } else { String::new() };
    let blob: Value = serde_json::from_str(&blob).unwrap_or_default();
    let (user, access) = (owner(record), blob["access"].as_str().unwrap_or_default());
    let link = call.url(&format!("users/{user}/credentials/OS-EC2/{access}"));
    Ok(object(json!({
        "user_id": user,
        "tenant_id": record.spec.attributes.get("project_id"),
        "access": access,
        "secret": blob["secret"],
        "trust_id": blob["trust_id"],
        "links": { "self": link },
    })))
}

fn ec2_user(call: &Call, state: &State, user: &str, act: Act, action: &str) -> Result<(), ApiError> {
    call.require(state, act, &Subject::Credential { user }, action)?;
    if state.users.get(user).is_none() {
        return Err(ApiError::not_found("user", user));
    }
    Ok(())
}

async fn ec2_list(call: Call, Path(user): Path<String>) -> Answer {
    let found: Vec<KeystoneRecord> = {
        let state = call.state();
        ec2_user(&call, &state, &user, Act::Read, "ec2_list_credentials")?;
        let own = all(&state, COLLECTION, None).filter(|r| owner(r) == user && kind(r) == "ec2");
        own.map(|r| (**r).clone()).collect()
    };
    let mut items = Vec::new();
    for record in &found {
        items.push(ec2_full(&call, record).await?);
    }
    call.list("credentials", &[], items)
}

async fn ec2_create(call: Call, Path(user): Path<String>, body: Body) -> Answer {
    let project = body.0.get("tenant_id").and_then(Value::as_str).unwrap_or("None").to_owned();
    {
        let state = call.state();
        ec2_user(&call, &state, &user, Act::Create, "ec2_create_credential")?;
        if state.projects.get(&project).is_none() {
            return Err(ApiError::not_found("project", &project));
        }
    }
    let (access, secret) = (fresh_id(), fresh_id());
    let trust = call.session.claims.trust.as_deref();
    let blob = json!({
        "access": access, "secret": secret, "trust_id": trust, "access_token_id": null,
        "app_cred_id": call.session.claims.application_credential,
    });
    let attributes = object(json!({ "type": "ec2", "user_id": user, "project_id": project }));
    let made = store(&call, &ec2_id(&access), attributes, blob.to_string()).await?;
    Ok(shown(StatusCode::CREATED, "credential", ec2_full(&call, &made).await?))
}

fn ec2_found(
    call: &Call,
    (user, access): &(String, String),
    act: Act,
    action: &str,
) -> Result<KeystoneRecord, ApiError> {
    let state = call.state();
    ec2_user(call, &state, user, act, action)?;
    let found = find(&state, COLLECTION, None, &ec2_id(access)).filter(|r| owner(r) == user);
    found.map(|r| (**r).clone()).ok_or_else(|| ApiError::not_found("credential", &ec2_id(access)))
}

async fn ec2_show(call: Call, Path(path): Path<(String, String)>) -> Answer {
    let found = ec2_found(&call, &path, Act::Read, "ec2_get_credential")?;
    Ok(shown(StatusCode::OK, "credential", ec2_full(&call, &found).await?))
}

async fn ec2_delete(call: Call, Path(path): Path<(String, String)>) -> Answer {
    let found = ec2_found(&call, &path, Act::Delete, "ec2_delete_credential")?;
    remove(&call, &found).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_fit_their_type() {
        for (attributes, blob, good) in [
            (json!({"type": "cert"}), "anything", true),
            (json!({"type": "ec2", "project_id": "p"}), r#"{"access": "a", "secret": "s"}"#, true),
            (json!({"type": "ec2", "project_id": "p"}), "no JSON", false),
            (json!({"type": "ec2", "project_id": "p"}), "{}", false),
            (json!({"type": "ec2"}), r#"{"access": "a", "secret": "s"}"#, false),
            (json!({"type": "totp"}), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", true),
            (json!({"type": "totp"}), "no base32!", false),
        ] {
            assert_eq!(check_type(&object(attributes.clone()), blob).is_ok(), good, "{attributes} {blob}");
        }
    }
}
