//! What the generic server knows of one served kind, and the seam through which a kind adds behaviour.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_kube_logic::schema::SchemaRef;
use gantry_kube_types::{FieldError, ResourceInfo, StatusError, UserInfo};
use serde_json::Value;

use crate::reader::Reader;

/// Where the objects of a resource lie. Every served version of one resource shares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageKey {
    pub group: String,
    pub resource: String,
    /// The `apiVersion` stored objects are encoded in; a kind served in this version is read without
    /// being decoded.
    pub api_version: String,
}

/// One served kind in one version.
#[derive(Clone)]
pub struct Kind {
    pub info: ResourceInfo,
    pub strategy: Arc<dyn Strategy>,
    pub storage: StorageKey,
    /// Types, list keys and defaults; `None` for kinds without a schema.
    pub schema: Option<SchemaRef>,
    /// `openAPIV3Schema` of a custom resource; `None` for built-in kinds.
    pub open_api: Option<Arc<Value>>,
    /// The rule `metadata.name` obeys.
    pub name_rule: NameRule,
    /// The verbs of the main resource, as discovery shows them.
    pub verbs: &'static [&'static str],
    /// What `POST` does in place of storing, by subresource; `""` is the resource itself (reviews).
    pub actions: BTreeMap<&'static str, Arc<dyn Action>>,
    /// What the server itself checks beside the strategy.
    pub(crate) check: Option<Check>,
}

/// What is wrong with a new object, or with one that replaces another.
pub(crate) type Check = fn(&Value, Option<&Value>) -> Vec<FieldError>;

/// The verbs of an ordinary stored resource.
pub const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

impl Kind {
    /// A stored kind whose storage version is its own.
    pub fn new(info: ResourceInfo, strategy: Arc<dyn Strategy>) -> Self {
        let storage = StorageKey {
            group: info.group.to_string(),
            resource: info.resource.to_string(),
            api_version: info.api_version(),
        };
        Self {
            info,
            strategy,
            storage,
            schema: None,
            open_api: None,
            name_rule: NameRule::Subdomain,
            verbs: ALL_VERBS,
            actions: BTreeMap::new(),
            check: None,
        }
    }

    /// Shares the storage of another resource or version; the strategy converts.
    #[must_use]
    pub fn stored_as(mut self, group: &str, resource: &str, api_version: &str) -> Self {
        self.storage =
            StorageKey { group: group.into(), resource: resource.into(), api_version: api_version.into() };
        self
    }

    #[must_use]
    pub fn named_by(mut self, rule: NameRule) -> Self {
        self.name_rule = rule;
        self
    }

    /// Makes `POST` to the subresource (`""`: the resource) run `action`. With `""` the kind is virtual:
    /// nothing is stored and `create` is its only verb.
    #[must_use]
    pub fn with_action(mut self, subresource: &'static str, action: Arc<dyn Action>) -> Self {
        if subresource.is_empty() {
            self.verbs = &["create"];
        }
        self.actions.insert(subresource, action);
        self
    }

    /// Are stored bytes already in this version?
    pub fn is_storage_version(&self) -> bool {
        self.storage.api_version == self.info.api_version() && self.open_api.is_none()
    }

    pub fn has_subresource(&self, name: &str) -> bool {
        self.info.subresources.iter().any(|s| s == name)
    }

    pub fn not_found(&self, name: &str) -> StatusError {
        StatusError::not_found(&self.info.group, &self.info.resource, name)
    }
}

/// What a valid `metadata.name` looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain.
    Subdomain,
    /// RFC 1123 label.
    Label,
    /// RFC 1035 label (services).
    Dns1035,
    /// Anything that is one part of a path (RBAC).
    PathSegment,
}

/// A column of `kubectl get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` for the name column, else empty.
    pub format: &'static str,
    pub description: String,
    /// Above 0: only with `-o wide`.
    pub priority: i32,
}

