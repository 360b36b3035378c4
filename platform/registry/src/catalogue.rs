//! Whose each repository is: objects, and names where there is no object yet.
//!
//! The object decides. Only a repository that has none is judged by its name: `DOMAIN/PROJECT/…` is the project's,
//! `DOMAIN/…` the domain's, everything else the platform's. With the first image the object is made, and from then on
//! a project that comes later, or is renamed, takes nothing over.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use gantry_host::Host;
use gantry_identity_api::{Domain, Named, Place as TreePlace, Project, ProjectTree};
use gantry_oci::RepositoryName;
use gantry_reconcile::{Change, Informer};
use gantry_registry_api::{
    FINALIZER, Owner, Repository, RepositorySpec, Rules, Share, Visibility, object_name,
};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use crate::errors::{ApiError, ErrorCode};
use crate::gate::Place;
use crate::quota::{Bound, quantity};
use crate::upstream::Upstreams;

/// A cheap handle on what is known of repositories and their owners. Knows nothing before the registry is started.
#[derive(Clone, Default)]
pub struct Catalogue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    following: OnceLock<Following>,
    upstreams: OnceLock<Arc<Upstreams>>,
    names: RwLock<Names>,
    /// Grows with every change of what is known here.
    generation: watch::Sender<u64>,
}

struct Following {
    api: Api<Repository>,
    repositories: Informer<Repository>,
}

/// What the catalogue reads, for whoever acts on its changes.
pub(crate) struct Followed {
    pub(crate) repositories: Informer<Repository>,
    pub(crate) projects: Informer<Project>,
    pub(crate) domains: Informer<Domain>,
}

/// What a decision about a repository depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) owner: Owner,
    pub(crate) visibility: Visibility,
    pub(crate) shares: Vec<Share>,
    pub(crate) rules: Rules,
}

impl Facts {
    fn of(repository: &Repository) -> Self {
        let spec = &repository.spec;
        Self {
            name: spec.name.clone(),
            owner: spec.owner.clone(),
            visibility: spec.visibility,
            shares: spec.shares.clone(),
            rules: spec.rules.clone(),
        }
    }
}

impl Catalogue {
    /// Follows repositories, projects and domains, and returns once all are known.
    pub(crate) async fn follow(&self, host: &Host) -> Followed {
        let client = &host.client;
        let api: Api<Repository> = Api::all(client.clone());
        let repositories = Informer::start(&host.tasks, "registry/repositories", api.clone());
        let projects: Api<Project> = Api::all(client.clone());
        let projects = Informer::start(&host.tasks, "registry/projects", projects);
        let domains: Api<Domain> = Api::all(client.clone());
        let domains = Informer::start(&host.tasks, "registry/domains", domains);
        let this = self.clone();
        projects.on_change(move |change| this.change_names(|names| names.project(change)));
        let this = self.clone();
        domains.on_change(move |change| this.change_names(|names| names.domain(change)));
        let this = self.clone();
        repositories.on_change(move |_| this.0.generation.send_modify(|generation| *generation += 1));
        projects.synced().await;
        domains.synced().await;
        repositories.synced().await;
        let following = Following { api, repositories: repositories.clone() };
        // A registry is started once.
        let _ = self.0.following.set(following);
        self.0.generation.send_modify(|generation| *generation += 1);
        Followed { repositories, projects, domains }
    }

    /// As long as it stays, so does what is known here.
    pub(crate) fn version(&self) -> u64 {
        *self.0.generation.borrow()
    }

    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    fn change_names(&self, change: impl FnOnce(&mut Names)) {
        change(&mut self.0.names.write().unwrap_or_else(PoisonError::into_inner));
        self.changed();
    }

    /// Something that is known here is known otherwise: upstreams, which say who sees what is below their prefixes.
    pub(crate) fn changed(&self) {
        self.0.generation.send_modify(|generation| *generation += 1);
    }

    /// What is known of the repository called so; `None` before the registry is started.
    pub(crate) fn facts(&self, repository: &str) -> Option<Facts> {
        let following = self.0.following.get()?;
        let found = following.repositories.get("", &object_name(repository));
        // An object that has the name of another repository's stands for nothing.
        if let Some(found) = found.filter(|found| found.spec.name == repository) {
            return Some(Facts::of(&found));
        }
        Some(Facts {
            name: repository.to_owned(),
            owner: self.owner_by_name(repository),
            visibility: self.first_visibility(repository),
            shares: Vec::new(),
            rules: Rules::default(),
        })
    }

