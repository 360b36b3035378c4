//! What decides on a write after the caller's rights are known and before it is stored.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    pub effects: &'a Effects,
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

/// What admission does beside changing the object. Reservations (an allocated cluster IP, a share of a
/// quota) are undone when the write fails, is a dry run or is dropped half-way, and settled when it is
/// stored; warnings go to the caller, annotations to the audit record.
#[derive(Default)]
pub struct Effects(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    undo: Vec<Effect>,
    settle: Vec<Effect>,
    remarks: Remarks,
}

/// What admission says of a request beside yes and no.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    /// For `Warning` headers.
    pub(crate) warnings: Vec<String>,
    pub(crate) annotations: Vec<(Cow<'static, str>, String)>,
}

impl Effects {
    /// Runs when the write does not happen.
    pub fn on_failure(&self, undo: impl FnOnce() + Send + Sync + 'static) {
        self.noted().undo.push(Box::new(undo));
    }

    /// Runs once the write is durable.
    pub fn on_success(&self, settle: impl FnOnce() + Send + Sync + 'static) {
        self.noted().settle.push(Box::new(settle));
    }

    /// A sentence for a `Warning` header; said once however often it is given.
    pub fn warn(&self, text: impl Into<String>) {
        let (text, mut noted) = (text.into(), self.noted());
        if !noted.remarks.warnings.contains(&text) {
            noted.remarks.warnings.push(text);
        }
    }

    /// A line of the request's audit record.
    pub fn annotate(&self, key: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.noted().remarks.annotations.push((key.into(), value.into()));
    }

    /// Takes out what was said so far.
    pub(crate) fn remarks(&self) -> Remarks {
        std::mem::take(&mut self.noted().remarks)
    }

    /// The write is stored.
    pub(crate) fn settle(self) {
        let settle = {
            let mut noted = self.noted();
            noted.undo.clear();
            std::mem::take(&mut noted.settle)
        };
        for effect in settle {
            effect();
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        // Every change is one insertion: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Effects {
    fn drop(&mut self) {
        let undo = std::mem::take(&mut self.noted().undo);
        for undo in undo.into_iter().rev() {
            undo();
        }
    }
}