impl Column {
    pub fn new(name: &str, kind: &'static str, description: &str) -> Self {
        Self { name: name.into(), kind, format: "", description: description.into(), priority: 0 }
    }

    /// Shown with `-o wide` only.
    #[must_use]
    pub fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// Where a resource keeps what its `scale` subresource shows: dotted paths such as `.spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// To a string (custom resources) or a label selector object (built-in kinds).
    pub label_selector: Option<String>,
}

impl ScalePaths {
    /// Deployments, replica sets, stateful sets.
    pub fn workload() -> Self {
        Self {
            spec_replicas: ".spec.replicas".into(),
            status_replicas: ".status.replicas".into(),
            label_selector: Some(".spec.selector".into()),
        }
    }
}

/// A kind's own behaviour. Objects are in the kind's served version.
pub trait Strategy: Send + Sync {
    /// API defaulting. Doing it twice changes nothing.
    fn default(&self, _object: &mut Value) {}

    /// From the storage version to the served one, in place. The caller sets `apiVersion` and `kind`.
    #[expect(clippy::wrong_self_convention, reason = "it is the object that comes from storage")]
    fn from_storage(&self, _object: &mut Value) {}

    /// From the served version to the storage one, in place. The caller sets `apiVersion` and `kind`.
    fn to_storage(&self, _object: &mut Value) {}

    /// Before validation of a create. The server drops `status` itself where the kind has that subresource.
    fn prepare_create(&self, _object: &mut Value) {}

    /// Before validation of an update. The server keeps `status` itself where the kind has that
    /// subresource, and raises `metadata.generation` where anything but metadata and status changed.
    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    /// Before validation of an update of `status`. The server has taken everything but `status` and
    /// metadata from `old`.
    fn prepare_status_update(&self, _new: &mut Value, _old: &Value) {}

    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_status_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Sentences for `Warning` headers of a create or update.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// The columns behind `Name`; the server adds `Name` itself. Empty: only `Age` follows.
    fn columns(&self) -> Vec<Column> {
        vec![Column::new("Age", "date", AGE)]
    }

    /// The cells of [`Strategy::columns`].
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![Value::String(crate::table::age(&object["metadata"]["creationTimestamp"], now))]
    }

    /// Fields that selectors know beyond `metadata.name` and `metadata.namespace`. Every name is given for
    /// every object, with `""` where it is absent.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// `Some(seconds)`: the delete is graceful; the object stays with a `deletionTimestamp` until it is
    /// deleted with 0 seconds. `asked` is `gracePeriodSeconds` of the request.
    fn deletion_grace_seconds(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }

    fn scale(&self) -> Option<ScalePaths> {
        None
    }

    /// Does an update of this kind need no `resourceVersion`? Upstream says so for most built-in kinds.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// May a `PUT` create the object? (`leases`, `events`, … upstream.)
    fn allows_create_on_update(&self) -> bool {
        false
    }
}

/// What upstream writes under `Age`.
pub const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was \
                       created.";

/// A kind without behaviour of its own.
pub struct Plain;

impl Strategy for Plain {}

/// What `POST` does where it stores nothing, or more than one object: reviews, `binding`, `eviction`,
/// `token`.
#[async_trait::async_trait]
pub trait Action: Send + Sync {
    /// Returns the object the client sees (201 Created); `null` is answered by a `Success` Status.
    async fn run(&self, request: ActionRequest<'_>) -> Result<Value, StatusError>;
}

/// One `POST` to an [`Action`], decoded and authorised.
pub struct ActionRequest<'a> {
    pub server: &'a Arc<crate::ApiServer>,
    pub user: &'a UserInfo,
    pub kind: &'a Kind,
    pub namespace: &'a str,
    /// The parent object's name; empty where the action is on the resource.
    pub name: &'a str,
    pub object: Value,
    pub dry_run: bool,
    pub reader: Reader,
}
