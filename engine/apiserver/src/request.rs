//! One request about a resource, and its body.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use gantry_kube_logic::apply::Manager;
use gantry_kube_logic::fields;
use gantry_kube_logic::negotiate::{self, Output};
use gantry_kube_logic::schema::Schema;
use gantry_kube_types::{AuditNotes, RequestInfo, StatusError, UserInfo};
use gantry_store::{Key, Object, Prefix};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use crate::admission::Remarks;
use crate::kind::Kind;
use crate::query::{FieldValidation, Query};
use crate::server::ApiServer;

/// The largest body of a request.
pub const BODY_BYTES_MAX: usize = 3 << 20;
/// Upstream's bound on the name of a field manager.
const MANAGER_BYTES_MAX: usize = 128;

/// A request about a resource, decoded up to its body.
pub(crate) struct Context {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) user: UserInfo,
    pub(crate) info: RequestInfo,
    pub(crate) kind: Arc<Kind>,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) notes: Notes,
}

/// What is added to the audit record of one request.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Option<Box<AuditNotes>>>>);

impl Notes {
    fn with(&self, change: impl FnOnce(&mut AuditNotes)) {
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
    }

    pub(crate) fn taken(&self) -> Option<AuditNotes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(|notes| *notes)
    }
}

impl Context {
    /// Objects of namespaced kinds are named inside a namespace, those of cluster kinds are not.
    pub(crate) fn check_scope(&self) -> Result<(), StatusError> {
        let namespaces = self.info.group.is_empty() && self.info.resource == "namespaces";
        // A namespace's own name stands for the namespace it is in; another would let rights in one
        // namespace reach the next.
        let own = namespaces && self.info.namespace == self.info.name;
        let inside = !self.info.namespace.is_empty() && !own;
        let named = !self.info.name.is_empty() || self.info.verb == "create";
        match (self.kind.info.is_namespaced(), inside) {
            (true, false) if named => Err(StatusError::no_such_resource()),
            (false, true) => Err(StatusError::no_such_resource()),
            _ => Ok(()),
        }
    }

    /// Empty for cluster-scoped kinds, also for namespaces themselves.
    pub(crate) fn namespace(&self) -> &str {
        if self.kind.info.is_namespaced() { &self.info.namespace } else { "" }
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        Key::new(&self.kind.storage.group, &self.kind.storage.resource, self.namespace(), name)
    }

    pub(crate) fn prefix(&self) -> Prefix {
        let prefix = Prefix::resource(&self.kind.storage.group, &self.kind.storage.resource);
        match self.namespace() {
            "" => prefix,
            namespace => prefix.in_namespace(namespace),
        }
    }

    /// The stored object, or 404.
    pub(crate) fn current(&self, name: &str) -> Result<Arc<Object>, StatusError> {
        self.server.store.snapshot().get(&self.key(name)).ok_or_else(|| self.kind.not_found(name))
    }

    /// Keeps what admission said: warnings for the caller, annotations for the audit record.
    pub(crate) fn note(&self, mut remarks: Remarks, warnings: &mut Vec<String>) {
        warnings.append(&mut remarks.warnings);
        if !remarks.annotations.is_empty() {
            self.notes.with(|notes| notes.annotations.append(&mut remarks.annotations));
        }
    }

    /// Keeps the name of what is being made for the audit record: the path does not have it.
    pub(crate) fn making(&self, name: &str) {
        if self.info.name.is_empty() && !name.is_empty() {
            self.notes.with(|notes| notes.name = Some(name.to_owned()));
        }
    }

    pub(crate) fn output(&self) -> Result<Output, StatusError> {
        Output::of(&self.headers, self.query.flag("pretty"))
    }

    pub(crate) fn schema(&self) -> &Schema {
        static NONE: std::sync::LazyLock<Schema> = std::sync::LazyLock::new(Schema::default);
        self.kind.schema.as_deref().unwrap_or(&NONE)
    }

    pub(crate) fn not_allowed(&self) -> StatusError {
        StatusError::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    pub(crate) fn conflict(&self, name: &str, why: impl std::fmt::Display) -> StatusError {
        StatusError::conflict(&self.kind.info.group, &self.kind.info.resource, name, why)
    }

    /// Who is written into `managedFields`: `fieldManager`, else the first word of the user agent.
    pub(crate) fn manager(&self, now: jiff::Timestamp) -> Manager {
        let agent = self.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
        let name = match self.query.text("fieldManager") {
            "" => agent.split('/').next().unwrap_or(""),
            name => name,
        };
        let name: String = name.chars().filter(|c| !c.is_control()).take(MANAGER_BYTES_MAX).collect();
        Manager {
            name: if name.is_empty() { "unknown".to_owned() } else { name },
            api_version: self.kind.info.api_version(),
            subresource: self.info.subresource.clone(),
            time: crate::objects::timestamp(now),
        }
    }

    /// The media type of the body, `application/json` where none is named.
    pub(crate) fn content_type(&self) -> String {
        match self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) {
            None | Some("") => "application/json".to_owned(),
            Some(text) => negotiate::media_type(text),
        }
    }
}

