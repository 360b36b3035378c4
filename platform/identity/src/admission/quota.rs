//! Tree quotas at the API: pods, claims and services of a project count against its bound and those above it.

use std::sync::Arc;

use gantry_kube_types::{Admission, AdmissionAttributes, AdmissionOperation, AdmissionPhase, StatusError};

use crate::tenancy::World;
use crate::tenancy::ledger::Item;
use crate::tenancy::usage::Counted;

/// Refuses what does not fit, with the numbers. Bounds of one namespace alone are the server's own quotas' to keep.
pub struct TreeQuota {
    world: Arc<World>,
}

impl TreeQuota {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }
}

#[async_trait::async_trait]
impl Admission for TreeQuota {
    fn name(&self) -> &'static str {
        "TreeQuota"
    }

    async fn review(&self, request: &mut AdmissionAttributes<'_>) -> Result<(), StatusError> {
        let writes = matches!(request.operation, AdmissionOperation::Create | AdmissionOperation::Update);
        let whole = request.subresource.is_empty() || request.subresource == "resize";
        if request.phase != AdmissionPhase::Validate || !writes || !whole {
            return Ok(());
        }
        let Some(kind) = Counted::of(request.group, request.resource) else { return Ok(()) };
        let Some(project) = self.world.namespaces.project_of(request.namespace) else { return Ok(()) };
        let want = kind.usage(&request.object);
        // A write that takes no more than the object has is none of ours: what is over its bound can be made less.
        if request.old_object.is_some_and(|old| want.over(&kind.usage(old)).is_zero()) {
            return Ok(());
        }
        let item = Item { kind, namespace: request.namespace.to_owned(), name: request.name.to_owned() };
        let entered = {
            let (state, World { ledger, namespaces, .. }) = (self.world.directory.read(), &*self.world);
            if request.dry_run {
                ledger.check_use(&state, namespaces, &project, &item, &want).map(|()| None)
            } else {
                ledger.enter_use(&state, namespaces, &project, item, want)
            }
        };
        let entry = entered.map_err(|why| request.forbidden(why))?;
        if let Some(entry) = entry {
            let world = self.world.clone();
            request.on_outcome(move |outcome| world.ledger.settle(&entry, outcome));
        }
        Ok(())
    }
}
