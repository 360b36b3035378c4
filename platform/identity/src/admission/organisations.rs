//! Domains, projects, users and groups.

use std::collections::BTreeSet;

use gantry_identity_api::{
    DEFAULT_DOMAIN, Domain, Environment, Group, Named, PodSecurityLevel, Project, Quota, User, roles,
};
use gantry_kube_logic::names::{dns1123_label, label_value, qualified_name};
use gantry_kube_logic::quantity::Quantity;

use serde_json::{Map, Value};

use super::identity::Write;
use super::membership::{may_join, outranks, signs_in_otherwise};
use super::names::{domain_name_problem, name_problem};
use super::refusal::{Refusal, Verdict};
use crate::directory::State;
use crate::directory::table::Entry;
use crate::policy::{Act, Authority, Subject};
use crate::rights::OWN_USER;
use crate::tenancy::names;

/// Projects below projects, the first included.
const DEPTH_MAX: usize = 16;
/// Namespaces of one project.
const ENVIRONMENTS_MAX: usize = 64;
/// Whoever runs privileged pods has the node, and with it every tenant's secrets. So it is not among what the role
/// `operator` may, which keeps the platform running and reads nobody's.
const GRANTED_BY: &str = "is for an administrator of the platform to grant (role admin on the system)";

pub(super) fn named(name: &str, problem: Option<&'static str>) -> Verdict {
    problem.map_or(Ok(()), |why| Err(Refusal::invalid("spec.name", name, why)))
}

pub(super) fn fixed(field: &str, same: bool) -> Verdict {
    if same { Ok(()) } else { Err(Refusal::Forbidden(format!("{field} cannot change"))) }
}

/// An object that is checked anew only where it changes: what was good once may be kept.
pub(super) fn changed<T: PartialEq>(old: Option<T>, new: &T) -> bool {
    old.as_ref() != Some(new)
}

/// Marked `immutable` by a Keystone client: nothing but the mark changes. Not asked where the component writes, whose
/// Keystone API has asked already.
fn mutable(write: &Write<'_>, old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>) -> Verdict {
    let marked = |extra: Option<&Map<String, Value>>| {
        extra.and_then(|extra| extra.get("options")?.get("immutable")?.as_bool()) == Some(true)
    };
    // `new`: `None` is the deletion.
    let stays = marked(old) && (new.is_none() || marked(new));
    if stays && write.user.username != OWN_USER {
        return Err(Refusal::forbidden("it is immutable: set its option `immutable` to false first"));
    }
    Ok(())
}

pub(super) fn domain(write: &mut Write<'_>, old: Option<&Domain>, new: &Domain) -> Verdict {
    let act = if old.is_some() { Act::Update } else { Act::Create };
    let id = write.id.to_owned();
    write.allowed(act, &Subject::Domain(&id))?;
    mutable(write, old.map(|d| &d.spec.extra), Some(&new.spec.extra))?;
    let name = new.display_name();
    if changed(old.map(Named::display_name), &name) {
        named(&name, domain_name_problem(&name))?;
        let taken = write.state.domains.by_name(None, &name).map(|d| d.id());
        write.claim("domain", None, &name, taken)?;
    }
    if old.is_some() && id == DEFAULT_DOMAIN && !new.spec.enabled {
        return Err(Refusal::forbidden("the default domain cannot be disabled"));
    }
    if changed(old.map(|d| &d.spec.quota), &&new.spec.quota) {
        quota("spec.quota", &new.spec.quota)?;
        let tree = write.world.ledger.tree(write.state, &write.world.namespaces, &id);
        tree.carve_domain(&new.spec.quota).map_err(Refusal::Forbidden)?;
    }
    Ok(())
}

pub(super) fn delete_domain(write: &Write<'_>) -> Verdict {
    if write.id == DEFAULT_DOMAIN {
        return Err(Refusal::forbidden("the default domain is always there"));
    }
    let found = write.state.domains.get(write.id);
    mutable(write, found.map(|d| &d.spec.extra), None)?;
    match found {
        Some(domain) if domain.spec.enabled => {
            Err(Refusal::forbidden("the domain is enabled: disable it first; everything in it goes with it"))
        }
        _ => Ok(()),
    }
}

