//! `gantry registry replicate NAME`

use anyhow::bail;

use crate::Context;
use crate::commands::image::Output;

#[derive(clap::Args, Debug)]
pub struct ReplicateArgs {
    /// The replication
    name: String,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Fails when something could not be copied.
pub async fn run(arguments: ReplicateArgs, context: &Context) -> anyhow::Result<()> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let query = query.append_pair("name", &arguments.name).finish();
    let last = super::follow(context, &format!("/registry/v1/replicate?{query}"), "Copying").await?;
    let done = &last["replicated"];
    if done.is_null() {
        bail!("the server ended before the copy did; the next one goes on with it");
    }
    if arguments.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(done)?);
        return Ok(());
    }
    let count = |field: &str| done[field].as_u64().unwrap_or(0);
    println!("{} tags copied, {} blobs, {}", count("tags"), count("blobs"), super::bytes(count("bytes")));
    if count("deleted") > 0 {
        println!("{} tags removed", count("deleted"));
    }
    Ok(())
}
