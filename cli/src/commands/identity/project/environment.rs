//! `gantry project environment …`: one namespace each.

use anyhow::bail;
use gantry_identity_api::{Environment, Project};
use kube::ResourceExt as _;
use serde::Serialize;

use super::delete::{Going, counted};
use crate::commands::identity::confirm;
use crate::commands::identity::kinds;
use crate::commands::identity::lookup::Lookup;
use crate::commands::identity::render::{self, Output, OutputArgs};
use crate::commands::identity::values::{self, PodSecurity};

#[derive(clap::Subcommand, Debug)]
pub enum EnvironmentCommand {
    /// Add an environment: a namespace with the project's rights and bounds
    #[command(after_help = "Example:\n  gantry project environment add acme/web test --quota pods=20")]
    Add(AddArgs),
    /// List a project's environments
    #[command(visible_alias = "ls")]
    List(EnvironmentListArgs),
    /// Remove an environment with its namespace and everything in it; asks for the name
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
}

#[derive(clap::Args, Debug)]
pub struct AddArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id
    project: String,
    /// dev, test, prod, …
    environment: String,
    /// The namespace [default: PROJECT-ENVIRONMENT]
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// A stricter Pod Security Standard than the project's
    #[arg(long, value_enum, value_name = "LEVEL")]
    pod_security: Option<PodSecurity>,
    /// Bounds of this environment alone, NAME=QUANTITY
    #[arg(long, value_name = "BOUNDS")]
    quota: Vec<String>,
    /// Put on the namespace, KEY=VALUE
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
}

#[derive(clap::Args, Debug)]
pub struct EnvironmentListArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id
    project: String,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct RemoveArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id
    project: String,
    /// Its name
    environment: String,
    /// The namespace's name, in place of typing it when asked
    #[arg(long, value_name = "NAMESPACE")]
    confirm: Option<String>,
}

pub async fn run(command: EnvironmentCommand, lookup: &Lookup) -> anyhow::Result<()> {
    match command {
        EnvironmentCommand::Add(arguments) => add(arguments, lookup).await,
        EnvironmentCommand::List(arguments) => {
            let project = lookup.find::<Project>(&arguments.project).await?;
            list(&project, arguments.output.output)
        }
        EnvironmentCommand::Remove(arguments) => remove(&arguments, lookup).await,
    }
}

async fn add(arguments: AddArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let project = lookup.find::<Project>(&arguments.project).await?;
    let name = lookup.known().await?.full_name(&project);
    let environment = Environment {
        name: arguments.environment.clone(),
        namespace: arguments.namespace,
        pod_security: arguments.pod_security.map(Into::into),
        quota: values::new_quota(&arguments.quota)?,
        labels: values::labels(&arguments.label)?,
    };
    let id = project.name_any();
    let added = lookup.update::<Project>(&id, |project| {
        if project.spec.environments.iter().any(|e| e.name == environment.name) {
            bail!("project {name} has an environment {} already", environment.name);
        }
        project.spec.environments.push(environment.clone());
        Ok(true)
    });
    let project = added.await?.unwrap_or(project);
    println!(
        "environment {} added to project {name}: namespace {}",
        environment.name,
        namespace(&project, &environment)
    );
    Ok(())
}

/// The namespace an environment is: as the server says, or as it will be.
fn namespace(project: &Project, environment: &Environment) -> String {
    let known = project.status.iter().flat_map(|status| &status.environments);
    let mut known = known.filter(|status| status.name == environment.name && !status.namespace.is_empty());
    let derived = || format!("{}-{}", gantry_identity_api::Named::display_name(project), environment.name);
    known
        .next()
        .map(|s| s.namespace.clone())
        .or_else(|| environment.namespace.clone())
        .unwrap_or_else(derived)
}

/// An environment, as the list shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    namespace: String,
    pod_security: &'static str,
    quota: String,
    /// `Ready`, or what is wrong.
    state: String,
}

fn rows(project: &Project) -> Vec<Row> {
    let row = |environment: &Environment| {
        let known = project.status.iter().flat_map(|status| &status.environments);
        let state = known.filter(|s| s.name == environment.name).map(|s| s.problem.clone()).next();
        Row {
            name: environment.name.clone(),
            namespace: namespace(project, environment),
            pod_security: environment.pod_security.unwrap_or(project.spec.pod_security).as_str(),
            quota: kinds::quota(&environment.quota),
            state: match state {
                None => "Pending".to_owned(),
                Some(problem) if problem.is_empty() => "Ready".to_owned(),
                Some(problem) => problem,
            },
        }
    };
    project.spec.environments.iter().map(row).collect()
}

fn list(project: &Project, output: Output) -> anyhow::Result<()> {
    let rows = rows(project);
    if let Some(text) = render::structured(&rows, output)? {
        println!("{text}");
        return Ok(());
    }
    if output == Output::Name {
        rows.iter().for_each(|row| println!("namespace/{}", row.namespace));
        return Ok(());
    }
    let cells = |row: Row| vec![row.name, row.namespace, row.pod_security.to_owned(), row.quota, row.state];
    let cells = rows.into_iter().map(cells).collect();
    println!("{}", render::table(&["NAME", "NAMESPACE", "POD-SECURITY", "QUOTA", "STATE"], cells));
    Ok(())
}

async fn remove(arguments: &RemoveArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let project = lookup.find::<Project>(&arguments.project).await?;
    let name = lookup.known().await?.full_name(&project);
    let wanted = &arguments.environment;
    let Some(environment) = project.spec.environments.iter().find(|e| &e.name == wanted) else {
        bail!("project {name} has no environment {wanted}");
    };
    let namespace = namespace(&project, environment);
    let namespaces = counted(lookup, std::iter::once(namespace.clone())).await;
    let going = Going { namespaces, ..Going::default() };
    eprintln!("{}", going.describe(&format!("the environment {wanted} of project {name}")));
    confirm::by_name("namespace", &namespace, arguments.confirm.as_deref())?;
    let id = project.name_any();
    let removed = lookup.update::<Project>(&id, |project| {
        let before = project.spec.environments.len();
        project.spec.environments.retain(|e| &e.name != wanted);
        Ok(project.spec.environments.len() != before)
    });
    removed.await?;
    println!("environment {wanted} removed from project {name}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_identity_api::{EnvironmentStatus, ProjectSpec, ProjectStatus};

    #[test]
    fn environments_show_their_namespaces_and_what_is_wrong() {
        let environment = |name: &str| Environment { name: name.to_owned(), ..Environment::default() };
        let spec = ProjectSpec {
            name: Some("web".to_owned()),
            environments: vec![environment("dev"), environment("prod"), environment("new")],
            ..ProjectSpec::default()
        };
        let status = |name: &str, namespace: &str, problem: &str| EnvironmentStatus {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            problem: problem.to_owned(),
            ..EnvironmentStatus::default()
        };
        let mut project = Project::new("1", spec);
        project.status = Some(ProjectStatus {
            environments: vec![
                status("dev", "web-dev", ""),
                status("prod", "web-prod", "namespace web-prod is another project's"),
            ],
            ..ProjectStatus::default()
        });
        let shown: Vec<String> =
            rows(&project).into_iter().map(|r| format!("{} {} {}", r.name, r.namespace, r.state)).collect();
        assert_eq!(
            shown,
            [
                "dev web-dev Ready",
                "prod web-prod namespace web-prod is another project's",
                "new web-new Pending"
            ]
        );
    }
}
