//! `gantry project delete`: shows what goes, asks for the name, waits until it is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use gantry_identity_api::{ApplicationCredential, Project, RoleAssignment, Trust, labels};
use gantry_registry_api::Repository;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::commands::identity::kinds::{Kind, Known};
use crate::commands::identity::lookup::{Lookup, list_all};
use crate::commands::identity::{confirm, ops, render};

/// How long a project below another may take, where the caller does not wait for the last one.
const BELOW_TIMEOUT_MIN: Duration = Duration::from_secs(60);
/// In the place of a number, where the caller may not look.
const UNKNOWN: &str = "?";

#[derive(clap::Args, Debug)]
pub struct ProjectDeleteArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id
    project: String,
    /// The full name, DOMAIN/NAME, in place of typing it when asked
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    /// Show what would go, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait until everything is gone, in seconds; 0: not at all
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
}

/// Whose things go, by ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    pub projects: Vec<String>,
    pub domain: Option<String>,
    pub users: Vec<String>,
}

impl Leaving {
    fn has_project(&self, id: &str) -> bool {
        self.projects.iter().any(|project| project == id)
    }

    fn has_trust(&self, trust: &Trust) -> bool {
        let has_user = |id: &String| self.users.contains(id);
        trust.spec.project.as_deref().is_some_and(|id| self.has_project(id))
            || has_user(&trust.spec.trustor)
            || has_user(&trust.spec.trustee)
    }

    fn has_repository(&self, repository: &Repository) -> bool {
        let owner = &repository.spec.owner;
        owner.project.as_deref().is_some_and(|id| self.has_project(id))
            || (owner.domain.is_some() && owner.domain == self.domain)
    }
}

