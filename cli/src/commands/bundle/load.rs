//! `gantry bundle load site.tar --key cosign.pub`

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use gantry_bundle::{Advisories, Bundle, Repository};
use gantry_oci::client::{Progress, RegistryClient};
use gantry_oci::{Digest, RepositoryName};
use gantry_scanner::advisories::{Installed, Manifest, exported_manifest, install};
use indicatif::ProgressBar;

use super::TrustArgs;
use crate::commands::advisories::{server, told};
use crate::{ClientFlags, Context};

const MANIFEST_MAX_BYTES: u64 = 4 << 20;

#[derive(clap::Args, Debug)]
pub struct LoadArgs {
    /// The bundle
    file: PathBuf,
    #[command(flatten)]
    trust: TrustArgs,
    /// Believe a bundle without knowing whose it is
    #[arg(long, conflicts_with = "key")]
    insecure_skip_signature: bool,
    /// Put its repositories below this prefix: PREFIX/REPOSITORY, such as those of a project, DOMAIN/PROJECT
    #[arg(long, value_name = "PREFIX")]
    into: Option<RepositoryName>,
    /// Leave its advisories out
    #[arg(long)]
    no_advisories: bool,
    /// Put its advisories into this directory of `gantry advisories`, and not into the server's (role operator)
    #[arg(long, value_name = "DIR", conflicts_with = "no_advisories")]
    advisories_directory: Option<PathBuf>,
}

pub async fn run(args: LoadArgs, flags: &ClientFlags) -> anyhow::Result<()> {
    let (shown, path, keys) = (args.file.display().to_string(), args.file.clone(), args.trust.keys()?);
    if keys.is_empty() && !args.insecure_skip_signature {
        bail!(
            "say whose bundles you believe with --key, or that it does not matter with --insecure-skip-signature"
        );
    }
    let opened = tokio::task::spawn_blocking(move || Bundle::open(&path)).await?;
    let bundle = Arc::new(opened.with_context(|| shown.clone())?);
    if !keys.is_empty() {
        bundle.signed_by(&keys).with_context(|| shown.clone())?;
    }
    // All of it, before anything of it is passed on.
    super::check(bundle.clone()).await.with_context(|| shown.clone())?;
    let targets = targets(&bundle, args.into.as_ref())?;
    let advisories = bundle.manifest().advisories.as_ref().filter(|_| !args.no_advisories);
    let is_local = args.advisories_directory.is_some() || advisories.is_none();
    let context = match targets.is_empty() && is_local {
        true => None,
        false => Some(Context::load(flags).await?),
    };
    let client = context.as_ref().map(Context::registry).transpose()?;
    // Gigabytes are not sent to who will not take them.
    for (client, (name, _)) in client.iter().flat_map(|client| targets.iter().map(move |t| (client, t))) {
        client.check_push(name).await.with_context(|| format!("cannot push to {name}"))?;
    }
    // Before the images, which are compared with them as they come.
    if let Some(advisories) = advisories {
        let installed = match (&args.advisories_directory, &context) {
            (Some(directory), _) => {
                let (bundle, advisories, into) = (bundle.clone(), advisories.clone(), directory.clone());
                let done = tokio::task::spawn_blocking(move || put_advisories(&bundle, &advisories, &into));
                told(&directory.display().to_string(), &done.await??)
            }
            (None, Some(context)) => {
                let sent = send_advisories(context, &bundle, advisories).await;
                let why = "the server does not take the advisories (--no-advisories leaves them out)";
                told(&context.server(), &sent.context(why)?)
            }
            (None, None) => bail!("there is no server to bring the advisories to"),
        };
        print!("{installed}");
    }
    match client {
        Some(client) => images(&client, &bundle, &targets).await,
        None => Ok(()),
    }
}

