//! The same findings as Trivy? Both look at one root file system and compare it with one set of advisories: ours as
//! OSV documents, Trivy's in a database that is made of the same (aquasecurity/trivy-db, schema 2).
//!
//! Advisories are made up of the packages that are there, a few for each, one for every case that versions and names
//! can be wrong in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gantry_scanner::advisories::Index;
use gantry_scanner::{Found, Kind, Options, Report, Scanner};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::bolt::{self, Bucket};
use crate::{Bars, Outcome, bring, write_zip};

/// The version of Trivy's database.
const SCHEMA: u32 = 2;
/// Differences that are told in words.
const SHOWN: usize = 20;

/// A system or language, with its names here and there.
struct Ecosystem {
    kind: Kind,
    shown: &'static str,
    osv: &'static str,
    /// The bucket of Trivy's database.
    bucket: &'static str,
    /// What Trivy calls its results.
    trivy: &'static str,
}

const ECOSYSTEMS: &[Ecosystem] = &[
    Ecosystem { kind: Kind::Deb, shown: "Debian 12", osv: "Debian:12", bucket: "debian 12", trivy: "debian" },
    Ecosystem {
        kind: Kind::Apk,
        shown: "Alpine 3.19",
        osv: "Alpine:v3.19",
        bucket: "alpine 3.19",
        trivy: "alpine",
    },
    Ecosystem {
        kind: Kind::Npm,
        shown: "npm",
        osv: "npm",
        bucket: "npm::GitHub Security Advisory npm",
        trivy: "node-pkg",
    },
    Ecosystem {
        kind: Kind::Pypi,
        shown: "PyPI",
        osv: "PyPI",
        bucket: "pip::GitHub Security Advisory pip",
        trivy: "python-pkg",
    },
];

/// From a version (`0`: from the first), to one that mends it, or is the last.
#[derive(Clone)]
struct Range {
    introduced: String,
    end: End,
}

#[derive(Clone)]
enum End {
    Fixed(String),
    Last(String),
    Never,
}

struct Advisory {
    id: String,
    /// Which case it is.
    case: &'static str,
    package: String,
    ranges: Vec<Range>,
}

/// A finding, as both can say it: package, its version, advisory.
type Finding = (String, String, String);

fn below(fixed: &str) -> Vec<Range> {
    vec![Range { introduced: "0".to_owned(), end: End::Fixed(fixed.to_owned()) }]
}

/// What a distribution's package can be confronted with. Both order by the version of the source.
fn distribution_cases(found: &Found, apk: bool) -> Vec<(&'static str, String, Vec<Range>)> {
    let package = &found.package;
    let (source, version) = match &package.source {
        Some(source) => (source.name.clone(), source.version.clone()),
        None => (package.name.clone(), package.version.clone()),
    };
    let without_epoch = version.split_once(':').map_or(&*version, |(_, rest)| rest);
    let upstream = without_epoch.rsplit_once('-').map_or(without_epoch, |(upstream, _)| upstream);
    let unfixed = vec![Range { introduced: "0".to_owned(), end: End::Never }];
    let mut cases = vec![
        ("mended in the installed version", source.clone(), below(&version)),
        ("never mended", source.clone(), unfixed.clone()),
        ("mended long ago", source.clone(), below(if apk { "0.0.1-r0" } else { "0.0.1-1" })),
        ("another package's name", format!("{source}-not-this-one"), unfixed),
    ];
    if apk {
        cases.extend([
            ("the next revision", source.clone(), below(&format!("{upstream}-r999"))),
            ("a candidate of the installed version", source.clone(), below(&format!("{upstream}_rc1-r0"))),
            ("a patch of the installed version", source.clone(), below(&format!("{upstream}_p1-r0"))),
            ("a longer version", source, below(&format!("{upstream}.1-r0"))),
        ]);
    } else {
        cases.extend([
            ("a security update", source.clone(), below(&format!("{version}+deb12u99"))),
            ("a tilde behind the installed version", source.clone(), below(&format!("{version}~deb12u1"))),
            ("a later epoch", source.clone(), below(&format!("9:{without_epoch}"))),
            ("no epoch", source.clone(), below(without_epoch)),
            ("a tilde in the upstream version", source.clone(), below(&format!("9:{upstream}~rc1-1"))),
            ("the version of the binary", source.clone(), below(&package.version)),
        ]);
        if package.name != source {
            // As the name of a source it is nobody's here, most often.
            cases.push((
                "the name of the binary",
                package.name.clone(),
                below(&format!("{version}+deb12u98")),
            ));
        }
    }
    cases
}

