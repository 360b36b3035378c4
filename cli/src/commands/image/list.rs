//! `gantry image list`

use futures::StreamExt;
use gantry_oci::RepositoryName;
use gantry_oci::client::{ClientError, RegistryClient};
use serde::Serialize;
use serde_json::Value;

use super::Output;

/// Requests at the same time.
const PARALLEL: usize = 8;

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only this repository
    repository: Option<String>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Row {
    repository: String,
    tag: String,
    digest: String,
    /// Bytes that a pull transfers; of an index, of the index alone.
    size: u64,
    created: Option<String>,
}

pub async fn run(args: ListArgs, client: &RegistryClient) -> anyhow::Result<()> {
    let repositories = match &args.repository {
        Some(name) => vec![super::repository(name)?.to_string()],
        None => client.catalog().await?,
    };
    let mut names = Vec::new();
    for repository in repositories {
        let name: RepositoryName = repository.parse()?;
        names.extend(client.tags(&name).await?.into_iter().map(|tag| (name.clone(), tag)));
    }
    let rows: Vec<Option<Row>> = futures::stream::iter(names)
        .map(|(name, tag)| async move {
            match row(client, &name, &tag).await {
                // Removed since it was listed.
                Err(error) if error.is_not_found() => Ok(None),
                other => other.map(Some),
            }
        })
        .buffered(PARALLEL)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    print(&rows.into_iter().flatten().collect::<Vec<_>>(), args.output)
}

async fn row(client: &RegistryClient, name: &RepositoryName, tag: &str) -> Result<Row, ClientError> {
    let manifest = client.manifest(name, tag).await?;
    let parsed: Value = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    let layers = parsed["layers"].as_array().into_iter().flatten();
    let blobs: u64 = layers.chain([&parsed["config"]]).filter_map(|d| d["size"].as_u64()).sum();
    let mut created = None;
    if let Some(digest) = parsed["config"]["digest"].as_str().and_then(|d| d.parse().ok()) {
        let config: Value =
            serde_json::from_slice(&client.small_blob(name, &digest).await?).unwrap_or_default();
        created = config["created"].as_str().map(str::to_owned);
    }
    Ok(Row {
        repository: name.to_string(),
        tag: tag.to_owned(),
        digest: manifest.digest.to_string(),
        size: blobs + manifest.bytes.len() as u64,
        created,
    })
}

fn print(rows: &[Row], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["REPOSITORY", "TAG", "DIGEST", "SIZE", "CREATED"]);
    for row in rows {
        // As long as Docker's short names.
        let digest = row.digest.get(..19).unwrap_or(&row.digest);
        let size = indicatif::HumanBytes(row.size).to_string();
        let created = row.created.as_deref().unwrap_or("<none>");
        table.add_row([&row.repository, &row.tag, digest, &size, created]);
    }
    println!("{table}");
    Ok(())
}
