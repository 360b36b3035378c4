//! `gantry bundle inspect site.tar --key cosign.pub`

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use gantry_bundle::Bundle;
use serde_json::json;

use super::TrustArgs;
use crate::commands::identity::render;
use crate::commands::image::Output;

#[derive(clap::Args, Debug)]
pub struct InspectArgs {
    /// The bundle
    file: PathBuf,
    #[command(flatten)]
    trust: TrustArgs,
    /// Read all of it, and find what was changed
    #[arg(long)]
    check: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let (shown, path, keys) = (args.file.display().to_string(), args.file.clone(), args.trust.keys()?);
    let opened = tokio::task::spawn_blocking(move || Bundle::open(&path)).await?;
    let bundle = Arc::new(opened.with_context(|| shown.clone())?);
    let signer = match keys.is_empty() {
        true => None,
        false => Some(bundle.signed_by(&keys).with_context(|| shown.clone())?.fingerprint()),
    };
    if args.check {
        super::check(bundle.clone()).await.with_context(|| shown.clone())?;
    }
    let manifest = bundle.manifest();
    if args.output == Output::Json {
        let said = json!({ "signed": bundle.is_signed(), "signedBy": signer, "bundle": manifest });
        println!("{}", serde_json::to_string_pretty(&said)?);
        return Ok(());
    }
    let signed = match (&signer, bundle.is_signed()) {
        (Some(signer), _) => format!("by key {signer}"),
        (None, true) => "yes; --key verifies by whom".to_owned(),
        (None, false) => "no".to_owned(),
    };
    let advisories = manifest.advisories.as_ref().map_or("none".to_owned(), |advisories| {
        let newest = advisories.newest_modified.map(|at| format!(", the newest of {at}"));
        format!("{}{}", advisories.count, newest.unwrap_or_default())
    });
    let about = [
        ("Created", manifest.created.to_string()),
        ("Size", indicatif::BinaryBytes(manifest.size_bytes()).to_string()),
        ("Signed", signed),
        ("Content", if args.check { "is what it says" } else { "not read; --check reads it" }.to_owned()),
        ("Advisories", advisories),
    ];
    println!("{}", render::fields(&about));
    let mut rows = Vec::new();
    for repository in &manifest.repositories {
        for pushed in &repository.manifests {
            let refers = pushed.subject.is_some();
            if pushed.tags.is_empty() && !refers {
                continue;
            }
            // What lies beside an image is told by its kind: its tag is the image's digest.
            let tag = if refers { "-".to_owned() } else { pushed.tags.join(",") };
            let kind = pushed.artifact_type.clone().filter(|_| refers);
            let about = pushed.subject.as_ref().map(|subject| format!(" of {:.19}", subject.to_string()));
            let kind = kind.map_or("image".to_owned(), |kind| kind + &about.unwrap_or_default());
            rows.push(vec![repository.name.clone(), tag, pushed.digest.to_string(), kind]);
        }
    }
    if !rows.is_empty() {
        println!("\n{}", render::table(&["REPOSITORY", "TAG", "DIGEST", "KIND"], rows));
    }
    Ok(())
}