    /// Whose the repository is; less work than [`Catalogue::facts`].
    pub(crate) fn owner(&self, repository: &str) -> Option<Owner> {
        let found = self.0.following.get()?.repositories.get("", &object_name(repository));
        match found.filter(|found| found.spec.name == repository) {
            Some(found) => Some(found.spec.owner.clone()),
            None => Some(self.owner_by_name(repository)),
        }
    }

    /// What is known of the repository whose object is called so.
    pub(crate) fn facts_of_object(&self, object: &str) -> Option<Facts> {
        let found = self.0.following.get()?.repositories.get("", object)?;
        (object_name(&found.spec.name) == object).then(|| Facts::of(&found))
    }

    /// What is pulled through from an upstream is seen by whom that says, also before there is an object.
    pub(crate) fn see_below_prefixes_as(&self, upstreams: &Arc<Upstreams>) {
        // A registry is built once.
        let _ = self.0.upstreams.set(upstreams.clone());
    }

    fn first_visibility(&self, repository: &str) -> Visibility {
        self.0.upstreams.get().and_then(|all| all.visibility(repository)).unwrap_or_default()
    }

    fn owner_by_name(&self, repository: &str) -> Owner {
        self.names().owner(repository)
    }

    /// Every bound in bytes that holds for the repository, with the repositories that it bounds together, the nearest
    /// first. `all` is asked where there is a quota above the repository.
    pub(crate) fn bounds(&self, facts: &Facts, all: impl FnOnce() -> Vec<RepositoryName>) -> Vec<Bound> {
        let mut bounds = Vec::new();
        let own = facts.rules.quota.as_deref().and_then(quantity);
        if let (Some(bytes_max), Ok(name)) = (own, facts.name.parse()) {
            let whose = format!("repository {}", facts.name);
            bounds.push(Bound { whose, bytes_max, given_bytes: 0, repositories: HashSet::from([name]) });
        }
        let above = self.names().bounds(&facts.owner);
        if above.is_empty() {
            return bounds;
        }
        let all = all();
        // The one that is pushed to may have no image yet: it adds nothing but what is pushed.
        let owners: Vec<(&RepositoryName, Owner)> =
            all.iter().filter_map(|name| Some((name, self.facts(name.as_str())?.owner))).collect();
        let names = self.names();
        for OwnersBound { holder, bytes_max, given_bytes, counted } in above {
            let inside = owners.iter().filter(|(_, owner)| counted.contains(owner));
            let repositories = inside.map(|(name, _)| (*name).clone()).collect();
            bounds.push(Bound { whose: names.shown(&holder), bytes_max, given_bytes, repositories });
        }
        bounds
    }

    fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.0.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is the owner there, as far as is known here? The platform always is.
    pub(crate) fn knows(&self, owner: &Owner) -> bool {
        self.names().knows(owner)
    }

    /// Nothing is left of what the owner had, who is gone.
    pub(crate) fn forget_gone(&self, owner: &Owner) {
        if let Some(project) = &owner.project {
            self.change_names(|names| drop(names.gone.remove(project)));
        }
    }

    /// Where the owner is, as policies say it.
    pub(crate) fn place(&self, owner: &Owner) -> Place {
        let names = self.names();
        let of_project = owner.project.as_ref().and_then(|id| names.project_names.get(id));
        let domain = owner.domain.clone().or_else(|| of_project.map(|(domain, _)| domain.clone()));
        Place { domain, project: owner.project.clone(), environment: None }
    }

    /// The owner as people call it.
    pub(crate) fn shown(&self, owner: &Owner) -> String {
        self.names().shown(owner)
    }

    /// Sees to an object for a repository that is pushed to. Does nothing before the registry is started: those
    /// repositories get theirs when it is.
    pub(crate) async fn admit(&self, repository: &RepositoryName) -> Result<(), ApiError> {
        let Some(following) = self.0.following.get() else { return Ok(()) };
        let object = object_name(repository.as_str());
        if let Some(found) = following.repositories.get("", &object) {
            if found.metadata.deletion_timestamp.is_some() {
                return Err(ApiError::new(ErrorCode::Denied)
                    .message(format!("{repository} is being deleted; push again when it is gone")));
            }
            return Ok(());
        }
        self.create(repository.as_str()).await.map_err(|error| {
            tracing::error!(%error, %repository, "a repository's object could not be made");
            ApiError::new(ErrorCode::Unknown)
                .status(http::StatusCode::SERVICE_UNAVAILABLE)
                .message(format!("{repository} cannot be made at the moment; try again"))
        })
    }

