//! `gantry assign`, `gantry unassign`: who has which role where.

use anyhow::{anyhow, bail};
use gantry_identity_api::{Group, Project, Role, RoleAssignment, RoleAssignmentSpec, User};
use http::Method;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde::{Deserialize, Serialize};

use super::lookup::{Lookup, list_all, plain};
use super::render::{self, Output, OutputArgs};
use super::values::escaped;
use crate::Context;
use crate::keystone::Reference;

/// Who, which role and where: of `assign` and of `unassign`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct AssignmentArgs {
    /// NAME, DOMAIN/NAME or an id
    #[arg(required = true)]
    role: Option<String>,
    /// The user who has it
    #[arg(long, value_name = "USER", group = "actor")]
    user: Option<String>,
    /// The group whose users have it
    #[arg(long, value_name = "GROUP", group = "actor")]
    group: Option<String>,
    /// In a project
    #[arg(long, value_name = "PROJECT", group = "target")]
    project: Option<String>,
    /// In a domain: its users, groups and projects
    #[arg(long, value_name = "DOMAIN", group = "target")]
    domain: Option<String>,
    /// On the whole platform
    #[arg(long, group = "target")]
    system: bool,
    /// Not there itself, but in every project below
    #[arg(long, conflicts_with = "system")]
    inherited: bool,
}

#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  gantry assign member --group acme/devs --project acme/web
  gantry assign admin --user acme/alice --domain acme
  gantry assign reader --user acme/audrey --domain acme --inherited
  gantry assign list --user acme/alice --effective"
)]
pub struct AssignArgs {
    #[command(flatten)]
    assignment: AssignmentArgs,
    #[command(subcommand)]
    command: Option<AssignCommand>,
}

#[derive(clap::Subcommand, Debug)]
enum AssignCommand {
    /// List assignments
    #[command(visible_alias = "ls")]
    List(AssignListArgs),
}

#[derive(clap::Args, Debug)]
pub struct AssignListArgs {
    /// Only of this user
    #[arg(long, value_name = "USER", group = "list_actor")]
    user: Option<String>,
    /// Only of this group
    #[arg(long, value_name = "GROUP", group = "list_actor")]
    group: Option<String>,
    /// Only in this project
    #[arg(long, value_name = "PROJECT", group = "list_target")]
    project: Option<String>,
    /// Only in this domain
    #[arg(long, value_name = "DOMAIN", group = "list_target")]
    domain: Option<String>,
    /// Only on the whole platform
    #[arg(long, group = "list_target")]
    system: bool,
    /// Only of this role
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// What users have in the end: by their groups, by inheritance and by roles that imply others
    #[arg(long)]
    effective: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Gives a role.
pub async fn assign(arguments: AssignArgs, context: &Context) -> anyhow::Result<()> {
    let lookup = Lookup::new(context.kube()?);
    if let Some(AssignCommand::List(list)) = arguments.command {
        return self::list(&list, &lookup, context).await;
    }
    let (spec, words) = resolve(&arguments.assignment, &lookup).await?;
    let api: Api<RoleAssignment> = Api::all(lookup.client().clone());
    let object = RoleAssignment::new(&spec.object_name(), spec);
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => println!("{words}"),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => println!("{words} (already)"),
        Err(error) => return Err(plain(error)),
    }
    Ok(())
}

/// Takes a role away, whatever the object that gave it is called.
pub async fn unassign(arguments: &AssignmentArgs, context: &Context) -> anyhow::Result<()> {
    let lookup = Lookup::new(context.kube()?);
    let (spec, words) = resolve(arguments, &lookup).await?;
    let api: Api<RoleAssignment> = Api::all(lookup.client().clone());
    let all = list_all(&api, &ListParams::default()).await?;
    let same: Vec<&RoleAssignment> = all.iter().filter(|object| object.spec == spec).collect();
    if same.is_empty() {
        bail!("there is no such assignment: {words}");
    }
    for object in same {
        match api.delete(&object.name_any(), &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(plain(error)),
        }
    }
    println!("no more: {words}");
    Ok(())
}

async fn resolve(
    arguments: &AssignmentArgs,
    lookup: &Lookup,
) -> anyhow::Result<(RoleAssignmentSpec, String)> {
    let role = arguments.role.as_deref().ok_or_else(|| anyhow!("name a role"))?;
    let role = lookup.find::<Role>(role).await?;
    let known = lookup.known().await?;
    let mut spec = RoleAssignmentSpec {
        role: role.name_any(),
        system: arguments.system,
        inherited: arguments.inherited,
        ..RoleAssignmentSpec::default()
    };
    let who = match (&arguments.user, &arguments.group) {
        (Some(name), _) => {
            let user = lookup.find::<User>(name).await?;
            spec.user = Some(user.name_any());
            format!("user {}", known.full_name(&user))
        }
        (None, Some(name)) => {
            let group = lookup.find::<Group>(name).await?;
            spec.group = Some(group.name_any());
            format!("group {}", known.full_name(&group))
        }
        (None, None) => bail!("say who: --user USER or --group GROUP"),
    };
    let at = match (&arguments.project, &arguments.domain) {
        (Some(name), _) => {
            let project = lookup.find::<Project>(name).await?;
            spec.project = Some(project.name_any());
            format!("project {}", known.full_name(&project))
        }
        (None, Some(name)) => {
            let domain = lookup.domain(name).await?;
            spec.domain = Some(domain.name_any());
            format!("domain {}", known.full_name(&domain))
        }
        (None, None) if arguments.system => "the whole platform".to_owned(),
        (None, None) => bail!("say where: --project PROJECT, --domain DOMAIN or --system"),
    };
    let below = if arguments.inherited { "every project below " } else { "" };
    Ok((spec, format!("{who} is {} in {below}{at}", known.full_name(&role))))
}

