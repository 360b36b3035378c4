//! `POST serviceaccounts/NAME/token` (upstream `pkg/registry/core/serviceaccount/storage/token.go`).

use std::sync::Arc;

use gantry_kube_logic::meta;
use gantry_kube_types::{FieldError, StatusError};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::ServiceAccountTokens;
use super::claims::{Audiences, Bound, Claims, Private, subject};
use crate::kind::{Action, ActionRequest};
use crate::objects::timestamp;
use crate::reader::Reader;

const EXPIRATION_SECONDS_DEFAULT: i64 = 3600;
const EXPIRATION_SECONDS_MIN: i64 = 600;
const EXPIRATION_SECONDS_MAX: i64 = 1 << 32;
const AUDIENCES_MAX: usize = 64;
const GROUP: &str = "authentication.k8s.io";

/// The `token` subresource of service accounts.
#[derive(Debug)]
pub struct TokenAction(pub Arc<ServiceAccountTokens>);

#[async_trait::async_trait]
impl Action for TokenAction {
    async fn run(&self, request: ActionRequest<'_>) -> Result<Value, StatusError> {
        crate::authz::check_token_request(request.user, &request.reader, request.namespace, &request.object)?;
        self.0.issue(&request.reader, request.namespace, request.name, request.object)
    }
}

impl ServiceAccountTokens {
    /// Answers a `TokenRequest` for the service account `namespace`/`name`: the request with its
    /// defaults and its `status.token`.
    pub fn issue(
        &self,
        reader: &Reader,
        namespace: &str,
        name: &str,
        mut request: Value,
    ) -> Result<Value, StatusError> {
        let account = reader
            .get("", "serviceaccounts", namespace, name)
            .ok_or_else(|| StatusError::not_found("", "serviceaccounts", name))?;
        check_metadata(&request, namespace, name, &account)?;
        let seconds = expiration_seconds(&request)?;
        let audiences = self.wanted_audiences(&request)?;
        let now = Timestamp::now();
        let account = Bound { name: name.to_owned(), uid: meta::uid(&account).to_owned() };
        let mut private = Private {
            namespace: namespace.to_owned(),
            node: None,
            pod: None,
            secret: None,
            serviceaccount: account,
        };
        bind(&mut private, reader, &request["spec"]["boundObjectRef"])?;
        let claims = Claims {
            aud: Audiences::Many(audiences.clone()),
            exp: now.as_second() + seconds,
            iat: now.as_second(),
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: private,
            nbf: now.as_second(),
            sub: subject(namespace, name),
        };
        let token = self.sign(&claims)?;
        let expires = now.checked_add(SignedDuration::from_secs(seconds)).map_err(StatusError::internal)?;
        request["apiVersion"] = format!("{GROUP}/v1").into();
        request["kind"] = "TokenRequest".into();
        request["metadata"] =
            json!({ "name": name, "namespace": namespace, "creationTimestamp": timestamp(now) });
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = seconds.into();
        request["status"] = json!({ "token": token, "expirationTimestamp": timestamp(expires) });
        Ok(request)
    }

    fn wanted_audiences(&self, request: &Value) -> Result<Vec<String>, StatusError> {
        let wanted = match &request["spec"]["audiences"] {
            Value::Null => Vec::new(),
            value => serde_json::from_value::<Vec<String>>(value.clone()).map_err(|_| {
                StatusError::bad_request("spec.audiences of a TokenRequest must be a list of strings")
            })?,
        };
        if wanted.len() > AUDIENCES_MAX {
            return Err(StatusError::bad_request(format!(
                "spec.audiences of a TokenRequest may not have more than {AUDIENCES_MAX} items"
            )));
        }
        Ok(if wanted.is_empty() { self.audiences.clone() } else { wanted })
    }
}

/// What the body says of itself must be what the path says.
fn check_metadata(request: &Value, namespace: &str, name: &str, account: &Value) -> Result<(), StatusError> {
    if !request.is_object() {
        return Err(StatusError::bad_request("the body of a token request must be a TokenRequest object"));
    }
    let kind = request["kind"].as_str().unwrap_or("");
    if !matches!(kind, "" | "TokenRequest") {
        return Err(StatusError::bad_request(format!(
            "{kind:?} is not valid for this subresource: a TokenRequest is expected"
        )));
    }
    for (field, said, meant) in
        [("name", meta::name(request), name), ("namespace", meta::namespace(request), namespace)]
    {
        if !said.is_empty() && said != meant {
            return Err(StatusError::bad_request(format!(
                "the {field} of the provided object does not match the {field} sent on the request"
            )));
        }
    }
    let (said, uid) = (meta::uid(request), meta::uid(account));
    if !said.is_empty() && said != uid {
        return Err(StatusError::conflict(
            GROUP,
            "tokenrequests",
            name,
            format!(
                "the UID in the token request ({said}) does not match the UID of the service account ({uid})"
            ),
        ));
    }
    Ok(())
}

fn expiration_seconds(request: &Value) -> Result<i64, StatusError> {
    let value = &request["spec"]["expirationSeconds"];
    if value.is_null() {
        return Ok(EXPIRATION_SECONDS_DEFAULT);
    }
    let problem = match value.as_i64() {
        None => "must be a whole number of seconds",
        Some(s) if s < EXPIRATION_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        Some(s) if s > EXPIRATION_SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        Some(s) => return Ok(s),
    };
    let error = FieldError::invalid("spec.expirationSeconds", value.clone(), problem);
    Err(StatusError::invalid(GROUP, "TokenRequest", meta::name(request), &[error]))
}

/// Fills in what `spec.boundObjectRef` names.
fn bind(private: &mut Private, reader: &Reader, reference: &Value) -> Result<(), StatusError> {
    if reference.is_null() {
        return Ok(());
    }
    let text = |field: &str| reference[field].as_str().unwrap_or("");
    let (kind, name) = (text("kind"), text("name"));
    let (resource, namespace) = match (text("apiVersion"), kind) {
        ("v1", "Pod") => ("pods", private.namespace.as_str()),
        ("v1", "Secret") => ("secrets", private.namespace.as_str()),
        ("v1", "Node") => ("nodes", ""),
        (version, kind) => {
            return Err(StatusError::bad_request(format!(
                "cannot bind token to object of type {version}, Kind={kind}"
            )));
        }
    };
    let object = reader
        .get("", resource, namespace, name)
        .ok_or_else(|| StatusError::not_found("", resource, name))?;
    let uid = meta::uid(&object);
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have \
             been deleted and then recreated",
            text("uid")
        );
        return Err(StatusError::conflict("", resource, name, why));
    }
    let bound = Some(Bound { name: name.to_owned(), uid: uid.to_owned() });
    match kind {
        "Secret" => private.secret = bound,
        "Node" => private.node = bound,
        _ => {
            let account = &private.serviceaccount.name;
            if object["spec"]["serviceAccountName"].as_str().unwrap_or("default") != account {
                return Err(StatusError::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount \
                     name."
                )));
            }
            private.node = object["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()).and_then(|node| {
                let object = reader.get("", "nodes", "", node)?;
                Some(Bound { name: node.to_owned(), uid: meta::uid(&object).to_owned() })
            });
            private.pod = bound;
        }
    }
    Ok(())
}
