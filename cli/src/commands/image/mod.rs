//! `gantry image …`: programs into images, images into the registry, what is there, and who signed it.

mod inspect;
mod keys;
mod list;
mod load;
mod pack;
mod report;
mod rm;
mod scan;
mod sign;
mod upload;
mod verify;

use std::io::IsTerminal;
use std::sync::Mutex;

use anyhow::Context as _;
use gantry_oci::client::{Progress, RegistryClient};
use gantry_oci::image::Image;
use gantry_oci::reference::without_host;
use gantry_oci::{Reference, RepositoryName, Tag};
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use keys::Password;
pub(crate) use verify::manifest_of;

use crate::{ClientFlags, Context};

/// Pack, load and look at images in the registry
#[derive(Debug, clap::Subcommand)]
pub enum ImageCommand {
    /// Pack a program or a directory with the libraries it needs into an image and push it
    Pack(Box<pack::PackArgs>),
    /// Push the images of a docker-archive, OCI archive or OCI layout, read on this machine
    Load(load::LoadArgs),
    /// Upload a docker-archive or OCI archive as it is, with all platforms; goes on where an earlier upload broke off
    Upload(upload::UploadArgs),
    /// List images
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Show manifests and configurations
    Inspect(inspect::InspectArgs),
    /// Remove tags, or images by digest
    Rm(rm::RmArgs),
    /// Show what the registry found in an image, and its rating
    Report(report::ReportArgs),
    /// Show what is inside an image or a directory: packages, bills of materials
    Scan(scan::ScanArgs),
    /// Make a key pair for signing images
    GenerateKeyPair(keys::KeyPairArgs),
    /// Sign images, so that `cosign verify` and the registry's policies find it
    Sign(sign::SignArgs),
    /// Check who signed an image
    Verify(verify::VerifyArgs),
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

/// Runs one image command against the registry of the server that `flags` name.
pub async fn run(command: ImageCommand, flags: &ClientFlags) -> anyhow::Result<()> {
    let command = match command {
        // Needs no server.
        ImageCommand::Pack(args) if args.output.is_some() => return pack::write(*args).await,
        ImageCommand::Scan(args) => return scan::run(args, flags).await,
        ImageCommand::GenerateKeyPair(args) => return keys::run(&args),
        other => other,
    };
    let context = Context::load(flags).await?;
    let client = context.registry()?;
    match command {
        ImageCommand::Pack(args) => pack::run(*args, &client).await,
        ImageCommand::Load(args) => load::run(args, &client).await,
        ImageCommand::Upload(args) => upload::run(args, &context).await,
        ImageCommand::List(args) => list::run(args, &client).await,
        ImageCommand::Inspect(args) => inspect::run(args, &client).await,
        ImageCommand::Rm(args) => rm::run(args, &client).await,
        ImageCommand::Report(args) => report::run(args, &context).await,
        ImageCommand::Scan(args) => scan::run(args, flags).await,
        ImageCommand::GenerateKeyPair(args) => keys::run(&args),
        ImageCommand::Sign(args) => sign::run(args, &client, &context.registry_host()).await,
        ImageCommand::Verify(args) => verify::run(args, &client).await,
    }
}

/// Pushes with a bar on a terminal and prints `REPOSITORY:TAG@DIGEST`.
async fn push(client: &RegistryClient, name: &Reference, image: &Image) -> anyhow::Result<()> {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(image.size_bytes())
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")?;
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(name.to_string());
    // Blobs come one after the other: what is done, and what of the present one is.
    let done = Mutex::new(std::collections::HashMap::new());
    let watch = |progress: Progress| {
        let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.insert(progress.digest, progress.sent_bytes);
        bar.set_position(done.values().sum());
    };
    let tag = name.tag.clone().unwrap_or_else(Tag::latest);
    let pushed = client.push(&name.repository, std::slice::from_ref(&tag), image, &watch).await;
    bar.finish_and_clear();
    pushed.with_context(|| format!("cannot push {}:{tag}", name.repository))?;
    println!("{}:{tag}@{}", name.repository, image.digest());
    Ok(())
}

/// A name in our registry; a registry's host before it is dropped, as an archive may have one.
pub(crate) fn parse_local(name: &str) -> anyhow::Result<Reference> {
    without_host(name).parse().with_context(|| format!("{name:?} is no image name"))
}

fn repository(name: &str) -> anyhow::Result<RepositoryName> {
    Ok(parse_local(name)?.repository)
}