pub(super) fn delete_project(write: &Write<'_>) -> Verdict {
    mutable(write, write.state.projects.get(write.id).map(|p| &p.spec.extra), None)?;
    // What is below it and on its way out goes before it: the reconciler waits for that.
    let below = write.state.children(write.id).filter(|p| p.metadata.deletion_timestamp.is_none());
    let below: Vec<String> = below.map(|p| p.display_name()).collect();
    if below.is_empty() {
        return Ok(());
    }
    Err(Refusal::Forbidden(format!("projects are below it: {}; delete them first", below.join(", "))))
}

pub(super) fn project(write: &mut Write<'_>, old: Option<&Project>, new: &Project) -> Verdict {
    let (id, spec) = (write.id.to_owned(), &new.spec);
    // Before the policy: it asks about the domain that the object names.
    if let Some(old) = old {
        fixed("the domain of a project", old.spec.domain == spec.domain)?;
        fixed("the parent of a project", old.spec.parent == spec.parent)?;
    }
    place(write, old.is_none(), new)?;
    let act = if old.is_some() { Act::Update } else { Act::Create };
    let known = old.map(|_| id.as_str());
    write.allowed(
        act,
        &Subject::Project { id: known, domain: &spec.domain, parent: spec.parent.as_deref() },
    )?;
    mutable(write, old.map(|p| &p.spec.extra), Some(&spec.extra))?;
    project_fields(write, old, new)?;
    let name = new.display_name();
    if changed(old.map(Named::display_name), &name) {
        named(&name, name_problem(&name))?;
        let taken = write.state.projects.by_name(Some(&spec.domain), &name).map(|p| p.id());
        write.claim("project", Some(&spec.domain), &name, taken)?;
    }
    given_labels("spec.labels", spec.labels.keys().zip(spec.labels.values()))?;
    environments(write, new)?;
    if changed(old.map(|p| &p.spec.quota), &&spec.quota) {
        quota("spec.quota", &spec.quota)?;
        let (world, state) = (write.world, write.state);
        let entry = world.ledger.enter_quota(state, &world.namespaces, new).map_err(Refusal::Forbidden)?;
        write.held.entries.push(entry);
    }
    Ok(())
}

/// Its domain and what is above it are there, and it is not too deep.
fn place(write: &Write<'_>, fresh: bool, new: &Project) -> Verdict {
    let (state, spec) = (write.state, &new.spec);
    let domain = state.domains.get(&spec.domain);
    let domain = domain.ok_or_else(|| Refusal::missing("spec.domain", &spec.domain, "domain"))?;
    if !fresh {
        return Ok(());
    }
    if domain.metadata.deletion_timestamp.is_some() {
        return Err(Refusal::forbidden("the domain is being deleted"));
    }
    let Some(parent) = &spec.parent else { return Ok(()) };
    if parent == write.id {
        return Err(Refusal::invalid("spec.parent", parent.as_str(), "a project cannot be below itself"));
    }
    let above = state.projects.get(parent);
    let above = above.ok_or_else(|| Refusal::missing("spec.parent", parent, "project"))?;
    if above.spec.domain != spec.domain {
        return Err(Refusal::invalid("spec.parent", parent.as_str(), "it is in another domain"));
    }
    if above.metadata.deletion_timestamp.is_some() {
        return Err(Refusal::forbidden("the project above it is being deleted"));
    }
    if state.ancestry(parent).len() >= DEPTH_MAX {
        return Err(Refusal::Forbidden(format!("projects are at most {DEPTH_MAX} deep")));
    }
    Ok(())
}

/// Which fields are whose: those above a project give it its bounds, those in it arrange it.
fn project_fields(write: &Write<'_>, old: Option<&Project>, new: &Project) -> Verdict {
    if write.caller.is_unlimited() {
        return Ok(());
    }
    let privileged = PodSecurityLevel::Privileged;
    let had = old.map(|p| p.spec.pod_security);
    if new.spec.pod_security == privileged && had != Some(privileged) {
        return Err(Refusal::Forbidden(format!("podSecurity \"privileged\" {GRANTED_BY}")));
    }
    weaker_environments(old, new)?;
    old.map_or(Ok(()), |old| given_from_above(write.state, write.authority(), old, new))
        .map_err(Refusal::Forbidden)
}

