//! The scanner beside Syft and Trivy, and its index at the size of the world's advisories:
//! `bench DIRECTORY [ROOT]`, and `bench findings DIRECTORY ROOT` for the findings alone. ROOT is a Debian root file system; without one debootstrap makes it. Programs are
//! measured as processes of their own, ours as well, by a process that has no other child.

mod bolt;
mod findings;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gantry_scanner::advisories::{Given, Index, Inventory, SourceUpdate, update};
use gantry_scanner::{Found, Options, Report, Scanner, sbom};
use jiff::Timestamp;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const RUNS: usize = 5;
const ADVISORIES: usize = 300_000;
const CHANGED: usize = 1_000;
const SBOMS: usize = 10_000;
const PACKAGES: usize = 500;
const DEBIAN_NAMES: usize = 8_000;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &words[..] {
        ["measure", program, arguments @ ..] => measure(program, arguments),
        ["sbom", root, what] => print_sbom(Path::new(root), *what == "os"),
        ["match", place] => print_match(Path::new(place)),
        ["update", place] => bring(Path::new(place), &[("world", "world.zip")]),
        ["findings", place, root] => {
            let mut bars = Bars { missed: Vec::new() };
            let peers = peers().ok_or("GANTRY_TEST_SCANNERS names no directory with trivy")?;
            findings::compare(Path::new(place), Path::new(root), &peers, &mut bars)?;
            bars.verdict()
        }
        [place] => bench(Path::new(place), None),
        [place, root] => bench(Path::new(place), Some(PathBuf::from(root))),
        _ => Err("usage: bench DIRECTORY [ROOT]".into()),
    }
}

/// Milliseconds and MiB of one run.
struct Cost {
    wall_ms: f64,
    peak_mib: f64,
    output: String,
}

/// Runs a program and prints what it took; it is this process's only child.
fn measure(program: &str, arguments: &[&str]) -> Outcome<()> {
    let start = Instant::now();
    let output = Command::new(program).args(arguments).stderr(Stdio::inherit()).output()?;
    let wall = start.elapsed();
    if !output.status.success() {
        return Err(format!("{program}: {}", output.status).into());
    }
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    println!("{} {}", wall.as_secs_f64() * 1000.0, usage.max_rss() as f64 / 1024.0);
    std::io::stdout().write_all(&output.stdout)?;
    Ok(())
}

/// The run of median time; the one before them fills the caches and does not count.
fn cost(program: &str, arguments: &[&str]) -> Outcome<Cost> {
    let mut all = Vec::new();
    for _ in 0..=RUNS {
        let own = std::env::current_exe()?;
        let output =
            Command::new(own).args(["measure", program]).args(arguments).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{program} failed").into());
        }
        let text = String::from_utf8(output.stdout)?;
        let (numbers, output) = text.split_once('\n').ok_or("no numbers")?;
        let (wall, peak) = numbers.split_once(' ').ok_or("no numbers")?;
        all.push(Cost { wall_ms: wall.parse()?, peak_mib: peak.parse()?, output: output.to_owned() });
    }
    all.remove(0);
    all.sort_by(|a, b| a.wall_ms.total_cmp(&b.wall_ms));
    Ok(all.swap_remove(RUNS / 2))
}

fn own(arguments: &[&str]) -> Outcome<Cost> {
    cost(&std::env::current_exe()?.display().to_string(), arguments)
}

fn print_sbom(root: &Path, os_only: bool) -> Outcome<()> {
    let scanner = Scanner::new(Options { os_only, ..Options::default() });
    let report = scanner.directory(root, Timestamp::now())?;
    println!("{}", serde_json::to_string(&sbom::cyclonedx(&report))?);
    Ok(())
}

fn components(document: &str) -> usize {
    let document: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
    let libraries = document["components"].as_array().into_iter().flatten();
    libraries.filter(|each| each["type"] == "library").count()
}

struct Bars {
    missed: Vec<String>,
}

impl Bars {
    fn verdict(self) -> Outcome<()> {
        if self.missed.is_empty() {
            return Ok(());
        }
        Err(format!("missed: {}", self.missed.join("; ")).into())
    }