/// The whole body, or 413.
pub(crate) async fn read_body(body: Body) -> Result<bytes::Bytes, StatusError> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(StatusError::too_large(format!("Request entity too large: limit is {BODY_BYTES_MAX}")))
        }
        Err(error) => Err(StatusError::bad_request(format!("unable to read the request's body: {error}"))),
    }
}

/// A document and what a strict reader holds against it.
pub(crate) struct Document {
    pub(crate) value: Value,
    pub(crate) strict: Vec<String>,
}

/// Reads a JSON or YAML document by its media type.
pub(crate) fn parse(media_type: &str, bytes: &[u8]) -> Result<Document, StatusError> {
    match media_type {
        "application/json" => {
            let parsed = fields::parse_json(bytes)?;
            Ok(Document { value: parsed.value, strict: parsed.strict })
        }
        "application/yaml" | "application/apply-patch+yaml" => {
            // JSON is YAML: apply bodies of client libraries are JSON, and its reader sees duplicates.
            if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
                && let Ok(parsed) = fields::parse_json(bytes)
            {
                return Ok(Document { value: parsed.value, strict: parsed.strict });
            }
            let text = std::str::from_utf8(bytes).map_err(|e| StatusError::bad_request(e.to_string()))?;
            let value = serde_saphyr::from_str(text)
                .map_err(|e| StatusError::bad_request(format!("error decoding YAML: {e}")))?;
            Ok(Document { value, strict: Vec::new() })
        }
        "application/vnd.kubernetes.protobuf"
            if let Some(value) = gantry_kube_logic::protobuf::decode(bytes) =>
        {
            Ok(Document { value, strict: Vec::new() })
        }
        _ => Err(StatusError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml",
        )),
    }
}

impl Context {
    /// Reads the body as an object of this kind; unknown and duplicate fields become `warnings` or an
    /// error as `fieldValidation` says.
    pub(crate) async fn object(&self, body: Body, warnings: &mut Vec<String>) -> Result<Value, StatusError> {
        let bytes = read_body(body).await?;
        let mut document = parse(&self.content_type(), &bytes)?;
        self.check_kind(&mut document.value)?;
        document.strict.extend(fields::decode(&mut document.value, self.schema())?);
        self.judge(&document.strict, warnings)?;
        Ok(document.value)
    }

    /// Applies `fieldValidation` to what a strict reader found.
    pub(crate) fn judge(&self, strict: &[String], warnings: &mut Vec<String>) -> Result<(), StatusError> {
        match FieldValidation::of(&self.query)? {
            FieldValidation::Ignore => Ok(()),
            FieldValidation::Strict if !strict.is_empty() => {
                Err(fields::strict_error(&self.kind.info.kind, &self.kind.info.version, strict))
            }
            FieldValidation::Strict => Ok(()),
            FieldValidation::Warn => {
                warnings.extend_from_slice(strict);
                Ok(())
            }
        }
    }

    /// Fills in `apiVersion` and `kind`, or refuses an object of another kind.
    pub(crate) fn check_kind(&self, object: &mut Value) -> Result<(), StatusError> {
        let Some(fields) = object.as_object_mut() else {
            return Err(StatusError::bad_request("the body of the request is not an object"));
        };
        let want_version = self.kind.info.api_version();
        for (field, want) in [("apiVersion", want_version.as_str()), ("kind", &self.kind.info.kind)] {
            match fields.get(field).and_then(Value::as_str).unwrap_or("") {
                "" => {
                    fields.insert(field.to_owned(), want.into());
                }
                got if got == want => {}
                got if field == "apiVersion" => {
                    return Err(StatusError::bad_request(format!(
                        "the API version in the data ({got}) does not match the expected API version ({want})"
                    )));
                }
                got => {
                    return Err(StatusError::bad_request(format!(
                        "the kind in the data ({got}) does not match the expected kind ({want})"
                    )));
                }
            }
        }
        Ok(())
    }
}
