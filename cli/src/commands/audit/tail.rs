//! `gantry audit tail`

use std::io::Write;

use anyhow::Context as _;
use futures::StreamExt;
use gantry_audit_api::record::Record;
use gantry_audit_api::table::row;

use super::{Filter, Output, Trail};

#[derive(Debug, clap::Args)]
pub struct TailArgs {
    /// Words that must all occur in a record, in any order
    words: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Records to begin with
    #[arg(long, default_value_t = 10)]
    lines: usize,
    /// Show what is there and end
    #[arg(long)]
    no_follow: bool,
    /// How to print: a line per record, or JSON lines
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: TailArgs, trail: &Trail) -> anyhow::Result<()> {
    let mut query = args.filter.query(&args.words, trail).await?;
    query.limit = Some(args.lines.clamp(1, 1000));
    let page = trail.page(&query).await?;
    for item in page.items.iter().take(args.lines).rev() {
        show(item.get(), args.output)?;
    }
    if args.no_follow {
        return Ok(());
    }
    query.limit = None;
    query.follow = true;
    query.continue_ = Some(page.metadata.resource_version).filter(|version| !version.is_empty());
    let mut body = trail.get("records", &query).await?.bytes_stream();
    let mut rest = Vec::new();
    while let Some(piece) = body.next().await {
        let broken_off = "the server ended the stream: it stops, or your token or your right to it is gone";
        rest.extend_from_slice(&piece.context(broken_off)?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            show(std::str::from_utf8(&line[..end])?, args.output)?;
        }
    }
    Ok(())
}

fn show(line: &str, output: Output) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{line}")?,
        // A table cannot be aligned before its end.
        Output::Table => {
            writeln!(out, "{}", row(&Record::parse(line.as_bytes()).unwrap_or_default()).join("  "))?
        }
    }
    Ok(out.flush()?)
}
