//! `gantry project delete`: shows what goes, asks for the name, waits until it is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use gantry_identity_api::{ApplicationCredential, Project, RoleAssignment, labels};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt as _};

use crate::commands::identity::kinds::Known;
use crate::commands::identity::lookup::{Lookup, list_all};
use crate::commands::identity::{confirm, ops, render};

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

/// Everything that goes with a project or an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Going {
    /// Full names, the project itself first.
    pub projects: Vec<String>,
    pub namespaces: Vec<GoingNamespace>,
    pub assignments: usize,
    pub credentials: usize,
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
        let below = self.projects.iter().skip(1).map(String::as_str).collect::<Vec<_>>();
        if !below.is_empty() {
            text.push_str(&format!("  projects below it        {}\n", below.join(", ")));
        }
        if !self.projects.is_empty() {
            text.push_str(&format!("  assignments of roles     {}\n", self.assignments));
            text.push_str(&format!("  application credentials  {}\n", self.credentials));
        }
        if self.namespaces.is_empty() {
            text.push_str("  no namespaces");
            return text;
        }
        let count = |count: Option<usize>| count.map_or_else(|| "?".to_owned(), |n| n.to_string());
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
    // Those below first: nothing is left without the project above it.
    for project in tree.iter().rev() {
        ops::delete_one(lookup, *project).await?;
    }
    if arguments.timeout > 0 {
        wait(lookup, &tree, Duration::from_secs(arguments.timeout)).await?;
    }
    for project in tree.iter().rev() {
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
    let ids: Vec<String> = tree.iter().map(|project| project.name_any()).collect();
    let has = |id: &String| ids.contains(id);
    let selector = format!("{} in ({})", labels::PROJECT, ids.join(","));
    let namespaces: Api<Namespace> = Api::all(lookup.client().clone());
    let namespaces = list_all(&namespaces, &ListParams::default().labels(&selector)).await?;
    let names = namespaces.iter().map(|namespace| namespace.name_any());
    let assignments: Api<RoleAssignment> = Api::all(lookup.client().clone());
    let assignments = list_all(&assignments, &ListParams::default()).await?;
    let credentials = lookup.all::<ApplicationCredential>().await?;
    Ok(Going {
        projects: tree.iter().map(|project| known.full_name(*project)).collect(),
        namespaces: counted(lookup, names).await,
        assignments: assignments.iter().filter(|a| a.spec.project.as_ref().is_some_and(has)).count(),
        credentials: credentials.iter().filter(|c| has(&c.spec.project)).count(),
    })
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

async fn wait(lookup: &Lookup, tree: &[&Project], timeout: Duration) -> anyhow::Result<()> {
    let all_gone = async {
        for project in tree {
            let uid = project.uid().unwrap_or_default();
            let gone = conditions::is_deleted(&uid);
            await_condition(lookup.api::<Project>(), &project.name_any(), gone).await?;
        }
        Ok::<_, kube::runtime::wait::Error>(())
    };
    match tokio::time::timeout(timeout, all_gone).await {
        Ok(done) => done.context("the server does not say whether the project is gone"),
        Err(_) => bail!(
            "the project is being deleted but is not gone after {} s; see `kubectl describe project {}`",
            timeout.as_secs(),
            tree.first().map(|project| project.name_any()).unwrap_or_default()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_identity_api::ProjectSpec;

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
    fn what_goes_is_shown() {
        let namespace = |name: &str, pods, volumes| GoingNamespace { name: name.to_owned(), pods, volumes };
        let going = Going {
            projects: vec!["acme/web".to_owned(), "acme/cart".to_owned()],
            namespaces: vec![namespace("web-dev", Some(12), Some(2)), namespace("cart-prod", Some(0), None)],
            assignments: 4,
            credentials: 1,
        };
        insta::assert_snapshot!(going.describe("the project acme/web"), @r"
        With the project acme/web go:
          projects below it        acme/cart
          assignments of roles     4
          application credentials  1
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
