//! The reconcilers: a key, a look at what is in memory, a plan, and the writes that are missing. Running one twice
//! changes nothing, and after a crash every key is looked at again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_identity_api::{ApplicationCredential, Domain, EnvironmentStatus, Group, Project, Role, User};
use gantry_reconcile::{Again, Informer, Queue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota, Secret};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use kube::{Api, Client, ResourceExt};

use super::account::{self, DefaultAccount};
use super::act::{self, ActError, Result};
use super::cascade::{self, Secrets};
use super::managed::{Managed, Thin};
use super::{World, bindings, contents, names, project, roles, status};
use crate::directory::table::Entry;
use crate::pull::{self, PullCredentials};

/// What hangs on something that goes is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// One thing to bring in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Its status, and its end.
    Domain(String),
    /// Its namespaces, its status, and its end.
    Project(String),
    /// The bindings, bounds and pull secret in a project's namespace, by its name.
    Namespace(String),
    /// Its cluster roles, and its end.
    Role(String),
    /// Cluster-wide bindings.
    System,
    /// The end of a user, a group, an application credential.
    User(String),
    Group(String),
    Credential(String),
}

/// Everything the reconcilers read and write with.
pub struct Reconcilers {
    pub(crate) world: Arc<World>,
    pub client: Client,
    pub queue: Queue<Key>,
    pub secrets: Arc<dyn Secrets>,
    pub pull: Arc<PullCredentials>,
    pub now: fn() -> Timestamp,
    pub namespaces: Informer<Namespace>,
    pub bindings: Informer<Thin<RoleBinding>>,
    pub cluster_roles: Informer<Thin<ClusterRole>>,
    pub cluster_bindings: Informer<Thin<ClusterRoleBinding>>,
    pub quotas: Informer<Thin<ResourceQuota>>,
    pub limits: Informer<Thin<LimitRange>>,
    pub pull_secrets: Informer<Thin<Secret>>,
    pub accounts: Informer<DefaultAccount>,
}

impl Reconcilers {
    /// Nothing is decided on half a picture.
    pub async fn synced(&self) {
        self.world.directory.synced().await;
        self.namespaces.synced().await;
        self.bindings.synced().await;
        self.cluster_roles.synced().await;
        self.cluster_bindings.synced().await;
        self.quotas.synced().await;
        self.limits.synced().await;
        self.pull_secrets.synced().await;
        self.accounts.synced().await;
    }

    pub async fn reconcile(&self, key: Key) -> Result<Again> {
        self.synced().await;
        match &key {
            Key::Project(id) => self.project(id).await,
            Key::Namespace(name) => self.namespace(name).await,
            Key::Domain(id) => self.domain(id).await,
            Key::Role(id) => self.role(id).await,
            Key::System => self.system().await,
            Key::User(id) => {
                let user = self.world.directory.read().users.get(id).cloned();
                self.leave::<User>(&key, user).await
            }
            Key::Group(id) => {
                let group = self.world.directory.read().groups.get(id).cloned();
                self.leave::<Group>(&key, group).await
            }
            Key::Credential(id) => {
                let credential = self.world.directory.read().application_credentials.get(id).cloned();
                self.leave::<ApplicationCredential>(&key, credential).await
            }
        }
    }

