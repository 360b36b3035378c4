//! `gantry image inspect demo/hello:1`

use anyhow::Context as _;
use gantry_oci::client::RegistryClient;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// REPOSITORY[:TAG][@DIGEST]
    #[arg(required = true)]
    images: Vec<String>,
}

/// Prints a JSON list, one object per image.
pub async fn run(args: InspectArgs, client: &RegistryClient) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for name in &args.images {
        let reference = super::parse_local(name)?;
        let manifest = client
            .manifest(&reference.repository, &reference.identifier())
            .await
            .with_context(|| format!("no such image: {name}"))?;
        let parsed: Value = serde_json::from_slice(&manifest.bytes)?;
        let config = match parsed["config"]["digest"].as_str() {
            Some(digest) => {
                let bytes = client.small_blob(&reference.repository, &digest.parse()?).await?;
                serde_json::from_slice(&bytes).unwrap_or(Value::Null)
            }
            None => Value::Null,
        };
        all.push(json!({
            "name": reference.to_string(),
            "digest": manifest.digest,
            "mediaType": manifest.media_type,
            "manifest": parsed,
            "config": config,
        }));
    }
    println!("{}", serde_json::to_string_pretty(&all)?);
    Ok(())
}