    fn row(&mut self, what: &str, bar: Option<f64>, unit: &str, seen: f64) {
        let wanted = bar.map_or(String::new(), |bar| format!("≤ {bar} {unit}"));
        println!("| {what} | {wanted} | {seen:.1} {unit} |");
        if bar.is_some_and(|bar| seen > bar) {
            self.missed.push(what.to_owned());
        }
    }
}

fn bench(place: &Path, root: Option<PathBuf>) -> Outcome<()> {
    let mut bars = Bars { missed: Vec::new() };
    println!("| what | bar | seen |\n|---|---|---|");
    let root = root.map_or_else(|| debootstrap(place), Ok)?;
    sboms(&root, &mut bars)?;
    index(place, &mut bars)?;
    rematch(place, &mut bars)?;
    if let Some(peers) = peers() {
        findings::compare(place, &root, &peers, &mut bars)?;
    }
    bars.verdict()
}

/// Where other scanners are.
fn peers() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "xtask says where the peers are")]
    std::env::var("GANTRY_TEST_SCANNERS").ok()
}

fn debootstrap(place: &Path) -> Outcome<PathBuf> {
    let root = place.join("root");
    let status = Command::new("debootstrap")
        .args(["--variant=minbase", "--include=python3,perl,curl,git", "bookworm"])
        .arg(&root)
        .stdout(Stdio::null())
        .status()?;
    if status.success() { Ok(root) } else { Err("debootstrap failed: name a root file system".into()) }
}

fn sboms(root: &Path, bars: &mut Bars) -> Outcome<()> {
    let root = root.display().to_string();
    for (what, word, wall_ms) in [("everything", "all", 400.0), ("the distribution's packages", "os", 100.0)]
    {
        let cost = own(&["sbom", &root, word])?;
        bars.row(
            &format!("SBOM, {what}: {} packages", components(&cost.output)),
            Some(wall_ms),
            "ms",
            cost.wall_ms,
        );
        bars.row("– memory", Some(60.0), "MiB", cost.peak_mib);
    }
    let Some(peers) = peers() else {
        println!("| Syft, Trivy | | not here: `cargo xtask bench scanner` installs them |");
        return Ok(());
    };
    let syft = cost(
        &format!("{peers}/syft"),
        &["scan", &format!("dir:{root}"), "--quiet", "--output", "cyclonedx-json"],
    )?;
    bars.row(&format!("Syft, everything: {} packages", components(&syft.output)), None, "ms", syft.wall_ms);
    bars.row("– memory", None, "MiB", syft.peak_mib);
    let arguments = [
        "rootfs",
        "--quiet",
        "--offline-scan",
        "--skip-db-update",
        "--skip-java-db-update",
        "--pkg-types",
        "os",
        "--format",
        "cyclonedx",
        &root,
    ];
    let trivy = cost(&format!("{peers}/trivy"), &arguments)?;
    let count = components(&trivy.output);
    bars.row(&format!("Trivy, the distribution's packages: {count}"), None, "ms", trivy.wall_ms);
    bars.row("– memory", None, "MiB", trivy.peak_mib);
    Ok(())
}

/// Numbers that are the same in every run (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The upper bits are the good ones.
        (self.0 >> 33) as usize % below
    }

    /// A few names have most: the cube of an even choice.
    fn skewed(&mut self, below: usize) -> usize {
        let share = self.next(1 << 20) as f64 / f64::from(1 << 20);
        (share.powi(3) * below as f64) as usize
    }
}

