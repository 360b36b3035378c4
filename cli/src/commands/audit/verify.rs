//! `gantry audit verify`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use gantry_audit_api::query::Query;
use gantry_audit_api::signed::{Checkpoint, PublicKeys};
use gantry_audit_api::verify::{Report, Witness, verify};
use serde::de::DeserializeOwned;

use super::{Output, Trail};
use crate::ClientFlags;

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Read the trail in this directory instead of asking the server: DATA-DIR/audit, or a copy of it
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
    /// Public keys that were kept elsewhere; without them the directory's own are trusted
    #[arg(long, value_name = "FILE", requires = "dir")]
    keys: Option<PathBuf>,
    /// A checkpoint that was kept elsewhere, which the trail must hold; may be given more than once
    #[arg(long, value_name = "FILE", requires = "dir")]
    checkpoint: Vec<PathBuf>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: VerifyArgs, flags: &ClientFlags) -> anyhow::Result<()> {
    let report = match &args.dir {
        Some(directory) => {
            let keys = args.keys.as_deref().map(read::<PublicKeys>).transpose()?;
            let kept = args.checkpoint.iter().map(|path| read::<Checkpoint>(path));
            verify(directory, &Witness { keys, checkpoints: kept.collect::<anyhow::Result<_>>()? })?
        }
        None => {
            let answer = Trail::of(flags).await?.get("verify", &Query::default()).await?;
            answer.json::<Report>().await.context("the server's report is not readable")?
        }
    };
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print!("{}", text(&report)),
    }
    match &report.first_bad {
        None => Ok(()),
        Some(bad) if bad.file.is_empty() => {
            bail!("the audit trail is not intact from record {} on", bad.sequence)
        }
        Some(bad) => bail!("every record is as it was written, but {} is not", bad.file),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not readable", path.display()))
}

fn text(report: &Report) -> String {
    let Report { records, segments, checkpoints, first_sequence, last_sequence, signed_through, .. } = report;
    let mut lines = vec![
        format!(
            "Records:      {records} in {segments} segments (numbers {first_sequence} to {last_sequence})"
        ),
        format!("Checkpoints:  {checkpoints}, signed through {signed_through}"),
    ];
    if report.recordings > 0 {
        lines.push(format!("Recordings:   {} as they were closed", report.recordings));
    }
    if report.indexes > 0 {
        lines.push(format!("Indexes:      {} as they were made", report.indexes));
    }
    if report.removed_through > 0 {
        lines.push(format!("Expired:      up to {}, by tombstone", report.removed_through));
    }
    if report.torn_bytes > 0 {
        lines.push(format!("Unfinished:   {} bytes after the last record", report.torn_bytes));
    }
    match &report.first_bad {
        None => lines.push("The audit trail is intact.".to_owned()),
        Some(bad) => {
            lines.push(match bad.file.is_empty() {
                true => format!("First bad:    record {} in segment {}", bad.sequence, bad.segment),
                false => format!("First bad:    {}", bad.file),
            });
            lines.push(format!("              {}", bad.what));
            if !bad.audit_id.is_empty() {
                lines.push(format!("              found there: {} of {}", bad.audit_id, bad.time));
            }
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_audit_api::verify::Bad;

    #[test]
    fn the_report_names_the_first_bad_record() {
        let mut report = Report {
            intact: true,
            segments: 2,
            records: 40,
            checkpoints: 3,
            first_sequence: 1,
            last_sequence: 43,
            signed_through: 42,
            ..Report::default()
        };
        assert_eq!(
            text(&report),
            "Records:      40 in 2 segments (numbers 1 to 43)\nCheckpoints:  3, signed through 42\nThe audit trail is intact.\n"
        );
        report.first_bad = Some(Bad {
            sequence: 17,
            segment: 1,
            what: "it was changed".to_owned(),
            audit_id: "id-16".to_owned(),
            time: "2026-01-01T00:00:16Z".to_owned(),
            ..Bad::default()
        });
        let text = text(&report);
        assert!(
            text.contains("First bad:    record 17 in segment 1\n              it was changed\n"),
            "{text}"
        );
        assert!(text.ends_with("found there: id-16 of 2026-01-01T00:00:16Z\n"), "{text}");
        report.first_bad = Some(Bad {
            sequence: 1,
            segment: 1,
            what: "it is not the one".to_owned(),
            file: "segments/000000000001.idx".to_owned(),
            ..Bad::default()
        });
        let text = super::text(&report);
        assert!(
            text.ends_with("First bad:    segments/000000000001.idx\n              it is not the one\n"),
            "{text}"
        );
    }
}
