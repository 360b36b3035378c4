//! What goes when something goes.

use futures::{StreamExt, TryStreamExt, stream};
use gantry_identity_api::{
    ApplicationCredential, Group, IdentityProvider, KeystoneRecord, Project, Role, RoleAssignment, Trust,
    User,
};
use kube::{Api, Client, ResourceExt};

use super::act::{self, Result};
use super::reconcile::Key;
use crate::directory::State;
use crate::directory::assignments::{Actor, Target};
use crate::directory::table::Entry;

/// Deletes on the way at one time.
const PARALLEL: usize = 8;

/// Where secrets are kept: told when their owner is gone. Telling it twice must change nothing.
#[async_trait::async_trait]
pub trait Secrets: Send + Sync {
    /// Everything kept for a user: passwords, seeds, lock-outs, tokens.
    async fn forget_user(&self, id: &str) -> std::result::Result<(), String>;

    /// The secret of an application credential.
    async fn forget_application_credential(&self, id: &str) -> std::result::Result<(), String>;
}

/// An object that hangs on another, by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hanging {
    Assignment(String),
    Credential(String),
    Trust(String),
    Record(String),
    Project(String),
    User(String),
    Group(String),
    Role(String),
    Provider(String),
}

/// Everything that hangs on the object and has to go before it. Projects with projects below them come later: their
/// deletion would be refused.
pub fn hanging(state: &State, key: &Key) -> Vec<Hanging> {
    let assignments = |list: &[std::sync::Arc<crate::directory::assignments::Assignment>]| {
        list.iter().map(|a| Hanging::Assignment(a.id.to_string())).collect::<Vec<_>>()
    };
    match key {
        Key::User(id) => {
            let mut all = assignments(state.assignments.of_actor(&Actor::User(id.as_str().into())));
            let own = state.application_credentials.iter().filter(|c| c.spec.user == *id);
            all.extend(own.map(|c| Hanging::Credential(c.id())));
            let trusts = state.trusts.iter().filter(|t| t.spec.trustor == *id || t.spec.trustee == *id);
            all.extend(trusts.map(|t| Hanging::Trust(t.id())));
            let records = state.records.iter().filter(|r| {
                matches!(r.spec.collection.as_str(), "credentials" | "access_rules")
                    && r.spec.parent.as_deref() == Some(id)
            });
            all.extend(records.map(|r| Hanging::Record(r.name_any())));
            all
        }
        Key::Group(id) => assignments(state.assignments.of_actor(&Actor::Group(id.as_str().into()))),
        Key::Role(id) => {
            let with = state.assignments.iter().filter(|a| a.role.as_ref() == id);
            with.map(|a| Hanging::Assignment(a.id.to_string())).collect()
        }
        Key::Project(id) => {
            let mut all = assignments(state.assignments.on_target(&Target::Project(id.as_str().into())));
            let own = state.application_credentials.iter().filter(|c| c.spec.project == *id);
            all.extend(own.map(|c| Hanging::Credential(c.id())));
            let trusts = state.trusts.iter().filter(|t| t.spec.project.as_deref() == Some(id));
            all.extend(trusts.map(|t| Hanging::Trust(t.id())));
            all
        }
        Key::Domain(id) => of_domain(state, id),
        Key::Credential(_) | Key::Namespace(_) | Key::System => Vec::new(),
    }
}

fn of_domain(state: &State, id: &str) -> Vec<Hanging> {
    let target = Target::Domain(id.into());
    let on = state.assignments.on_target(&target).iter();
    let mut all: Vec<Hanging> = on.map(|a| Hanging::Assignment(a.id.to_string())).collect();
    let own = state.projects.iter().filter(|p| p.spec.domain == id).map(|p| p.id());
    let leaves = own.filter(|project| state.children(project).next().is_none());
    all.extend(leaves.map(Hanging::Project));
    all.extend(state.users.iter().filter(|u| u.spec.domain == id).map(|u| Hanging::User(u.id())));
    all.extend(state.groups.iter().filter(|g| g.spec.domain == id).map(|g| Hanging::Group(g.id())));
    let roles = state.roles.iter().filter(|r| r.spec.domain.as_deref() == Some(id));
    all.extend(roles.map(|r| Hanging::Role(r.id())));
    all.extend(state.providers.iter().filter(|p| p.spec.domain == id).map(|p| Hanging::Provider(p.id())));
    all
}

/// Deletes all of them.
pub async fn delete_all(client: &Client, hanging: Vec<Hanging>) -> Result<()> {
    stream::iter(hanging.into_iter().map(|one| delete(client, one)))
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await
        .map(drop)
}

async fn delete(client: &Client, one: Hanging) -> Result<()> {
    match one {
        Hanging::Assignment(id) => act::delete(&Api::<RoleAssignment>::all(client.clone()), &id).await,
        Hanging::Credential(id) => act::delete(&Api::<ApplicationCredential>::all(client.clone()), &id).await,
        Hanging::Trust(id) => act::delete(&Api::<Trust>::all(client.clone()), &id).await,
        Hanging::Record(id) => act::delete(&Api::<KeystoneRecord>::all(client.clone()), &id).await,
        Hanging::Project(id) => act::delete(&Api::<Project>::all(client.clone()), &id).await,
        Hanging::User(id) => act::delete(&Api::<User>::all(client.clone()), &id).await,
        Hanging::Group(id) => act::delete(&Api::<Group>::all(client.clone()), &id).await,
        Hanging::Role(id) => act::delete(&Api::<Role>::all(client.clone()), &id).await,
        Hanging::Provider(id) => act::delete(&Api::<IdentityProvider>::all(client.clone()), &id).await,
    }
}
