//! What every kind has alike: list, get, delete, and the arguments of these.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::DeleteParams;

use gantry_identity_api::{Group, Project, Role, User};

use super::kinds::{Kind, Known, Related};
use super::lookup::{Lookup, plain};
use super::render::{self, Output, OutputArgs};

/// A project goes with everything in its namespaces, where pods have their time to end.
const GONE_WAIT: Duration = Duration::from_secs(300);
const GONE_PAUSE_MIN: Duration = Duration::from_millis(10);
const GONE_PAUSE_MAX: Duration = Duration::from_millis(500);

#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Only those of this domain
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct GetArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(clap::Args, Debug)]
pub struct DeleteArgs {
    /// DOMAIN/NAME, NAME in your own domain, or an id
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// What is not there is no error
    #[arg(long)]
    pub ignore_not_found: bool,
}

/// `--enable` and `--disable` of the commands that set things.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct EnabledArgs {
    /// Let it be used again
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Keep it, but let nobody use it
    #[arg(long)]
    disable: bool,
}

impl EnabledArgs {
    pub fn wanted(self) -> Option<bool> {
        match (self.enable, self.disable) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            (false, false) => None,
        }
    }
}

/// Prints all of a kind that the caller sees.
pub async fn list<K: Kind>(lookup: &Lookup, arguments: &ListArgs) -> anyhow::Result<()> {
    let mut objects = lookup.all::<K>().await?;
    if let Some(domain) = &arguments.domain {
        let id = lookup.domain_id(Some(domain)).await?;
        objects.retain(|object| object.domain_id() == Some(&id));
    }
    print_list(lookup, objects, arguments.output.output).await
}

/// Prints these, ordered by name.
pub async fn print_list<K: Kind>(lookup: &Lookup, mut objects: Vec<K>, output: Output) -> anyhow::Result<()> {
    let known = known(lookup, &objects, output).await?;
    objects.sort_by_cached_key(|object| (known.full_name(object), object.name_any()));
    if objects.is_empty() && matches!(output, Output::Table | Output::Wide) {
        eprintln!("No {}s found.", K::WORD);
        return Ok(());
    }
    put(&render::list(&objects, &known, output, Timestamp::now())?);
    Ok(())
}

pub async fn get<K: Kind>(lookup: &Lookup, arguments: &GetArgs) -> anyhow::Result<()> {
    let all = lookup.all::<K>().await?;
    let mut found = Vec::with_capacity(arguments.names.len());
    for name in &arguments.names {
        found.push(lookup.find_among(&all, name).await?.clone());
    }
    match found.as_slice() {
        [one] => print_one(lookup, one, arguments.output.output).await,
        _ => print_list(lookup, found, arguments.output.output).await,
    }
}

pub async fn print_one<K: Kind>(lookup: &Lookup, object: &K, output: Output) -> anyhow::Result<()> {
    let known = known(lookup, std::slice::from_ref(object), output).await?;
    put(&render::object(object, &known, output, Timestamp::now())?);
    Ok(())
}

/// Says that an object was made or changed, or prints it where a format was asked for.
pub async fn print_done<K: Kind>(
    lookup: &Lookup,
    object: &K,
    verb: &str,
    output: Output,
) -> anyhow::Result<()> {
    if output != Output::Table {
        return print_one(lookup, object, output).await;
    }
    let name = lookup.known().await?.full_name(object);
    println!("{} {name} {verb} (id {})", K::WORD, object.name_any());
    Ok(())
}

pub async fn delete<K: Kind>(lookup: &Lookup, arguments: &DeleteArgs) -> anyhow::Result<()> {
    let all = lookup.all::<K>().await?;
    let known = lookup.known().await?;
    for name in &arguments.names {
        let object = match lookup.find_among(&all, name).await {
            Err(_) if arguments.ignore_not_found => continue,
            other => other?,
        };
        delete_one(lookup, object).await?;
        println!("{} {} deleted", K::WORD, known.full_name(object));
    }
    Ok(())
}

/// Deletes the object that was looked at, not another that has come under its name since, and waits as kubectl
/// does until it and what hangs on it are gone: its name is free then.
pub async fn delete_one<K: Kind>(lookup: &Lookup, object: &K) -> anyhow::Result<()> {
    let (api, id) = (lookup.api::<K>(), object.name_any());
    let mut parameters = DeleteParams::default();
    if let Some(uid) = object.uid() {
        parameters =
            parameters.preconditions(kube::api::Preconditions { uid: Some(uid), ..Default::default() });
    }
    match api.delete(&id, &parameters).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(plain(error)),
    }
    let deadline = tokio::time::Instant::now() + GONE_WAIT;
    let mut pause = GONE_PAUSE_MIN;
    loop {
        match api.get_opt(&id).await {
            Ok(Some(found)) if found.uid() == object.uid() => {}
            // Who has deleted where their own rights came from does not see it any more.
            Ok(_) | Err(kube::Error::Api(_)) => return Ok(()),
            Err(error) => return Err(plain(error)),
        }
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "{id} is still going after {} s: what hangs on it is not gone yet",
            GONE_WAIT.as_secs()
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(GONE_PAUSE_MAX);
    }
}

/// The names that are needed to print the objects. What the caller may not list is shown by its id.
async fn known<K: Kind>(lookup: &Lookup, objects: &[K], output: Output) -> anyhow::Result<Known> {
    if !matches!(output, Output::Table | Output::Wide) {
        return Ok(Known::default());
    }
    let mut known = lookup.known().await?;
    known.add(objects);
    for related in K::RELATED {
        match related {
            Related::Projects => known.add(&lookup.all::<Project>().await.unwrap_or_default()),
            Related::Groups => known.add(&lookup.all::<Group>().await.unwrap_or_default()),
            Related::Users => known.add(&lookup.all::<User>().await.unwrap_or_default()),
            Related::Roles => known.add(&lookup.all::<Role>().await.unwrap_or_default()),
        }
    }
    Ok(known)
}

fn put(text: &str) {
    if !text.is_empty() {
        println!("{text}");
    }
}
