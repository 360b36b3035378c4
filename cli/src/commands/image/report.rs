//! `gantry image report demo/web:1`: what the registry knows of an image.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use gantry_scanner::Report;
use gantry_scanner::rating::Grade;
use serde_json::Value;

use super::scan::{Format, Lang, grade, is_as_good, rendered};
use crate::Context;

/// Between two questions for a report that is not there yet.
const ASK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// REPOSITORY[:TAG][@DIGEST]
    image: String,
    /// How to print, as `gantry image scan` does
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Of an index, the image for this platform (default: for the server's)
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
    /// The language of a page
    #[arg(long, value_enum, default_value_t)]
    lang: Lang,
    /// End with exit code 1 if the rating is worse than this, or cannot be given
    #[arg(long, value_name = "GRADE", value_parser = grade)]
    require: Option<Grade>,
    /// How long to wait for the scan of an image that was pushed just now
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
}

pub async fn run(args: ReportArgs, context: &Context) -> anyhow::Result<()> {
    let reference = super::parse_local(&args.image)?;
    let (repository, identifier) = (&reference.repository, reference.identifier());
    let mut url = format!("{}/registry/v1/reports/{repository}/{identifier}", context.server());
    if let Some(platform) = &args.platform {
        url += &format!("?platform={platform}");
    }
    let http = context.http()?;
    let until = Instant::now() + Duration::from_secs(args.wait);
    let report = loop {
        let response = http.get(&url).send().await;
        let response = response.with_context(|| format!("cannot reach {}", context.server()))?;
        let status = response.status();
        if status.is_success() {
            break response.json::<Report>().await.context("the server's report cannot be understood")?;
        }
        let body: Value = response.json().await.unwrap_or_default();
        if status.as_u16() == 503 && Instant::now() < until {
            tokio::time::sleep(ASK_EVERY).await;
            continue;
        }
        if status.as_u16() == 404 {
            bail!("no such image: {}", args.image);
        }
        bail!("{}", body["message"].as_str().map_or_else(|| status.to_string(), str::to_owned));
    };
    let text = rendered(&report, args.format, args.lang)?;
    match &args.output {
        Some(path) => gantry_base::fs::write_atomic(path, text.as_bytes(), 0o644)
            .with_context(|| format!("cannot write {}", path.display()))?,
        None => std::io::stdout().write_all(text.as_bytes())?,
    }
    args.require.map_or(Ok(()), |require| is_as_good(&report, require))
}
