//! `gantry repository share acme/web/front --project globex/shop --access push`

use anyhow::bail;
use gantry_identity_api::Project;
use gantry_registry_api::{Access, Share};
use kube::ResourceExt as _;

use crate::commands::identity::lookup::Lookup;
use crate::commands::identity::render::OutputArgs;

#[derive(clap::Args, Debug)]
pub struct ShareArgs {
    /// REPOSITORY, e.g. acme/web/front
    repository: String,
    #[command(flatten)]
    with: WithArgs,
    /// What those may do who may do it in that project or domain
    #[arg(long, value_enum, default_value_t)]
    access: AccessArg,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct UnshareArgs {
    /// REPOSITORY, e.g. acme/web/front
    repository: String,
    #[command(flatten)]
    with: WithArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Whom it is shared with.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = true)]
struct WithArgs {
    /// DOMAIN/PROJECT, or its id; several are possible
    #[arg(long, value_name = "PROJECT")]
    project: Vec<String>,
    /// A domain with all its projects; several are possible
    #[arg(long, value_name = "DOMAIN")]
    domain: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum AccessArg {
    #[default]
    Pull,
    /// Pull, too
    Push,
}

pub async fn share(arguments: ShareArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let mut repository = super::find(lookup.client(), &arguments.repository).await?;
    let access = match arguments.access {
        AccessArg::Pull => Access::Pull,
        AccessArg::Push => Access::Push,
    };
    for with in shares(&arguments.with, lookup).await? {
        repository.spec.shares = put(repository.spec.shares, Share { access, ..with });
    }
    let changed = super::replace(lookup.client(), &repository).await?;
    super::done(&changed, "shared", arguments.output.output)
}

pub async fn unshare(arguments: UnshareArgs, lookup: &Lookup) -> anyhow::Result<()> {
    let mut repository = super::find(lookup.client(), &arguments.repository).await?;
    let before = repository.spec.shares.len();
    for with in shares(&arguments.with, lookup).await? {
        repository.spec.shares.retain(|share| !same(share, &with));
    }
    if repository.spec.shares.len() == before {
        bail!("{} is not shared with any of them", repository.spec.name);
    }
    let changed = super::replace(lookup.client(), &repository).await?;
    super::done(&changed, "no longer shared", arguments.output.output)
}

/// Ids of those that were named. What the caller does not see is taken for an id: organisations do not see each
/// other, and share all the same.
async fn shares(with: &WithArgs, lookup: &Lookup) -> anyhow::Result<Vec<Share>> {
    let mut all = Vec::new();
    for name in &with.project {
        let id = match lookup.find::<Project>(name).await {
            Ok(project) => project.name_any(),
            Err(error) if name.contains('/') => return Err(error),
            Err(_) => name.clone(),
        };
        all.push(Share { project: Some(id), ..Share::default() });
    }
    for name in &with.domain {
        let id = lookup.domain(name).await.map_or_else(|_| name.clone(), |domain| domain.name_any());
        all.push(Share { domain: Some(id), ..Share::default() });
    }
    Ok(all)
}

fn same(one: &Share, other: &Share) -> bool {
    one.project == other.project && one.domain == other.domain
}

/// One share for each with whom it is shared: the last word holds.
fn put(mut all: Vec<Share>, new: Share) -> Vec<Share> {
    all.retain(|share| !same(share, &new));
    all.push(new);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_share_replaces_the_first() {
        let share = |project: &str, access| Share { project: Some(project.to_owned()), access, domain: None };
        let all = put(put(Vec::new(), share("a", Access::Pull)), share("b", Access::Pull));
        let all = put(all, share("a", Access::Push));
        assert_eq!(all, [share("b", Access::Pull), share("a", Access::Push)]);
    }
}
