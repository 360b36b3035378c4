//! `gantry advisories update https://osv-vulnerabilities.storage.googleapis.com/`, `status`, `remove`: what
//! `gantry image scan` compares with, for which no server is needed; `push`: what a server compares with.

pub mod server;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use gantry_base::settings::environment;
use gantry_scanner::advisories::{
    AdvisoryData, Given, Index, Installed, SourceState, SourceUpdate, export, mirror, update,
};
use indicatif::ProgressBar;
use jiff::{SignedDuration, Timestamp};

use crate::commands::identity::render;
use crate::commands::image::Output;
use crate::{ClientFlags, Context};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Of silence in an answer, not of the whole: a mirror's zips are large.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Keep advisories of known vulnerabilities on this machine
#[derive(Debug, clap::Subcommand)]
pub enum AdvisoriesCommand {
    /// Bring sources up to date: those that are named, or all that were named before
    Update(UpdateArgs),
    /// Show the sources and how old they are
    Status(StatusArgs),
    /// Take sources away with what they said
    Remove(RemoveArgs),
    /// Give the server those of this machine, unless its own were looked at later (role operator)
    Push(PushArgs),
}

/// Where the index is.
#[derive(Debug, clap::Args)]
pub struct DirectoryArgs {
    /// Directory of the advisories (default: $GANTRY_ADVISORIES_DIR, then $XDG_DATA_HOME/gantry/advisories)
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct UpdateArgs {
    /// OSV documents: a directory of *.json files and zips, a zip, the URL of a zip, or the URL of a mirror with
    /// ecosystems.txt, which ends with a slash
    sources: Vec<String>,
    #[command(flatten)]
    place: DirectoryArgs,
}

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t, hide_default_value = true, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    place: DirectoryArgs,
    /// Those that the server compares images with (role operator)
    #[arg(long, conflicts_with = "directory")]
    server: bool,
}

#[derive(Debug, clap::Args)]
pub struct PushArgs {
    #[command(flatten)]
    place: DirectoryArgs,
}

#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// Sources as `status` shows them
    #[arg(required = true)]
    sources: Vec<String>,
    #[command(flatten)]
    place: DirectoryArgs,
}

impl DirectoryArgs {
    pub fn find(&self) -> anyhow::Result<PathBuf> {
        directory(self.directory.as_deref())
    }
}

/// `chosen`, or the user's own.
pub fn directory(chosen: Option<&std::path::Path>) -> anyhow::Result<PathBuf> {
    let set = chosen.map(PathBuf::from).or_else(|| environment("GANTRY_ADVISORIES_DIR").map(PathBuf::from));
    let data = environment("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(environment("HOME")?).join(".local/share")));
    let directory = set.or_else(|| Some(data?.join("gantry/advisories")));
    directory.context("no place for advisories: name one with --directory, or set GANTRY_ADVISORIES_DIR")
}

/// An index, here or on a server.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    advisory_data: AdvisoryData,
    size_bytes: u64,
    generation: u64,
    sources: Vec<SourceState>,
}

impl Status {
    fn of(index: &Index) -> Self {
        let manifest = index.manifest();
        let (generation, sources) = (manifest.generation, manifest.sources.clone());
        Self { advisory_data: index.data(), size_bytes: index.size_bytes(), generation, sources }
    }
}

pub async fn run(command: AdvisoriesCommand, flags: &ClientFlags) -> anyhow::Result<()> {
    let text = match command {
        AdvisoriesCommand::Update(args) => {
            let directory = args.place.find()?;
            let bar =
                if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
            let watch = |source: &str, done: u64, total: Option<u64>| {
                bar.set_message(source.to_owned());
                bar.set_length(total.unwrap_or(done));
                bar.set_position(done);
            };
            let client = reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")))
                .build()?;
            let brought = mirror::bring(&directory, &client, &args.sources, &watch).await;
            bar.finish_and_clear();
            brought?;
            show(&directory, Output::Table)?
        }
        AdvisoriesCommand::Status(args) if args.server => {
            let said = server::get(&Context::load(flags).await?).await?;
            match args.output {
                Output::Table => table(&serde_json::from_value(said)?, Timestamp::now()),
                Output::Json => serde_json::to_string_pretty(&said)? + "\n",
            }
        }
        AdvisoriesCommand::Status(args) => show(&args.place.find()?, args.output)?,
        AdvisoriesCommand::Push(args) => {
            let exported = export(&args.place.find()?)?;
            let context = Context::load(flags).await?;
            told(&context.server(), &server::push(&context, exported).await?)
        }
        AdvisoriesCommand::Remove(args) => {
            let directory = args.place.find()?;
            let gone = args.sources.into_iter().map(|source| SourceUpdate {
                // What was a path may be gone by now.
                location: mirror::named(&source).unwrap_or(source),
                given: Given::Gone,
                etag: None,
                last_modified: None,
            });
            update(&directory, &gone.collect::<Vec<_>>(), Timestamp::now())?;
            show(&directory, Output::Table)?
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn show(directory: &std::path::Path, output: Output) -> anyhow::Result<String> {
    let status = Status::of(&Index::open(directory)?);
    match output {
        Output::Table => Ok(table(&status, Timestamp::now())),
        Output::Json => Ok(serde_json::to_string_pretty(&status)? + "\n"),
    }
}

/// What became of advisories that were brought to a place.
pub fn told(place: &str, installed: &Installed) -> String {
    let (word, manifest) = match installed {
        Installed::New(manifest) => ("installed", manifest),
        Installed::Kept(manifest) => ("kept: those there are as new", manifest),
    };
    let count: u64 = manifest.sources.iter().map(|source| source.advisories).sum();
    format!("{place}: {count} advisories {word}\n")
}

fn table(status: &Status, now: Timestamp) -> String {
    let data = &status.advisory_data;
    let about = [
        ("Directory", data.source.clone()),
        ("Advisories", data.advisories.to_string()),
        ("Newest", newest(data, now)),
        ("Checked", data.checked_at.map_or("never".to_owned(), |at| ago(at, now))),
        ("Generation", status.generation.to_string()),
        ("On disk", format!("{:.1} MiB", status.size_bytes as f64 / f64::from(1 << 20))),
    ];
    let rows = status.sources.iter().map(|source| row(source, now)).collect();
    let header = ["SOURCE", "ADVISORIES", "NOT READABLE", "NEWEST", "CHECKED", "CHANGED"];
    format!("{}\n\n{}\n", render::fields(&about), render::table(&header, rows))
}

fn row(source: &SourceState, now: Timestamp) -> Vec<String> {
    vec![
        source.location.clone(),
        source.advisories.to_string(),
        source.unreadable.to_string(),
        source.newest_modified.map_or("unknown".to_owned(), |at| ago(at, now)),
        ago(source.checked_at, now),
        ago(source.changed_at, now),
    ]
}

/// `3d ago (2026-11-22T08:00:00Z)`, or that it is not known.
pub fn newest(data: &AdvisoryData, now: Timestamp) -> String {
    let at = data.newest_modified.zip(data.age(now));
    at.map_or("of unknown age".to_owned(), |(at, age)| format!("{} ago ({at})", short(age)))
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", short(now.duration_since(at).max(SignedDuration::ZERO)))
}

/// The largest unit alone, as kubectl shows ages: `5d`, `3h`, `12m`, `8s`.
fn short(age: SignedDuration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, want) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (7_300, "2h"), (172_799, "47h"), (172_800, "2d")]
        {
            assert_eq!(short(SignedDuration::from_secs(seconds)), want);
        }
    }
}
