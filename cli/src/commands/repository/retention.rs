//! `gantry repository retention acme/web/front --keep newest=10 --dry-run`

use anyhow::{Context as _, bail};
use gantry_registry_api::{Keep, Retention};
use kube::Client;
use serde_json::{Value, json};

use crate::Context;
use crate::commands::image::Output;

#[derive(clap::Args, Debug)]
pub struct RetentionArgs {
    /// REPOSITORY, e.g. acme/web/front
    repository: String,
    /// Tags that stay: tags=PATTERN (of all where it is absent) and newest=N, pushed-days=N, pulled-days=N,
    /// by commas; several are possible, and a tag stays that one of them keeps
    #[arg(long, value_name = "RULE")]
    keep: Vec<String>,
    /// Days that an image stays which never had a tag
    #[arg(long, value_name = "DAYS")]
    untagged_days: Option<u32>,
    /// Keep everything from now on
    #[arg(long, conflicts_with_all = ["keep", "untagged_days", "now"])]
    off: bool,
    /// Only show what would go; nothing is changed
    #[arg(long)]
    dry_run: bool,
    /// Let go now what otherwise goes within the hour
    #[arg(long, conflicts_with = "dry_run")]
    now: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(arguments: RetentionArgs, context: &Context, client: Client) -> anyhow::Result<()> {
    let found = super::find(&client, &arguments.repository).await?;
    let name = &found.spec.name;
    let given = !arguments.keep.is_empty() || arguments.untagged_days.is_some();
    let keep = arguments.keep.iter().map(|text| parse(text)).collect::<anyhow::Result<_>>()?;
    let wanted = Retention { keep, untagged_days: arguments.untagged_days };
    if arguments.dry_run {
        let body = given.then_some(&wanted);
        return print(&ask(context, name, true, body).await?, arguments.output);
    }
    if !given && !arguments.off && !arguments.now {
        bail!("nothing to change: name rules with --keep, or --off, --dry-run, --now");
    }
    if given || arguments.off {
        let retention = if given { serde_json::to_value(&wanted)? } else { Value::Null };
        super::change(&client, &found, json!({ "rules": { "retention": retention } })).await?;
        let when = if given { "what they do not keep goes within the hour" } else { "everything is kept" };
        eprintln!("retention of {name} changed: {when}");
    }
    if arguments.now {
        print(&ask(context, name, false, None).await?, arguments.output)?;
    }
    Ok(())
}

/// `tags=v*,newest=5`
fn parse(text: &str) -> anyhow::Result<Keep> {
    let mut keep = Keep::default();
    for part in text.split(',') {
        let (field, value) =
            part.split_once('=').with_context(|| format!("--keep {text:?}: {part:?} is not NAME=VALUE"))?;
        let number =
            || value.parse::<u32>().with_context(|| format!("--keep {text:?}: {value:?} is no number"));
        match field {
            "tags" => keep.tags.push(value.to_owned()),
            "newest" => keep.newest = Some(number()?),
            "pushed-days" => keep.pushed_days = Some(number()?),
            "pulled-days" => keep.pulled_days = Some(number()?),
            _ => bail!("--keep {text:?}: {field:?} is none of tags, newest, pushed-days, pulled-days"),
        }
    }
    Ok(keep)
}

/// The rules as they are written.
pub(super) fn shown(retention: &Retention) -> String {
    let keep = retention.keep.iter().map(|keep| {
        let tags = keep.tags.iter().map(|pattern| format!("tags={pattern}"));
        let numbers =
            [("newest", keep.newest), ("pushed-days", keep.pushed_days), ("pulled-days", keep.pulled_days)];
        let numbers = numbers.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        format!("keep {}", tags.chain(numbers).collect::<Vec<_>>().join(","))
    });
    let untagged = retention.untagged_days.map(|days| format!("untagged images {days} days"));
    keep.chain(untagged).collect::<Vec<_>>().join("\n")
}

async fn ask(
    context: &Context,
    name: &str,
    dry_run: bool,
    rules: Option<&Retention>,
) -> anyhow::Result<Value> {
    // Names of repositories have nothing to escape but slashes, which a query may have.
    let url = format!("{}/registry/v1/retention?repository={name}&dryRun={dry_run}", context.server());
    let mut request = context.http()?.post(url);
    if let Some(rules) = rules {
        request = request.body(serde_json::to_vec(rules)?);
    }
    let response = request.send().await.with_context(|| format!("cannot reach {}", context.server()))?;
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    if !status.is_success() {
        bail!("{}", body["message"].as_str().map_or_else(|| status.to_string(), str::to_owned));
    }
    Ok(body)
}

fn print(plan: &Value, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(plan)?);
        return Ok(());
    }
    let texts = |field: &str| -> Vec<&str> {
        plan[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let (tags, images) = (texts("tags"), texts("manifests"));
    let verb = if plan["dryRun"] == true { "would go" } else { "gone" };
    tags.iter().for_each(|tag| println!("{tag}"));
    println!("{} tags and {} images {verb}", tags.len(), images.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_shown() {
        let keep = parse("tags=v*,tags=latest,newest=5,pulled-days=90").expect("a rule");
        assert_eq!(
            (keep.tags.len(), keep.newest, keep.pushed_days, keep.pulled_days),
            (2, Some(5), None, Some(90))
        );
        let retention = Retention { keep: vec![keep], untagged_days: Some(7) };
        assert_eq!(
            shown(&retention),
            "keep tags=v*,tags=latest,newest=5,pulled-days=90\nuntagged images 7 days"
        );
        for (text, wanted) in [("newest", "NAME=VALUE"), ("newest=x", "no number"), ("age=3", "none of")] {
            let error = format!("{:#}", parse(text).expect_err("refused"));
            assert!(error.contains(wanted), "{error}");
        }
    }
}