/// An advisory as osv.dev has them: distributions with one entry per release, languages with lists of versions.
fn advisory(n: usize, random: &mut Random, year: usize) -> String {
    let (ecosystems, name): (&[&str], String) = match n % 10 {
        0..5 => (&["Debian:11", "Debian:12", "Debian:13"], format!("deb-{}", random.skewed(DEBIAN_NAMES))),
        5..7 => (&["npm"], format!("npm-package-{}", random.skewed(30_000))),
        7..9 => (&["PyPI"], format!("python-package-{}", random.skewed(10_000))),
        _ => (&["Go"], format!("example.org/module/{}", random.skewed(5_000))),
    };
    let mut affected = String::new();
    for (k, ecosystem) in ecosystems.iter().enumerate() {
        // What is listed are the versions before the one that mends it.
        let major = random.next(9);
        let fixed = format!("{major}.{}.{}", random.next(20), random.next(20));
        let versions: Vec<String> = (0..30.min(major * 8)).map(|v| format!("\"{}.{v}.0\"", v / 8)).collect();
        let comma = if k > 0 { "," } else { "" };
        let _ = write!(
            affected,
            r#"{comma}{{"package":{{"ecosystem":"{ecosystem}","name":"{name}","purl":"pkg:generic/{name}"}},"ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}},{{"fixed":"{fixed}"}}]}}],"versions":[{}],"ecosystem_specific":{{"urgency":"not yet assigned"}}}}"#,
            versions.join(",")
        );
    }
    let words = [
        "overflow",
        "traversal",
        "injection",
        "use after free",
        "missing check",
        "race",
        "leak",
        "confusion",
    ];
    let details: Vec<&str> = (0..40).map(|_| words[random.next(words.len())]).collect();
    format!(
        r#"{{"schema_version":"1.7.0","id":"TEST-{year}-{n}","modified":"{year}-10-01T00:00:{:02}Z","published":"{year}-01-02T03:04:05Z","aliases":["CVE-{year}-{n}"],"summary":"{} in {name}","details":"{}","severity":[{{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:{}/I:L/A:N"}}],"affected":[{affected}],"references":[{{"type":"WEB","url":"https://example.org/advisories/{n}"}}]}}"#,
        n % 60,
        details[0],
        details.join(" "),
        ["H", "L", "N"][n % 3],
    )
}

/// A zip of stored entries, with zip64's end record because there are more than 65,535.
fn write_zip(path: &Path, documents: impl Iterator<Item = (String, String)>) -> Outcome<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let (mut directory, mut at, mut count) = (Vec::new(), 0_u64, 0_u64);
    for (name, text) in documents {
        let mut crc = flate2::Crc::new();
        crc.update(text.as_bytes());
        let (size, length) =
            (u32::try_from(text.len())?.to_le_bytes(), u16::try_from(name.len())?.to_le_bytes());
        let common =
            [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &crc.sum().to_le_bytes(), &size, &size, &length, &[0, 0]]
                .concat();
        file.write_all(&[b"PK\x03\x04", &common[..], name.as_bytes(), text.as_bytes()].concat())?;
        directory.extend(
            [
                b"PK\x01\x02\x14\x00",
                &common[..],
                &[0; 10],
                &u32::try_from(at)?.to_le_bytes(),
                name.as_bytes(),
            ]
            .concat(),
        );
        at += 30 + (name.len() + text.len()) as u64;
        count += 1;
    }
    file.write_all(&directory)?;
    let size = directory.len() as u64;
    let record = [
        &b"PK\x06\x06"[..],
        &44_u64.to_le_bytes(),
        &[45, 0, 45, 0],
        &[0; 8],
        &count.to_le_bytes(),
        &count.to_le_bytes(),
        &size.to_le_bytes(),
        &at.to_le_bytes(),
    ]
    .concat();
    let locator = [&b"PK\x06\x07"[..], &[0; 4], &(at + size).to_le_bytes(), &[1, 0, 0, 0]].concat();
    let end = [&b"PK\x05\x06"[..], &[0; 4], &[0xff; 4], &[0xff; 8], &[0, 0]].concat();
    file.write_all(&[record, locator, end].concat())?;
    Ok(file.flush()?)
}

fn bring(place: &Path, sources: &[(&str, &str)]) -> Outcome<()> {
    let paths: Vec<PathBuf> = sources.iter().map(|(_, file)| place.join(file)).collect();
    let updates: Vec<SourceUpdate<'_>> = sources
        .iter()
        .zip(&paths)
        .map(|((name, _), path)| SourceUpdate {
            location: (*name).to_owned(),
            given: Given::Files(path),
            etag: None,
            last_modified: None,
        })
        .collect();
    update(&place.join("index"), &updates, Timestamp::now())?;
    Ok(())
}

