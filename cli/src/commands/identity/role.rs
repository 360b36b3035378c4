//! `gantry role …`: sets of rights.

use gantry_identity_api::{Role, RoleSpec};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::ResourceExt as _;
use serde_json::{Map, Value};

use super::lookup::Lookup;
use super::names::{self, Name};
use super::ops::{self, DeleteArgs, GetArgs, ListArgs};
use super::render::OutputArgs;
use super::rules;

const RULES_HELP: &str = "\
A rule is RESOURCES:VERBS, each a list with commas. A resource is RESOURCE or GROUP/RESOURCE, with /SUBRESOURCE
where it has one; * is everything. Services without objects have resources too:
  pods,pods/log:get,list,watch
  apps/deployments:get,list,patch
  registry.gantry.dev/repositories:pull,push
  logs.gantry.dev/logs:get    the logs of pods, as pods/log:get

Examples:
  gantry role create deployer --rule 'apps/deployments:*' --rule 'registry.gantry.dev/repositories:pull' --implies reader
  gantry role create acme/auditor --rule 'audit.gantry.dev/records:get,list'";

/// Sets of rights, made of Kubernetes RBAC rules
#[derive(clap::Subcommand, Debug)]
pub enum RoleCommand {
    /// Make a role
    #[command(after_help = RULES_HELP)]
    Create(CreateArgs),
    /// List the roles you see
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show roles; -o wide has their rules
    #[command(visible_alias = "show")]
    Get(GetArgs),
    /// Change a role
    #[command(after_help = RULES_HELP)]
    Set(SetArgs),
    /// Delete roles, with their assignments
    Delete(DeleteArgs),
}

#[derive(clap::Args, Debug)]
pub struct CreateArgs {
    /// NAME for a role of the whole platform, DOMAIN/NAME for one of a domain
    name: Name,
    /// What people read beside it
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// What it permits; several are possible
    #[arg(long, value_name = "RULE")]
    rule: Vec<String>,
    /// A role that comes with it; several are possible
    #[arg(long, value_name = "ROLE")]
    implies: Vec<String>,
    /// The object's name (id) [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct SetArgs {
    /// NAME, DOMAIN/NAME or an id
    role: String,
    /// A new name, without the domain
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What people read beside it
    #[arg(long)]
    description: Option<String>,
    /// What it permits, in place of all it permits now
    #[arg(long, value_name = "RULE")]
    rule: Vec<String>,
    /// Roles that come with it, in place of all that do now; '' for none
    #[arg(long, value_name = "ROLE")]
    implies: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(command: RoleCommand, lookup: &Lookup) -> anyhow::Result<()> {
    match command {
        RoleCommand::Create(arguments) => create(arguments, lookup).await,
        RoleCommand::List(arguments) => ops::list::<Role>(lookup, &arguments).await,
        RoleCommand::Get(arguments) => ops::get::<Role>(lookup, &arguments).await,
        RoleCommand::Set(arguments) => set(arguments, lookup).await,
        RoleCommand::Delete(arguments) => ops::delete::<Role>(lookup, &arguments).await,
    }
}

fn parse_rules(texts: &[String]) -> anyhow::Result<Vec<PolicyRule>> {
    let mut all = Vec::new();
    for text in texts {
        all.extend(rules::parse(text)?);
    }
    Ok(all)
}

async fn ids(names: &[String], lookup: &Lookup) -> anyhow::Result<Vec<String>> {
    let all = lookup.all::<Role>().await?;
    let mut ids = Vec::with_capacity(names.len());
    for name in names.iter().filter(|name| !name.is_empty()) {
        ids.push(lookup.find_among(&all, name).await?.name_any());
    }
    Ok(ids)
}

async fn create(arguments: CreateArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let domain = match &arguments.name.domain {
        Some(domain) => Some(lookup.domain_id(Some(domain)).await?),
        None => None,
    };
    let spec = RoleSpec {
        name: Some(arguments.name.name),
        domain,
        description: arguments.description,
        rules: parse_rules(&arguments.rule)?,
        implies: if arguments.implies.is_empty() {
            Vec::new()
        } else {
            ids(&arguments.implies, lookup).await?
        },
        ..RoleSpec::default()
    };
    let id = arguments.id.unwrap_or_else(names::new_id);
    let made = lookup.create(&Role::new(&id, spec)).await?;
    ops::print_done(lookup, &made, "created", arguments.output.output).await
}

async fn set(arguments: SetArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let role = lookup.find::<Role>(&arguments.role).await?;
    let mut change = Map::new();
    for (field, value) in [("name", arguments.name), ("description", arguments.description)] {
        if let Some(value) = value {
            change.insert(field.to_owned(), value.into());
        }
    }
    if !arguments.rule.is_empty() {
        change.insert("rules".to_owned(), serde_json::to_value(parse_rules(&arguments.rule)?)?);
    }
    if !arguments.implies.is_empty() {
        change.insert("implies".to_owned(), ids(&arguments.implies, lookup).await?.into());
    }
    let changed: Role = lookup.set(&role.name_any(), &Value::Object(change)).await?;
    ops::print_done(lookup, &changed, "changed", arguments.output.output).await
}
