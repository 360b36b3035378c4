//! `gantry audit replay`

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use gantry_audit_api::cast::{CastEvent, CastHeader};
use gantry_audit_api::query::Query;

use super::Trail;
use crate::ClientFlags;

/// Of a recording, decompressed.
const CAST_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// The session, as `gantry audit search --event session-recorded -o json` names it
    #[arg(required_unless_present = "file")]
    session: Option<String>,
    /// Play this file instead: .cast or .cast.zst
    #[arg(long, short, value_name = "FILE", conflicts_with = "session")]
    file: Option<PathBuf>,
    /// How many times faster
    #[arg(long, default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
    /// Pauses are no longer than this, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pause_max: f64,
    /// Print the recording itself, in asciicast format
    #[arg(long)]
    raw: bool,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed > 0.0 && speed.is_finite() => Ok(speed),
        _ => Err("it must be a number above 0".to_owned()),
    }
}

pub async fn run(args: ReplayArgs, flags: &ClientFlags) -> anyhow::Result<()> {
    let text = match (&args.file, &args.session) {
        (Some(path), _) => read(path).with_context(|| path.display().to_string())?,
        (None, Some(id)) => {
            let path = format!("sessions/{id}");
            Trail::of(flags).await?.get(&path, &Query::default()).await?.text().await?
        }
        (None, None) => bail!("name a session or a file"),
    };
    if args.raw {
        print!("{text}");
        return Ok(());
    }
    let mut lines = text.lines();
    let header: CastHeader = lines
        .next()
        .and_then(|line| serde_json::from_str(line).ok())
        .context("this is no recording in asciicast format")?;
    if header.version != 2 {
        bail!("the recording has version {}, this program plays version 2", header.version);
    }
    eprintln!("{} {}", header.title, header.command);
    let mut at = 0.0;
    for event in lines.filter_map(CastEvent::parse).filter(|event| event.code == 'o') {
        let pause = ((event.seconds - at) / args.speed).clamp(0.0, args.pause_max.max(0.0));
        at = event.seconds;
        let mut out = std::io::stdout();
        out.flush()?;
        tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        out.write_all(event.data.as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    let file = std::fs::File::open(path)?;
    let mut text = String::new();
    if path.extension().is_some_and(|extension| extension == "zst") {
        gantry_audit_api::cast::decompressed(file)?.take(CAST_BYTES_MAX).read_to_string(&mut text)?;
    } else {
        file.take(CAST_BYTES_MAX).read_to_string(&mut text)?;
    }
    Ok(text)
}
