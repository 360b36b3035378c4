//! The seam through which components take part in admission and say what a user sees of cluster-wide
//! lists. Neither side names the other: the API server adapts an [`Admission`] to its own plugins and
//! asks a [`Visibility`] where a caller may not list everything.

use std::borrow::Cow;

use serde_json::Value;

use crate::{StatusError, UserInfo};

/// What a request does to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionOperation {
    Create,
    Update,
    Delete,
    /// `exec`, `attach`, `portforward`, `proxy`.
    Connect,
}

/// All mutations come before all validations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionPhase {
    /// The object may be changed.
    Mutate,
    /// The object is seen as it will be stored; changing it is an error.
    Validate,
}

/// Whether the write that was admitted happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionOutcome {
    /// It is stored.
    Written,
    /// It was refused, failed, was a dry run or its caller went away.
    Abandoned,
}

/// Told once, when the outcome of the write is known.
pub type OutcomeListener = Box<dyn FnOnce(AdmissionOutcome) + Send + Sync>;

/// One write under review (`admission.k8s.io` `AdmissionRequest`, without the wire format). Objects are
/// in the version the caller used, defaulted.
pub struct AdmissionAttributes<'a> {
    pub phase: AdmissionPhase,
    pub user: &'a UserInfo,
    pub operation: AdmissionOperation,
    pub group: &'a str,
    pub version: &'a str,
    /// Plural, `deployments`.
    pub resource: &'a str,
    /// `Deployment`.
    pub kind: &'a str,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    pub name: &'a str,
    /// What will be stored; `null` for deletes. Change it through [`AdmissionAttributes::object_mut`].
    pub object: Cow<'a, Value>,
    /// What is stored now; `None` for creates.
    pub old_object: Option<&'a Value>,
    pub dry_run: bool,
    /// Sentences for `Warning` headers.
    pub warnings: Vec<String>,
    /// Annotations of the request's audit record.
    pub audit_annotations: Vec<(Cow<'static, str>, String)>,
    /// Through [`AdmissionAttributes::on_outcome`].
    pub outcome_listeners: Vec<OutcomeListener>,
}

impl AdmissionAttributes<'_> {
    /// Is it a write of the resource itself, of this group and plural name?
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource && self.subresource.is_empty()
    }

    /// The object to change; a copy is made at the first call.
    pub fn object_mut(&mut self) -> &mut Value {
        self.object.to_mut()
    }

    /// For what is reserved until the write has happened or failed (a share of a quota).
    pub fn on_outcome(&mut self, listener: impl FnOnce(AdmissionOutcome) + Send + Sync + 'static) {
        self.outcome_listeners.push(Box::new(listener));
    }

    /// A 403 about the object, as admission plugins answer: `pods "x" is forbidden: why`.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> StatusError {
        StatusError::forbidden(self.group, self.resource, self.name, why)
    }
}

/// A component's say in writes. It knows the other objects it needs from its own informers; it must
/// not write through the API while it reviews.
#[async_trait::async_trait]
pub trait Admission: Send + Sync {
    /// CamelCase, for logs: `ProjectNamespaces`.
    fn name(&self) -> &'static str;

    /// Called once in each phase. `Err` refuses the write and is what the caller sees.
    async fn review(&self, request: &mut AdmissionAttributes<'_>) -> Result<(), StatusError>;
}

/// Which cluster-scoped objects a user sees who may not list all of them.
///
/// Lists and watches of a resource in [`Visibility::resources`] show such a user the visible objects
/// where they would be refused otherwise, and a `get` of a visible object is allowed.
#[async_trait::async_trait]
pub trait Visibility: Send + Sync {
    /// The `(group, plural resource)` pairs this source knows.
    fn resources(&self) -> Vec<(String, String)>;

    /// Does the user see this object? Asked for every object of a list: answer from memory.
    fn visible(&self, user: &UserInfo, group: &str, resource: &str, name: &str) -> bool;

    /// Must the user not see it, whatever other sources and role bindings say? For credentials that
    /// are narrower than their user.
    fn hides(&self, _user: &UserInfo, _group: &str, _resource: &str, _name: &str) -> bool {
        false
    }

    /// Grows, before anything else can be observed of it, with every change that can change an answer.
    fn generation(&self) -> u64;

    /// Returns once [`Visibility::generation`] is no longer `seen`.
    async fn changed(&self, seen: u64);
}
