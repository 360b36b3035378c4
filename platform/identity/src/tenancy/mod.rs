//! Tenancy: projects become namespaces, roles become cluster roles, assignments become bindings, quotas are kept.
//!
//! [`Tenancy`] is made before the engine opens, because the engine asks it (admission, authoriser, visibility), and
//! started when there is a client. Until the directory knows every kind, whatever depends on it is refused.

pub(crate) mod account;
mod act;
pub(crate) mod bindings;
pub mod callers;
mod cascade;
mod contents;
mod decisions;
mod diff;
mod kept;
pub mod ledger;
mod managed;
pub mod names;
pub mod namespaces;
mod project;
pub mod quota;
mod reconcile;
mod roles;
mod start;
mod status;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod usage;

use std::sync::{Arc, OnceLock};

use gantry_kube_types::{Admission, Authorizer, UserInfo, Visibility};

pub use cascade::Secrets;
pub use start::Callbacks;

use crate::admission;
use crate::authorizer::IdentityAuthorizer;
use crate::directory::Directory;
use crate::narrowed::Narrowed;
use crate::visibility::OwnKinds;
use callers::{Caller, Callers, Known};
use ledger::Ledger;
use namespaces::Namespaces;

/// What the seams decide on: all in memory.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) directory: Directory,
    pub(crate) namespaces: Namespaces,
    pub(crate) ledger: Ledger,
    callers: Callers,
    /// What parts of the cluster and service accounts are to identity.
    stranger: Arc<Caller>,
    /// The outermost authoriser, once the engine has been wrapped.
    authorizer: OnceLock<Arc<dyn Authorizer>>,
}

impl World {
    pub(crate) fn new(directory: Directory) -> Self {
        Self { directory, ..Self::default() }
    }

    /// Grows with everything that can change a decision.
    pub(crate) fn generation(&self) -> u64 {
        self.directory.version() + self.namespaces.version()
    }

    pub(crate) fn caller(&self, info: &UserInfo) -> Arc<Caller> {
        if callers::is_stranger(info) { self.stranger.clone() } else { self.known(info).caller }
    }

    /// The caller, who is no stranger, and what was decided about them.
    pub(crate) fn known(&self, info: &UserInfo) -> Known {
        // Read first: a caller that is remembered is at least as new as the generation says.
        let generation = self.generation();
        // The directory is not locked for who is known.
        let known = self.callers.known(generation, info);
        known.unwrap_or_else(|| self.callers.get(generation, &self.directory.read(), info))
    }

    /// `None` before the engine has been opened.
    pub(crate) fn authorizer(&self) -> Option<&Arc<dyn Authorizer>> {
        self.authorizer.get()
    }
}

/// The handle the composition root wires. Cheap to clone.
#[derive(Clone)]
pub struct Tenancy(pub(crate) Arc<World>);

impl Tenancy {
    /// `directory` may be empty still; it is the one that follows the kinds later.
    pub fn new(directory: Directory) -> Self {
        Self(Arc::new(World::new(directory)))
    }

    /// Puts identity's rules around the engine's authoriser. To be called once, with the engine's own.
    pub fn wrap(&self, engine: Arc<dyn Authorizer>) -> Arc<dyn Authorizer> {
        let whole = IdentityAuthorizer::new(engine, self.0.clone());
        let narrowed: Arc<dyn Authorizer> = Arc::new(Narrowed::new(whole, self.0.clone()));
        self.0.authorizer.get_or_init(|| narrowed.clone());
        narrowed
    }

    /// What takes part in admission, in this order.
    pub fn admission(&self) -> Vec<Arc<dyn Admission>> {
        vec![
            Arc::new(admission::IdentityKinds::new(self.0.clone())),
            Arc::new(admission::Tenants::new(self.0.clone())),
            Arc::new(admission::TreeQuota::new(self.0.clone())),
        ]
    }

    /// What users see of identity's kinds, and what narrowed credentials do not see.
    pub fn visibility(&self) -> Arc<dyn Visibility> {
        Arc::new(OwnKinds::new(self.0.clone()))
    }

    /// Which namespaces belong to which project.
    pub fn namespaces(&self) -> &Namespaces {
        &self.0.namespaces
    }
}
