//! `gantry image scan archive.tar --format cyclonedx`

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use gantry_oci::archive::{ArchiveLimits, open};
use gantry_oci::image::Image;
use gantry_scanner::advisories::{self, AdvisoryError, Index, Severity, Vulnerability};
use gantry_scanner::compliance::{Check, MalwareList, Outcome};
use gantry_scanner::html::{self, Language};
use gantry_scanner::judgement::{self, Exceptions, Judgement, Status, Vex};
use gantry_scanner::rating::{self, Grade, Rating, RatingPolicy, ReasonKind};
use gantry_scanner::{Found, Options, Report, Scanner, sarif, sbom};
use indicatif::ProgressBar;
use jiff::Timestamp;

use crate::commands::identity::render;
use crate::{ClientFlags, Context};

#[derive(Debug, clap::Args)]
pub struct ScanArgs {
    /// A docker-archive, OCI archive or OCI layout, a directory with a root file system, or an image of the
    /// registry (REPOSITORY[:TAG][@DIGEST]); what exists as a path is a path
    target: String,
    /// How to print: the report as a table, as JSON, as SARIF 2.1.0 or as a page (HTML), or the packages alone as
    /// CycloneDX 1.5 or SPDX 2.3
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
    /// Only packages of the distribution and no checks, which is faster
    #[arg(long)]
    os_only: bool,
    /// No compliance checks, and so no rating
    #[arg(long)]
    no_checks: bool,
    /// The operator's rating policy, YAML or JSON (default: a built-in one)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Exceptions with author, reason and end, YAML or JSON
    #[arg(long, value_name = "FILE")]
    exceptions: Option<PathBuf>,
    /// An OpenVEX document; may be given several times
    #[arg(long, value_name = "FILE")]
    vex: Vec<PathBuf>,
    /// A list of malware: SHA-256 and name per line
    #[arg(long, value_name = "FILE")]
    malware: Option<PathBuf>,
    /// The language of a page
    #[arg(long, value_enum, default_value_t)]
    lang: Lang,
    /// End with exit code 1 if the rating is worse than this, or cannot be given
    #[arg(long, value_name = "GRADE", value_parser = grade)]
    require: Option<Grade>,
}

/// The languages of [`html`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Lang {
    #[default]
    En,
    Zh,
}

pub(super) fn grade(text: &str) -> Result<Grade, String> {
    serde_json::from_value(text.to_ascii_uppercase().into())
        .map_err(|_| "a grade is one of A to F".to_owned())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
    Sarif,
    Html,
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
    let require = args.require;
    let scanned = tokio::task::spawn_blocking(move || {
        let report = scan(&args, image)?;
        let text = rendered(&report, args.format, args.lang)?;
        let text = match &args.output {
            Some(path) => gantry_base::fs::write_atomic(path, text.as_bytes(), 0o644)
                .with_context(|| format!("cannot write {}", path.display()))
                .map(|()| String::new()),
            None => Ok(text),
        };
        anyhow::Ok((text?, report))
    });
    let (text, report) = scanned.await??;
    std::io::stdout().write_all(text.as_bytes())?;
    require.map_or(Ok(()), |require| is_as_good(&report, require))
}

pub(super) fn is_as_good(report: &Report, require: Grade) -> anyhow::Result<()> {
    let name = &report.target.name;
    match &report.rating {
        Some(rating) if rating.grade <= require => Ok(()),
        Some(rating) => bail!("{name} is rated {}, {} is required", rating.grade.as_str(), require.as_str()),
        None => {
            bail!("{name} is not rated: that takes advisories (`gantry advisories update SOURCE`) and checks")
        }
    }
}

/// What the documents of the command line say.
struct Documents {
    policy: RatingPolicy,
    exceptions: Exceptions,
    vex: Vec<Vex>,
    malware: MalwareList,
}

impl Documents {
    fn read(args: &ScanArgs) -> anyhow::Result<Self> {
        fn parsed<T, E>(path: &Path, parse: impl FnOnce(&str) -> Result<T, E>) -> anyhow::Result<T>
        where
            E: std::error::Error + Send + Sync + 'static,
        {
            let named = || format!("cannot use {}", path.display());
            parse(&std::fs::read_to_string(path).with_context(named)?).with_context(named)
        }
        let policy = args.policy.as_deref().map(|path| parsed(path, RatingPolicy::parse));
        let exceptions = args.exceptions.as_deref().map(|path| parsed(path, Exceptions::parse));
        let malware = args.malware.as_deref().map(|path| parsed(path, MalwareList::parse));
        let vex = args.vex.iter().map(|path| parsed(path, |text| Vex::parse(text.as_bytes())));
        Ok(Self {
            policy: policy.transpose()?.unwrap_or_default(),
            exceptions: exceptions.transpose()?.unwrap_or_default(),
            vex: vex.collect::<anyhow::Result<_>>()?,
            malware: malware.transpose()?.unwrap_or_default(),
        })
    }
}

