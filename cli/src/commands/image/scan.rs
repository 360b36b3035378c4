//! `gantry image scan archive.tar --format cyclonedx`

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use gantry_oci::archive::{ArchiveLimits, open};
use gantry_oci::client::RegistryClient;
use gantry_oci::image::Image;
use gantry_scanner::advisories::{self, AdvisoryError, Index, Severity, Vulnerability};
use gantry_scanner::{Found, Options, Report, Scanner, sbom};
use indicatif::ProgressBar;
use jiff::Timestamp;

use crate::commands::identity::render;
use crate::{ClientFlags, Context};

#[derive(Debug, clap::Args)]
pub struct ScanArgs {
    /// A docker-archive, OCI archive or OCI layout, a directory with a root file system, or an image of the
    /// registry (REPOSITORY[:TAG][@DIGEST]); what exists as a path is a path
    target: String,
    /// How to print: the report as a table or as JSON, or the packages alone as CycloneDX 1.5 or SPDX 2.3
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The image to scan where an archive holds several, by its name in the archive
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Advisories to compare the packages with: a directory of `gantry advisories update`, or OSV documents in a
    /// directory of JSON files and zips, or in a zip (default: those of `gantry advisories`, if there are any)
    #[arg(long, value_name = "PATH", conflicts_with = "no_advisories")]
    advisories: Option<PathBuf>,
    /// Do not compare with advisories
    #[arg(long)]
    no_advisories: bool,
    /// Only packages of the distribution, which is faster
    #[arg(long)]
    os_only: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
    Cyclonedx,
    Spdx,
}

/// Scans; only an image of the registry needs a server.
pub async fn run(args: ScanArgs, flags: &ClientFlags) -> anyhow::Result<()> {
    let path = PathBuf::from(&args.target);
    let image = if path.exists() {
        None
    } else {
        Some(pull(&args.target, flags).await.with_context(|| {
            format!("{:?} is no file or directory here, and as an image it cannot be had", args.target)
        })?)
    };
    let text = tokio::task::spawn_blocking(move || {
        let report = scan(&args, image)?;
        let text = render(&report, args.format)?;
        match &args.output {
            Some(path) => gantry_base::fs::write_atomic(path, text.as_bytes(), 0o644)
                .with_context(|| format!("cannot write {}", path.display()))
                .map(|()| String::new()),
            None => Ok(text),
        }
    });
    std::io::stdout().write_all(text.await??.as_bytes())?;
    Ok(())
}

fn scan(args: &ScanArgs, image: Option<Image>) -> anyhow::Result<Report> {
    let mut scanner = Scanner::new(Options { os_only: args.os_only, ..Options::default() });
    let now = Timestamp::now();
    let path = Path::new(&args.target);
    let report = match image {
        Some(image) => scanner.image(&args.target, &image, now),
        None if path.is_dir() && !is_layout(path) => {
            if args.image.is_some() {
                bail!("--image names an image of an archive, and {} is a directory", args.target);
            }
            scanner.directory(path, now)
        }
        None => {
            let (name, image) = archived(path, args.image.as_deref())?;
            scanner.image(&name, &image, now)
        }
    };
    let mut report = report.with_context(|| format!("cannot scan {}", args.target))?;
    if !args.no_advisories {
        compare(&mut report, args.advisories.as_deref())?;
    }
    Ok(report)
}

