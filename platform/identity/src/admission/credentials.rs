//! Rights handed on: application credentials, trusts, and records that belong to a user.

use gantry_identity_api::{ApplicationCredential, KeystoneRecord, Trust, User};

use super::identity::Write;
use super::names::name_problem;
use super::providers::claim_name;
use super::refusal::{Refusal, Verdict};
use crate::authorizer::record_subject;
use crate::directory::assignments::Target;
use crate::directory::resolve::Roles;
use crate::directory::table::Entry;
use crate::keystone::PROVIDER_RECORDS;
use crate::policy::{Act, Subject};

pub(super) fn credential(write: &mut Write<'_>, new: &ApplicationCredential) -> Verdict {
    let (state, spec) = (write.state, &new.spec);
    let user = state.users.get(&spec.user);
    let user = user.ok_or_else(|| Refusal::missing("spec.user", &spec.user, "user"))?;
    write.allowed(Act::Create, &Subject::Credential { user: &spec.user })?;
    if let Some(why) = name_problem(&spec.name) {
        return Err(Refusal::invalid("spec.name", spec.name.as_str(), why));
    }
    let taken = state.application_credentials.by_name(Some(&spec.user), &spec.name).map(|c| c.id());
    write.claim("application credential", Some(&spec.user), &spec.name, taken)?;
    if state.projects.get(&spec.project).is_none() {
        return Err(Refusal::missing("spec.project", &spec.project, "project"));
    }
    if spec.roles.is_empty() {
        return Err(Refusal::invalid("spec.roles", "", "at least one role"));
    }
    passed_on(write, user, &spec.project, &spec.roles)
}

pub(super) fn trust(write: &mut Write<'_>, new: &Trust) -> Verdict {
    let (state, spec) = (write.state, &new.spec);
    let trustor = state.users.get(&spec.trustor);
    let trustor = trustor.ok_or_else(|| Refusal::missing("spec.trustor", &spec.trustor, "user"))?;
    if state.users.get(&spec.trustee).is_none() {
        return Err(Refusal::missing("spec.trustee", &spec.trustee, "user"));
    }
    write.allowed(Act::Create, &Subject::Trust { trustor: &spec.trustor, trustee: &spec.trustee })?;
    match &spec.project {
        Some(project) if state.projects.get(project).is_none() => {
            Err(Refusal::missing("spec.project", project, "project"))
        }
        Some(project) => passed_on(write, trustor, project, &spec.roles),
        None if spec.roles.is_empty() => Ok(()),
        None => Err(Refusal::invalid("spec.project", "", "roles are passed on in a project")),
    }
}

/// Nobody passes on what they have not: neither more than the user's roles, nor more than the credential the user
/// asks with is good for.
fn passed_on(write: &Write<'_>, user: &User, project: &str, roles: &[String]) -> Verdict {
    let state = write.state;
    let scope = Target::Project(project.into());
    let mut own = state.roles_in(user, &scope);
    if !write.authority().unlimited && write.authority().user == user.id() {
        let effective = write.authority().grants.in_scope(&scope).cloned().unwrap_or_default();
        own = own.intersection(&effective).cloned().collect();
    }
    let wanted: Roles = roles.iter().cloned().collect();
    if let Some(unknown) = wanted.iter().find(|id| state.roles.get(id).is_none()) {
        return Err(Refusal::missing("spec.roles", unknown, "role"));
    }
    match wanted.difference(&own).next() {
        None => Ok(()),
        Some(lacking) => Err(Refusal::forbidden(format!(
            "user {:?} has no role {lacking:?} in project {project:?}",
            user.id()
        ))),
    }
}

pub(super) fn record(write: &mut Write<'_>, old: Option<&KeystoneRecord>, new: &KeystoneRecord) -> Verdict {
    let act = if old.is_some() { Act::Update } else { Act::Create };
    if let Some(old) = old {
        write.allowed(act, &record_subject(&old.spec))?;
        let (a, b) = (&old.spec, &new.spec);
        if (&a.collection, &a.parent, &a.id) != (&b.collection, &b.parent, &b.id) {
            return Err(Refusal::forbidden("what a record is cannot change"));
        }
    }
    let subject = record_subject(&new.spec);
    write.allowed(act, &subject)?;
    if let (Subject::Credential { user }, Some(named)) = (&subject, new.spec.attributes.get("user_id"))
        && named.as_str() != Some(user)
    {
        return Err(Refusal::forbidden("a credential or an access rule names the user it is of"));
    }
    if old.is_none() && new.spec.collection == PROVIDER_RECORDS {
        claim_name(write, &new.spec.id)?;
    }
    let within = format!("{}/{}", new.spec.collection, new.spec.parent.as_deref().unwrap_or_default());
    let taken = write.state.records.by_name(Some(&within), &new.spec.id).map(|r| r.id());
    write.claim("record", Some(&within), &new.spec.id, taken)
}
