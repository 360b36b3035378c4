//! `gantry image pack PATH --tag demo/hello:1 --port 8080`

use std::path::PathBuf;

use anyhow::Context as _;
use gantry_oci::Reference;
use gantry_oci::client::RegistryClient;
use gantry_oci::image::Image;
use gantry_oci::pack::{PackOptions, pack};

#[derive(Debug, clap::Args)]
pub struct PackArgs {
    /// The executable or directory
    path: PathBuf,
    /// Name of the image: REPOSITORY[:TAG]
    #[arg(long, short)]
    tag: Reference,
    /// Port the program listens on: PORT or PORT/udp
    #[arg(long, short)]
    port: Vec<String>,
    /// User the program runs as, USER[:GROUP] [default: 65532:65532]
    #[arg(long, short)]
    user: Option<String>,
    /// Environment variable, NAME=VALUE
    #[arg(long, short)]
    env: Vec<String>,
    /// Label, NAME=VALUE
    #[arg(long, short)]
    label: Vec<String>,
    /// Program to run and its first arguments, once per word [default: the packed program]
    #[arg(long, allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Default argument, once per word
    #[arg(long, allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Working directory in the image
    #[arg(long)]
    workdir: Option<String>,
    /// Where the program or directory goes in the image [default: /usr/local/bin/NAME, /app]
    #[arg(long)]
    destination: Option<String>,
    /// Further file or program of this machine to pack at its own path
    #[arg(long)]
    with: Vec<PathBuf>,
    /// Write an OCI archive to this file and push nothing
    #[arg(long, short)]
    pub(super) output: Option<PathBuf>,
}

/// Packs and pushes.
pub async fn run(args: PackArgs, client: &RegistryClient) -> anyhow::Result<()> {
    let name = args.tag.clone();
    let image = pack_image(args).await?;
    super::push(client, &name, &image).await
}

/// Packs into an archive (`--output`) and prints the image's digest.
pub async fn write(args: PackArgs) -> anyhow::Result<()> {
    let output = args.output.clone().context("--output is needed")?;
    let name = args.tag.tag.clone().unwrap_or_else(gantry_oci::Tag::latest);
    let image = pack_image(args).await?;
    let file =
        std::fs::File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
    let digest = image.digest();
    let write = move || image.write_archive(name.as_str(), std::io::BufWriter::new(file));
    tokio::task::spawn_blocking(write)
        .await?
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!("{digest}");
    Ok(())
}

async fn pack_image(args: PackArgs) -> anyhow::Result<Image> {
    let mut options = PackOptions {
        user: args.user,
        entrypoint: (!args.entrypoint.is_empty()).then_some(args.entrypoint),
        cmd: args.cmd,
        ports: args.port,
        env: args.env,
        workdir: args.workdir,
        destination: args.destination,
        with: args.with,
        ..PackOptions::default()
    };
    for label in args.label {
        let (name, value) =
            label.split_once('=').with_context(|| format!("--label {label:?} is not NAME=VALUE"))?;
        options.labels.insert(name.to_owned(), value.to_owned());
    }
    let path = args.path;
    Ok(tokio::task::spawn_blocking(move || pack(&path, &options)).await??)
}