/// What a project has from above stays, unless the caller is above.
pub fn given_from_above(state: &State, who: &Authority, old: &Project, new: &Project) -> Result<(), String> {
    let grants = &who.grants;
    let has = |roles: Option<&BTreeSet<String>>, role: &str| roles.is_some_and(|has| has.contains(role));
    let over_all = who.unlimited || grants.system.contains(roles::ADMIN);
    let over_domain = has(grants.domains.get(&new.spec.domain), roles::MANAGER);
    let above = new.spec.parent.as_deref().map(|parent| state.ancestry(parent)).unwrap_or_default();
    let over_tree = above.iter().any(|p| has(grants.projects.get(&p.id()), roles::ADMIN));
    if over_all || over_domain || over_tree {
        return Ok(());
    }
    let (a, b) = (&old.spec, &new.spec);
    for (field, same) in [
        ("name", a.name == b.name),
        ("enabled", a.enabled == b.enabled),
        ("quota", a.quota == b.quota),
        ("podSecurity", a.pod_security == b.pod_security),
        ("recordSessions", a.record_sessions == b.record_sessions),
    ] {
        if !same {
            return Err(format!(
                "spec.{field} is given from above: a manager of the project changes its description, labels, tags \
                 and environments"
            ));
        }
    }
    Ok(())
}

/// An environment is as strict as its project or stricter, unless it was given more.
fn weaker_environments(old: Option<&Project>, new: &Project) -> Verdict {
    for environment in &new.spec.environments {
        let Some(level) = environment.pod_security.filter(|level| *level > new.spec.pod_security) else {
            continue;
        };
        let same = |e: &&Environment| e.name == environment.name && e.pod_security == Some(level);
        if old.and_then(|p| p.spec.environments.iter().find(same)).is_none() {
            return Err(Refusal::Forbidden(format!(
                "podSecurity {:?} of environment {:?} is weaker than the project's ({:?}), which {GRANTED_BY}",
                level.as_str(),
                environment.name,
                new.spec.pod_security.as_str()
            )));
        }
    }
    Ok(())
}

fn environments(write: &mut Write<'_>, new: &Project) -> Verdict {
    if new.spec.environments.len() > ENVIRONMENTS_MAX {
        return Err(Refusal::invalid("spec.environments", "", format!("at most {ENVIRONMENTS_MAX}")));
    }
    let (mut seen, mut spaces) = (BTreeSet::new(), BTreeSet::new());
    for (at, environment) in new.spec.environments.iter().enumerate() {
        let field = |name: &str| format!("spec.environments[{at}].{name}");
        if let Some(why) = dns1123_label(&environment.name).into_iter().next() {
            return Err(Refusal::invalid(&field("name"), environment.name.as_str(), why));
        }
        if !seen.insert(environment.name.as_str()) {
            let error = gantry_kube_types::FieldError::duplicate(field("name"), environment.name.as_str());
            return Err(Refusal::Invalid(Box::new(error)));
        }
        let namespace = names::namespace(new, environment);
        if let Some(why) = names::namespace_problem(&namespace) {
            return Err(Refusal::invalid(&field("namespace"), namespace, why));
        }
        if !spaces.insert(namespace.clone()) {
            let error = gantry_kube_types::FieldError::duplicate(field("namespace"), namespace);
            return Err(Refusal::Invalid(Box::new(error)));
        }
        quota(&field("quota"), &environment.quota)?;
        given_labels(&field("labels"), environment.labels.iter())?;
        free(write, &namespace)?;
    }
    Ok(())
}

/// Nobody else has the namespace, and no other project has an environment that will.
fn free(write: &mut Write<'_>, namespace: &str) -> Verdict {
    if let Some(known) = write.world.namespaces.get(namespace) {
        return match known.project.as_deref() {
            Some(owner) if owner == write.id => Ok(()),
            // Whose it is is told only to those who may see it.
            _ => Err(Refusal::Taken(format!(
                "namespace {namespace:?} is not free: give another in `namespace`"
            ))),
        };
    }
    let other = write.state.projects.iter().find(|p| {
        p.id() != write.id && p.spec.environments.iter().any(|e| names::namespace(p, e) == namespace)
    });
    let taken = other.map(|p| p.id());
    write.claim("namespace", None, namespace, taken)
}

