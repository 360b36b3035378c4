//! Identity providers.

use gantry_identity_api::{IdentityProvider, Named};

use super::identity::Write;
use super::membership::rules_provider;
use super::names::name_problem;
use super::organisations::{changed, domain_is_there, fixed, named};
use super::refusal::{Refusal, Verdict};
use crate::directory::table::Entry;
use crate::keystone::{PROVIDER_RECORDS, find_record};
use crate::policy::{Act, Subject};

pub(super) fn provider(
    write: &mut Write<'_>,
    old: Option<&IdentityProvider>,
    new: &IdentityProvider,
) -> Verdict {
    let spec = &new.spec;
    if let Some(old) = old {
        fixed("the domain of an identity provider", old.spec.domain == spec.domain)?;
    }
    domain_is_there(write, &spec.domain)?;
    let act = if old.is_some() { Act::Update } else { Act::Create };
    write.allowed(act, &Subject::Provider { domain: &spec.domain })?;
    let name = new.display_name();
    if changed(old.map(Named::display_name), &name) {
        named(&name, name_problem(&name))?;
        claim_name(write, &name)?;
    }
    let id = write.id.to_owned();
    if old.is_none() && id != name {
        claim_name(write, &id)?;
    }
    for group in spec.group_mapping.values().flatten() {
        let found = write.state.groups.get(group);
        let found = found.ok_or_else(|| Refusal::missing("spec.groupMapping", group, "group"))?;
        if found.spec.domain != spec.domain {
            return Err(Refusal::invalid("spec.groupMapping", group.as_str(), "it is in another domain"));
        }
    }
    // Anew with every change: who came by it meanwhile has rights meanwhile.
    rules_provider(write.state, write.authority(), new).map_err(Refusal::Forbidden)?;
    match &spec.secret {
        Some(secret) if changed(old.map(|p| &p.spec.secret), &&spec.secret) => {
            own_secret(write, &spec.domain, secret)
        }
        _ => Ok(()),
    }
}

/// People ask for a provider by its name or its id, Keystone's clients also for those that they have made themselves:
/// all of these are names of one kind.
pub(super) fn claim_name(write: &mut Write<'_>, name: &str) -> Verdict {
    let made = || find_record(write.state, PROVIDER_RECORDS, None, name).map(|record| record.id());
    let taken = write.state.provider_called(name).map(|provider| provider.id()).or_else(made);
    write.claim("identity provider", None, name, taken)
}

/// The component reads the secret with its own rights, so it must be one that the domain could read itself.
fn own_secret(write: &Write<'_>, domain: &str, secret: &str) -> Verdict {
    let namespace = secret.split_once('/').map(|(namespace, _)| namespace);
    let Some(namespace) = namespace.filter(|n| !n.is_empty()) else {
        return Err(Refusal::invalid("spec.secret", secret, "must be `namespace/name`"));
    };
    if write.caller.is_unlimited() {
        return Ok(());
    }
    let project = write.world.namespaces.project_of(namespace);
    let project = project.and_then(|id| write.state.projects.get(&id));
    if project.is_some_and(|p| p.spec.domain == domain) {
        return Ok(());
    }
    Err(Refusal::forbidden(format!("namespace {namespace:?} is not one of the domain's projects'")))
}
