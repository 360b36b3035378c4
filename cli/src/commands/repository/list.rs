//! `gantry repository list`

use gantry_registry_api::Repository;
use jiff::Timestamp;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::json;

use crate::commands::identity::lookup::list_all;
use crate::commands::identity::render::{self, Output, OutputArgs};

#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Only those whose name begins so, e.g. acme/web
    prefix: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(arguments: ListArgs, client: Client) -> anyhow::Result<()> {
    let mut all = list_all(&super::api(&client), &ListParams::default()).await?;
    if let Some(prefix) = &arguments.prefix {
        all.retain(|repository| begins(&repository.spec.name, prefix));
    }
    all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    let output = arguments.output.output;
    let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": all });
    if let Some(text) = render::structured(&list, output)? {
        println!("{text}");
        return Ok(());
    }
    if output == Output::Name {
        all.iter().for_each(|r| println!("repository.registry.gantry.dev/{}", r.name_any()));
        return Ok(());
    }
    if all.is_empty() {
        eprintln!("No repositories found.");
        return Ok(());
    }
    println!("{}", table(&all, output, Timestamp::now()));
    Ok(())
}

/// Whole parts of the name: `acme/web` is no beginning of `acme/website`.
fn begins(name: &str, prefix: &str) -> bool {
    let rest = name.strip_prefix(prefix.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn table(all: &[Repository], output: Output, now: Timestamp) -> String {
    let wide = output == Output::Wide;
    let mut headers = vec!["NAME", "OWNER", "VISIBILITY", "SIZE", "TAGS", "WORST", "LATEST", "LAST PUSH"];
    if wide {
        headers.extend(["SHARES", "OBJECT"]);
    }
    let row = |repository: &Repository| {
        let status = repository.status.clone().unwrap_or_default();
        let mut cells = vec![
            repository.spec.name.clone(),
            status.owner,
            repository.spec.visibility.as_str().to_owned(),
            status.size,
            status.tags.to_string(),
            super::shown_grade(status.worst_grade),
            super::shown_grade(status.latest_grade),
            status.last_push.map(|at| render::age(at.0, now)).unwrap_or_default(),
        ];
        if wide {
            cells.extend([repository.spec.shares.len().to_string(), repository.name_any()]);
        }
        cells
    };
    render::table(&headers, all.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_with_a_part() {
        for (name, prefix, want) in [
            ("acme/web/front", "acme/web", true),
            ("acme/web/front", "acme/", true),
            ("acme/web", "acme/web", true),
            ("acme/website", "acme/web", false),
        ] {
            assert_eq!(begins(name, prefix), want, "{name} {prefix}");
        }
    }
}