    /// Makes the object of a repository that has none.
    pub(crate) async fn create(&self, repository: &str) -> kube::Result<()> {
        let Some(following) = self.0.following.get() else { return Ok(()) };
        let owner = self.owner_by_name(repository);
        let visibility = self.first_visibility(repository);
        let spec =
            RepositorySpec { name: repository.to_owned(), owner, visibility, ..RepositorySpec::default() };
        let mut object = Repository::new(&object_name(repository), spec);
        object.finalizers_mut().push(FINALIZER.to_owned());
        match following.api.create(&PostParams::default(), &object).await {
            // Two first pushes at once: one of them made it.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            made => made.map(drop),
        }
    }
}

/// Names of domains and projects. Where two claim one, the one whose id comes first has it, as in identity.
#[derive(Debug, Default)]
struct Names {
    domains: BTreeMap<String, BTreeSet<String>>,
    /// By id of the domain and name.
    projects: BTreeMap<(String, String), BTreeSet<String>>,
    /// Id → name; of a project with its domain's id.
    domain_names: BTreeMap<String, String>,
    project_names: BTreeMap<String, (String, String)>,
    /// Project → the one above.
    parents: BTreeMap<String, String>,
    /// Bytes of images that a project or domain may have.
    quotas: HashMap<Owner, u64>,
    /// Projects that are gone and whose repositories are not yet, with the domain and the project above: what is left
    /// of them counts there until it is gone, too.
    gone: BTreeMap<String, (String, Option<String>)>,
}

/// A quota of an owner, and what counts in it.
#[derive(Debug, PartialEq, Eq)]
struct OwnersBound {
    holder: Owner,
    bytes_max: u64,
    /// Carved from it: the bounds of projects below that have some.
    given_bytes: u64,
    /// Whose repositories count.
    counted: HashSet<Owner>,
}

impl Names {
    fn domain(&mut self, change: &Change<Domain>) {
        if let Some(old) = &change.old {
            forget(&mut self.domains, &old.display_name(), &old.name_any());
            self.domain_names.remove(&old.name_any());
        }
        if let Some(new) = &change.new {
            self.domains.entry(new.display_name()).or_default().insert(new.name_any());
            self.domain_names.insert(new.name_any(), new.display_name());
        }
        let object = change.object().map(|o| Owner::of_domain(o.name_any()));
        let quota = change.new.as_ref().and_then(|new| new.spec.quota.images.as_deref());
        self.set_quota(object, quota);
    }

    fn project(&mut self, change: &Change<Project>) {
        let key = |project: &Project| (project.spec.domain.clone(), project.display_name());
        if let Some(old) = &change.old {
            forget(&mut self.projects, &key(old), &old.name_any());
            self.project_names.remove(&old.name_any());
        }
        if let Some(new) = &change.new {
            self.projects.entry(key(new)).or_default().insert(new.name_any());
            self.project_names.insert(new.name_any(), key(new));
        }
        if let Some(object) = change.object() {
            match change.new.as_ref().and_then(|new| new.spec.parent.clone()) {
                Some(parent) => drop(self.parents.insert(object.name_any(), parent)),
                None => drop(self.parents.remove(&object.name_any())),
            }
            match &change.new {
                Some(_) => drop(self.gone.remove(&object.name_any())),
                None => {
                    let was = (object.spec.domain.clone(), object.spec.parent.clone());
                    self.gone.insert(object.name_any(), was);
                }
            }
        }
        let object = change.object().map(|o| Owner::of_project(o.name_any()));
        let quota = change.new.as_ref().and_then(|new| new.spec.quota.images.as_deref());
        self.set_quota(object, quota);
    }

    fn set_quota(&mut self, owner: Option<Owner>, images: Option<&str>) {
        let Some(owner) = owner else { return };
        match images.and_then(quantity) {
            Some(bytes) => drop(self.quotas.insert(owner, bytes)),
            None => drop(self.quotas.remove(&owner)),
        }
    }

