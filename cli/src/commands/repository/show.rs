//! `gantry repository show acme/web/front`

use gantry_identity_api::Project;
use gantry_registry_api::{Repository, Share};
use kube::{Client, ResourceExt as _};

use crate::commands::identity::kinds::Known;
use crate::commands::identity::lookup::Lookup;
use crate::commands::identity::render::{self, Output, OutputArgs};

#[derive(clap::Args, Debug)]
pub struct ShowArgs {
    /// REPOSITORY, e.g. acme/web/front
    #[arg(value_name = "REPOSITORY", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(arguments: ShowArgs, client: Client) -> anyhow::Result<()> {
    let mut found = Vec::with_capacity(arguments.names.len());
    for name in &arguments.names {
        found.push(super::find(&client, name).await?);
    }
    let known = known(&Lookup::new(client)).await;
    for (number, repository) in found.iter().enumerate() {
        match arguments.output.output {
            Output::Name => println!("repository.registry.gantry.dev/{}", repository.name_any()),
            output => match render::structured(repository, output)? {
                Some(text) => println!("{text}"),
                None => {
                    if number > 0 {
                        println!();
                    }
                    println!("{}", render::fields(&fields(repository, &known)));
                }
            },
        }
    }
    Ok(())
}

/// Names of the projects and domains that the caller sees; the others are shown by their ids.
async fn known(lookup: &Lookup) -> Known {
    let mut known = lookup.known().await.unwrap_or_default();
    known.add(&lookup.all::<Project>().await.unwrap_or_default());
    known
}

fn fields(repository: &Repository, known: &Known) -> Vec<(&'static str, String)> {
    let (spec, status) = (&repository.spec, repository.status.clone().unwrap_or_default());
    let shares: Vec<String> = spec.shares.iter().map(|share| shown(share, known)).collect();
    let mut rows = vec![
        ("Repository", spec.name.clone()),
        ("Owner", status.owner),
        ("Visibility", spec.visibility.as_str().to_owned()),
        ("Shared with", shares.join("\n")),
        ("Size", status.size),
        ("Tags", status.tags.to_string()),
        ("Manifests", status.manifests.to_string()),
        ("Worst grade", super::shown_grade(status.worst_grade)),
        ("Latest grade", super::shown_grade(status.latest_grade)),
        ("Last push", status.last_push.map(|at| at.0.to_string()).unwrap_or_default()),
    ];
    let rules = &spec.rules;
    let texts = [
        ("Immutable tags", rules.immutable_tags.join("\n")),
        ("Quota", rules.quota.clone().unwrap_or_default()),
        ("Largest image", rules.max_image_size.clone().unwrap_or_default()),
        ("Pulls a minute", rules.pulls_per_minute.map(|n| n.to_string()).unwrap_or_default()),
        ("Pushes a minute", rules.pushes_per_minute.map(|n| n.to_string()).unwrap_or_default()),
        ("Retention", rules.retention.as_ref().map(super::retention::shown).unwrap_or_default()),
    ];
    rows.extend(texts.into_iter().filter(|(_, text)| !text.is_empty()));
    if !spec.description.is_empty() {
        rows.push(("Description", spec.description.clone()));
    }
    rows
}

fn shown(share: &Share, known: &Known) -> String {
    let access = share.access.as_str();
    match (&share.project, &share.domain) {
        (Some(id), _) => format!("project {} ({access})", known.other(id)),
        (None, Some(id)) => format!("domain {} ({access})", known.domain(id)),
        (None, None) => String::new(),
    }
}
