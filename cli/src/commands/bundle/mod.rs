//! `gantry bundle …`: images with their signatures and bills of materials, and advisories, in one signed file.

mod collect;
mod create;
mod inspect;
mod load;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use gantry_bundle::{Bundle, BundleError};
use gantry_signatures::PublicKey;
use indicatif::{ProgressBar, ProgressStyle};

use crate::ClientFlags;

/// Carry images, their signatures and advisories to a site without a network
#[derive(clap::Subcommand, Debug)]
pub enum BundleCommand {
    /// Write images with all that refers to them, and advisories, into one signed file
    Create(create::CreateArgs),
    /// Verify a bundle, push its images into the registry, and install its advisories
    Load(load::LoadArgs),
    /// Show what a bundle holds; no server is needed
    Inspect(inspect::InspectArgs),
}

/// Whose bundles are believed.
#[derive(Debug, clap::Args)]
pub struct TrustArgs {
    /// A public key whose bundles are believed; may be given more than once
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
}

impl TrustArgs {
    fn keys(&self) -> anyhow::Result<Vec<PublicKey>> {
        let read = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            PublicKey::from_pem(&text).with_context(|| path.display().to_string())
        };
        self.key.iter().map(read).collect()
    }
}

pub async fn run(command: BundleCommand, flags: &ClientFlags) -> anyhow::Result<()> {
    match command {
        BundleCommand::Create(arguments) => create::run(arguments, flags).await,
        BundleCommand::Load(arguments) => load::run(arguments, flags).await,
        BundleCommand::Inspect(arguments) => inspect::run(&arguments).await,
    }
}

/// Bytes, with a word for what is done with them.
fn bar(word: &'static str, size_bytes: u64) -> anyhow::Result<ProgressBar> {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(size_bytes),
        false => ProgressBar::hidden(),
    };
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")?;
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(word);
    Ok(bar)
}

/// Reads all of the bundle, and finds what was changed.
async fn check(bundle: std::sync::Arc<Bundle>) -> anyhow::Result<()> {
    let bar = bar("Verifying", bundle.manifest().size_bytes())?;
    let shown = bar.clone();
    let checked = tokio::task::spawn_blocking(move || bundle.check(&mut |bytes| shown.inc(bytes))).await?;
    bar.finish_and_clear();
    match checked {
        Err(error @ BundleError::Entry { .. }) => bail!("the bundle is damaged, or was changed: {error}"),
        other => Ok(other?),
    }
}
