//! The advisories of a server: `gantry advisories push`, `gantry advisories status --server`.

use std::io::{Read, Seek};

use anyhow::{Context as _, bail};
use gantry_oci::{Algorithm, Digest, Hasher};
use gantry_scanner::advisories::{Exported, Installed, Manifest, exported_manifest};
use reqwest::Response;
use serde::Deserialize;
use serde_json::Value;

use crate::Context;

const PATH: &str = "/registry/v1/advisories";

/// Sends an index to the server: its manifest, and its table with the digest that it has.
pub async fn put(
    context: &Context,
    manifest: &Manifest,
    digest: &Digest,
    table: impl Read + Send + 'static,
) -> anyhow::Result<Installed> {
    let mut line = serde_json::to_vec(manifest)?;
    line.push(b'\n');
    let body = gantry_oci::client::stream(std::io::Cursor::new(line).chain(table), None);
    let request = context.http()?.put(format!("{}{PATH}?digest={digest}", context.server())).body(body);
    let said = answer(context, request.send().await).await?;
    let mut now = manifest.clone();
    now.sources = Deserialize::deserialize(&said["sources"])?;
    Ok(if said["installed"] == true { Installed::New(now) } else { Installed::Kept(now) })
}

/// Sends the index of this machine.
pub async fn push(context: &Context, exported: Exported) -> anyhow::Result<Installed> {
    let manifest = exported_manifest(&exported.manifest).map_err(anyhow::Error::msg)?;
    let mut table = exported.table;
    let hashed = tokio::task::spawn_blocking(move || {
        table.rewind()?;
        let (digest, _) = Hasher::read(Algorithm::Sha256, &table)?;
        table.rewind()?;
        std::io::Result::Ok((digest, table))
    });
    let (digest, table) = hashed.await??;
    put(context, &manifest, &digest, table).await
}

/// What the server has, as `gantry advisories status --output json` shows it.
pub async fn get(context: &Context) -> anyhow::Result<Value> {
    let request = context.http()?.get(format!("{}{PATH}", context.server()));
    answer(context, request.send().await).await
}

async fn answer(context: &Context, sent: reqwest::Result<Response>) -> anyhow::Result<Value> {
    let response = sent.with_context(|| format!("cannot reach {}", context.server()))?;
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    if !status.is_success() {
        bail!("{}", body["message"].as_str().map_or_else(|| status.to_string(), str::to_owned));
    }
    Ok(body)
}