    /// The quotas that hold for what the owner has, the nearest first. Nested as identity nests quotas of everything
    /// else: the nearest one loses what was given away below it, whether that is used or not. Those further up gave
    /// the nearest one what it has, so they have room for it; all that is in use below them is held against them all
    /// the same, because what had been used before it was given away is there twice.
    fn bounds(&self, owner: &Owner) -> Vec<OwnersBound> {
        let Some(domain) = self.domain_of(owner).filter(|_| !self.quotas.is_empty()) else {
            return Vec::new();
        };
        let tree = self.tree(domain);
        let as_owner = |place| match place {
            TreePlace::Domain => Owner::of_domain(domain),
            TreePlace::Project(id) => Owner::of_project(id),
        };
        let from = owner.project.as_deref().map_or(TreePlace::Domain, TreePlace::Project);
        let mut bounds: Vec<OwnersBound> = Vec::new();
        for place in tree.up(from) {
            let holder = as_owner(place);
            let Some(bytes_max) = self.quotas.get(&holder).copied() else { continue };
            let nearest = bounds.is_empty();
            let below = tree.below(place, None, |bound| nearest && bound.is_some());
            let given = below.bounded.iter().filter_map(|id| *tree.get(id)?);
            let given_bytes = given.fold(0, u64::saturating_add);
            let mut counted: HashSet<Owner> = below.open.into_iter().map(Owner::of_project).collect();
            counted.insert(holder.clone());
            bounds.push(OwnersBound { holder, bytes_max, given_bytes, counted });
        }
        bounds
    }

    /// Id of the domain that the owner is in, or is.
    fn domain_of<'a>(&'a self, owner: &'a Owner) -> Option<&'a str> {
        let Some(project) = &owner.project else { return owner.domain.as_deref() };
        let there = self.project_names.get(project).map(|(domain, _)| domain);
        there.or_else(|| self.gone.get(project).map(|(domain, _)| domain)).map(String::as_str)
    }

    /// The domain's projects, those that are gone with the rest, with their own quotas.
    fn tree(&self, domain: &str) -> ProjectTree<Option<u64>> {
        let there = self.project_names.iter().filter(|(_, (of, _))| of == domain).map(|(id, _)| id);
        let there = there.map(|id| (id, self.parents.get(id)));
        let gone = self.gone.iter().filter(|(_, (of, _))| of == domain);
        let gone = gone.map(|(id, (_, parent))| (id, parent.as_ref()));
        ProjectTree::new(there.chain(gone).map(|(id, parent)| {
            let quota = self.quotas.get(&Owner::of_project(id)).copied();
            (id.clone(), parent.cloned(), quota)
        }))
    }

    fn knows(&self, owner: &Owner) -> bool {
        match (&owner.project, &owner.domain) {
            (Some(project), _) => self.project_names.contains_key(project),
            (None, Some(domain)) => self.domain_names.contains_key(domain),
            (None, None) => true,
        }
    }

    fn owner(&self, repository: &str) -> Owner {
        let mut parts = repository.splitn(3, '/');
        let (Some(first), Some(second)) = (parts.next(), parts.next()) else { return Owner::default() };
        let Some(domain) = self.domains.get(first).and_then(BTreeSet::first) else {
            return Owner::default();
        };
        let project = self.projects.get(&(domain.clone(), second.to_owned())).and_then(BTreeSet::first);
        match project.filter(|_| parts.next().is_some()) {
            Some(project) => Owner::of_project(project),
            None => Owner::of_domain(domain),
        }
    }

    fn shown(&self, owner: &Owner) -> String {
        let domain = |id: &str| self.domain_names.get(id).map_or(id, String::as_str).to_owned();
        match (&owner.project, &owner.domain) {
            (Some(id), _) => match self.project_names.get(id) {
                Some((of, name)) => format!("project {}/{name}", domain(of)),
                None => format!("project {id}"),
            },
            (None, Some(id)) => format!("domain {}", domain(id)),
            (None, None) => "platform".to_owned(),
        }
    }
}

fn forget<K: Ord>(all: &mut BTreeMap<K, BTreeSet<String>>, key: &K, id: &str) {
    if let Some(ids) = all.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            all.remove(key);
        }
    }
}

#[cfg(test)]
#[path = "catalogue/tests.rs"]
mod tests;