/// Everything that goes with a domain, a project or an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Going {
    /// What is not in a namespace: its name, and how many or which.
    pub others: Vec<(&'static str, String)>,
    pub namespaces: Vec<GoingNamespace>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoingNamespace {
    pub name: String,
    /// `None` where the caller may not look.
    pub pods: Option<usize>,
    pub volumes: Option<usize>,
}

impl Going {
    /// What the person who is asked reads.
    pub fn describe(&self, what: &str) -> String {
        let mut text = format!("With {what} go:\n");
        let width = self.others.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        for (label, value) in &self.others {
            text.push_str(&format!("  {label:width$}  {value}\n"));
        }
        if self.namespaces.is_empty() {
            text.push_str("  no namespaces");
            return text;
        }
        let count = |count: Option<usize>| count.map_or_else(|| UNKNOWN.to_owned(), |n| n.to_string());
        let row = |ns: &GoingNamespace| vec![ns.name.clone(), count(ns.pods), count(ns.volumes)];
        let rows = self.namespaces.iter().map(row).collect();
        for line in render::table(&["NAMESPACE", "PODS", "VOLUMES"], rows).lines() {
            text.push_str(&format!("  {line}\n"));
        }
        text.pop();
        text
    }
}

pub async fn run(arguments: ProjectDeleteArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let all = lookup.all::<Project>().await?;
    let project = lookup.find_among(&all, &arguments.project).await?;
    let tree = tree(&all, project);
    let known = lookup.known().await?;
    let name = known.full_name(project);
    let going = going(lookup, &known, &tree).await?;
    eprintln!("{}", going.describe(&format!("the project {name}")));
    if arguments.dry_run {
        return Ok(());
    }
    confirm::by_name("project", &name, arguments.confirm.as_deref())?;
    let timeout = Duration::from_secs(arguments.timeout);
    // Those below first, each until it is gone: nothing is deleted that has something below it.
    for project in tree.iter().rev() {
        ops::delete_one(lookup, *project).await?;
        let is_last = project.name_any() == tree[0].name_any();
        if !is_last || !timeout.is_zero() {
            wait(lookup, *project, timeout.max(BELOW_TIMEOUT_MIN)).await?;
        }
        println!("project {} deleted", known.full_name(*project));
    }
    Ok(())
}

/// The project and all below it, each behind the one above it.
fn tree<'a>(all: &'a [Project], top: &'a Project) -> Vec<&'a Project> {
    let mut tree = vec![top];
    let mut at = 0;
    while let Some(above) = tree.get(at).map(|project| project.name_any()) {
        let below = all.iter().filter(|project| project.spec.parent.as_deref() == Some(&above));
        let new: Vec<&Project> =
            below.filter(|p| tree.iter().all(|seen| seen.name_any() != p.name_any())).collect();
        tree.extend(new);
        at += 1;
    }
    tree
}

async fn going(lookup: &Lookup, known: &Known, tree: &[&Project]) -> anyhow::Result<Going> {
    let below: Vec<String> = tree.iter().skip(1).map(|project| known.full_name(*project)).collect();
    let projects = tree.iter().map(|project| project.name_any()).collect();
    let mut going = with(lookup, &Leaving { projects, ..Leaving::default() }).await?;
    if !below.is_empty() {
        going.others.insert(0, ("projects below it", below.join(", ")));
    }
    Ok(going)
}

/// What goes with them, beside themselves.
pub async fn with(lookup: &Lookup, leaving: &Leaving) -> anyhow::Result<Going> {
    let namespaces = match leaving.projects.is_empty() {
        true => Vec::new(),
        false => {
            let selector = format!("{} in ({})", labels::PROJECT, leaving.projects.join(","));
            let namespaces: Api<Namespace> = Api::all(lookup.client().clone());
            list_all(&namespaces, &ListParams::default().labels(&selector)).await?
        }
    };
    let names = namespaces.iter().map(|namespace| namespace.name_any());
    let assignments: Api<RoleAssignment> = Api::all(lookup.client().clone());
    let assignments = list_all(&assignments, &ListParams::default()).await?;
    let on_project =
        |a: &&RoleAssignment| a.spec.project.as_deref().is_some_and(|id| leaving.has_project(id));
    let assignments = assignments.iter().filter(on_project).count();
    let credentials = lookup.all::<ApplicationCredential>().await?;
    let credentials = credentials.iter().filter(|c| leaving.has_project(&c.spec.project)).count();
    let others = vec![
        ("assignments of roles", assignments.to_string()),
        ("application credentials", credentials.to_string()),
        ("trusts", how_many(lookup, |trust: &Trust| leaving.has_trust(trust)).await),
        (
            "repositories of images",
            how_many(lookup, |repository: &Repository| leaving.has_repository(repository)).await,
        ),
    ];
    Ok(Going { others, namespaces: counted(lookup, names).await })
}

/// Their number, as far as the caller may look.
async fn how_many<K>(lookup: &Lookup, goes: impl Fn(&K) -> bool) -> String
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let all = list_all(&Api::<K>::all(lookup.client().clone()), &ListParams::default()).await;
    all.map_or_else(
        |_| UNKNOWN.to_owned(),
        |all| all.iter().filter(|object| goes(object)).count().to_string(),
    )
}

/// The namespaces with the numbers of what runs and is kept in them.
pub async fn counted(lookup: &Lookup, names: impl Iterator<Item = String>) -> Vec<GoingNamespace> {
    let mut counted = BTreeMap::new();
    for name in names {
        let pods: Api<Pod> = Api::namespaced(lookup.client().clone(), &name);
        let volumes: Api<PersistentVolumeClaim> = Api::namespaced(lookup.client().clone(), &name);
        let pods = list_all(&pods, &ListParams::default()).await.ok().map(|all| all.len());
        let volumes = list_all(&volumes, &ListParams::default()).await.ok().map(|all| all.len());
        counted.insert(name.clone(), GoingNamespace { name, pods, volumes });
    }
    counted.into_values().collect()
}

