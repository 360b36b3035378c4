//! `gantry registry fsck`

use anyhow::bail;

use crate::Context;
use crate::commands::identity::render::table;
use crate::commands::image::Output;

#[derive(clap::Args, Debug)]
pub struct FsckArgs {
    /// Look at names and sizes alone, without reading every blob
    #[arg(long)]
    quick: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Fails when something is wrong.
pub async fn run(arguments: FsckArgs, context: &Context) -> anyhow::Result<()> {
    let path = format!("/registry/v1/fsck?content={}", !arguments.quick);
    let last = super::follow(context, &path, "Checking").await?;
    let checked = &last["checked"];
    if checked.is_null() {
        bail!("the server ended before the check did: start it again");
    }
    let count = |field: &str| checked[field].as_u64().unwrap_or(0);
    if arguments.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(checked)?);
    } else {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let listed = checked["listed"].as_array().into_iter().flatten();
        let rows: Vec<_> =
            listed.map(|p| vec![text(&p["repository"]), text(&p["digest"]), text(&p["problem"])]).collect();
        if !rows.is_empty() {
            println!("{}", table(&["REPOSITORY", "DIGEST", "PROBLEM"], rows));
        }
        println!(
            "{} repositories, {} manifests, {} blobs, {} read",
            count("repositories"),
            count("manifests"),
            count("blobs"),
            super::bytes(count("bytes"))
        );
    }
    match count("problems") {
        0 => Ok(()),
        problems => bail!("{problems} problems: push the images again, or restore them from a backup"),
    }
}