fn language_cases(found: &Found) -> Vec<(&'static str, String, Vec<Range>)> {
    let (name, version) = (found.package.name.clone(), found.package.version.clone());
    let from = |introduced: &str, end: End| Range { introduced: introduced.to_owned(), end };
    let fixed = |version: &str| End::Fixed(version.to_owned());
    let case = |case, ranges| (case, name.clone(), ranges);
    // Behind every version, of every epoch (PEP 440).
    let behind = |text: &str| if version.contains('!') { format!("9!{text}") } else { text.to_owned() };
    let (later, far, farther) = (behind("98.0.0"), behind("99.0.0"), behind("99.1.0"));
    vec![
        case("mended in the installed version", below(&version)),
        case("mended later", below(&far)),
        case("never mended", vec![from("0", End::Never)]),
        case("begins with the installed version", vec![from(&version, fixed(&far))]),
        case("begins later", vec![from(&later, fixed(&far))]),
        case("the installed version is the last", vec![from("0", End::Last(version.clone()))]),
        case("two ranges, in the second", vec![from("0", fixed("0.0.1")), from(&version, fixed(&farther))]),
        case("two ranges, in none", vec![from("0", fixed("0.0.1")), from(&later, fixed(&far))]),
        case("mended in 2.0.0", below("2.0.0")),
        case(
            "mended in a candidate of 2.0.0",
            below(if found.package.kind == Kind::Npm { "2.0.0-rc.1" } else { "2.0.0rc1" }),
        ),
    ]
}

