//! dpkg's database: `var/lib/dpkg/status`, and `status.d/*` of images without dpkg (distroless).

use super::{Analyser, Candidate, Fields, Finding, TEXT_MAX_BYTES, paragraphs, plausible};
use crate::files::Content;
use crate::package::{Kind, Package, Source};

pub(super) const STATUS: Analyser = Analyser {
    os: true,
    wants: |file| {
        file.path == "var/lib/dpkg/status"
            || file
                .path
                .strip_prefix("var/lib/dpkg/status.d/")
                .is_some_and(|name| !name.contains('/') && !name.ends_with(".md5sums"))
    },
    read: status,
};

pub(super) const LISTS: Analyser = Analyser {
    // Only needed to know whose the packages of languages are.
    os: false,
    wants: |file| file.path.starts_with("var/lib/dpkg/info/") && file.path.ends_with(".list"),
    read: list,
};

fn status(_: &Candidate<'_>, content: &Content) -> Result<Vec<Finding>, String> {
    Ok(parse(&content.text(TEXT_MAX_BYTES)?).into_iter().map(Finding::Package).collect())
}

fn parse(text: &str) -> Vec<Package> {
    let mut packages = Vec::new();
    paragraphs(text, |fields| packages.extend(package(fields)));
    packages
}

fn package(fields: &Fields<'_>) -> Option<Package> {
    let (name, version) = (fields.get("Package")?, fields.get("Version")?);
    // `want flag state`; removed packages whose configuration stays are not installed. status.d has no Status.
    let state = fields.get("Status").map(|status| status.rsplit(' ').next().unwrap_or(status));
    let installed = matches!(
        state,
        None | Some("installed" | "unpacked" | "half-configured" | "triggers-awaited" | "triggers-pending")
    );
    if !installed || !plausible(name) || !plausible(version) {
        return None;
    }
    let mut package = Package::new(Kind::Deb, name, version);
    package.architecture = fields.get("Architecture").map(str::to_owned);
    package.source = Some(source(fields.get("Source").unwrap_or(name), version));
    Some(package)
}

/// `Source: NAME` or `NAME (VERSION)`.
fn source(field: &str, version: &str) -> Source {
    let (name, version) = match field.split_once(" (") {
        Some((name, rest)) => (name, rest.trim_end_matches(')')),
        None => (field, version),
    };
    Source { name: name.trim().to_owned(), version: version.to_owned() }
}

fn list(file: &Candidate<'_>, content: &Content) -> Result<Vec<Finding>, String> {
    let text = content.text(TEXT_MAX_BYTES)?;
    let paths: Vec<String> = text
        .lines()
        .map(|line| line.trim_start_matches('/'))
        .filter(|path| super::may_hold_language_packages(path))
        .map(str::to_owned)
        .collect();
    let name = file.name.trim_end_matches(".list");
    let package = name.split(':').next().unwrap_or(name).to_owned();
    Ok(if paths.is_empty() { Vec::new() } else { vec![Finding::Owned { package, paths }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_is_found_with_its_source() {
        let packages = parse(
            "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\nVersion: 2.36-9\nDescription: x\n more\n .\n\n\
             Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
             Package: base-files\nVersion: 12.4\n\n\
             Package: bin\nStatus: install ok installed\nSource: src (1:2.0-1)\nVersion: 1:2.0-1+b3\n",
        );
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["libc6", "base-files", "bin"]);
        assert_eq!(packages[0].advisory_name(), ("glibc", "2.36-9"));
        assert_eq!(packages[1].advisory_name(), ("base-files", "12.4"));
        assert_eq!(packages[2].advisory_name(), ("src", "1:2.0-1"));
    }
}
