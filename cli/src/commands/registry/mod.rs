//! `gantry registry …`: the registry's store, for operators.

mod fsck;
mod gc;
mod replicate;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::io::IsTerminal as _;

use crate::Context;

/// A line of progress is short; a longer one is none of this protocol.
const LINE_BYTES_MAX: usize = 4 << 20;

/// The registry's store: garbage, integrity, replication
#[derive(clap::Subcommand, Debug)]
pub enum RegistryCommand {
    /// Give back the space of what no image needs any more, now rather than within the hour
    Gc(gc::GcArgs),
    /// Check that every image is whole
    Fsck(fsck::FsckArgs),
    /// Run a replication now
    Replicate(replicate::ReplicateArgs),
}

pub async fn run(command: RegistryCommand, context: &Context) -> anyhow::Result<()> {
    match command {
        RegistryCommand::Gc(arguments) => gc::run(arguments, context).await,
        RegistryCommand::Fsck(arguments) => fsck::run(arguments, context).await,
        RegistryCommand::Replicate(arguments) => replicate::run(arguments, context).await,
    }
}

/// Starts something long at the server, shows how far it is, and returns its last line.
async fn follow(context: &Context, path: &str, word: &'static str) -> anyhow::Result<Value> {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(0),
        false => ProgressBar::hidden(),
    };
    bar.set_style(ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len}")?.progress_chars("=> "));
    bar.set_message(word);
    let request = context.http()?.post(format!("{}{path}", context.server()));
    let response = request.send().await.with_context(|| format!("cannot reach {}", context.server()))?;
    if !response.status().is_success() {
        let status = response.status();
        let body: Value = response.json().await.unwrap_or_default();
        bail!("{}", body["message"].as_str().map_or_else(|| status.to_string(), str::to_owned));
    }
    let mut stream = response.bytes_stream();
    let (mut rest, mut last) = (Vec::new(), Value::Null);
    while let Some(piece) = stream.next().await {
        rest.extend_from_slice(&piece.context("the server broke off; what was done until then is done")?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            last = serde_json::from_slice(&line)?;
            let progress = &last["progress"];
            if let (Some(done), Some(total)) = (progress["done"].as_u64(), progress["total"].as_u64()) {
                bar.set_length(total);
                bar.set_position(done);
            }
        }
        if rest.len() > LINE_BYTES_MAX {
            bail!("the server sends something else than progress");
        }
    }
    bar.finish_and_clear();
    if let Some(error) = last["error"].as_str() {
        bail!("{error}");
    }
    Ok(last)
}

/// `12.3 MiB`
fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
