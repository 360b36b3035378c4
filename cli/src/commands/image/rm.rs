//! `gantry image rm demo/hello:1`

use anyhow::Context as _;
use gantry_oci::client::RegistryClient;

#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// REPOSITORY:TAG removes the tag, REPOSITORY@DIGEST the image with all its tags
    #[arg(required = true)]
    images: Vec<String>,
}

pub async fn run(args: RmArgs, client: &RegistryClient) -> anyhow::Result<()> {
    for name in &args.images {
        let reference = super::parse_local(name)?;
        client
            .delete_manifest(&reference.repository, &reference.identifier())
            .await
            .with_context(|| format!("cannot remove {name}"))?;
        let verb = if reference.digest.is_some() { "Deleted" } else { "Untagged" };
        println!("{verb}: {reference}");
    }
    Ok(())
}