/// A report with packages of the distribution, made as a scan makes it.
fn report(place: &Path, packages: &[(usize, usize)]) -> Outcome<Report> {
    let root = place.join("packages");
    std::fs::create_dir_all(root.join("var/lib/dpkg"))?;
    std::fs::create_dir_all(root.join("etc"))?;
    let status: String = packages
        .iter()
        .map(|(name, minor)| {
            format!("Package: deb-{name}\nStatus: install ok installed\nVersion: 7.{minor}.1\n\n")
        })
        .collect();
    File::create(root.join("var/lib/dpkg/status"))?.write_all(status.as_bytes())?;
    File::create(root.join("etc/os-release"))?.write_all(b"ID=debian\nVERSION_ID=12\n")?;
    Ok(Scanner::new(Options::default()).directory(&root, Timestamp::now())?)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

fn print_match(place: &Path) -> Outcome<()> {
    // The names with most advisories, then every sixteenth of the others.
    let packages: Vec<_> = (0..PACKAGES).map(|n| (if n < 20 { n } else { n * 16 }, n % 20)).collect();
    let mut report = report(place, &packages)?;
    let mut times = Vec::new();
    let mut open = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        let index = Index::open(&place.join("index"))?;
        open.push(start.elapsed());
        let start = Instant::now();
        index.compare(&mut report)?;
        times.push(start.elapsed());
    }
    let found = report.vulnerabilities.map_or(0, |found| found.len());
    println!("{} {} {found}", median(times), median(open));
    Ok(())
}

fn index(place: &Path, bars: &mut Bars) -> Outcome<()> {
    let mut random = Random(1);
    let documents = (0..ADVISORIES).map(|n| (format!("{n}.json"), advisory(n, &mut random, 2024)));
    write_zip(&place.join("world.zip"), documents)?;
    let place_text = place.display().to_string();
    let own = std::env::current_exe()?.display().to_string();
    // The first build alone: later runs find that nothing changed.
    let output = Command::new(&own).args(["measure", &own, "update", &place_text]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let (wall, peak) = text.trim().split_once(' ').ok_or("the index was not built")?;
    bars.row(&format!("index of {ADVISORIES} advisories, from a zip"), None, "ms", wall.parse()?);
    bars.row("– memory", None, "MiB", peak.parse()?);
    let size = Index::open(&place.join("index"))?.size_bytes() as f64 / 1e6;
    bars.row("– on disk", Some(400.0), "MB", size);
    let matched = cost(&own, &["match", &place_text])?;
    let mut numbers = matched.output.split_whitespace();
    let mut number = || numbers.next().ok_or("no numbers");
    let (warm, open, found) = (number()?, number()?, number()?);
    bars.row(&format!("match of {PACKAGES} packages, warm: {found} found"), Some(50.0), "ms", warm.parse()?);
    bars.row("– opening the index", None, "ms", open.parse()?);
    bars.row("– memory", Some(100.0), "MiB", matched.peak_mib);
    Ok(())
}

fn rematch(place: &Path, bars: &mut Bars) -> Outcome<()> {
    let mut random = Random(2);
    let first = report(place, &[(0, 0)])?;
    let mut inventory = Inventory::default();
    let template: Found = first.packages[0].clone();
    for n in 0..SBOMS {
        let package = |_| {
            let (name, minor) = (random.skewed(DEBIAN_NAMES), random.next(20));
            let mut found = template.clone();
            found.package.name = format!("deb-{name}");
            found.package.version = format!("7.{minor}.1");
            found.package.source = None;
            found.purl = format!("pkg:deb/debian/deb-{name}@7.{minor}.1");
            found
        };
        let report = Report { packages: (0..PACKAGES).map(package).collect(), ..first.clone() };
        inventory.add(&format!("image-{n}"), &report);
    }
    let before = Index::open(&place.join("index"))?.manifest().generation;
    let documents = (0..CHANGED).map(|n| (format!("{n}.json"), advisory(n, &mut random, 2025)));
    write_zip(&place.join("new.zip"), documents)?;
    let start = Instant::now();
    bring(place, &[("new", "new.zip")])?;
    bars.row(&format!("update of {CHANGED} advisories"), None, "ms", start.elapsed().as_secs_f64() * 1000.0);
    let start = Instant::now();
    let index = Index::open(&place.join("index"))?;
    let changes = index.changes_since(before)?;
    let mut found = 0;
    let touched = inventory.rematch(&index, &changes, &mut |one| found += one.vulnerabilities().count())?;
    let what = format!("re-match of {SBOMS} SBOMs of {PACKAGES} packages: {touched} touched, {found} found");
    bars.row(&what, Some(20_000.0), "ms", start.elapsed().as_secs_f64() * 1000.0);
    Ok(())
}
