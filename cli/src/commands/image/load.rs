//! `gantry image load archive.tar --tag demo/x:1`

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use gantry_oci::Reference;
use gantry_oci::archive::{ArchiveLimits, load};
use gantry_oci::client::RegistryClient;
use gantry_oci::reference::may_be_tag;

#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// docker-archive (`docker save`), OCI archive or OCI layout directory
    path: PathBuf,
    /// Name in the registry [default: the names in the archive]
    #[arg(long, short)]
    tag: Option<Reference>,
}

pub async fn run(args: LoadArgs, client: &RegistryClient) -> anyhow::Result<()> {
    let path = args.path.clone();
    let images = tokio::task::spawn_blocking(move || load(&path, &ArchiveLimits::default()))
        .await?
        .with_context(|| format!("cannot load {}", args.path.display()))?;
    if let Some(tag) = args.tag {
        let [image] = images.as_slice() else {
            bail!(
                "{} holds {} images and --tag names one: load it without --tag",
                args.path.display(),
                images.len()
            );
        };
        return super::push(client, &tag, &image.image).await;
    }
    // Every name is checked before the first byte is sent.
    let mut named = Vec::new();
    for image in &images {
        for name in &image.names {
            if may_be_tag(name) {
                bail!(
                    "{} calls its image {name:?}, which may be a tag: say where it goes with --tag REPOSITORY:TAG",
                    args.path.display()
                );
            }
            named.push((super::parse_local(name)?, &image.image));
        }
        if image.names.is_empty() {
            bail!("an image in {} has no name: give one with --tag", args.path.display());
        }
    }
    for (name, image) in named {
        super::push(client, &name, image).await?;
    }
    Ok(())
}
