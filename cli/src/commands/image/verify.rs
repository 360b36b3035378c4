//! `gantry image verify --key cosign.pub demo/x:1`

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use gantry_oci::client::{ClientError, Manifest, RegistryClient};
use gantry_oci::{Digest, RepositoryName};
use gantry_signatures::{Authority, PublicKey, Trust, attachment, verify};
use serde_json::json;

use super::Output;

/// Manifests of signatures of one image that are looked at.
const ATTACHMENTS_MAX: usize = 100;

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// REPOSITORY[:TAG][@DIGEST]
    image: String,
    /// A public key whose signatures count; may be given more than once
    #[arg(long, value_name = "FILE", required_unless_present = "certificate_chain")]
    key: Vec<PathBuf>,
    /// Certificates whose signatures count: those that lead to the root in this file
    #[arg(long, value_name = "FILE")]
    certificate_chain: Option<PathBuf>,
    /// A pattern (`*`, `?`) of names in the certificate; without one, every name counts
    #[arg(long, value_name = "PATTERN", requires = "certificate_chain")]
    certificate_identity: Vec<String>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Succeeds when at least one signature counts, and prints those that do.
pub async fn run(args: VerifyArgs, client: &RegistryClient) -> anyhow::Result<()> {
    let trust = trust(&args)?;
    let image = super::parse_local(&args.image)?;
    let manifest = client
        .manifest(&image.repository, &image.identifier())
        .await
        .with_context(|| format!("no such image: {}", args.image))?;
    let digest = manifest.digest;
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    for attached in attachments(client, &image.repository, &digest).await? {
        let entries = match attachment::entries(&attached.bytes) {
            Ok(entries) => entries,
            Err(error) => {
                refused.push(error);
                continue;
            }
        };
        for entry in entries {
            let payload = client.small_blob(&image.repository, &entry.payload).await?;
            match verify(&entry.with_payload(payload), &digest, &trust, jiff::Timestamp::now()) {
                Ok(verified) if !good.contains(&verified) => good.push(verified),
                Ok(_) => {}
                Err(why) => refused.push(why.to_string()),
            }
        }
    }
    let name = format!("{}@{digest}", image.repository);
    if good.is_empty() {
        refused.dedup();
        match refused.is_empty() {
            true => bail!("{name} has no signature"),
            false => bail!("no signature of {name} counts: {}", refused.join("; ")),
        }
    }
    match args.output {
        Output::Json => {
            let said = json!({ "image": image.repository.as_str(), "digest": digest, "signatures": good });
            println!("{}", serde_json::to_string_pretty(&said)?);
        }
        Output::Table => {
            println!("{name}");
            for verified in good {
                println!("  signed as {} with {}", verified.reference, verified.by);
            }
        }
    }
    Ok(())
}

fn trust(args: &VerifyArgs) -> anyhow::Result<Trust> {
    let mut trust = Trust::default();
    for path in &args.key {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        trust.keys.push(PublicKey::from_pem(&text).with_context(|| path.display().to_string())?);
    }
    if let Some(path) = &args.certificate_chain {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut authority = Authority::from_pem(&text).with_context(|| path.display().to_string())?;
        authority.identities.clone_from(&args.certificate_identity);
        trust.authorities.push(authority);
    }
    Ok(trust)
}

/// The manifests with signatures of an image: under its tag, and among what refers to it.
async fn attachments(
    client: &RegistryClient,
    repository: &RepositoryName,
    digest: &Digest,
) -> anyhow::Result<Vec<Manifest>> {
    let mut found: Vec<Manifest> = Vec::new();
    if let Some(tag) = attachment::tag(digest) {
        found.extend(manifest_of(client, repository, tag.as_str()).await?);
    }
    for referrer in client.referrers(repository, digest, Some(attachment::ARTIFACT_TYPE)).await? {
        if found.len() < ATTACHMENTS_MAX && !found.iter().any(|manifest| manifest.digest == referrer) {
            found.extend(manifest_of(client, repository, &referrer.to_string()).await?);
        }
    }
    Ok(found)
}

/// A manifest, if there is one.
pub(crate) async fn manifest_of(
    client: &RegistryClient,
    repository: &RepositoryName,
    reference: &str,
) -> Result<Option<Manifest>, ClientError> {
    match client.manifest(repository, reference).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