fn scan(args: &ScanArgs, image: Option<Image>) -> anyhow::Result<Report> {
    let documents = Documents::read(args)?;
    let is_list = matches!(args.format, Format::Cyclonedx | Format::Spdx) && args.require.is_none();
    let mut scanner = Scanner::new(Options {
        os_only: args.os_only,
        checks: !args.os_only && !args.no_checks && !is_list,
        malware: Arc::new(documents.malware),
        ..Options::default()
    });
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
    judgement::judge(&mut report, &documents.vex, &documents.exceptions, now);
    report.rating = rating::rate(&report, &documents.policy, now);
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
    let client = context.registry()?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let watch = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let image = client.pull(&reference.repository, &reference.identifier(), &watch).await;
    bar.finish_and_clear();
    image.with_context(|| format!("cannot fetch {name}"))
}

pub(super) fn rendered(report: &Report, format: Format, language: Lang) -> anyhow::Result<String> {
    let language = match language {
        Lang::En => Language::English,
        Lang::Zh => Language::Chinese,
    };
    Ok(match format {
        Format::Table => table(report),
        Format::Json => serde_json::to_string_pretty(report)? + "\n",
        Format::Sarif => serde_json::to_string_pretty(&sarif::sarif(report))? + "\n",
        Format::Html => html::html(report, language),
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
    about.push(("Rating", rated(report.rating.as_ref())));
    let mut text = render::fields(&about) + "\n\n";
    match &report.vulnerabilities {
        Some(found) if found.is_empty() => {}
        Some(found) => {
            let header =
                ["SEVERITY", "SCORE", "VULNERABILITY", "PACKAGE", "VERSION", "FIXED IN", "SAID OF IT"];
            text += &render::table(&header, found.iter().map(vulnerability).collect());
            text.push('\n');
        }
        None => {
            let rows = report.packages.iter().map(row).collect();
            text += &render::table(&["PACKAGE", "VERSION", "TYPE", "LAYER", "PATH"], rows);
            text.push('\n');
        }
    }
    let checks = report.compliance.iter().flat_map(|compliance| &compliance.checks);
    let rows: Vec<_> = checks.filter(|check| check.outcome == Outcome::Failed).map(failed).collect();
    if !rows.is_empty() {
        text += &format!("\n{}\n", render::table(&["SEVERITY", "CHECK", "FOUND", "SAID OF IT"], rows));
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
        said(found.judgement.as_ref()),
    ]
}

/// `accepted by alice until 2026-12-31T00:00:00Z: behind a proxy`.
fn said(judgement: Option<&Judgement>) -> String {
    let Some(judgement) = judgement else { return "-".to_owned() };
    let status = match judgement.status {
        Status::NotAffected => "not affected",
        Status::Affected => "affected",
        Status::Fixed => "fixed",
        Status::UnderInvestigation => "under investigation",
        Status::Accepted => "accepted",
    };
    let until = judgement.expires.map(|at| format!(" until {at}")).unwrap_or_default();
    format!("{status} by {}{until}: {}", judgement.author, judgement.reason)
}

fn rated(rating: Option<&Rating>) -> String {
    let Some(rating) = rating else { return "none: it takes vulnerabilities and checks".to_owned() };
    let blockers = rating.reasons.iter().filter(|reason| reason.kind == ReasonKind::Blocker);
    let stale = rating.reasons.iter().filter(|reason| reason.kind == ReasonKind::StaleData);
    let mut text = format!("{}, {} points", rating.grade.as_str(), rating.points);
    for reason in blockers.chain(stale).take(3) {
        text += &format!("; {} {}", reason.subject, reason.message).replace("  ", " ");
    }
    text
}

/// Failed checks, one line per check with the first of its evidence.
fn failed(check: &Check) -> Vec<String> {
    let first = check.evidence.first().map(|one| {
        let path = one.location.as_ref().map(|at| at.path.as_str()).filter(|path| !path.is_empty());
        path.map_or_else(|| one.message.clone(), |path| format!("{path}: {}", one.message))
    });
    let count = check.evidence.len() as u64 + check.more;
    let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    vec![
        check.severity.as_str().to_owned(),
        check.id.clone(),
        format!("{}{more}", first.unwrap_or_default()),
        said(check.judgement.as_ref()),
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
    use clap::Parser as _;

    use super::*;

    /// As the command line gives them.
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ScanArgs,
    }

    fn arguments(root: &Path, advisories: Option<PathBuf>) -> Vec<std::ffi::OsString> {
        let mut all = vec!["scan".into(), root.into()];
        match advisories {
            Some(path) => all.extend(["--advisories".into(), path.into()]),
            None => all.push("--no-advisories".into()),
        }
        all
    }

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
        let args = |advisories: Option<PathBuf>| {
            Line::try_parse_from(arguments(root.path(), advisories)).expect("arguments").args
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
        assert!(
            text.contains("high       7.5     PYSEC-1         x         1.0       1.1        -\n"),
            "{text}"
        );
    }
}