fn given_labels<'a>(field: &str, labels: impl Iterator<Item = (&'a String, &'a String)>) -> Verdict {
    for (key, value) in labels {
        if names::is_managed_label(key) {
            return Err(Refusal::invalid(field, key.as_str(), "labels of this prefix are the platform's"));
        }
        let problems = qualified_name(key).into_iter().chain(label_value(value));
        if let Some(why) = problems.into_iter().next() {
            return Err(Refusal::invalid(field, key.as_str(), why));
        }
    }
    Ok(())
}

/// Amounts that can be read, and are amounts.
pub(super) fn quota(field: &str, quota: &Quota) -> Verdict {
    for (name, text) in quota.entries() {
        let field = format!("{field}.{name}");
        let amount =
            Quantity::parse(text).map_err(|error| Refusal::invalid(&field, text, error.to_string()))?;
        if amount.nano() < 0 {
            return Err(Refusal::invalid(&field, text, "must not be negative"));
        }
        let counts = matches!(name, "pods" | "addresses" | "loadBalancers");
        if counts && amount.nano() % 1_000_000_000 != 0 {
            return Err(Refusal::invalid(&field, text, "must be a whole number"));
        }
    }
    Ok(())
}

pub(super) fn user(write: &mut Write<'_>, old: Option<&User>, new: &User) -> Verdict {
    let (id, spec) = (write.id.to_owned(), &new.spec);
    if let Some(old) = old {
        fixed("the domain of a user", old.spec.domain == spec.domain)?;
    }
    domain_is_there(write, &spec.domain)?;
    let act = if old.is_some() { Act::Update } else { Act::Create };
    write.allowed(act, &Subject::User { id: &id, domain: &spec.domain })?;
    let name = new.display_name();
    if changed(old.map(Named::display_name), &name) {
        named(&name, name_problem(&name))?;
        let taken = write.state.users.by_name(Some(&spec.domain), &name).map(|u| u.id());
        write.claim("user", Some(&spec.domain), &name, taken)?;
    }
    let had: &[String] = old.map(|u| u.spec.groups.as_slice()).unwrap_or_default();
    for group in spec.groups.iter().filter(|group| !had.contains(group)) {
        let found = write.state.groups.get(group);
        let found = found.ok_or_else(|| Refusal::missing("spec.groups", group, "group"))?;
        if found.spec.domain != spec.domain {
            return Err(Refusal::invalid("spec.groups", group.as_str(), "it is in another domain"));
        }
        may_join(write.state, write.authority(), group).map_err(Refusal::Forbidden)?;
    }
    if old.is_some_and(|old| signs_in_otherwise(old, new)) {
        outranks(write.state, write.authority(), &id).map_err(Refusal::Forbidden)?;
    }
    Ok(())
}

pub(super) fn group(write: &mut Write<'_>, old: Option<&Group>, new: &Group) -> Verdict {
    let spec = &new.spec;
    if let Some(old) = old {
        fixed("the domain of a group", old.spec.domain == spec.domain)?;
    }
    domain_is_there(write, &spec.domain)?;
    let act = if old.is_some() { Act::Update } else { Act::Create };
    write.allowed(act, &Subject::Group { domain: &spec.domain })?;
    let name = new.display_name();
    if changed(old.map(Named::display_name), &name) {
        named(&name, name_problem(&name))?;
        let taken = write.state.groups.by_name(Some(&spec.domain), &name).map(|g| g.id());
        write.claim("group", Some(&spec.domain), &name, taken)?;
    }
    if old.is_some_and(|old| old.spec.provider != spec.provider) {
        // Who is in it becomes somebody else's to say.
        may_join(write.state, write.authority(), write.id).map_err(Refusal::Forbidden)?;
    }
    Ok(())
}

pub(super) fn domain_is_there(write: &Write<'_>, domain: &str) -> Verdict {
    let found = write.state.domains.get(domain);
    let found = found.ok_or_else(|| Refusal::missing("spec.domain", domain, "domain"))?;
    if found.metadata.deletion_timestamp.is_some() && !write.caller.is_unlimited() {
        return Err(Refusal::forbidden("the domain is being deleted"));
    }
    Ok(())
}
