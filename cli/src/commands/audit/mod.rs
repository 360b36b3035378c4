//! `gantry audit …`: who did what, and whether the record of it is whole.

mod export;
mod replay;
mod search;
mod tail;
mod verify;

use anyhow::{Context as _, bail};
use gantry_audit_api::PATH;
use gantry_audit_api::query::Query;
use gantry_identity_api::Project;
use jiff::{Span, Timestamp, Zoned};
use kube::ResourceExt as _;
use serde_json::value::RawValue;

use super::identity::lookup::Lookup;
use crate::{ClientFlags, Context};

/// Search, follow, export and verify the audit trail
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Find records, the newest first
    Search(Box<search::SearchArgs>),
    /// Show the newest records and what comes
    Tail(Box<tail::TailArgs>),
    /// Write records as JSON lines, the oldest first
    Export(Box<export::ExportArgs>),
    /// Check that nothing in the trail was changed, removed or moved
    Verify(verify::VerifyArgs),
    /// Play a recorded terminal session
    Replay(replay::ReplayArgs),
}

/// How records are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

/// Which records.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Filter {
    /// Who asked, or as whom it was asked: DOMAIN/USER
    #[arg(long)]
    user: Option<String>,
    /// DOMAIN/PROJECT, a project of your own domain, or the id of one, also of one that is gone
    #[arg(long)]
    project: Option<String>,
    /// Namespace of the object
    #[arg(short, long)]
    namespace: Option<String>,
    /// get, list, create, delete, login-failed, …
    #[arg(long)]
    verb: Option<String>,
    /// pods, pods/exec, deployments.apps, …
    #[arg(long)]
    resource: Option<String>,
    /// Name of the object
    #[arg(long)]
    name: Option<String>,
    /// How it ended
    #[arg(long, value_parser = ["success", "denied", "failed", "error"])]
    outcome: Option<String>,
    /// A kind of security event: login, login-failed, right-changed, exec-opened, secret-read, …
    #[arg(long)]
    event: Option<String>,
    /// Not before: a time (2026-01-31T12:00:00Z) or how long ago (90m, 2d)
    #[arg(long, value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Not after: a time, or how long ago
    #[arg(long, value_parser = parse_time)]
    until: Option<Timestamp>,
}

impl Filter {
    async fn query(&self, words: &[String], trail: &Trail) -> anyhow::Result<Query> {
        let Self { user, project, namespace, verb, resource, name, outcome, event, since, until } =
            self.clone();
        let project = match project {
            Some(name) => Some(trail.project(&name).await?),
            None => None,
        };
        let q = (!words.is_empty()).then(|| words.join(" "));
        Ok(Query {
            user,
            project,
            namespace,
            verb,
            resource,
            name,
            outcome,
            event,
            since,
            until,
            q,
            ..Query::default()
        })
    }
}

/// A time, or how long ago.
fn parse_time(text: &str) -> anyhow::Result<Timestamp> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let span: Span = text.parse().with_context(|| format!("{text:?} is neither a time nor a duration"))?;
    Ok(Zoned::now().checked_sub(span)?.timestamp())
}

/// Runs one audit command.
pub async fn run(command: AuditCommand, flags: &ClientFlags) -> anyhow::Result<()> {
    match command {
        // Need no server where they are given files.
        AuditCommand::Verify(args) => verify::run(args, flags).await,
        AuditCommand::Replay(args) => replay::run(args, flags).await,
        AuditCommand::Search(args) => search::run(*args, &Trail::of(flags).await?).await,
        AuditCommand::Tail(args) => tail::run(*args, &Trail::of(flags).await?).await,
        AuditCommand::Export(args) => export::run(*args, &Trail::of(flags).await?).await,
    }
}

/// The query API of a server.
struct Trail {
    server: String,
    client: reqwest::Client,
    context: Context,
}

/// A page of records, not parsed.
#[derive(serde::Deserialize)]
struct Page {
    metadata: Metadata,
    items: Vec<Box<RawValue>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(rename = "continue", default)]
    continue_: String,
    #[serde(default)]
    resource_version: String,
}

impl Trail {
    async fn of(flags: &ClientFlags) -> anyhow::Result<Self> {
        let context = Context::load(flags).await?;
        Ok(Self { server: context.server(), client: context.http()?, context })
    }

    /// The id of the project that is called so. What has no such name may be an id of before.
    async fn project(&self, name: &str) -> anyhow::Result<String> {
        let lookup = Lookup::new(self.context.kube()?);
        match lookup.find::<Project>(name).await {
            Ok(found) => Ok(found.name_any()),
            Err(_) if !name.contains('/') => Ok(name.to_owned()),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, path: &str, query: &Query) -> anyhow::Result<reqwest::Response> {
        let mut url = url::Url::parse(&format!("{}{PATH}/{path}", self.server))?;
        if let serde_json::Value::Object(fields) = serde_json::to_value(query)? {
            for (name, value) in fields {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                url.query_pairs_mut().append_pair(&name, &text);
            }
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        let answer = self.client.get(url).send().await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        match object["message"].as_str() {
            Some(message) => bail!("{message}"),
            None => bail!("the server answered {status}"),
        }
    }

    async fn page(&self, query: &Query) -> anyhow::Result<Page> {
        let bytes = self.get("records", query).await?.bytes().await?;
        serde_json::from_slice(&bytes).context("the server's list of records is not readable")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_users_write_them() {
        let hour_ago = parse_time("1h").expect("a duration");
        let age = Timestamp::now().duration_since(hour_ago).as_secs();
        assert!((3599..3605).contains(&age), "{age}");
        assert!(parse_time("2d").is_ok());
        assert_eq!(parse_time("2026-01-31T12:00:00Z").expect("a time").as_second(), 1_769_860_800);
        assert!(parse_time("noon").is_err());
    }
}