    /// Takes away what hangs on an object that is leaving or gone, then lets it go.
    async fn leave<K>(&self, key: &Key, object: Option<Arc<K>>) -> Result<Again>
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        if object.as_ref().is_some_and(|o| o.meta().deletion_timestamp.is_none()) {
            return Ok(Again::OnChange);
        }
        let hanging = cascade::hanging(&self.world.directory.read(), key);
        if !hanging.is_empty() {
            cascade::delete_all(&self.client, self.secrets.as_ref(), hanging).await?;
            return Ok(Again::After(LOOK_AGAIN));
        }
        let forgotten = match key {
            Key::User(id) => self.secrets.forget_user(id).await,
            Key::Credential(id) => self.secrets.forget_application_credential(id).await,
            Key::Project(id) => self.secrets.forget_project(id).await,
            Key::Domain(id) => self.secrets.forget_domain(id).await,
            _ => Ok(()),
        };
        forgotten.map_err(|why| ActError::Secrets { owner: format!("{key:?}"), why })?;
        if let Some(object) = object {
            act::set_finalizer(&self.client, object.as_ref(), false).await?;
        }
        Ok(Again::OnChange)
    }

    async fn domain(&self, id: &str) -> Result<Again> {
        let Some(domain) = self.world.directory.read().domains.get(id).cloned() else {
            return self.leave::<Domain>(&Key::Domain(id.to_owned()), None).await;
        };
        if domain.metadata.deletion_timestamp.is_some() {
            return self.leave(&Key::Domain(id.to_owned()), Some(domain)).await;
        }
        act::set_finalizer(&self.client, domain.as_ref(), true).await?;
        let allocated = {
            let state = self.world.directory.read();
            self.world.ledger.tree(&state, &self.world.namespaces, id).allocated(None)
        };
        let condition = if domain.spec.enabled {
            (true, "Ready", "")
        } else {
            (false, "Disabled", "nobody of the domain signs in, and nobody has rights in its projects")
        };
        let wanted = status::domain(domain.status.as_ref(), condition, domain.metadata.generation, allocated);
        act::write_status::<Domain, _>(&self.client, id, domain.status.as_ref(), &wanted).await?;
        Ok(Again::OnChange)
    }

    async fn project(&self, id: &str) -> Result<Again> {
        let Some(found) = self.world.directory.read().projects.get(id).cloned() else {
            return self.leave::<Project>(&Key::Project(id.to_owned()), None).await;
        };
        if found.metadata.deletion_timestamp.is_some() {
            return self.end_project(found).await;
        }
        // First: whatever is made for the project must be found again when it goes.
        act::set_finalizer(&self.client, found.as_ref(), true).await?;
        let own = self.world.namespaces.of_project(id);
        let plan = project::plan(&found, |name| self.world.namespaces.get(name), &own);
        for (name, labels, given) in &plan.apply {
            act::apply_namespace(&self.client, id, name, labels, given).await?;
        }
        for name in &plan.delete {
            act::delete(&Api::<Namespace>::all(self.client.clone()), name).await?;
        }
        let problems: Vec<&str> =
            plan.environments.iter().map(|e| e.problem.as_str()).filter(|p| !p.is_empty()).collect();
        let problems = problems.join("; ");
        let enabled = self.world.directory.read().project_enabled(&found);
        let condition = match (problems.is_empty(), enabled, plan.is_ready()) {
            (false, _, _) => (false, "NamespaceUnavailable", problems.as_str()),
            (true, false, _) => (
                false,
                "Disabled",
                "the project, one above it or its domain is disabled: nobody has rights in it",
            ),
            (true, true, false) => (false, "Progressing", "namespaces are being made"),
            (true, true, true) => (true, "Ready", ""),
        };
        let environments = self.with_addresses(plan.environments);
        self.write_project_status(&found, condition, environments).await?;
        Ok(Again::OnChange)
    }

    /// With what their namespaces take of quota `addresses`, which no ResourceQuota shows.
    fn with_addresses(&self, mut environments: Vec<EnvironmentStatus>) -> Vec<EnvironmentStatus> {
        for environment in environments.iter_mut().filter(|e| e.problem.is_empty()) {
            let taken = self.world.ledger.used_in(&environment.namespace).of("addresses");
            environment.addresses = taken.filter(|taken| !taken.is_zero()).map(|taken| taken.to_string());
        }
        environments
    }

    async fn write_project_status(
        &self,
        found: &Project,
        condition: (bool, &str, &str),
        environments: Vec<EnvironmentStatus>,
    ) -> Result<()> {
        let id = found.name_any();
        let allocated = {
            let state = self.world.directory.read();
            let tree = self.world.ledger.tree(&state, &self.world.namespaces, &found.spec.domain);
            tree.allocated(Some(&id))
        };
        let (had, generation) = (found.status.as_ref(), found.metadata.generation);
        let wanted = status::project(had, condition, generation, environments, allocated);
        act::write_status::<Project, _>(&self.client, &id, had, &wanted).await
    }

    /// Projects below it first, then its namespaces with all that runs in them, then who had rights in it.
    async fn end_project(&self, found: Arc<Project>) -> Result<Again> {
        let id = found.id();
        let below: Vec<String> = {
            let state = self.world.directory.read();
            state.children(&id).map(|p| gantry_identity_api::Named::display_name(p.as_ref())).collect()
        };
        let environments = found.status.as_ref().map(|s| s.environments.clone()).unwrap_or_default();
        if !below.is_empty() {
            let message = format!("it goes when the projects below it are gone: {}", below.join(", "));
            self.write_project_status(&found, (false, "HasProjects", &message), environments).await?;
            return Ok(Again::OnChange);
        }
        let own = self.world.namespaces.of_project(&id);
        if !own.is_empty() {
            for name in own.iter().filter(|name| self.world.namespaces.get(name).is_some_and(|k| !k.leaving))
            {
                act::delete(&Api::<Namespace>::all(self.client.clone()), name).await?;
            }
            let message = format!("namespaces are being deleted: {}", own.join(", "));
            self.write_project_status(&found, (false, "Deleting", &message), environments).await?;
            // The informer of namespaces tells when they are gone.
            return Ok(Again::OnChange);
        }
        self.leave(&Key::Project(id), Some(found)).await
    }

    async fn namespace(&self, name: &str) -> Result<Again> {
        let Some(known) = self.world.namespaces.get(name) else { return Ok(Again::OnChange) };
        let Some(owner) = known.project.clone().filter(|_| !known.leaving) else {
            return Ok(Again::OnChange);
        };
        let now = (self.now)();
        let (wanted, quota, limits, secret) = {
            let state = self.world.directory.read();
            let found = state.projects.get(&owner);
            // A namespace whose project is gone, or has no such environment any more, is nobody's: no rights in it.
            let found = found.and_then(|p| Some((p.clone(), project::environment(p, name)?.clone())));
            match found {
                None => (Vec::new(), None, None, None),
                Some((project, environment)) => {
                    let holders = bindings::in_project(&state, &project);
                    (
                        bindings::role_bindings(&holders, name, &project),
                        contents::quota(&project, &environment, name),
                        Some(contents::limits(&project, name)),
                        Some(contents::pull_secret(
                            &project,
                            name,
                            self.pull.docker_config(&owner, name, now),
                        )),
                    )
                }
            }
        };
        // Rights that end come before rights that begin.
        self.exactly(name, &self.bindings, wanted).await?;
        self.exactly(name, &self.quotas, quota.into_iter().collect()).await?;
        self.exactly(name, &self.limits, limits.into_iter().collect()).await?;
        let lives = secret.is_some();
        self.exactly(name, &self.pull_secrets, secret.into_iter().collect()).await?;
        if !lives {
            return Ok(Again::OnChange);
        }
        let account = self.accounts.get(name, account::DEFAULT);
        if let Some((account, list)) = account.and_then(|a| a.missing().map(|list| (a, list))) {
            act::set_pull_secrets(&self.client, name, &account, &list).await?;
        }
        Ok(Again::After(pull::looked_at_in(name, now)))
    }

    /// In the namespace, of the objects of this kind that are the component's, exactly these.
    async fn exactly<K>(&self, namespace: &str, informer: &Informer<Thin<K>>, wanted: Vec<K>) -> Result<()>
    where
        K: Managed<Scope = kube::core::NamespaceResourceScope>,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let mut known: BTreeMap<String, Arc<Thin<K>>> =
            informer.list_namespace(namespace).into_iter().map(|thin| (thin.name_any(), thin)).collect();
        let names: Vec<String> = wanted.iter().map(ResourceExt::name_any).collect();
        for gone in known.keys().filter(|name| !names.contains(name)) {
            act::delete(&api, gone).await?;
        }
        for object in &wanted {
            act::keep(&api, object, known.remove(&object.name_any()).as_deref()).await?;
        }
        Ok(())
    }

    async fn role(&self, id: &str) -> Result<Again> {
        let (role, wanted) = {
            let state = self.world.directory.read();
            (state.roles.get(id).cloned(), roles::cluster_roles(&state, id))
        };
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        for name in [names::cluster_role(id), names::system_role(id)] {
            let known = self.cluster_roles.get("", &name);
            match wanted.iter().find(|role| role.name_any() == name) {
                Some(wanted) => act::keep(&api, wanted, known.as_deref()).await?,
                None if known.is_some() => act::delete(&api, &name).await?,
                None => {}
            }
        }
        if role.as_ref().is_none_or(|r| r.metadata.deletion_timestamp.is_some()) {
            return self.leave::<Role>(&Key::Role(id.to_owned()), role).await;
        }
        Ok(Again::OnChange)
    }

    async fn system(&self) -> Result<Again> {
        let wanted = bindings::cluster_bindings(&bindings::in_system(&self.world.directory.read()));
        let api: Api<ClusterRoleBinding> = Api::all(self.client.clone());
        let names: Vec<String> = wanted.iter().map(ResourceExt::name_any).collect();
        for known in self.cluster_bindings.list() {
            let name = known.name_any();
            // Only what is called as ours: a label alone is somebody's mistake.
            if name.starts_with(names::PREFIX) && !names.contains(&name) {
                act::delete(&api, &name).await?;
            }
        }
        for binding in &wanted {
            act::keep(&api, binding, self.cluster_bindings.get("", &binding.name_any()).as_deref()).await?;
        }
        Ok(Again::OnChange)
    }
}

#[cfg(test)]
mod tests;
