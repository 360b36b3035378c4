//! `gantry group …`: users that get roles together.

use anyhow::bail;
use gantry_identity_api::{Group, GroupSpec, User};
use kube::ResourceExt as _;
use serde_json::{Map, Value};

use super::lookup::Lookup;
use super::names::{self, Name};
use super::ops::{self, DeleteArgs, GetArgs, ListArgs};
use super::render::OutputArgs;

/// Users that get roles together
#[derive(clap::Subcommand, Debug)]
pub enum GroupCommand {
    /// Make a group
    #[command(after_help = "Example:\n  gantry group create acme/devs --description Developers")]
    Create(CreateArgs),
    /// List the groups you see
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show groups
    #[command(visible_alias = "show")]
    Get(GetArgs),
    /// Change a group
    Set(SetArgs),
    /// Delete groups, with what is assigned to them
    Delete(DeleteArgs),
    /// Put users into a group
    #[command(after_help = "Example:\n  gantry group add-user acme/devs acme/alice acme/bob")]
    AddUser(MemberArgs),
    /// Take users out of a group
    RemoveUser(MemberArgs),
    /// List the users in a group
    Members(MembersArgs),
}

#[derive(clap::Args, Debug)]
pub struct CreateArgs {
    /// DOMAIN/NAME, or NAME in your own domain
    name: Name,
    /// What people read beside it
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// The object's name (id) [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct SetArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id
    group: String,
    /// A new name, without the domain
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What people read beside it
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct MemberArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id
    group: String,
    /// Users of the same domain
    #[arg(value_name = "USER", required = true)]
    users: Vec<String>,
}

#[derive(clap::Args, Debug)]
pub struct MembersArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id
    group: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(command: GroupCommand, lookup: &Lookup) -> anyhow::Result<()> {
    match command {
        GroupCommand::Create(arguments) => create(arguments, lookup).await,
        GroupCommand::List(arguments) => ops::list::<Group>(lookup, &arguments).await,
        GroupCommand::Get(arguments) => ops::get::<Group>(lookup, &arguments).await,
        GroupCommand::Set(arguments) => set(arguments, lookup).await,
        GroupCommand::Delete(arguments) => ops::delete::<Group>(lookup, &arguments).await,
        GroupCommand::AddUser(arguments) => change_members(&arguments, lookup, Change::Add).await,
        GroupCommand::RemoveUser(arguments) => change_members(&arguments, lookup, Change::Remove).await,
        GroupCommand::Members(arguments) => {
            let id = lookup.find::<Group>(&arguments.group).await?.name_any();
            let mut users = lookup.all::<User>().await?;
            users.retain(|user| user.spec.groups.contains(&id));
            ops::print_list(lookup, users, arguments.output.output).await
        }
    }
}

async fn create(arguments: CreateArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let spec = GroupSpec {
        domain: lookup.domain_id(arguments.name.domain.as_deref()).await?,
        name: Some(arguments.name.name),
        description: arguments.description,
        ..GroupSpec::default()
    };
    let id = arguments.id.unwrap_or_else(names::new_id);
    let made = lookup.create(&Group::new(&id, spec)).await?;
    ops::print_done(lookup, &made, "created", arguments.output.output).await
}

async fn set(arguments: SetArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let group = lookup.find::<Group>(&arguments.group).await?;
    let mut change = Map::new();
    for (field, value) in [("name", arguments.name), ("description", arguments.description)] {
        if let Some(value) = value {
            change.insert(field.to_owned(), value.into());
        }
    }
    let changed: Group = lookup.set(&group.name_any(), &Value::Object(change)).await?;
    ops::print_done(lookup, &changed, "changed", arguments.output.output).await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

/// The groups after the change; `None` where there is nothing to do.
fn changed_groups(groups: &[String], group: &str, change: Change) -> Option<Vec<String>> {
    let is_in = groups.iter().any(|id| id == group);
    match (change, is_in) {
        (Change::Add, true) | (Change::Remove, false) => None,
        (Change::Add, false) => Some(groups.iter().cloned().chain([group.to_owned()]).collect()),
        (Change::Remove, true) => Some(groups.iter().filter(|id| *id != group).cloned().collect()),
    }
}

async fn change_members(arguments: &MemberArgs, lookup: &Lookup, change: Change) -> anyhow::Result<()> {
    let group = lookup.find::<Group>(&arguments.group).await?;
    let all = lookup.all::<User>().await?;
    let known = lookup.known().await?;
    let (id, group_name) = (group.name_any(), known.full_name(&group));
    let mut users = Vec::with_capacity(arguments.users.len());
    // All are looked at before the first is changed.
    for name in &arguments.users {
        let user = lookup.find_among(&all, name).await?;
        if user.spec.domain != group.spec.domain {
            bail!("{} cannot be in {group_name}: a group has users of its own domain", known.full_name(user));
        }
        users.push(user);
    }
    for user in users {
        let user_id = user.name_any();
        let done = lookup.update::<User>(&user_id, |user| {
            let groups = changed_groups(&user.spec.groups, &id, change);
            let differs = groups.is_some();
            user.spec.groups = groups.unwrap_or_else(|| user.spec.groups.clone());
            Ok(differs)
        });
        let differs = done.await?.is_some();
        let words = match (change, differs) {
            (Change::Add, true) => "added to",
            (Change::Add, false) => "is in",
            (Change::Remove, true) => "removed from",
            (Change::Remove, false) => "is not in",
        };
        println!("user {} {words} group {group_name}", known.full_name(user));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_changed_once() {
        let groups = ["a".to_owned(), "b".to_owned()];
        for (group, change, want) in [
            ("c", Change::Add, Some(vec!["a", "b", "c"])),
            ("a", Change::Add, None),
            ("a", Change::Remove, Some(vec!["b"])),
            ("c", Change::Remove, None),
        ] {
            let want = want.map(|ids| ids.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(changed_groups(&groups, group, change), want, "{group} {change:?}");
        }
    }
}
