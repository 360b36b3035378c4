//! `gantry project …`: tenants, their tree and their environments.

pub(super) mod delete;
mod environment;

use gantry_identity_api::{Project, ProjectSpec};
use kube::ResourceExt as _;
use serde_json::{Map, Value};

use super::lookup::Lookup;
use super::names::{self, Name};
use super::ops::{self, EnabledArgs, GetArgs, ListArgs};
use super::render::OutputArgs;
use super::values::{self, PodSecurity};

/// Tenants: rights, quotas and environments hang on them
#[derive(clap::Subcommand, Debug)]
pub enum ProjectCommand {
    /// Make a project
    #[command(after_help = "\
Examples:
  gantry project create acme/web --environment dev --environment prod --quota cpu=8,memory=16Gi,pods=50
  gantry project create acme/cart --parent acme/web --quota cpu=2")]
    Create(Box<CreateArgs>),
    /// List the projects you see
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show projects
    #[command(visible_alias = "show")]
    Get(GetArgs),
    /// Change a project
    #[command(
        after_help = "Example:\n  gantry project set acme/web --quota cpu=16,pods= --pod-security restricted"
    )]
    Set(Box<SetArgs>),
    /// Delete a project with everything in it; shows what goes and asks for the name
    #[command(
        after_help = "Examples:\n  gantry project delete acme/web\n  gantry project delete acme/web --confirm acme/web"
    )]
    Delete(delete::ProjectDeleteArgs),
    /// The namespaces of a project: dev, test, prod, …
    #[command(subcommand, visible_alias = "env")]
    Environment(environment::EnvironmentCommand),
}

#[derive(clap::Args, Debug)]
pub struct CreateArgs {
    /// DOMAIN/NAME, or NAME in your own domain
    name: Name,
    /// The project above it, whose quota it is carved from
    #[arg(long, value_name = "PROJECT")]
    parent: Option<String>,
    /// What people read beside it
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// An environment: the namespace PROJECT-ENVIRONMENT; several are possible
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: Vec<String>,
    /// Bounds with the projects below it, NAME=QUANTITY: cpu, memory, pods, volumes, images, addresses, loadBalancers
    ///
    /// addresses are those outside the cluster: one for each service of type LoadBalancer, which counts as a
    /// loadBalancer too, and one for each of a service's externalIPs. volumes and images are bytes; cpu and memory are
    /// what pods ask for.
    #[arg(long, value_name = "BOUNDS")]
    quota: Vec<String>,
    /// Put on every namespace, KEY=VALUE
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// A word to find it by, in the Keystone API; several are possible
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// The Pod Security Standard that is enforced
    #[arg(long, value_enum, default_value = "baseline", value_name = "LEVEL")]
    pod_security: PodSecurity,
    /// Record terminal sessions (exec, attach)
    #[arg(long)]
    record_sessions: bool,
    /// Make it, but let nobody use it yet
    #[arg(long)]
    disabled: bool,
    /// The object's name (id) [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct SetArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id
    project: String,
    /// A new name, without the domain
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What people read beside it
    #[arg(long)]
    description: Option<String>,
    /// Bounds to change, NAME=QUANTITY; an empty quantity takes a bound away
    #[arg(long, value_name = "BOUNDS")]
    quota: Vec<String>,
    /// Labels to put on every namespace, KEY=VALUE
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// The Pod Security Standard that is enforced
    #[arg(long, value_enum, value_name = "LEVEL")]
    pod_security: Option<PodSecurity>,
    /// Record terminal sessions (exec, attach)
    #[arg(long, value_name = "true|false")]
    record_sessions: Option<bool>,
    #[command(flatten)]
    enabled: EnabledArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(command: ProjectCommand, lookup: &Lookup) -> anyhow::Result<()> {
    match command {
        ProjectCommand::Create(arguments) => create(*arguments, lookup).await,
        ProjectCommand::List(arguments) => ops::list::<Project>(lookup, &arguments).await,
        ProjectCommand::Get(arguments) => ops::get::<Project>(lookup, &arguments).await,
        ProjectCommand::Set(arguments) => set(*arguments, lookup).await,
        ProjectCommand::Delete(arguments) => delete::run(arguments, lookup).await,
        ProjectCommand::Environment(command) => environment::run(command, lookup).await,
    }
}

async fn create(arguments: CreateArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let domain = lookup.domain_id(arguments.name.domain.as_deref()).await?;
    let parent = match &arguments.parent {
        Some(name) => {
            let parent = lookup.find::<Project>(name).await?;
            anyhow::ensure!(parent.spec.domain == domain, "project {name} is of another domain");
            Some(parent.name_any())
        }
        None => None,
    };
    let environment = |name: String| gantry_identity_api::Environment { name, ..Default::default() };
    let spec = ProjectSpec {
        name: Some(arguments.name.name),
        domain,
        parent,
        description: arguments.description,
        enabled: !arguments.disabled,
        tags: arguments.tag,
        labels: values::labels(&arguments.label)?,
        environments: arguments.environment.into_iter().map(environment).collect(),
        quota: values::new_quota(&arguments.quota)?,
        pod_security: arguments.pod_security.into(),
        record_sessions: arguments.record_sessions,
        ..ProjectSpec::default()
    };
    let id = arguments.id.unwrap_or_else(names::new_id);
    let made = lookup.create(&Project::new(&id, spec)).await?;
    ops::print_done(lookup, &made, "created", arguments.output.output).await
}

async fn set(arguments: SetArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let project = lookup.find::<Project>(&arguments.project).await?;
    let mut change = Map::new();
    for (field, value) in [("name", arguments.name), ("description", arguments.description)] {
        if let Some(value) = value {
            change.insert(field.to_owned(), value.into());
        }
    }
    if let Some(enabled) = arguments.enabled.wanted() {
        change.insert("enabled".to_owned(), enabled.into());
    }
    if let Some(level) = arguments.pod_security {
        change.insert(
            "podSecurity".to_owned(),
            gantry_identity_api::PodSecurityLevel::from(level).as_str().into(),
        );
    }
    if let Some(record) = arguments.record_sessions {
        change.insert("recordSessions".to_owned(), record.into());
    }
    if !arguments.quota.is_empty() {
        change.insert("quota".to_owned(), serde_json::to_value(values::quota(&arguments.quota)?)?);
    }
    if !arguments.label.is_empty() {
        change.insert("labels".to_owned(), serde_json::to_value(values::labels(&arguments.label)?)?);
    }
    let changed: Project = lookup.set(&project.name_any(), &Value::Object(change)).await?;
    ops::print_done(lookup, &changed, "changed", arguments.output.output).await
}
