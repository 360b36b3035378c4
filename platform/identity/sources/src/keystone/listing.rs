//! Everything a Keystone holds, for the periodic comparison with what is known here.

use std::collections::HashMap;

use super::wire::{Domain, Group, Reference, User};
use super::{KeystoneSource, system};
use crate::{ExternalGrant, ExternalGroup, ExternalUser, Named, SourceError};

/// Everybody who counts, disabled people included, each with groups and effective roles.
#[derive(Clone, Debug)]
pub struct KeystoneListing {
    /// In the order of their ids. Disabled: themselves, or their domain.
    pub users: Vec<ExternalUser>,
    /// Every group of the domains that count.
    pub groups: Vec<ExternalGroup>,
}

pub(super) async fn list(source: &KeystoneSource) -> Result<KeystoneListing, SourceError> {
    let limits = &source.inner.config.limits;
    let domains: Vec<Domain> = source.get_list("domains", &[]).await?;
    let mut grants = all_grants(source).await?;
    let system = system::roles(source).await?;
    let (mut users, mut groups) = (Vec::new(), Vec::new());
    for domain in domains {
        let named = Named { id: domain.id.clone(), name: domain.name.clone() };
        if !source.counts(&named) {
            continue;
        }
        let query = [("domain_id", domain.id.as_str())];
        let found: Vec<Group> = source.all("groups", &["groups"], &query, limits.groups_max).await?;
        let mut memberships = memberships(source, &found).await?;
        groups.extend(found.into_iter().map(|g| ExternalGroup { id: g.id, name: g.name }));
        bounded(groups.len(), limits.groups_max, "groups")?;
        let found: Vec<User> = source.all("users", &["users"], &query, limits.users_max).await?;
        bounded(users.len() + found.len(), limits.users_max, "users")?;
        for user in found {
            debug_assert_eq!(user.domain_id, domain.id);
            let groups = memberships.remove(&user.id).unwrap_or_default();
            let mut grants = grants.remove(&user.id).unwrap_or_default();
            grants.extend(system.of(&user.id, &groups));
            let external = ExternalUser {
                groups,
                grants,
                id: user.id,
                name: user.name,
                display_name: None,
                // Whatever the operator of that Keystone chose to store.
                email: user.email.and_then(|e| e.as_str().map(str::to_owned)),
                domain: Some(named.clone()),
                enabled: user.enabled && domain.enabled,
            };
            users.push(external.ordered());
        }
    }
    users.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(KeystoneListing { users, groups })
}

/// Effective roles by user.
async fn all_grants(source: &KeystoneSource) -> Result<HashMap<String, Vec<ExternalGrant>>, SourceError> {
    let all = source.assignments(&[("effective", ""), ("include_names", "")]).await?;
    let mut by_user: HashMap<String, Vec<ExternalGrant>> = HashMap::new();
    for mut assignment in all {
        let Some(user) = assignment.user.take() else { continue };
        by_user.entry(user.id).or_default().extend(assignment.grant());
    }
    Ok(by_user)
}

async fn memberships(
    source: &KeystoneSource,
    groups: &[Group],
) -> Result<HashMap<String, Vec<Named>>, SourceError> {
    let mut by_user: HashMap<String, Vec<Named>> = HashMap::new();
    let max = source.inner.config.limits.users_max;
    for group in groups {
        let members: Vec<Reference> = source.all("users", &["groups", &group.id, "users"], &[], max).await?;
        for member in members {
            let named = Named { id: group.id.clone(), name: group.name.clone() };
            by_user.entry(member.id).or_default().push(named);
        }
    }
    Ok(by_user)
}

fn bounded(count: usize, max: usize, what: &'static str) -> Result<(), SourceError> {
    if count > max {
        return Err(SourceError::TooLarge { source_name: super::NAME.to_owned(), what, max });
    }
    Ok(())
}
