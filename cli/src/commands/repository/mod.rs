//! `gantry repository …`: whose the repositories of the registry are, and who else may use them.

mod list;
mod retention;
mod set;
mod share;
mod show;

use anyhow::anyhow;
use gantry_oci::RepositoryName;
use gantry_registry_api::{Grade, Repository, object_name};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::Context;
use crate::commands::identity::lookup::{Lookup, plain};
use crate::commands::identity::render::{Output, structured};

/// Repositories of the registry: owners, visibility, shares
#[derive(clap::Subcommand, Debug)]
pub enum RepositoryCommand {
    /// List the repositories you may pull from
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Show repositories
    #[command(visible_alias = "get")]
    Show(show::ShowArgs),
    /// Change a repository
    #[command(after_help = "Example:\n  gantry repository set acme/web/front --visibility public")]
    Set(set::SetArgs),
    /// Let other projects or domains pull, or push
    #[command(
        after_help = "Example:\n  gantry repository share acme/web/front --project globex/shop --access push"
    )]
    Share(share::ShareArgs),
    /// Take a share back
    Unshare(share::UnshareArgs),
    /// Say which tags and images stay; try it first with --dry-run
    #[command(
        after_help = "Examples:\n  gantry repository retention acme/web/front --keep 'tags=v*' --keep newest=10 --dry-run\n  \
                      gantry repository retention acme/web/front --keep newest=10 --untagged-days 7\n  \
                      gantry repository retention acme/web/front --now"
    )]
    Retention(retention::RetentionArgs),
}

pub async fn run(command: RepositoryCommand, context: &Context) -> anyhow::Result<()> {
    let client = context.kube()?;
    match command {
        RepositoryCommand::List(arguments) => list::run(arguments, client).await,
        RepositoryCommand::Show(arguments) => show::run(arguments, client).await,
        RepositoryCommand::Set(arguments) => set::run(arguments, client).await,
        RepositoryCommand::Retention(arguments) => retention::run(arguments, context, client).await,
        RepositoryCommand::Share(arguments) => share::share(arguments, &Lookup::new(client)).await,
        RepositoryCommand::Unshare(arguments) => share::unshare(arguments, &Lookup::new(client)).await,
    }
}

fn api(client: &Client) -> Api<Repository> {
    Api::all(client.clone())
}

fn shown_grade(grade: Option<Grade>) -> String {
    grade.map_or("-", Grade::as_str).to_owned()
}

/// The repository that is called so. What one may not see is told as what is not there.
async fn find(client: &Client, name: &str) -> anyhow::Result<Repository> {
    let name: RepositoryName =
        name.parse().map_err(|error| anyhow!("{name:?} is no name of a repository: {error}"))?;
    let missing = || anyhow!("there is no repository {name} that you can see");
    match api(client).get(&object_name(name.as_str())).await {
        Ok(found) if found.spec.name == name.as_str() => Ok(found),
        Ok(_) => Err(missing()),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Err(missing()),
        Err(error) => Err(plain(error)),
    }
}

/// Changes what of `spec` the change names.
async fn change(client: &Client, found: &Repository, spec: Value) -> anyhow::Result<Repository> {
    let patch = Patch::Merge(json!({ "spec": spec }));
    api(client).patch(&found.name_any(), &PatchParams::default(), &patch).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 => {
            anyhow!("you cannot change {}: that needs the role manager where it belongs", found.spec.name)
        }
        other => plain(other),
    })
}

/// Writes back what was read, so that nobody else's change is lost.
async fn replace(client: &Client, changed: &Repository) -> anyhow::Result<Repository> {
    let name = &changed.spec.name;
    let written = api(client).replace(&changed.name_any(), &PostParams::default(), changed).await;
    written.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 409 => {
            anyhow!("somebody else changed {name} at the same time: try again")
        }
        kube::Error::Api(status) if status.code == 403 => {
            anyhow!("you cannot change {name}: that needs the role manager where it belongs")
        }
        other => plain(other),
    })
}

/// `repository NAME changed`, or the object where a format was asked for.
fn done(object: &Repository, verb: &str, output: Output) -> anyhow::Result<()> {
    match structured(object, output)? {
        Some(text) => println!("{text}"),
        None => println!("repository {} {verb}", object.spec.name),
    }
    Ok(())
}