/// PEP 503: what is asked for, whatever the package calls itself.
fn normalised(kind: Kind, name: &str) -> String {
    if kind != Kind::Pypi {
        return name.to_owned();
    }
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

fn advisories(ecosystem: &Ecosystem, report: &Report, first: usize) -> Vec<Advisory> {
    let mut seen = BTreeSet::new();
    let mut all: Vec<Advisory> = Vec::new();
    let own = report.packages.iter().filter(|found| found.package.kind == ecosystem.kind);
    for found in own {
        let cases = match ecosystem.kind {
            Kind::Deb | Kind::Apk => distribution_cases(found, ecosystem.kind == Kind::Apk),
            _ => language_cases(found),
        };
        for (case, name, ranges) in cases {
            // Several binaries of one source are one source.
            if seen.insert((case, name.clone(), found.package.version.clone())) {
                let id = format!("CVE-2099-{}", first + all.len());
                all.push(Advisory { id, case, package: normalised(ecosystem.kind, &name), ranges });
            }
        }
    }
    all
}

fn osv(ecosystem: &Ecosystem, advisory: &Advisory) -> Value {
    let ranges: Vec<Value> = advisory
        .ranges
        .iter()
        .map(|range| {
            let mut events = vec![json!({ "introduced": range.introduced })];
            match &range.end {
                End::Fixed(version) => events.push(json!({ "fixed": version })),
                End::Last(version) => events.push(json!({ "last_affected": version })),
                End::Never => {}
            }
            json!({ "type": if ecosystem.kind == Kind::Npm { "SEMVER" } else { "ECOSYSTEM" }, "events": events })
        })
        .collect();
    json!({ "schema_version": "1.7.0", "id": advisory.id, "modified": "2026-01-01T00:00:00Z",
        "affected": [{ "package": { "ecosystem": ecosystem.osv, "name": advisory.package }, "ranges": ranges }] })
}

/// As Trivy's own sources write it: a version for distributions, constraints for languages.
fn trivys(ecosystem: &Ecosystem, advisory: &Advisory) -> Value {
    if matches!(ecosystem.kind, Kind::Deb | Kind::Apk) {
        return match &advisory.ranges[0].end {
            End::Fixed(version) => json!({ "FixedVersion": version }),
            // 2: affected.
            _ => json!({ "Status": 2 }),
        };
    }
    let mut vulnerable = Vec::new();
    let mut patched = Vec::new();
    for range in &advisory.ranges {
        let from = format!(">={}", range.introduced);
        vulnerable.push(match &range.end {
            End::Fixed(version) => {
                patched.push(version.clone());
                format!("{from}, <{version}")
            }
            End::Last(version) => format!("{from}, <={version}"),
            End::Never => from,
        });
    }
    json!({ "VulnerableVersions": vulnerable, "PatchedVersions": patched })
}

fn database(place: &Path, all: &[(&Ecosystem, Vec<Advisory>)]) -> Outcome<()> {
    let mut root = Bucket::default();
    for (ecosystem, advisories) in all {
        for advisory in advisories {
            let packages = root.bucket(ecosystem.bucket);
            packages.bucket(&advisory.package).put(&advisory.id, &trivys(ecosystem, advisory));
            let detail = json!({ "Title": advisory.case, "VendorSeverity": { "nvd": 2 } });
            root.bucket("vulnerability").put(&advisory.id, &detail);
        }
        let source = json!({ "ID": "made-up", "Name": "made up", "URL": "https://example.org" });
        root.bucket("data-source").put(ecosystem.bucket, &source);
    }
    let directory = place.join("trivy/db");
    write(directory.join("trivy.db"), &bolt::file(&root))?;
    let metadata = json!({ "Version": SCHEMA, "NextUpdate": "2999-01-01T00:00:00Z",
        "UpdatedAt": "2026-01-01T00:00:00Z", "DownloadedAt": "2026-01-01T00:00:00Z" });
    write(directory.join("metadata.json"), metadata.to_string().as_bytes())
}

fn write(path: PathBuf, bytes: &[u8]) -> Outcome<()> {
    std::fs::create_dir_all(path.parent().ok_or("a file")?)?;
    Ok(File::create(path)?.write_all(bytes)?)
}

/// Findings with the versions that mend them.
type Findings = BTreeMap<Finding, String>;

fn ours(report: &Report, ecosystem: &Ecosystem) -> Findings {
    let kind = format!("pkg:{}/", ecosystem.kind.as_str());
    let own = report.vulnerabilities.iter().flatten().filter(|one| one.purl.starts_with(&kind));
    let finding = |one: &gantry_scanner::advisories::Vulnerability| {
        let key = (one.package.clone(), one.version.clone(), one.id.clone());
        (key, one.fixed_version.clone().unwrap_or_default())
    };
    own.map(finding).collect()
}

fn theirs(document: &Value, ecosystem: &Ecosystem) -> Findings {
    let results = document["Results"].as_array().into_iter().flatten();
    let own = results.filter(|result| result["Type"] == ecosystem.trivy);
    let all = own.flat_map(|result| result["Vulnerabilities"].as_array().into_iter().flatten());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let finding = |one: &Value| {
        let key = (text(&one["PkgName"]), text(&one["InstalledVersion"]), text(&one["VulnerabilityID"]));
        (key, text(&one["FixedVersion"]))
    };
    all.map(finding).collect()
}

/// A root file system of Alpine, and one with packages of languages, as their tools leave them.
fn small_roots(place: &Path) -> Outcome<[PathBuf; 2]> {
    let write = |path: PathBuf, text: &str| write(path, text.as_bytes());
    let alpine = place.join("alpine");
    write(alpine.join("etc/alpine-release"), "3.19.1\n")?;
    write(alpine.join("etc/os-release"), "ID=alpine\nVERSION_ID=3.19.1\n")?;
    let installed: String = [
        ("musl", "musl", "1.2.4_git20230717-r4"),
        ("busybox", "busybox", "1.36.1-r15"),
        ("ssl_client", "busybox", "1.36.1-r15"),
        ("libcrypto3", "openssl", "3.1.4-r5"),
        ("libssl3", "openssl", "3.1.4-r5"),
        ("zlib", "zlib", "1.3.1-r0"),
        ("apk-tools", "apk-tools", "2.14.0-r5"),
        ("alpine-baselayout", "alpine-baselayout", "3.4.3-r2"),
        ("ca-certificates-bundle", "ca-certificates", "20230506-r0"),
        ("libc-utils", "libc-dev", "0.7.2-r5"),
        ("scanelf", "pax-utils", "1.3.7-r2"),
        ("openssh-client", "openssh", "9.6_p1-r0"),
        ("vim", "vim", "9.0.2127-r0"),
        ("nodejs", "nodejs", "20.11.1-r0"),
        ("tiff", "tiff", "4.6.0t-r0"),
    ]
    .iter()
    .map(|(name, origin, version)| {
        format!("C:Q1aaaaaaaaaaaaaaaaaaaaaaaaaaa=\nP:{name}\nV:{version}\nA:x86_64\nS:1\nI:1\nT:x\nU:x\nL:MIT\no:{origin}\nm:x\nt:1700000000\nc:0\n\n")
    })
    .collect();
    write(alpine.join("lib/apk/db/installed"), &installed)?;
    let languages = place.join("languages");
    write(languages.join("etc/os-release"), "ID=scratch\n")?;
    for (name, version) in [
        ("express", "4.18.2"),
        ("@babel/core", "7.23.0"),
        ("left-pad", "1.3.0"),
        ("two", "2.0.0"),
        ("beta", "2.0.0-beta.3"),
        ("candidate", "2.0.0-rc.1"),
        ("late", "2.0.0-rc.10"),
        ("build", "1.0.0+build.5"),
        ("zero", "0.0.0"),
        ("big", "10.20.30"),
    ] {
        let text = json!({ "name": name, "version": version, "license": "MIT" }).to_string();
        write(languages.join(format!("opt/app/node_modules/{name}/package.json")), &text)?;
    }
    for (name, version) in [
        ("requests", "2.31.0"),
        ("Foo_Bar.baz", "1.0"),
        ("Jinja2", "3.1.2"),
        ("two", "2.0.0"),
        ("candidate", "2.0.0rc1"),
        ("developed", "2.0.0.dev3"),
        ("posted", "1.9.9.post1"),
        ("local", "2.0.0+local.1"),
        ("epoch", "1!1.0"),
        ("short", "2"),
        ("alpha", "2.0a1"),
    ] {
        let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\n");
        let folder = format!("usr/lib/python3/dist-packages/{name}-{version}.dist-info");
        write(languages.join(folder).join("METADATA"), &text)?;
    }
    Ok([alpine, languages])
}

/// Looks at the Debian root and at two small ones.
pub fn compare(place: &Path, debian: &Path, peers: &str, bars: &mut Bars) -> Outcome<()> {
    let place = &place.join("findings");
    std::fs::create_dir_all(place)?;
    let [alpine, languages] = small_roots(place)?;
    let scan = |root: &Path| Scanner::new(Options::default()).directory(root, Timestamp::now());
    let mut reports = [scan(debian)?, scan(&alpine)?, scan(&languages)?];
    let of = |kind: Kind| match kind {
        Kind::Deb => 0,
        Kind::Apk => 1,
        _ => 2,
    };
    let mut all: Vec<(&Ecosystem, Vec<Advisory>)> = Vec::new();
    for ecosystem in ECOSYSTEMS {
        let first = all.iter().map(|(_, made)| made.len()).sum();
        all.push((ecosystem, advisories(ecosystem, &reports[of(ecosystem.kind)], first)));
    }
    let documents = all.iter().flat_map(|(ecosystem, advisories)| {
        advisories.iter().map(|one| (format!("{}.json", one.id), osv(ecosystem, one).to_string()))
    });
    write_zip(&place.join("all.zip"), documents)?;
    bring(place, &[("all", "all.zip")])?;
    database(place, &all)?;
    let index = Index::open(&place.join("index"))?;
    for report in &mut reports {
        index.compare(report)?;
    }
    for (ecosystem, advisories) in &all {
        let at = of(ecosystem.kind);
        let document = trivy(peers, place, [debian, &alpine, &languages][at])?;
        let cases: BTreeMap<&str, &Advisory> = advisories.iter().map(|one| (&*one.id, one)).collect();
        let (mine, other) = (ours(&reports[at], ecosystem), theirs(&document, ecosystem));
        tell(ecosystem, &cases, &mine, &other, bars);
    }
    Ok(())
}

fn trivy(peers: &str, place: &Path, root: &Path) -> Outcome<Value> {
    let output = Command::new(format!("{peers}/trivy"))
        .args(["rootfs", "--quiet", "--offline-scan", "--skip-db-update", "--skip-java-db-update"])
        .args(["--scanners", "vuln", "--format", "json", "--cache-dir"])
        .arg(place.join("trivy"))
        .arg(root)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("trivy: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Why Trivy leaves a finding out that OSV's evaluation makes, where that is known.
fn explanation(kind: Kind, (package, version, _): &Finding) -> Option<&'static str> {
    match kind {
        Kind::Npm if version.contains('-') => Some(
            "Trivy's ranges leave out versions before a release, as npm's own do; OSV's order has them in it",
        ),
        Kind::Pypi if version.contains('+') => Some(
            "Trivy's ranges do not end at local versions, as specifiers of PEP 440; OSV's order has them in it",
        ),
        Kind::Pypi if package.contains('.') => Some("Trivy keeps dots in names; PEP 503 has dashes for them"),
        _ => None,
    }
}

fn tell(
    ecosystem: &Ecosystem,
    cases: &BTreeMap<&str, &Advisory>,
    mine: &Findings,
    other: &Findings,
    bars: &mut Bars,
) {
    let (mut differences, mut explained) = (Vec::new(), BTreeMap::<&str, usize>::new());
    let told = |who: &str, (package, version, id): &Finding, more: &str| {
        let case = cases.get(&**id).map_or("?", |one| one.case);
        format!("{who}: {package} {version}, {case}{more}")
    };
    for (finding, fixed) in mine {
        match (other.get(finding), explanation(ecosystem.kind, finding)) {
            (None, Some(why)) => *explained.entry(why).or_default() += 1,
            (None, None) => differences.push(told("ours alone", finding, &format!(" ({fixed})"))),
            // Of several versions Trivy names all, and we the one that is nearest.
            (Some(all), _) if all.split(", ").any(|one| one == fixed) => {}
            (Some(all), _) => {
                differences.push(told("mended otherwise", finding, &format!(": {fixed:?}, Trivy {all:?}")));
            }
        }
    }
    for (finding, fixed) in other.iter().filter(|(finding, _)| !mine.contains_key(*finding)) {
        differences.push(told("Trivy's alone", finding, &format!(" ({fixed})")));
    }
    let (shown, count) = (ecosystem.shown, differences.len());
    println!(
        "| findings in {shown}, {} advisories | the same | ours {}, Trivy's {}; not explained: {count} |",
        cases.len(),
        mine.len(),
        other.len(),
    );
    for (why, count) in explained {
        println!("| – ours alone, {count}: {why} | | |");
    }
    for line in differences.iter().take(SHOWN) {
        println!("| – {line} | | |");
    }
    if count > 0 || mine.is_empty() {
        bars.missed.push(format!("the same findings in {shown}"));
    }
}
