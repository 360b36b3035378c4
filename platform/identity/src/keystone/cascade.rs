//! Takes away what hangs on something, before the call that asked for it is answered.

use gantry_identity_api::{
    ApplicationCredential, Group, IdentityProvider, KeystoneRecord, Project, Role, RoleAssignment, Trust,
    User,
};

use super::call::Call;
use super::errors::ApiError;
use crate::errors::IdentityError;
use crate::hanging::Hanging;

/// Does it, in this order; what is gone already is well.
pub(crate) async fn act(call: &Call, doomed: Vec<Hanging>) -> Result<(), ApiError> {
    for one in doomed {
        match remove(call, &one).await {
            Ok(()) | Err(IdentityError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn remove(call: &Call, doomed: &Hanging) -> Result<(), IdentityError> {
    let (objects, vault) = (&call.core.objects, &call.core.vault);
    match doomed {
        Hanging::Assignment(id) => objects.delete::<RoleAssignment>(id).await,
        Hanging::ApplicationCredential(id) => {
            objects.delete::<ApplicationCredential>(id).await?;
            vault.delete_owner(id).await?;
            Ok(())
        }
        Hanging::Trust(id) => objects.delete::<Trust>(id).await,
        Hanging::Record { name, secrets } => {
            for key in secrets {
                vault.delete(key.clone()).await?;
            }
            objects.delete::<KeystoneRecord>(name).await
        }
        Hanging::Membership { user, group } => {
            let leave = |user: &mut User| {
                user.spec.groups.retain(|g| g != group);
                Ok(())
            };
            objects.update::<User>(user, leave).await.map(drop)
        }
        Hanging::Implication { role, implied } => {
            let without = |role: &mut Role| {
                role.spec.implies.retain(|i| i != implied);
                Ok(())
            };
            objects.update::<Role>(role, without).await.map(drop)
        }
        Hanging::User(id) => {
            vault.delete_owner(id).await?;
            objects.delete::<User>(id).await
        }
        Hanging::Group(id) => objects.delete::<Group>(id).await,
        Hanging::Role(id) => objects.delete::<Role>(id).await,
        Hanging::Project(id) => objects.delete::<Project>(id).await,
        Hanging::Provider(id) => objects.delete::<IdentityProvider>(id).await,
    }
}
