//! Whose each repository is: objects, and names where there is no object yet.
//!
//! The object decides. Only a repository that has none is judged by its name: `DOMAIN/PROJECT/…` is the project's,
//! `DOMAIN/…` the domain's, everything else the platform's. With the first image the object is made, and from then on
//! a project that comes later, or is renamed, takes nothing over.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use gantry_host::Host;
use gantry_identity_api::{Domain, Named, Project};
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
    pub(crate) async fn follow(&self, host: &Host) -> Informer<Repository> {
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
        repositories
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

    /// The id of the project whose the repository is; less work than [`Catalogue::facts`].
    pub(crate) fn project(&self, repository: &str) -> Option<String> {
        let found = self.0.following.get()?.repositories.get("", &object_name(repository));
        match found.filter(|found| found.spec.name == repository) {
            Some(found) => found.spec.owner.project.clone(),
            None => self.owner_by_name(repository).project,
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
        self.0.names.read().unwrap_or_else(PoisonError::into_inner).owner(repository)
    }

    /// Every bound in bytes that holds for the repository, with the repositories that it bounds together.
    /// `all` is asked where there is a quota above the repository.
    pub(crate) fn bounds(&self, facts: &Facts, all: impl FnOnce() -> Vec<RepositoryName>) -> Vec<Bound> {
        let mut bounds = Vec::new();
        let own = facts.rules.quota.as_deref().and_then(quantity);
        if let (Some(bytes_max), Ok(name)) = (own, facts.name.parse()) {
            let whose = format!("repository {}", facts.name);
            bounds.push(Bound { whose, bytes_max, repositories: HashSet::from([name]) });
        }
        let above = {
            let names = self.0.names.read().unwrap_or_else(PoisonError::into_inner);
            names.bounds(&facts.owner)
        };
        if above.is_empty() {
            return bounds;
        }
        let all = all();
        // The one that is pushed to may have no image yet: it adds nothing but what is pushed.
        let owners: Vec<(&RepositoryName, Owner)> =
            all.iter().filter_map(|name| Some((name, self.facts(name.as_str())?.owner))).collect();
        let names = self.0.names.read().unwrap_or_else(PoisonError::into_inner);
        for (place, bytes_max) in above {
            let inside = owners.iter().filter(|(_, owner)| names.above(owner).contains(&place));
            let repositories = inside.map(|(name, _)| (*name).clone()).collect();
            bounds.push(Bound { whose: names.shown(&place), bytes_max, repositories });
        }
        bounds
    }

    /// Where the owner is, as policies say it.
    pub(crate) fn place(&self, owner: &Owner) -> Place {
        let names = self.0.names.read().unwrap_or_else(PoisonError::into_inner);
        let of_project = owner.project.as_ref().and_then(|id| names.project_names.get(id));
        let domain = owner.domain.clone().or_else(|| of_project.map(|(domain, _)| domain.clone()));
        Place { domain, project: owner.project.clone(), environment: None }
    }

    /// The owner as people call it.
    pub(crate) fn shown(&self, owner: &Owner) -> String {
        self.0.names.read().unwrap_or_else(PoisonError::into_inner).shown(owner)
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
}

/// A tree that is deeper is no tree.
const PARENTS_MAX: usize = 64;

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

    /// The owner, and what it lies in: projects above it, and the domain.
    fn above(&self, owner: &Owner) -> Vec<Owner> {
        let mut all = vec![owner.clone()];
        let Some(mut project) = owner.project.clone() else { return all };
        let domain = self.project_names.get(&project).map(|(domain, _)| Owner::of_domain(domain));
        while let Some(parent) = self.parents.get(&project).filter(|_| all.len() < PARENTS_MAX) {
            all.push(Owner::of_project(parent));
            project.clone_from(parent);
        }
        all.extend(domain);
        all
    }

    /// Who of them has a quota.
    fn bounds(&self, owner: &Owner) -> Vec<(Owner, u64)> {
        let above = self.above(owner).into_iter();
        above.filter_map(|place| self.quotas.get(&place).copied().map(|bytes| (place, bytes))).collect()
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
mod tests {
    use super::*;
    use gantry_identity_api::{DomainSpec, ProjectSpec};

    fn domain(id: &str, name: &str) -> Option<Arc<Domain>> {
        let spec = DomainSpec { name: Some(name.to_owned()), ..DomainSpec::default() };
        Some(Arc::new(Domain::new(id, spec)))
    }

    fn project(id: &str, domain: &str, name: &str) -> Option<Arc<Project>> {
        let spec =
            ProjectSpec { name: Some(name.to_owned()), domain: domain.to_owned(), ..ProjectSpec::default() };
        Some(Arc::new(Project::new(id, spec)))
    }

    fn quotas_hold_for_what_lies_below() {
        let mut names = Names::default();
        let images =
            |bytes: &str| gantry_identity_api::Quota { images: Some(bytes.to_owned()), ..Default::default() };
        let with_quota = |id: &str, parent: Option<&str>, bytes: Option<&str>| {
            let mut project = project(id, "d1", id).as_deref().cloned().expect("a project");
            project.spec.parent = parent.map(str::to_owned);
            project.spec.quota = bytes.map(images).unwrap_or_default();
            Change { old: None, new: Some(Arc::new(project)) }
        };
        names.project(&with_quota("top", None, Some("10Gi")));
        names.project(&with_quota("below", Some("top"), None));
        names.project(&with_quota("beside", None, Some("1Gi")));
        let mut acme = domain("d1", "acme").as_deref().cloned().expect("a domain");
        acme.spec.quota = images("100Gi");
        names.domain(&Change { old: None, new: Some(Arc::new(acme)) });
        let shown = |owner: Owner| {
            let bounds = names.bounds(&owner);
            bounds
                .iter()
                .map(|(place, bytes)| format!("{place}={}Gi", bytes >> 30))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(shown(Owner::of_project("below")), "project:top=10Gi domain:d1=100Gi");
        assert_eq!(shown(Owner::of_project("beside")), "project:beside=1Gi domain:d1=100Gi");
        assert_eq!(shown(Owner::of_domain("d1")), "domain:d1=100Gi");
        assert_eq!(shown(Owner::default()), "");
    }

    #[test]
    fn names_say_whose_a_new_repository_is() {
        let mut names = Names::default();
        names.domain(&Change { old: None, new: domain("d1", "acme") });
        names.project(&Change { old: None, new: project("p1", "d1", "web") });
        for (repository, owner, shown) in [
            ("acme/web/front", "project:p1", "project acme/web"),
            ("acme/web/front/end", "project:p1", "project acme/web"),
            ("acme/web", "domain:d1", "domain acme"),
            ("acme/base/debian", "domain:d1", "domain acme"),
            ("acme", "platform", "platform"),
            ("d1/p1/x", "platform", "platform"),
            ("demo/hello", "platform", "platform"),
            ("library/acme/web", "platform", "platform"),
        ] {
            let found = names.owner(repository);
            assert_eq!((found.to_string().as_str(), names.shown(&found).as_str()), (owner, shown));
        }
        quotas_hold_for_what_lies_below();
        names.project(&Change { old: project("p1", "d1", "web"), new: project("p1", "d1", "site") });
        names.project(&Change { old: None, new: project("p2", "d1", "web") });
        assert_eq!(names.owner("acme/web/front").to_string(), "project:p2");
        assert_eq!(names.shown(&Owner::of_project("p1")), "project acme/site");
        names.domain(&Change { old: domain("d1", "acme"), new: None });
        assert_eq!(names.owner("acme/web/front"), Owner::default());
        assert_eq!(names.shown(&Owner::of_project("gone")), "project gone");
    }
}
