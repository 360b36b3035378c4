//! What decides on a write after the caller's rights are known and before it is stored.

use gantry_kube_types::{StatusError, UserInfo};
use serde_json::Value;

use crate::kind::Kind;
use crate::reader::Reader;

/// What a request does to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// `exec`, `attach`, `portforward`, `proxy`.
    Connect,
}

/// One write under admission. `object` is in the kind's served version, defaulted and prepared.
pub struct AdmissionRequest<'a> {
    pub user: &'a UserInfo,
    pub operation: Operation,
    pub kind: &'a Kind,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// What will be stored; `null` for deletes.
    pub object: &'a mut Value,
    /// What is stored now; `None` for creates.
    pub old_object: Option<&'a Value>,
    pub dry_run: bool,
    /// The other objects.
    pub reader: &'a Reader,
    pub effects: &'a mut Effects,
}

impl AdmissionRequest<'_> {
    /// Is it a write of the resource itself, of this group and plural name?
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.kind.info.group == group && self.kind.info.resource == resource && self.subresource.is_empty()
    }

    /// A 403 about the object, as admission plugins answer: `pods "x" is forbidden: why`.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> StatusError {
        StatusError::forbidden(&self.kind.info.group, &self.kind.info.resource, self.name, why)
    }
}

/// Decides on writes; may change the object first. Plugins run in order, all mutations before all
/// validations.
#[async_trait::async_trait]
pub trait AdmissionPlugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// May change `request.object`. Side effects outside the object go to `request.effects`.
    async fn admit(&self, _request: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        Ok(())
    }

    /// Sees the object as it will be stored.
    async fn validate(&self, _request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        Ok(())
    }
}

/// `Sync` so that a request under validation can be shared.
type Effect = Box<dyn FnOnce() + Send + Sync>;

/// Side effects of admission outside the object (an allocated cluster IP): undone when the write fails,
/// is a dry run or is dropped half-way; settled when it is stored.
#[derive(Default)]
pub struct Effects {
    undo: Vec<Effect>,
    settle: Vec<Effect>,
}

impl Effects {
    /// Runs when the write does not happen.
    pub fn on_failure(&mut self, undo: impl FnOnce() + Send + Sync + 'static) {
        self.undo.push(Box::new(undo));
    }

    /// Runs once the write is durable.
    pub fn on_success(&mut self, settle: impl FnOnce() + Send + Sync + 'static) {
        self.settle.push(Box::new(settle));
    }

    /// The write is stored.
    pub(crate) fn settle(mut self) {
        self.undo.clear();
        for effect in self.settle.drain(..) {
            effect();
        }
    }
}

impl Drop for Effects {
    fn drop(&mut self) {
        for undo in self.undo.drain(..).rev() {
            undo();
        }
    }
}
