//! `gantry domain …`: organisations.

use std::time::Duration;

use anyhow::bail;
use gantry_identity_api::{Domain, DomainSpec, Group, Project, User};
use kube::ResourceExt as _;
use serde_json::{Map, Value};

use super::kinds::Kind as _;
use super::lookup::Lookup;
use super::ops::{self, EnabledArgs, GetArgs};
use super::project::delete;
use super::render::OutputArgs;
use super::{confirm, names, values};

/// Organisations that do not see each other
#[derive(clap::Subcommand, Debug)]
pub enum DomainCommand {
    /// Make a domain
    #[command(
        after_help = "Example:\n  gantry domain create acme --description 'Acme Corp.' --quota cpu=64,memory=256Gi"
    )]
    Create(CreateArgs),
    /// List the domains you see
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Show domains
    #[command(visible_alias = "show")]
    Get(GetArgs),
    /// Change a domain
    #[command(
        after_help = "Examples:\n  gantry domain set acme --quota cpu=128\n  gantry domain set acme --disable"
    )]
    Set(SetArgs),
    /// Delete a disabled domain with everything in it; shows what goes and asks for the name
    Delete(DomainDeleteArgs),
}

#[derive(clap::Args, Debug)]
pub struct CreateArgs {
    /// Unique on the platform, without '/' and ':'
    name: String,
    /// What people read beside it
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Bounds for all its projects together, NAME=QUANTITY: cpu, memory, pods, volumes, images, addresses, loadBalancers
    #[arg(long, value_name = "BOUNDS")]
    quota: Vec<String>,
    /// A word to find it by, in the Keystone API; several are possible
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
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
    /// Name or id
    domain: String,
    /// A new name; the users' names begin with it
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What people read beside it
    #[arg(long)]
    description: Option<String>,
    /// Bounds to change, NAME=QUANTITY; an empty quantity takes a bound away
    #[arg(long, value_name = "BOUNDS")]
    quota: Vec<String>,
    #[command(flatten)]
    enabled: EnabledArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct DomainDeleteArgs {
    /// Name or id
    domain: String,
    /// The name again, in place of typing it when asked
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    /// How long to wait until everything is gone, in seconds; 0: not at all
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
}

pub async fn run(command: DomainCommand, lookup: &Lookup) -> anyhow::Result<()> {
    match command {
        DomainCommand::Create(arguments) => create(arguments, lookup).await,
        DomainCommand::List(output) => {
            ops::print_list(lookup, lookup.domains().await?.to_vec(), output.output).await
        }
        DomainCommand::Get(arguments) => ops::get::<Domain>(lookup, &arguments).await,
        DomainCommand::Set(arguments) => set(arguments, lookup).await,
        DomainCommand::Delete(arguments) => delete(arguments, lookup).await,
    }
}

async fn create(arguments: CreateArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let spec = DomainSpec {
        name: Some(names::domain_name(&arguments.name)?),
        description: arguments.description,
        enabled: !arguments.disabled,
        tags: arguments.tag,
        quota: values::new_quota(&arguments.quota)?,
        ..DomainSpec::default()
    };
    let id = arguments.id.unwrap_or_else(names::new_id);
    let made = lookup.create(&Domain::new(&id, spec)).await?;
    ops::print_done(lookup, &made, "created", arguments.output.output).await
}

async fn set(arguments: SetArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let domain = lookup.domain(&arguments.domain).await?;
    let mut change = Map::new();
    if let Some(name) = &arguments.name {
        change.insert("name".to_owned(), names::domain_name(name)?.into());
    }
    if let Some(description) = arguments.description {
        change.insert("description".to_owned(), description.into());
    }
    if let Some(enabled) = arguments.enabled.wanted() {
        change.insert("enabled".to_owned(), enabled.into());
    }
    if !arguments.quota.is_empty() {
        change.insert("quota".to_owned(), serde_json::to_value(values::quota(&arguments.quota)?)?);
    }
    let changed: Domain = lookup.set(&domain.name_any(), &Value::Object(change)).await?;
    ops::print_done(lookup, &changed, "changed", arguments.output.output).await
}

async fn delete(arguments: DomainDeleteArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let domain = lookup.domain(&arguments.domain).await?;
    let (id, name) = (domain.name_any(), domain.called());
    if domain.spec.enabled {
        bail!(
            "domain {name} is enabled: `gantry domain set {name} --disable` first, and see that nobody misses it; \
             everything in it goes with it"
        );
    }
    let of = |other: Option<&str>| other == Some(id.as_str());
    let projects = lookup.all::<Project>().await?;
    let projects: Vec<&Project> = projects.iter().filter(|project| of(project.domain_id())).collect();
    let users = lookup.all::<User>().await?;
    let users: Vec<String> = users.iter().filter(|u| of(u.domain_id())).map(|u| u.name_any()).collect();
    let groups = lookup.all::<Group>().await?.iter().filter(|group| of(group.domain_id())).count();
    let known = lookup.known().await?;
    let leaving = delete::Leaving {
        projects: projects.iter().map(|project| project.name_any()).collect(),
        domain: Some(id),
        users,
    };
    let mut going = delete::with(lookup, &leaving).await?;
    let names: Vec<String> = projects.iter().map(|project| known.full_name(*project)).collect();
    let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let of_domain =
        [("users", leaving.users.len().to_string()), ("groups", groups.to_string()), ("projects", list)];
    going.others.splice(0..0, of_domain);
    eprintln!("{}", going.describe(&format!("the domain {name}")));
    confirm::by_name("domain", &name, arguments.confirm.as_deref())?;
    ops::delete_one(lookup, &domain).await?;
    if arguments.timeout > 0 {
        delete::wait(lookup, &domain, Duration::from_secs(arguments.timeout)).await?;
    }
    println!("domain {name} deleted");
    Ok(())
}
