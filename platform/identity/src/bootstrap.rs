//! What is there before anybody signs in: the kinds, the default domain, roles and project.

mod rules;

use std::time::Duration;

use gantry_identity_api::{
    DEFAULT_DOMAIN, Domain, DomainSpec, Project, ProjectSpec, Role, RoleSpec, definitions, roles,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::conditions;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

pub(crate) use rules::AUDIT;
pub use rules::{default_roles, system_rules};

use crate::directory::{Directory, State};
use crate::tenancy::names::MANAGER;

/// How long a definition may take to be served.
const ESTABLISHED_WAIT: Duration = Duration::from_secs(30);
/// Digest of a default role as it was installed: while it is still true, nobody has edited the role.
const INSTALLED: &str = "identity.gantry.dev/installed";
/// Id and name of the project that is there from the beginning.
const ADMIN_PROJECT: &str = "admin";
/// How often a write is tried anew when others write at the same time.
const TRIES_MAX: usize = 8;

/// What kept the beginning from being made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("installing {what}: {source}")]
    Write { what: String, source: kube::Error },
    #[error("the kind {0} is not served")]
    NotServed(String),
}

/// Installs the definitions of the kinds, or brings them up to date, and waits until they are served. Comes before
/// the directory follows them.
pub async fn install_kinds(client: &Client) -> Result<(), BootstrapError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let all = definitions();
    for definition in &all {
        let name = definition.name_any();
        let patch = PatchParams::apply(MANAGER).force();
        let written = api.patch(&name, &patch, &Patch::Apply(definition)).await;
        written.map_err(|source| BootstrapError::Write { what: name, source })?;
    }
    for definition in all {
        let name = definition.name_any();
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        match tokio::time::timeout(ESTABLISHED_WAIT, established).await {
            Ok(Ok(_)) => {}
            _ => return Err(BootstrapError::NotServed(name)),
        }
    }
    Ok(())
}

/// Makes what is missing of the default domain, roles and project. Safe to repeat: what somebody edited stays.
///
/// Each is seen in the directory before the next, which may name it, is written.
pub async fn install_defaults(client: &Client, directory: &Directory) -> Result<(), BootstrapError> {
    let domain = DomainSpec {
        name: Some("Default".to_owned()),
        description: "The domain that is there from the beginning.".to_owned(),
        enabled: true,
        ..DomainSpec::default()
    };
    create_missing(client, &Domain::new(DEFAULT_DOMAIN, domain)).await?;
    shown(directory, |state| state.domains.get(DEFAULT_DOMAIN).is_some()).await;
    for (id, spec) in default_roles() {
        install_role(client, id, &spec).await?;
        shown(directory, |state| state.roles.get(id).is_some()).await;
    }
    let project = ProjectSpec {
        name: Some(ADMIN_PROJECT.to_owned()),
        domain: DEFAULT_DOMAIN.to_owned(),
        description: "Where the platform's administrators work.".to_owned(),
        enabled: true,
        ..ProjectSpec::default()
    };
    create_missing(client, &Project::new(ADMIN_PROJECT, project)).await?;
    shown(directory, |state| state.projects.get(ADMIN_PROJECT).is_some()).await;
    Ok(())
}

/// Waits until the directory has what was written. Where it never comes, because somebody arranged it otherwise, what
/// depends on it says so better.
async fn shown(directory: &Directory, there: impl Fn(&State) -> bool) {
    if let Err(error) = directory.until(there).await {
        tracing::warn!(%error, "a default object is not shown");
    }
}

async fn create_missing<K>(client: &Client, object: &K) -> Result<(), BootstrapError>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let name = object.name_any();
    match Api::<K>::all(client.clone()).create(&PostParams::default(), object).await {
        Ok(_) => Ok(()),
        // Also where another object has its name by now: then somebody arranged it so.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(source) => Err(BootstrapError::Write { what: format!("{} {name:?}", K::kind(&())), source }),
    }
}

async fn install_role(client: &Client, id: &str, wanted: &RoleSpec) -> Result<(), BootstrapError> {
    let api: Api<Role> = Api::all(client.clone());
    let failed = |source| BootstrapError::Write { what: format!("role {id:?}"), source };
    for _ in 0..TRIES_MAX {
        let written = match api.get_opt(id).await.map_err(failed)? {
            None => {
                let mut role = Role::new(id, wanted.clone());
                role.annotations_mut().insert(INSTALLED.to_owned(), digest(wanted));
                api.create(&PostParams::default(), &role).await
            }
            Some(found) => match upgraded(&found, wanted) {
                None => return Ok(()),
                Some(role) => api.replace(id, &PostParams::default(), &role).await,
            },
        };
        match written {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(source) => return Err(failed(source)),
        }
    }
    // Others keep writing it: then it is there, and theirs.
    Ok(())
}

/// The role with this version's rules; `None` where it has them, or somebody edited it.
fn upgraded(found: &Role, wanted: &RoleSpec) -> Option<Role> {
    let installed = found.annotations().get(INSTALLED);
    if installed != Some(&digest(&found.spec)) || *installed? == digest(wanted) {
        return None;
    }
    let mut role = found.clone();
    (role.spec.rules, role.spec.implies) = (wanted.rules.clone(), wanted.implies.clone());
    for (name, value) in &wanted.options {
        role.spec.options.entry(name.clone()).or_insert_with(|| value.clone());
    }
    role.annotations_mut().insert(INSTALLED.to_owned(), digest(wanted));
    Some(role)
}

/// Of what a role permits; its description may change without being an edit.
fn digest(spec: &RoleSpec) -> String {
    let text = serde_json::json!([spec.rules, spec.implies]).to_string();
    hex::encode(&Sha256::digest(text.as_bytes())[..16])
}

/// The roles assignments give with a meaning of their own in [`crate::policy`].
pub(crate) fn is_default_role(id: &str) -> bool {
    roles::CHAIN.contains(&id) || [roles::AUDITOR, roles::OPERATOR].contains(&id)
}

/// Is it neither changed nor deleted before somebody takes the mark away? The default roles are, also where they
/// were made before roles had the mark.
pub(crate) fn is_immutable(role: &Role) -> bool {
    let mark = role.spec.options.get("immutable").and_then(serde_json::Value::as_bool);
    mark.unwrap_or_else(|| is_default_role(&role.name_any()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::rule;

    #[test]
    fn an_upgrade_brings_new_rules_unless_somebody_edited_them() {
        let old = RoleSpec { rules: vec![rule(&["get"], "", &["pods"])], ..RoleSpec::default() };
        let new = RoleSpec { rules: vec![rule(&["list"], "", &["pods"])], ..RoleSpec::default() };
        let mut role = Role::new("reader", old.clone());
        assert_eq!(upgraded(&role, &new), None, "made by somebody else");
        role.annotations_mut().insert(INSTALLED.to_owned(), digest(&old));
        assert_eq!(upgraded(&role, &old), None, "nothing new");
        let next = upgraded(&role, &new).expect("an upgrade");
        assert_eq!(next.spec.rules, new.rules);
        assert_eq!(upgraded(&next, &new), None, "twice changes nothing");
        role.spec.rules.push(rule(&["watch"], "", &["pods"]));
        assert_eq!(upgraded(&role, &new), None, "edited");
        let mut described = Role::new("reader", RoleSpec { description: "Mine".to_owned(), ..old.clone() });
        described.annotations_mut().insert(INSTALLED.to_owned(), digest(&old));
        assert!(upgraded(&described, &new).is_some(), "a description is no edit of rights");
    }
}