/// An assignment as Keystone lists it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    role: Reference,
    user: Option<Reference>,
    group: Option<Reference>,
    scope: ListedScope,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ListedScope {
    project: Option<Reference>,
    domain: Option<Reference>,
    system: Option<serde_json::Value>,
    #[serde(rename = "OS-INHERIT:inherited_to")]
    inherited_to: Option<String>,
}

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// `user` or `group`
    kind: &'static str,
    name: String,
    role: String,
    /// `system`, `domain` or `project`
    scope: &'static str,
    #[serde(rename = "in")]
    at: String,
    inherited: bool,
}

fn row(listed: &Listed) -> Row {
    let (kind, actor) = match (&listed.user, &listed.group) {
        (Some(user), _) => ("user", user.full_name()),
        (None, group) => ("group", group.as_ref().map(Reference::full_name).unwrap_or_default()),
    };
    let scope = &listed.scope;
    let (word, at) = match (&scope.project, &scope.domain) {
        (Some(project), _) => ("project", project.full_name()),
        (None, Some(domain)) => ("domain", domain.full_name()),
        (None, None) => ("system", "all".to_owned()),
    };
    let inherited = scope.inherited_to.is_some();
    Row { kind, name: actor, role: listed.role.full_name(), scope: word, at, inherited }
}

/// The query of a list, all values escaped.
async fn query(arguments: &AssignListArgs, lookup: &Lookup) -> anyhow::Result<String> {
    let mut query = "include_names=true".to_owned();
    let mut add = |key: &str, id: &str| query.push_str(&format!("&{key}={}", escaped(id)));
    if arguments.effective {
        add("effective", "true");
    }
    if let Some(name) = &arguments.user {
        add("user.id", &lookup.find::<User>(name).await?.name_any());
    }
    if let Some(name) = &arguments.group {
        add("group.id", &lookup.find::<Group>(name).await?.name_any());
    }
    if let Some(name) = &arguments.project {
        add("scope.project.id", &lookup.find::<Project>(name).await?.name_any());
    }
    if let Some(name) = &arguments.domain {
        add("scope.domain.id", &lookup.domain(name).await?.name_any());
    }
    if arguments.system {
        add("scope.system", "all");
    }
    if let Some(name) = &arguments.role {
        add("role.id", &lookup.find::<Role>(name).await?.name_any());
    }
    Ok(query)
}

async fn list(arguments: &AssignListArgs, lookup: &Lookup, context: &Context) -> anyhow::Result<()> {
    if arguments.effective && arguments.group.is_some() {
        bail!("--effective says what users have: leave --group away, or name a user");
    }
    let path = format!("/role_assignments?{}", query(arguments, lookup).await?);
    let answer = context.keystone()?.call(Method::GET, &path, None).await?;
    let listed = answer["role_assignments"].clone();
    let listed: Vec<Listed> = serde_json::from_value(listed)?;
    let mut rows: Vec<Row> = listed.iter().map(row).collect();
    rows.sort();
    // The same by two ways is one right.
    rows.dedup();
    print(&rows, arguments.output.output)
}

/// Each assignment of Keystone's list in words, without its actor.
pub fn in_words(answer: &serde_json::Value) -> Vec<String> {
    let listed: Vec<Listed> = serde_json::from_value(answer["role_assignments"].clone()).unwrap_or_default();
    let words = |row: Row| match row.scope {
        "system" => format!("{} on the whole platform", row.role),
        scope => format!("{} in {scope} {}", row.role, row.at),
    };
    listed.iter().map(row).map(words).collect()
}

fn print(rows: &[Row], output: Output) -> anyhow::Result<()> {
    if let Some(text) = render::structured(&rows, output)? {
        println!("{text}");
    } else if rows.is_empty() {
        eprintln!("No assignments found.");
    } else {
        println!("{}", table(rows));
    }
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let at =
            if row.scope == "system" { "system".to_owned() } else { format!("{} {}", row.scope, row.at) };
        let inherited = if row.inherited { "every project below" } else { "here" };
        vec![row.role.clone(), format!("{} {}", row.kind, row.name), at, inherited.to_owned()]
    };
    render::table(&["ROLE", "WHO", "WHERE", "HOLDS"], rows.iter().map(cells).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keystones_list_is_shown_by_names() {
        let answer = json!([
            {"role": {"id": "r", "name": "member"}, "scope": {"project": {"id": "p", "name": "web", "domain": {"id": "a", "name": "acme"}}},
             "group": {"id": "g", "name": "devs", "domain": {"id": "a", "name": "acme"}}, "links": {}},
            {"role": {"id": "r2", "name": "reader"}, "user": {"id": "u", "name": "alice", "domain": {"id": "a", "name": "acme"}},
             "scope": {"domain": {"id": "a", "name": "acme"}, "OS-INHERIT:inherited_to": "projects"}},
            {"role": {"id": "r3", "name": "deployer", "domain": {"id": "a", "name": "acme"}},
             "user": {"id": "u", "name": "alice", "domain": {"id": "a", "name": "acme"}}, "scope": {"system": {"all": true}}},
        ]);
        let listed: Vec<Listed> = serde_json::from_value(answer).expect("a list");
        let rows: Vec<Row> = listed.iter().map(row).collect();
        insta::assert_snapshot!(table(&rows), @r"
        ROLE            WHO               WHERE              HOLDS
        member          group acme/devs   project acme/web   here
        reader          user acme/alice   domain acme        every project below
        acme/deployer   user acme/alice   system             here
        ");
    }
}
