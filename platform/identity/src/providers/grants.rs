//! Roles that people bring along from another Keystone.

use std::collections::{BTreeMap, BTreeSet};

use gantry_identity_api::{IdentityProviderSpec, RoleAssignment, RoleAssignmentSpec};
use gantry_identity_sources::{ExternalGrant, ExternalScope};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use sha2::{Digest, Sha256};

use super::Built;
use crate::core::Core;
use crate::directory::State;
use crate::directory::table::Entry;
use crate::errors::{IdentityError, of_kube};
use crate::session::ADMIN_PROJECT;

/// Whose the assignment is, so that it goes when the source takes it back.
const USER: &str = "identity.gantry.dev/source-user";
/// Which provider brought it: hashed, since a label's value is short.
const PROVIDER: &str = "identity.gantry.dev/source";

fn provider_label(provider: &str) -> String {
    hex::encode(&Sha256::digest(provider.as_bytes())[..16])
}

/// Brings the assignments of one user into line.
pub(super) async fn keep_of_user(
    core: &Core,
    built: &Built,
    user: &str,
    grants: &[ExternalGrant],
) -> Result<(), IdentityError> {
    let wanted = BTreeMap::from([(user.to_owned(), grants.to_vec())]);
    keep(core, built, &format!("{USER}={user}"), &wanted, |_| true).await
}

/// Brings those of all the provider's users into line that were `compared`. Who has come since the source was asked
/// is not in its answer, and keeps what the sign-in brought.
pub(super) async fn keep_of_all(
    core: &Core,
    built: &Built,
    grants: &BTreeMap<String, Vec<ExternalGrant>>,
    compared: impl Fn(&str) -> bool,
) -> Result<(), IdentityError> {
    keep(core, built, &format!("{PROVIDER}={}", provider_label(&built.id())), grants, compared).await
}

async fn keep(
    core: &Core,
    built: &Built,
    labels: &str,
    grants: &BTreeMap<String, Vec<ExternalGrant>>,
    compared: impl Fn(&str) -> bool,
) -> Result<(), IdentityError> {
    let wanted: BTreeMap<String, RoleAssignmentSpec> = {
        let state = core.directory.read();
        let remote = built.remote_domain(&state);
        let specs = grants.iter();
        let specs = specs.flat_map(|(user, grants)| assignments(&state, built.spec(), &remote, user, grants));
        specs.map(|spec| (spec.object_name(), spec)).collect()
    };
    let api: Api<RoleAssignment> = Api::all(core.objects.client()?);
    let label = format!("{PROVIDER}={},{labels}", provider_label(&built.id()));
    let listed = api.list(&ListParams::default().labels(&label)).await;
    let listed = listed.map_err(|error| of_kube("role assignment", "", error))?;
    let of_compared = |had: &&RoleAssignment| had.spec.user.as_deref().is_some_and(&compared);
    let had: BTreeSet<String> = listed.items.iter().filter(of_compared).map(ResourceExt::name_any).collect();
    // Rights that end come before rights that begin.
    for gone in had.iter().filter(|name| !wanted.contains_key(*name)) {
        match core.objects.delete::<RoleAssignment>(gone).await {
            Ok(()) | Err(IdentityError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for (name, spec) in wanted.into_iter().filter(|(name, _)| !had.contains(name)) {
        // The same was assigned here by hand: it stays whatever the source says.
        if core.directory.read().assignments.get(&name).is_some() {
            continue;
        }
        let user = spec.user.clone().unwrap_or_default();
        let mut object = RoleAssignment::new(&name, spec);
        object.labels_mut().insert(PROVIDER.to_owned(), provider_label(&built.id()));
        object.labels_mut().insert(USER.to_owned(), user);
        match core.objects.create(&object).await {
            Ok(_) | Err(IdentityError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The assignments here that grants of the source mean: in projects of the provider's own domain, with the platform's
/// roles of the same names. Everything else a source grants is its own affair.
fn assignments(
    state: &State,
    provider: &IdentityProviderSpec,
    remote_domain: &str,
    user: &str,
    grants: &[ExternalGrant],
) -> Vec<RoleAssignmentSpec> {
    let one = |grant: &ExternalGrant| {
        let ExternalScope::Project { project, domain } = &grant.scope else { return None };
        if domain.name != remote_domain {
            return None;
        }
        let project = state.projects.by_name(Some(&provider.domain), &project.name)?;
        // Who administers another platform does not administer this one.
        if project.id() == ADMIN_PROJECT {
            return None;
        }
        let role = state.roles.by_name(None, &grant.role.name)?;
        Some(RoleAssignmentSpec {
            role: role.id(),
            user: Some(user.to_owned()),
            project: Some(project.id()),
            ..RoleAssignmentSpec::default()
        })
    };
    let made: Vec<RoleAssignmentSpec> = grants.iter().filter_map(one).collect();
    if made.len() < grants.len() {
        tracing::debug!(
            user,
            ignored = grants.len() - made.len(),
            "grants of the source that mean nothing here"
        );
    }
    made
}

#[cfg(test)]
mod tests {
    use gantry_identity_sources::Named;

    use super::*;
    use crate::directory::tests::two_organisations;

    #[test]
    fn roles_are_kept_in_the_provider_s_own_domain_alone() {
        let state = two_organisations();
        let named = |name: &str| Named { id: format!("there-{name}"), name: name.to_owned() };
        let project = |name: &str| ExternalScope::Project { project: named(name), domain: named("acme") };
        let elsewhere = ExternalScope::Project { project: named("web"), domain: named("other") };
        for (scope, role, want) in [
            (project("web"), "member", true),
            (project("lab"), "member", false),
            (elsewhere, "member", false),
            (project("nonesuch"), "member", false),
            (project("web"), "nonesuch", false),
            (ExternalScope::System, "admin", false),
            (ExternalScope::Domain(named("acme")), "admin", false),
        ] {
            let provider = IdentityProviderSpec { domain: "acme".to_owned(), ..Default::default() };
            let grant = ExternalGrant { scope, role: named(role) };
            let made = assignments(&state, &provider, "acme", "u", std::slice::from_ref(&grant));
            assert_eq!(made.len(), usize::from(want), "{grant:?}");
            assert!(made.iter().all(|a| a.project.as_deref() == Some("web")), "{made:?}");
        }
    }
}