/// Until the object is gone, with everything that hangs on it.
pub async fn wait<K: Kind>(lookup: &Lookup, object: &K, timeout: Duration) -> anyhow::Result<()> {
    let (id, uid) = (object.name_any(), object.uid().unwrap_or_default());
    let gone = await_condition(lookup.api::<K>(), &id, conditions::is_deleted(&uid));
    match tokio::time::timeout(timeout, gone).await {
        Ok(done) => {
            done.with_context(|| format!("the server does not say whether the {} is gone", K::WORD))?;
            Ok(())
        }
        Err(_) => bail!(
            "the {word} is being deleted but is not gone after {} s; see `kubectl describe {} {id}`",
            timeout.as_secs(),
            K::resource_word(),
            word = K::WORD,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_identity_api::{ProjectSpec, TrustSpec};
    use gantry_registry_api::{Owner, RepositorySpec};

    #[test]
    fn everything_below_goes_and_nothing_else() {
        let project = |id: &str, parent: Option<&str>| {
            let spec = ProjectSpec { parent: parent.map(str::to_owned), ..ProjectSpec::default() };
            Project::new(id, spec)
        };
        let all = [
            project("cart-api", Some("cart")),
            project("web", None),
            project("cart", Some("web")),
            project("lab", None),
            project("shop", Some("web")),
        ];
        let ids: Vec<String> = tree(&all, &all[1]).iter().map(|p| p.name_any()).collect();
        assert_eq!(ids, ["web", "cart", "shop", "cart-api"]);
        // A cycle, which the server refuses to make, ends.
        let circle = [project("a", Some("b")), project("b", Some("a"))];
        assert_eq!(tree(&circle, &circle[0]).len(), 2);
    }

    #[test]
    fn trusts_and_repositories_go_with_whose_they_are() {
        let of_project = Leaving { projects: vec!["web".to_owned()], ..Leaving::default() };
        let of_domain = Leaving {
            projects: vec!["web".to_owned()],
            domain: Some("acme".to_owned()),
            users: vec!["alice".to_owned()],
        };
        for (owner, with_project, with_domain) in [
            (Owner::of_project("web"), true, true),
            (Owner::of_project("lab"), false, false),
            (Owner::of_domain("acme"), false, true),
            (Owner::of_domain("globex"), false, false),
            // The platform's is nobody's.
            (Owner::default(), false, false),
        ] {
            let spec = RepositorySpec { owner: owner.clone(), ..RepositorySpec::default() };
            let repository = Repository::new("x", spec);
            let goes = (of_project.has_repository(&repository), of_domain.has_repository(&repository));
            assert_eq!(goes, (with_project, with_domain), "{owner}");
        }
        for (trustor, trustee, project, with_project, with_domain) in [
            ("eve", "bob", Some("web"), true, true),
            ("eve", "bob", Some("lab"), false, false),
            ("alice", "bob", None, false, true),
            ("eve", "alice", Some("lab"), false, true),
        ] {
            let spec = TrustSpec {
                trustor: trustor.to_owned(),
                trustee: trustee.to_owned(),
                project: project.map(str::to_owned),
                ..TrustSpec::default()
            };
            let trust = Trust::new("x", spec);
            let goes = (of_project.has_trust(&trust), of_domain.has_trust(&trust));
            assert_eq!(goes, (with_project, with_domain), "{trustor} {trustee} {project:?}");
        }
    }

    #[test]
    fn what_goes_is_shown() {
        let namespace = |name: &str, pods, volumes| GoingNamespace { name: name.to_owned(), pods, volumes };
        let going = Going {
            others: vec![
                ("projects below it", "acme/cart".to_owned()),
                ("assignments of roles", "4".to_owned()),
                ("application credentials", "1".to_owned()),
                ("trusts", "0".to_owned()),
                ("repositories of images", "?".to_owned()),
            ],
            namespaces: vec![namespace("web-dev", Some(12), Some(2)), namespace("cart-prod", Some(0), None)],
        };
        insta::assert_snapshot!(going.describe("the project acme/web"), @r"
        With the project acme/web go:
          projects below it        acme/cart
          assignments of roles     4
          application credentials  1
          trusts                   0
          repositories of images   ?
          NAMESPACE   PODS   VOLUMES
          web-dev     12     2
          cart-prod   0      ?
        ");
        insta::assert_snapshot!(Going::default().describe("the environment dev"), @r"
        With the environment dev go:
          no namespaces
        ");
    }
}
