//! `gantry image sign --key cosign.key demo/x:1`

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_oci::client::RegistryClient;
use gantry_signatures::attachment::{self, Subject};
use gantry_signatures::payload::Payload;
use gantry_signatures::{PrivateKey, Signature};

use super::keys::Password;
use super::verify;

#[derive(Debug, clap::Args)]
pub struct SignArgs {
    /// REPOSITORY[:TAG][@DIGEST]; a tag is resolved once, and the digest is what is signed
    #[arg(required = true)]
    images: Vec<String>,
    /// The private key: of `gantry image generate-key-pair`, of cosign, or PKCS #8 in PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    password: Password,
    /// A certificate of the key, for those who trust its authority and not the key
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// The certificates between that one and the root
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_chain: Option<PathBuf>,
    /// The name to sign for [default: HOST/REPOSITORY as this command reaches it]
    #[arg(long, value_name = "NAME")]
    sign_container_identity: Option<String>,
}

/// Prints `REPOSITORY@DIGEST` of each signed image.
pub async fn run(args: SignArgs, client: &RegistryClient, host: &str) -> anyhow::Result<()> {
    let key = args.password.open(&args.key)?;
    let read = |path: &Option<PathBuf>| {
        let text = path.as_ref().map(|p| std::fs::read_to_string(p).with_context(|| p.display().to_string()));
        text.transpose()
    };
    let (certificate, chain) = (read(&args.certificate)?, read(&args.certificate_chain)?);
    for name in &args.images {
        let image = super::parse_local(name)?;
        let manifest = client
            .manifest(&image.repository, &image.identifier())
            .await
            .with_context(|| format!("no such image: {name}"))?;
        let reference = args.sign_container_identity.clone();
        let reference = reference.unwrap_or_else(|| format!("{host}/{}", image.repository));
        let payload = Payload { reference, digest: manifest.digest.clone() };
        let signature =
            signed(&key, &payload, jiff::Timestamp::now().as_second(), (certificate.clone(), chain.clone()))?;
        let subject = Subject {
            digest: manifest.digest.clone(),
            media_type: manifest.media_type,
            size_bytes: manifest.bytes.len() as u64,
        };
        let tag = attachment::tag(&subject.digest).context("the digest makes no tag")?;
        let existing = verify::manifest_of(client, &image.repository, tag.as_str()).await?;
        let existing = existing.as_ref().map(|manifest| &manifest.bytes[..]);
        let attached = attachment::with_signature(existing, &subject, &signature)
            .with_context(|| format!("what is under {tag} is no manifest of signatures"))?;
        for blob in &attached.blobs {
            client.push_blob(&image.repository, blob, &|_| {}).await?;
        }
        let kind = attachment::MANIFEST_TYPE;
        client
            .put_manifest(&image.repository, tag.as_str(), kind, attached.manifest)
            .await
            .with_context(|| format!("cannot push the signature of {name}"))?;
        println!("{}@{}", image.repository, subject.digest);
    }
    Ok(())
}

fn signed(
    key: &PrivateKey,
    payload: &Payload,
    at: i64,
    (certificate, chain): (Option<String>, Option<String>),
) -> anyhow::Result<Signature> {
    let payload = payload.to_bytes(at);
    let signature = STANDARD.encode(key.sign(&payload)?);
    Ok(Signature { payload: payload.into(), signature, certificate, chain })
}