/// Compares with what is at `chosen`, or with the user's own advisories, which need not be there.
fn compare(report: &mut Report, chosen: Option<&Path>) -> anyhow::Result<()> {
    let place = match chosen {
        Some(path) => path.to_owned(),
        None => match crate::commands::advisories::directory(None) {
            Ok(path) => path,
            Err(_) => return Ok(()),
        },
    };
    match Index::open(&place) {
        Ok(index) => index.compare(report)?,
        Err(AdvisoryError::NoIndex { .. } | AdvisoryError::Io { .. }) if chosen.is_some() => {
            advisories::compare(report, &place)?;
        }
        Err(AdvisoryError::NoIndex { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file() && path.join("index.json").is_file()
}

/// The image called `wanted` in the archive, or its only one.
fn archived(path: &Path, wanted: Option<&str>) -> anyhow::Result<(String, Image)> {
    let shown = path.display().to_string();
    let mut images = open(path, &ArchiveLimits::default()).with_context(|| format!("cannot scan {shown}"))?;
    let names: Vec<String> = images.iter().flat_map(|image| image.names.clone()).collect();
    if let Some(wanted) = wanted {
        let image = images.into_iter().find(|image| image.names.iter().any(|name| name == wanted));
        let image =
            image.with_context(|| format!("{shown} holds no {wanted:?}, but: {}", names.join(", ")))?;
        return Ok((wanted.to_owned(), image.image));
    }
    if images.len() > 1 {
        bail!("{shown} holds {} images: choose with --image one of {}", images.len(), names.join(", "));
    }
    let image = images.pop().with_context(|| format!("{shown} holds no image"))?;
    Ok((names.into_iter().next().unwrap_or(shown), image.image))
}

async fn pull(name: &str, flags: &ClientFlags) -> anyhow::Result<Image> {
    let reference = super::parse_local(name)?;
    let context = Context::load(flags).await?;
    let client = RegistryClient::new(context.server().parse()?, context.http()?);
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let watch = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let image = client.pull(&reference.repository, &reference.identifier(), &watch).await;
    bar.finish_and_clear();
    image.with_context(|| format!("cannot fetch {name}"))
}

fn render(report: &Report, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Table => table(report),
        Format::Json => serde_json::to_string_pretty(report)? + "\n",
        Format::Cyclonedx => serde_json::to_string_pretty(&sbom::cyclonedx(report))? + "\n",
        Format::Spdx => serde_json::to_string_pretty(&sbom::spdx(report))? + "\n",
    })
}

fn table(report: &Report) -> String {
    let system = report.operating_system.as_ref();
    let system = system.map_or("no operating system is named", |system| {
        if system.name.is_empty() { &system.id } else { &system.name }
    });
    let mut about = vec![("Target", report.target.name.clone())];
    about.extend(report.target.digest.as_ref().map(|digest| ("Digest", digest.to_string())));
    about.push(("System", system.to_owned()));
    about.push(("Packages", report.packages.len().to_string()));
    about.push(("Vulnerabilities", counts(report.vulnerabilities.as_deref())));
    if let Some(data) = &report.advisory_data {
        let newest = crate::commands::advisories::newest(data, report.scanned_at);
        about.push(("Advisories", format!("{} in {}, the newest {newest}", data.advisories, data.source)));
        if data.unreadable > 0 {
            about.push(("Not readable", format!("{} files of the advisory data", data.unreadable)));
        }
    }
    let mut text = render::fields(&about) + "\n\n";
    match &report.vulnerabilities {
        Some(found) if found.is_empty() => {}
        Some(found) => {
            let header = ["SEVERITY", "SCORE", "VULNERABILITY", "PACKAGE", "VERSION", "FIXED IN"];
            text += &render::table(&header, found.iter().map(vulnerability).collect());
            text.push('\n');
        }
        None => {
            let rows = report.packages.iter().map(row).collect();
            text += &render::table(&["PACKAGE", "VERSION", "TYPE", "LAYER", "PATH"], rows);
            text.push('\n');
        }
    }
    if !report.problems.is_empty() {
        let rows = report.problems.iter().map(|p| vec![p.location.path.clone(), p.message.clone()]).collect();
        text += &format!("\n{}\n", render::table(&["NOT READ", "WHY"], rows));
    }
    text
}

/// `12: 2 critical, 10 low`.
fn counts(found: Option<&[Vulnerability]>) -> String {
    let Some(found) = found else {
        return "not compared: `gantry advisories update SOURCE`, or --advisories".to_owned();
    };
    let all = [
        Severity::Critical,
        Severity::High,
        Severity::Medium,
        Severity::Low,
        Severity::None,
        Severity::Unknown,
    ];
    let count = |severity| found.iter().filter(|each| each.severity == severity).count();
    let parts: Vec<String> = all
        .into_iter()
        .map(|severity| (severity, count(severity)))
        .filter(|(_, n)| *n > 0)
        .map(|(severity, n)| format!("{n} {}", severity.as_str()))
        .collect();
    if parts.is_empty() { "0".to_owned() } else { format!("{}: {}", found.len(), parts.join(", ")) }
}

fn vulnerability(found: &Vulnerability) -> Vec<String> {
    vec![
        found.severity.as_str().to_owned(),
        found.score.map_or("-".to_owned(), |score| format!("{score:.1}")),
        found.id.clone(),
        found.package.clone(),
        found.version.clone(),
        found.fixed_version.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn row(found: &Found) -> Vec<String> {
    let package = &found.package;
    let first = found.locations.first();
    let layer = first.and_then(|at| at.layer.as_ref()).map_or("-".to_owned(), |layer| {
        let hex = layer.hex();
        hex.get(..12).unwrap_or(&hex).to_owned()
    });
    let path = first.map_or("", |at| &at.path);
    let more = match found.locations.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    vec![
        package.name.clone(),
        package.version.clone(),
        package.kind.as_str().to_owned(),
        layer,
        format!("{path}{more}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_was_found_and_what_was_not_done() {
        let root = tempfile::tempdir().expect("a directory");
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            gantry_base::fs::write_atomic(&path, text.as_bytes(), 0o644).expect("written");
        };
        put("etc/os-release", "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian 12\"\n");
        put("opt/x-1.0.dist-info/METADATA", "Name: x\nVersion: 1.0\n");
        put("opt/package-lock.json", "{");
        let args = |advisories: Option<PathBuf>| ScanArgs {
            target: root.path().display().to_string(),
            format: Format::Table,
            output: None,
            image: None,
            no_advisories: advisories.is_none(),
            advisories,
            os_only: false,
        };
        let text = table(&scan(&args(None), None).expect("scanned"));
        for line in [
            "System:           Debian 12",
            "Packages:         1",
            "Vulnerabilities:  not compared: `gantry advisories update SOURCE`, or --advisories",
            "x         1.0       pypi   -       opt/x-1.0.dist-info/METADATA",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} in\n{text}");
        }
        assert!(text.contains("opt/package-lock.json   it is no valid JSON"), "{text}");

        let data = tempfile::tempdir().expect("a directory");
        let advisory = serde_json::json!({"id": "PYSEC-1", "modified": "2025-01-01T00:00:00Z", "affected": [{
            "package": {"ecosystem": "PyPI", "name": "X"},
            "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}],
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }]});
        let path = data.path().join("a.json");
        gantry_base::fs::write_atomic(&path, advisory.to_string().as_bytes(), 0o644).expect("written");
        let text = table(&scan(&args(Some(data.path().to_owned())), None).expect("scanned"));
        assert!(text.contains("Vulnerabilities:  1: 1 high\n"), "{text}");
        assert!(text.contains("high       7.5     PYSEC-1         x         1.0       1.1\n"), "{text}");
    }
}
