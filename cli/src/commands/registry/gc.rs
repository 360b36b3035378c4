//! `gantry registry gc`

use anyhow::bail;

use crate::Context;
use crate::commands::image::Output;

#[derive(clap::Args, Debug)]
pub struct GcArgs {
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(arguments: GcArgs, context: &Context) -> anyhow::Result<()> {
    let last = super::follow(context, "/registry/v1/gc", "Collecting").await?;
    let collected = &last["collected"];
    if collected.is_null() {
        bail!("the server ended before the collection did; the next one goes on with it");
    }
    if arguments.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(collected)?);
        return Ok(());
    }
    let count = |field: &str| collected[field].as_u64().unwrap_or(0);
    println!("{} blobs removed, {} freed", count("blobs"), super::bytes(count("bytes")));
    if count("uploads") > 0 {
        println!("{} abandoned uploads removed", count("uploads"));
    }
    Ok(())
}