/// Each repository, by the name that it gets.
fn targets<'a>(
    bundle: &'a Bundle,
    into: Option<&RepositoryName>,
) -> anyhow::Result<Vec<(RepositoryName, &'a Repository)>> {
    let named = |repository: &'a Repository| {
        let name =
            into.map_or_else(|| repository.name.clone(), |prefix| format!("{prefix}/{}", repository.name));
        Ok((name.parse().with_context(|| name.clone())?, repository))
    };
    bundle.manifest().repositories.iter().map(named).collect()
}

/// Pushes blobs, then manifests, then tags: nothing is seen before all that it needs is there.
async fn images(
    client: &RegistryClient,
    bundle: &Bundle,
    targets: &[(RepositoryName, &Repository)],
) -> anyhow::Result<()> {
    let bar = super::bar("Pushing", 0)?;
    let pushed = push_blobs(client, bundle, targets, &bar).await;
    bar.finish_and_clear();
    pushed?;
    for (name, repository) in targets {
        for manifest in &repository.manifests {
            let bytes = bundle.bytes(&manifest.digest, MANIFEST_MAX_BYTES)?;
            let (kind, digest) = (manifest.media_type.as_str(), manifest.digest.to_string());
            if client.has_manifest(name, &manifest.digest).await? {
                continue;
            }
            let put = client.put_manifest(name, &digest, kind, bytes).await;
            put.with_context(|| format!("cannot push {name}@{digest}"))?;
        }
    }
    for (name, repository) in targets {
        for manifest in &repository.manifests {
            for tag in &manifest.tags {
                let bytes = bundle.bytes(&manifest.digest, MANIFEST_MAX_BYTES)?;
                if client.resolve(name, tag).await?.as_ref() != Some(&manifest.digest) {
                    let put = client.put_manifest(name, tag, &manifest.media_type, bytes).await;
                    put.with_context(|| format!("cannot push {name}:{tag}"))?;
                }
                if manifest.subject.is_none() {
                    println!("{name}:{tag}@{}", manifest.digest);
                }
            }
        }
    }
    Ok(())
}

async fn push_blobs(
    client: &RegistryClient,
    bundle: &Bundle,
    targets: &[(RepositoryName, &Repository)],
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let mut blobs = Vec::new();
    for (name, repository) in targets {
        for digest in &repository.blobs {
            blobs.push((name, bundle.blob(digest)?));
        }
    }
    bar.set_length(blobs.iter().map(|(_, blob)| blob.size_bytes).sum());
    let mut there: HashMap<Digest, &RepositoryName> = HashMap::new();
    let mut done = 0;
    for (name, blob) in blobs {
        let watch = |progress: Progress| bar.set_position(done + progress.sent_bytes);
        let elsewhere = there.get(&blob.digest).copied();
        let mounted = match elsewhere {
            Some(source) if !client.has_blob(name, &blob.digest).await? => {
                client.mount_blob(name, source, &blob.digest).await?
            }
            _ => false,
        };
        if !mounted {
            let pushed = client.push_blob(name, &blob, &watch).await;
            pushed.with_context(|| format!("cannot push {name}@{}", blob.digest))?;
        }
        done += blob.size_bytes;
        bar.set_position(done);
        there.insert(blob.digest, name);
    }
    Ok(())
}

fn put_advisories(bundle: &Bundle, advisories: &Advisories, directory: &Path) -> anyhow::Result<Installed> {
    let manifest = advisories_manifest(bundle, advisories)?;
    Ok(install(directory, manifest, &mut bundle.file(&advisories.table)?.open()?)?)
}

async fn send_advisories(
    context: &Context,
    bundle: &Bundle,
    advisories: &Advisories,
) -> anyhow::Result<Installed> {
    let manifest = advisories_manifest(bundle, advisories)?;
    let (table, digest) = (bundle.file(&advisories.table)?.open()?, bundle.digest(&advisories.table)?);
    server::put(context, &manifest, digest, table).await
}

fn advisories_manifest(bundle: &Bundle, advisories: &Advisories) -> anyhow::Result<Manifest> {
    let mut manifest = Vec::new();
    bundle.file(&advisories.manifest)?.open()?.read_to_end(&mut manifest)?;
    exported_manifest(&manifest).map_err(anyhow::Error::msg)
}
