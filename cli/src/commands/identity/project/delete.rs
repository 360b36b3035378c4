//! `gantry project delete`: shows what goes, asks for the name, waits until it is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use gantry_identity_api::{ApplicationCredential, Project, RoleAssignment, labels};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt as _};

use crate::commands::identity::kinds::{Kind, Known};
use crate::commands::identity::lookup::{Lookup, list_all};
use crate::commands::identity::{confirm, ops, render};

/// How long a project below another may take, where the caller does not wait for the last one.
const BELOW_TIMEOUT_MIN: Duration = Duration::from_secs(60);

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
    let mut going = of_projects(lookup, tree).await?;
    if !below.is_empty() {
        going.others.insert(0, ("projects below it", below.join(", ")));
    }
    Ok(going)
}

/// What goes with projects, beside themselves.
pub async fn of_projects(lookup: &Lookup, projects: &[&Project]) -> anyhow::Result<Going> {
    if projects.is_empty() {
        return Ok(Going::default());
    }
    let ids: Vec<String> = projects.iter().map(|project| project.name_any()).collect();
    let has = |id: &String| ids.contains(id);
    let selector = format!("{} in ({})", labels::PROJECT, ids.join(","));
    let namespaces: Api<Namespace> = Api::all(lookup.client().clone());
    let namespaces = list_all(&namespaces, &ListParams::default().labels(&selector)).await?;
    let names = namespaces.iter().map(|namespace| namespace.name_any());
    let assignments: Api<RoleAssignment> = Api::all(lookup.client().clone());
    let assignments = list_all(&assignments, &ListParams::default()).await?;
    let assignments = assignments.iter().filter(|a| a.spec.project.as_ref().is_some_and(has)).count();
    let credentials = lookup.all::<ApplicationCredential>().await?;
    let credentials = credentials.iter().filter(|c| has(&c.spec.project)).count();
    let others = vec![
        ("assignments of roles", assignments.to_string()),
        ("application credentials", credentials.to_string()),
    ];
    Ok(Going { others, namespaces: counted(lookup, names).await })
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
            others: vec![
                ("projects below it", "acme/cart".to_owned()),
                ("assignments of roles", "4".to_owned()),
                ("application credentials", "1".to_owned()),
            ],
            namespaces: vec![namespace("web-dev", Some(12), Some(2)), namespace("cart-prod", Some(0), None)],
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
