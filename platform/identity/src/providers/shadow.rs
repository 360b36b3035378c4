//! The users and groups that stand here for those of a source.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_identity_api::{
    FederatedIdentity, Group, GroupSpec, IdentityProvider, Named as _, User, UserSpec,
};
use gantry_identity_sources::{ExternalUser, Named};
use gantry_kube_types::{AuditEvent, SecurityEvent, UserInfo};
use jiff::Timestamp;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::plan::{KnownUser, Shape, wanted};
use super::{Built, grants};
use crate::core::Core;
use crate::directory::State;
use crate::directory::table::Entry;
use crate::errors::IdentityError;
use crate::login::{Origin, user_object};
use crate::revocation::{Cause, Event, Target};
use crate::rights::OWN_USER;

/// The source, and no operator, has disabled the user: it may enable it again. The value is when that was.
pub(crate) const DISABLED_BY_SOURCE: &str = "identity.gantry.dev/source-disabled";
/// The groups the source has put the user into, so that others stay.
const GIVEN_GROUPS: &str = "identity.gantry.dev/source-groups";
/// Groups made while somebody waits for a sign-in; the comparison makes the rest.
const GROUPS_AT_LOGIN_MAX: usize = 64;

fn derived(kind: &str, provider: &str, external: &str) -> String {
    let mut hash = Sha256::new();
    for part in [kind, provider, external] {
        // Lengths keep two lists of parts from running into one text.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..16])
}

/// The id here of a provider's user.
pub(super) fn user_id(provider: &str, external: &str) -> String {
    derived("user", provider, external)
}

/// The id here of a provider's group.
pub(super) fn group_id(provider: &str, external: &str) -> String {
    derived("group", provider, external)
}

fn given(user: &User) -> BTreeSet<String> {
    let text = user.annotations().get(GIVEN_GROUPS).map(String::as_str).unwrap_or_default();
    text.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect()
}

fn disabled_by_source(user: &User) -> bool {
    user.annotations().contains_key(DISABLED_BY_SOURCE)
}

/// When the source disabled the user; `None`: it has not.
fn disabled_at(user: &User) -> Option<Timestamp> {
    user.annotations().get(DISABLED_BY_SOURCE)?.parse().ok()
}

/// The provider's own groups: nobody else puts users into them.
pub(super) fn own_groups(state: &State, provider: &str) -> BTreeSet<String> {
    let own = state.groups.iter().filter(|g| g.spec.provider.as_deref() == Some(provider));
    own.map(|group| group.id()).collect()
}

/// Groups the provider's users can be in.
pub(super) fn usable_groups(state: &State, provider: &IdentityProvider) -> BTreeSet<String> {
    let (id, mapping) = (provider.name_any(), &provider.spec.group_mapping);
    let mapped: BTreeSet<&String> = mapping.values().flatten().collect();
    let usable = state.groups.iter().filter(|group| {
        let ours = group.spec.provider.as_deref() == Some(id.as_str());
        group.spec.domain == provider.spec.domain && (ours || mapped.contains(&group.id()))
    });
    usable.map(|group| group.id()).collect()
}

/// The user as the comparison looks at it.
pub(super) fn known(user: &User, own: &BTreeSet<String>) -> KnownUser {
    let given = given(user);
    let of_source = user.spec.groups.iter().filter(|id| given.contains(*id) || own.contains(*id));
    let groups: BTreeSet<String> = of_source.cloned().collect();
    let shape = Shape {
        name: user.display_name(),
        email: user.spec.email.clone(),
        groups: groups.into_iter().collect(),
    };
    KnownUser { enabled: user.spec.enabled, disabled_by_source: disabled_by_source(user), shape }
}

/// Makes the user look as the source says; `own` are the provider's groups.
fn shape(user: &mut User, shape: &Shape, own: &BTreeSet<String>) {
    let before = given(user);
    user.spec.name = Some(shape.name.clone());
    user.spec.email.clone_from(&shape.email);
    user.spec.groups.retain(|id| !before.contains(id) && !own.contains(id));
    let new: Vec<String> = shape.groups.iter().filter(|id| !user.spec.groups.contains(id)).cloned().collect();
    user.annotations_mut().insert(GIVEN_GROUPS.to_owned(), new.join(","));
    user.spec.groups.extend(new);
}

/// Who comes in by `built`: made or brought up to date, and allowed in. The user's id.
pub(crate) async fn ensure_user(
    core: &Core,
    built: &Built,
    external: &ExternalUser,
    origin: &Origin,
) -> Result<Arc<User>, IdentityError> {
    if !external.enabled {
        return Err(IdentityError::Unauthorized);
    }
    if built.spec().group_mapping.is_empty() {
        for group in external.groups.iter().take(GROUPS_AT_LOGIN_MAX) {
            ensure_group(core, &built.provider, group).await?;
        }
    }
    let id = user_id(&built.id(), &external.id);
    let exists = core.directory.read().users.get(&id).is_some();
    if !exists {
        create_user(core, built, external, origin).await?;
    }
    let found = core.directory.read().users.get(&id).cloned().ok_or(IdentityError::Unauthorized)?;
    if found.spec.provider.as_deref() != Some(built.id().as_str()) || found.spec.domain != built.spec().domain
    {
        tracing::error!(
            user = id,
            provider = built.id(),
            "a user has the id of a source's but is not the source's"
        );
        return Err(IdentityError::Unauthorized);
    }
    if !found.spec.enabled && !disabled_by_source(&found) {
        return Err(IdentityError::Unauthorized);
    }
    update_user(core, built, &id, external, true).await?;
    if built.options.keep_roles {
        grants::keep_of_user(core, built, &id, &external.grants).await?;
    }
    let state = core.directory.read();
    let found = state.users.get(&id).filter(|user| state.user_enabled(user));
    found.cloned().ok_or(IdentityError::Unauthorized)
}

/// Makes the user. Names are unique in the domain: one that is taken by somebody managed elsewhere stays theirs.
pub(super) async fn create_user(
    core: &Core,
    built: &Built,
    external: &ExternalUser,
    origin: &Origin,
) -> Result<(), IdentityError> {
    let provider = built.id();
    let id = user_id(&provider, &external.id);
    let federated = FederatedIdentity {
        provider: provider.clone(),
        protocol: built.protocol().to_owned(),
        unique_id: external.id.clone(),
    };
    let spec = UserSpec {
        domain: built.spec().domain.clone(),
        description: external.display_name.clone().unwrap_or_default(),
        enabled: true,
        provider: Some(provider.clone()),
        federated: vec![federated],
        ..UserSpec::default()
    };
    let mut user = User::new(&id, spec);
    {
        let state = core.directory.read();
        shape(&mut user, &usable(&state, built, external), &BTreeSet::new());
    }
    step_aside(core, &provider, &id, &user).await?;
    match core.objects.create(&user).await {
        Ok(_) => {
            let event = AuditEvent::security(SecurityEvent::UserCreated, own_info());
            core.record(event.about(user_object(&id)).with("identity.gantry.dev/provider", provider), origin)
                .await
        }
        // Made by another sign-in at the same moment.
        Err(IdentityError::Conflict(_)) if core.directory.read().users.get(&id).is_some() => Ok(()),
        Err(IdentityError::Conflict(why) | IdentityError::Invalid(why)) => {
            tracing::warn!(
                provider,
                name = external.name,
                why,
                "a user of the source cannot have this name here"
            );
            Err(IdentityError::Unauthorized)
        }
        Err(error) => Err(error),
    }
}

/// The source has given the name to somebody else: whoever had it keeps everything but the name.
async fn step_aside(core: &Core, provider: &str, id: &str, new: &User) -> Result<(), IdentityError> {
    let holder = {
        let state = core.directory.read();
        let holder = state.users.by_name(Some(&new.spec.domain), &new.display_name());
        let ours = holder.filter(|u| u.spec.provider.as_deref() == Some(provider) && u.id() != id);
        ours.map(|u| u.id())
    };
    let Some(holder) = holder else { return Ok(()) };
    let name = format!("{} ({})", new.display_name(), holder.get(..8).unwrap_or(&holder));
    tracing::info!(provider, user = holder, name, "its name is somebody else's now");
    let renamed = core.objects.update::<User>(&holder, |user| {
        user.spec.name = Some(name.clone());
        Ok(())
    });
    renamed.await.map(drop)
}

fn usable(state: &State, built: &Built, external: &ExternalUser) -> Shape {
    let mut shape = wanted(&built.id(), &built.spec().group_mapping, external);
    let usable = usable_groups(state, &built.provider);
    shape.groups.retain(|id| usable.contains(id));
    shape
}

/// Brings name, address and groups up to date; with `enable` also lets the user in again whom the source had shut out.
pub(super) async fn update_user(
    core: &Core,
    built: &Built,
    id: &str,
    external: &ExternalUser,
    enable: bool,
) -> Result<(), IdentityError> {
    let (target, own, disabled_at) = {
        let state = core.directory.read();
        let own = own_groups(&state, &built.id());
        let target = usable(&state, built, external);
        let Some(user) = state.users.get(id) else { return Ok(()) };
        let had = known(user, &own);
        if had.shape == target && (had.enabled || !enable) {
            return Ok(());
        }
        (target, own, disabled_at(user).filter(|_| enable))
    };
    if let Some(at) = disabled_at {
        // Once more, should the platform have been killed before it was recorded. Not until now: whoever signs in has
        // begun to before.
        let target = Target::User(id.to_owned());
        core.revoke(Event { issued_before: at, ..Event::new(target, Cause::Disabled, core.now()) }).await?;
    }
    let update = core.objects.update::<User>(id, |user| {
        shape(user, &target, &own);
        if enable && disabled_by_source(user) {
            user.annotations_mut().remove(DISABLED_BY_SOURCE);
            user.spec.enabled = true;
        }
        Ok(())
    });
    update.await.map(drop)
}

/// Shuts the user out: nothing of theirs is good any more once this returns.
pub(super) async fn disable_user(core: &Core, id: &str, origin: &Origin) -> Result<(), IdentityError> {
    let disabled = core.objects.update::<User>(id, |user| {
        if user.spec.enabled {
            user.spec.enabled = false;
            user.annotations_mut().insert(DISABLED_BY_SOURCE.to_owned(), core.now().to_string());
        }
        Ok(())
    });
    match disabled.await {
        Ok(_) => {}
        Err(IdentityError::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error),
    }
    core.revoke(Event::new(Target::User(id.to_owned()), Cause::Disabled, core.now())).await?;
    let event = AuditEvent::security(SecurityEvent::UserDisabled, own_info());
    core.record(event.about(user_object(id)), origin).await
}

/// Makes or renames a group of the provider. A name that another group has is left to it.
pub(super) async fn ensure_group(
    core: &Core,
    provider: &IdentityProvider,
    group: &Named,
) -> Result<(), IdentityError> {
    let source = provider.name_any();
    let id = group_id(&source, &group.id);
    let had = core.directory.read().groups.get(&id).map(|g| g.display_name());
    let done = match had {
        Some(name) if name == group.name => return Ok(()),
        Some(_) => {
            let renamed = core.objects.update::<Group>(&id, |object| {
                object.spec.name = Some(group.name.clone());
                Ok(())
            });
            renamed.await.map(drop)
        }
        None => {
            let spec = GroupSpec {
                name: Some(group.name.clone()),
                domain: provider.spec.domain.clone(),
                provider: Some(source.clone()),
                ..GroupSpec::default()
            };
            core.objects.create(&Group::new(&id, spec)).await.map(drop)
        }
    };
    match done {
        Err(IdentityError::Conflict(why) | IdentityError::Invalid(why)) => {
            tracing::info!(
                provider = source,
                group = group.name,
                why,
                "a group of the source cannot have this name here"
            );
            Ok(())
        }
        done => done,
    }
}

/// The component itself, as audit knows it.
pub(super) fn own_info() -> UserInfo {
    UserInfo::authenticated(OWN_USER, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn the_source_says_which_of_its_groups_and_others_stay() {
        for (had, given, own, new, want) in [
            (vec!["local"], "", vec![], vec!["a"], vec!["local", "a"]),
            (vec!["local", "a"], "a", vec![], vec!["b"], vec!["local", "b"]),
            // Whoever put the user into a group of the provider by hand: it is not theirs to say.
            (vec!["local", "own"], "", vec!["own"], vec![], vec!["local"]),
            // The mapping that gave `a` is gone.
            (vec!["a"], "a", vec![], vec![], vec![]),
            (vec!["local", "a"], "a", vec!["own"], vec!["own", "local"], vec!["local", "own"]),
        ] {
            let spec = UserSpec { groups: groups(&had), ..UserSpec::default() };
            let mut user = User::new("u", spec);
            user.annotations_mut().insert(GIVEN_GROUPS.to_owned(), given.to_owned());
            let own: BTreeSet<String> = groups(&own).into_iter().collect();
            let target = Shape { name: "u".to_owned(), email: None, groups: groups(&new) };
            shape(&mut user, &target, &own);
            assert_eq!(user.spec.groups, groups(&want), "{had:?} {given:?} -> {new:?}");
        }
    }
}
