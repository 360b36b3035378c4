//! What goes when something goes, where nobody waits for it.

use futures::{StreamExt, TryStreamExt, stream};
use gantry_identity_api::{
    ApplicationCredential, Group, IdentityProvider, KeystoneRecord, Project, Role, RoleAssignment, Trust,
    User,
};
use kube::{Api, Client};

use super::act::{self, ActError, Result};
use super::reconcile::Key;
use crate::directory::State;
use crate::hanging::{self, Hanging};
use crate::vault::SecretKey;

/// Deletes on the way at one time.
const PARALLEL: usize = 8;

/// Where secrets are kept: told when their owner is gone. Telling it twice must change nothing.
#[async_trait::async_trait]
pub trait Secrets: Send + Sync {
    /// One secret.
    async fn forget(&self, key: &SecretKey) -> std::result::Result<(), String>;

    /// Everything kept for a user: passwords, seeds, lock-outs, tokens.
    async fn forget_user(&self, id: &str) -> std::result::Result<(), String>;

    /// The secret of an application credential.
    async fn forget_application_credential(&self, id: &str) -> std::result::Result<(), String>;

    /// The tokens that are scoped to a project: one that is made again with this id does not have them.
    async fn forget_project(&self, id: &str) -> std::result::Result<(), String>;

    /// The tokens of a domain, and what it shows to its directory.
    async fn forget_domain(&self, id: &str) -> std::result::Result<(), String>;
}

/// Everything that hangs on the object and has to go before it.
pub fn hanging(state: &State, key: &Key) -> Vec<Hanging> {
    match key {
        Key::User(id) => hanging::of_user(state, id),
        Key::Group(id) => hanging::of_group(state, id),
        Key::Role(id) => hanging::of_role(state, id),
        Key::Project(id) => hanging::of_project(state, id),
        Key::Domain(id) => hanging::of_domain(state, id),
        Key::Credential(_) | Key::Namespace(_) | Key::System => Vec::new(),
    }
}

/// Deletes all of them.
pub async fn delete_all(client: &Client, secrets: &dyn Secrets, hanging: Vec<Hanging>) -> Result<()> {
    stream::iter(hanging.into_iter().map(|one| delete(client, secrets, one)))
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await
        .map(drop)
}

async fn delete(client: &Client, secrets: &dyn Secrets, one: Hanging) -> Result<()> {
    let client = client.clone();
    match one {
        Hanging::Assignment(id) => act::delete(&Api::<RoleAssignment>::all(client), &id).await,
        Hanging::ApplicationCredential(id) => {
            act::delete(&Api::<ApplicationCredential>::all(client), &id).await
        }
        Hanging::Trust(id) => act::delete(&Api::<Trust>::all(client), &id).await,
        Hanging::Record { name, secrets: keys } => {
            for key in &keys {
                let forgotten = secrets.forget(key).await;
                forgotten.map_err(|why| ActError::Secrets { owner: key.to_string(), why })?;
            }
            act::delete(&Api::<KeystoneRecord>::all(client), &name).await
        }
        Hanging::Membership { user, group } => {
            let leave = |user: &mut User| user.spec.groups.retain(|g| *g != group);
            act::change(&Api::<User>::all(client), &user, leave).await
        }
        Hanging::Implication { role, implied } => {
            let without = |role: &mut Role| role.spec.implies.retain(|i| *i != implied);
            act::change(&Api::<Role>::all(client), &role, without).await
        }
        Hanging::Project(id) => act::delete(&Api::<Project>::all(client), &id).await,
        Hanging::User(id) => act::delete(&Api::<User>::all(client), &id).await,
        Hanging::Group(id) => act::delete(&Api::<Group>::all(client), &id).await,
        Hanging::Role(id) => act::delete(&Api::<Role>::all(client), &id).await,
        Hanging::Provider(id) => act::delete(&Api::<IdentityProvider>::all(client), &id).await,
    }
}
