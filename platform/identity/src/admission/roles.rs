//! Roles: what one may write into them.

use gantry_identity_api::{Named, Role};
use gantry_kube_logic::rbac::{PolicyRule, covers};
use gantry_kube_types::Attributes;

use super::identity::Write;
use super::names::name_problem;
use super::refusal::{Refusal, Verdict};
use crate::bootstrap::{is_default_role, is_immutable};
use crate::directory::resolve::Roles;
use crate::directory::table::Entry;
use crate::policy::{Act, Subject};
use crate::rights::OWN_USER;

/// A role that others may not come with, as in Keystone.
const NEVER_IMPLIED: &str = gantry_identity_api::roles::ADMIN;

const IMMUTABLE: &str = "the role is immutable: set its option `immutable` to false first";

pub(super) fn role(write: &mut Write<'_>, old: Option<&Role>, new: &Role) -> Verdict {
    let spec = &new.spec;
    if let Some(old) = old {
        if old.spec.domain != spec.domain {
            return Err(Refusal::forbidden("the domain of a role cannot change"));
        }
        // The Keystone API has asked already, and an upgrade brings the default roles' rules.
        if is_immutable(old) && is_immutable(new) && write.user.username != OWN_USER {
            return Err(Refusal::forbidden(IMMUTABLE));
        }
    }
    if let Some(domain) = &spec.domain
        && write.state.domains.get(domain).is_none()
    {
        return Err(Refusal::missing("spec.domain", domain, "domain"));
    }
    let act = if old.is_some() { Act::Update } else { Act::Create };
    write.allowed(act, &Subject::Role { domain: spec.domain.as_deref() })?;
    let name = new.display_name();
    if old.map(Named::display_name).as_ref() != Some(&name) {
        if let Some(why) = name_problem(&name) {
            return Err(Refusal::invalid("spec.name", name, why));
        }
        let taken = write.state.roles.by_name(spec.domain.as_deref(), &name).map(|r| r.id());
        write.claim("role", spec.domain.as_deref(), &name, taken)?;
    }
    implications(write, old, new)?;
    if old.is_none_or(|old| old.spec.rules != spec.rules) {
        sensible(&spec.rules)?;
        held(write, spec.domain.as_deref(), &spec.rules)?;
    }
    Ok(())
}

pub(super) fn delete(write: &Write<'_>, own: bool) -> Verdict {
    let Some(role) = write.state.roles.get(write.id) else { return Ok(()) };
    // With its domain it goes whatever it is.
    if is_immutable(role) && !own {
        return Err(Refusal::forbidden(IMMUTABLE));
    }
    // Through the Keystone API, too, where the component itself deletes.
    if is_default_role(write.id) && !own && !write.authority().unlimited {
        return Err(Refusal::forbidden("the platform's own roles stay"));
    }
    Ok(())
}

fn implications(write: &Write<'_>, old: Option<&Role>, new: &Role) -> Verdict {
    let (state, spec) = (write.state, &new.spec);
    let had: &[String] = old.map(|r| r.spec.implies.as_slice()).unwrap_or_default();
    for id in spec.implies.iter().filter(|id| !had.contains(id)) {
        if id == write.id || state.implied([id.clone()]).contains(write.id) {
            return Err(Refusal::invalid("spec.implies", id.as_str(), "it would imply itself"));
        }
        let implied = state.roles.get(id).ok_or_else(|| Refusal::missing("spec.implies", id, "role"))?;
        if id == NEVER_IMPLIED {
            return Err(Refusal::forbidden(format!("no role implies {NEVER_IMPLIED:?}")));
        }
        if implied.spec.domain.is_some() && implied.spec.domain != spec.domain {
            return Err(Refusal::invalid("spec.implies", id.as_str(), "it is the role of another domain"));
        }
        if write.caller.is_unlimited() {
            continue;
        }
        // What comes with a role is given with it: it must be the caller's to give.
        let foreign = |id: &String| {
            let found = state.roles.get(id);
            !found.is_some_and(|r| r.spec.domain.is_some() && r.spec.domain == spec.domain)
        };
        let needed: Roles = state.implied([id.clone()]).into_iter().filter(foreign).collect();
        let own = spec.domain.as_ref().and_then(|domain| write.authority().grants.domains.get(domain));
        if !own.is_some_and(|own| needed.is_subset(own)) {
            return Err(Refusal::forbidden(format!("role {id:?} is not yours to give")));
        }
    }
    Ok(())
}

/// Rules that the server would not take in a cluster role either.
fn sensible(rules: &[PolicyRule]) -> Verdict {
    for (at, rule) in rules.iter().enumerate() {
        let field = format!("spec.rules[{at}]");
        let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        if rule.verbs.is_empty() {
            return Err(Refusal::invalid(&format!("{field}.verbs"), "", "at least one verb"));
        }
        if some(&rule.non_resource_urls) {
            if some(&rule.resources) || some(&rule.api_groups) {
                return Err(Refusal::invalid(&field, "", "resources or URLs, not both in one rule"));
            }
        } else if !some(&rule.resources) || rule.api_groups.as_ref().is_none_or(Vec::is_empty) {
            return Err(Refusal::invalid(&field, "", "at least one apiGroup and one resource"));
        }
    }
    Ok(())
}

/// Nobody writes into a role what they do not hold: in the domain, by their roles there, or in the whole cluster.
fn held(write: &Write<'_>, domain: Option<&str>, rules: &[PolicyRule]) -> Verdict {
    if write.caller.is_unlimited() {
        return Ok(());
    }
    if rules.iter().any(|rule| rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty())) {
        return Err(Refusal::forbidden("rules about URLs are the platform's administrators'"));
    }
    let roles = domain.and_then(|domain| write.authority().grants.domains.get(domain));
    let own: Vec<PolicyRule> = roles
        .into_iter()
        .flatten()
        .filter_map(|id| write.state.roles.get(id))
        .flat_map(|role| role.spec.rules.iter().cloned())
        .collect();
    let Err(missing) = covers(&own, rules) else { return Ok(()) };
    let Some(lacking) = missing.iter().find(|rule| !everywhere(write, rule)) else { return Ok(()) };
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default().join(",");
    Err(Refusal::forbidden(format!(
        "you do not hold what the role would grant: {} {} of group {:?}",
        lacking.verbs.join(","),
        list(&lacking.resources),
        list(&lacking.api_groups),
    )))
}

/// Does the caller hold one part of a rule in the whole cluster?
fn everywhere(write: &Write<'_>, part: &PolicyRule) -> bool {
    let Some(authorizer) = write.world.authorizer() else { return false };
    let first = |list: &Option<Vec<String>>| list.iter().flatten().next().cloned().unwrap_or_default();
    let resource = first(&part.resources);
    // `*/scale` and the like are no questions an authoriser can answer.
    if resource.starts_with("*/") {
        return false;
    }
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, sub)) => (resource.to_owned(), sub.to_owned()),
        None => (resource, String::new()),
    };
    let asked = Attributes {
        user: write.user.clone(),
        verb: part.verbs.first().cloned().unwrap_or_default(),
        is_resource_request: true,
        group: first(&part.api_groups),
        version: "*".to_owned(),
        resource,
        subresource,
        name: first(&part.resource_names),
        ..Attributes::default()
    };
    authorizer.authorize(&asked).is_allowed()
}
