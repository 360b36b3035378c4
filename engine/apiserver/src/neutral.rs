//! Components in admission: the neutral [`Admission`] as one of the server's own plugins.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use gantry_kube_types::{
    Admission, AdmissionAttributes, AdmissionOperation, AdmissionOutcome, AdmissionPhase, OutcomeListener,
    StatusError,
};
use serde_json::Value;

use crate::admission::{AdmissionPlugin, AdmissionRequest, Effects, Operation};

/// Adapts a component's [`Admission`].
pub struct Neutral(pub Arc<dyn Admission>);

#[async_trait::async_trait]
impl AdmissionPlugin for Neutral {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        let changed = self.review(request, AdmissionPhase::Mutate).await?;
        if let Some(object) = changed {
            *request.object = object;
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        match self.review(request, AdmissionPhase::Validate).await? {
            Some(object) if object != *request.object => Err(StatusError::internal(format!(
                "admission {} changed the object while it was validated",
                self.0.name()
            ))),
            _ => Ok(()),
        }
    }
}

impl Neutral {
    /// The changed object, where it was changed.
    async fn review(
        &self,
        request: &AdmissionRequest<'_>,
        phase: AdmissionPhase,
    ) -> Result<Option<Value>, StatusError> {
        let info = &request.kind.info;
        let mut attributes = AdmissionAttributes {
            phase,
            user: request.user,
            operation: operation(request.operation),
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            kind: &info.kind,
            subresource: request.subresource,
            namespace: request.namespace,
            name: request.name,
            object: Cow::Borrowed(&*request.object),
            old_object: request.old_object,
            dry_run: request.dry_run,
            warnings: Vec::new(),
            audit_annotations: Vec::new(),
            outcome_listeners: Vec::new(),
        };
        let reviewed = self.0.review(&mut attributes).await;
        let AdmissionAttributes { object, warnings, audit_annotations, outcome_listeners, .. } = attributes;
        // Also after a refusal: whoever reserved something wants to hear that nothing came of it.
        outcome_listeners.into_iter().for_each(|listener| listen(request.effects, listener));
        warnings.into_iter().for_each(|text| request.effects.warn(text));
        audit_annotations.into_iter().for_each(|(key, value)| request.effects.annotate(key, value));
        reviewed?;
        Ok(match object {
            Cow::Borrowed(_) => None,
            Cow::Owned(object) => Some(object),
        })
    }
}

fn operation(operation: Operation) -> AdmissionOperation {
    match operation {
        Operation::Create => AdmissionOperation::Create,
        Operation::Update => AdmissionOperation::Update,
        Operation::Delete => AdmissionOperation::Delete,
        Operation::Connect => AdmissionOperation::Connect,
    }
}

fn listen(effects: &Effects, listener: OutcomeListener) {
    let listener = Arc::new(Mutex::new(Some(listener)));
    let tell = |listener: &Mutex<Option<OutcomeListener>>, outcome| {
        let taken = listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = taken {
            listener(outcome);
        }
    };
    let other = listener.clone();
    effects.on_failure(move || tell(&other, AdmissionOutcome::Abandoned));
    effects.on_success(move || tell(&listener, AdmissionOutcome::Written));
}
