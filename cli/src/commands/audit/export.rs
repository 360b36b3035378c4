//! `gantry audit export`

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use futures::StreamExt;

use super::{Filter, Trail};

#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Words that must all occur in a record, in any order
    words: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Write to this file instead of standard output; it must not be there yet
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub async fn run(args: ExportArgs, trail: &Trail) -> anyhow::Result<()> {
    let query = args.filter.query(&args.words, trail).await?;
    let mut out: Box<dyn Write> = match &args.file {
        None => Box::new(std::io::stdout().lock()),
        Some(path) => {
            use std::os::unix::fs::OpenOptionsExt as _;
            let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            Box::new(file.with_context(|| path.display().to_string())?)
        }
    };
    let mut body = trail.get("export", &query).await?.bytes_stream();
    let mut records = 0_u64;
    while let Some(piece) = body.next().await {
        let piece = piece.context("the export broke off")?;
        records += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
        out.write_all(&piece)?;
    }
    out.flush()?;
    if let Some(path) = &args.file {
        eprintln!("{records} records written to {}", path.display());
    }
    Ok(())
}
