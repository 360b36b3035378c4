//! OSV's names of ecosystems, and of packages in them.

use crate::{Kind, OperatingSystem, Package};

/// Is `ecosystem` (`Debian:12`, `Alpine:v3.19`, `PyPI`) the one of a package of `kind` on `system`?
pub(super) fn fits(ecosystem: &str, kind: Kind, system: Option<&OperatingSystem>) -> bool {
    let (name, release) = split(ecosystem);
    base(kind, system) == Some(name)
        && (!kind.is_os() || system.is_some_and(|system| is_release(release, system)))
}

/// Name and release of an ecosystem: `Debian` and `12`.
pub(super) fn split(ecosystem: &str) -> (&str, &str) {
    ecosystem.split_once(':').unwrap_or((ecosystem, ""))
}

/// OSV's name, without a release, for packages of `kind` on `system`.
pub(super) fn base(kind: Kind, system: Option<&OperatingSystem>) -> Option<&'static str> {
    let language = LANGUAGES.iter().find(|(_, of)| *of == kind).map(|(name, _)| *name);
    language.or_else(|| {
        let id = system?.id.as_str();
        let all = DISTRIBUTIONS.iter();
        all.filter(|(_, of, _)| *of == kind).find(|(ids, ..)| ids.contains(&id)).map(|(.., name)| *name)
    })
}

/// Whose packages an ecosystem without release names; none if it is one of which no package is found.
pub(super) fn kind(name: &str) -> Option<Kind> {
    let language = LANGUAGES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    language.or_else(|| DISTRIBUTIONS.iter().find(|(.., known)| *known == name).map(|(_, kind, _)| *kind))
}

const LANGUAGES: &[(&str, Kind)] = &[
    ("PyPI", Kind::Pypi),
    ("npm", Kind::Npm),
    ("Go", Kind::Golang),
    ("crates.io", Kind::Cargo),
    ("Maven", Kind::Maven),
    ("RubyGems", Kind::Gem),
    ("Packagist", Kind::Composer),
    ("NuGet", Kind::Nuget),
];

/// `ID` of os-release, the packages' kind, and OSV's name.
const DISTRIBUTIONS: &[(&[&str], Kind, &str)] = &[
    (&["debian"], Kind::Deb, "Debian"),
    (&["ubuntu"], Kind::Deb, "Ubuntu"),
    (&["alpine"], Kind::Apk, "Alpine"),
    (&["wolfi"], Kind::Apk, "Wolfi"),
    (&["chainguard"], Kind::Apk, "Chainguard"),
    (&["rocky"], Kind::Rpm, "Rocky Linux"),
    (&["almalinux"], Kind::Rpm, "AlmaLinux"),
    (&["rhel"], Kind::Rpm, "Red Hat"),
    (&["opensuse-leap", "opensuse-tumbleweed"], Kind::Rpm, "openSUSE"),
    (&["sles"], Kind::Rpm, "SUSE"),
    (&["mageia"], Kind::Rpm, "Mageia"),
    (&["openeuler"], Kind::Rpm, "openEuler"),
];

/// The release is compared as far as the ecosystem names one: `Debian:12`, `Rocky Linux:9` for 9.3.
fn is_release(release: &str, system: &OperatingSystem) -> bool {
    // `22.04:LTS` and `Pro:22.04:LTS` name the release among other words.
    let mut words = release.split(':').map(|word| word.strip_prefix('v').unwrap_or(word));
    let version = system.version_id.as_str();
    let is_ours =
        |word: &str| version == word || version.strip_prefix(word).is_some_and(|rest| rest.starts_with('.'));
    release.is_empty()
        || (!words.clone().any(|word| word == "Pro") && words.any(|word| !word.is_empty() && is_ours(word)))
}

/// The name under which advisories know a package, in one spelling.
pub(super) fn name(kind: Kind, name: &str) -> String {
    match kind {
        // PEP 503.
        Kind::Pypi => {
            let mut text = String::with_capacity(name.len());
            for c in name.chars() {
                match c {
                    '-' | '_' | '.' if text.ends_with('-') => {}
                    '-' | '_' | '.' => text.push('-'),
                    other => text.push(other.to_ascii_lowercase()),
                }
            }
            text
        }
        Kind::Nuget | Kind::Composer => name.to_ascii_lowercase(),
        _ => name.to_owned(),
    }
}

/// Name and version that are compared: of the source package for distributions.
pub(super) fn key(package: &Package) -> (String, &str) {
    let (found, version) = package.advisory_name();
    (name(package.kind, found), version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_far_as_they_are_named() {
        let system = |id: &str, version: &str| OperatingSystem {
            id: id.into(),
            version_id: version.into(),
            ..Default::default()
        };
        for (ecosystem, kind, id, version, want) in [
            ("Debian:12", Kind::Deb, "debian", "12", true),
            ("Debian:12", Kind::Deb, "debian", "12.5", true),
            ("Debian:1", Kind::Deb, "debian", "12", false),
            ("Debian:11", Kind::Deb, "debian", "12", false),
            ("Debian", Kind::Deb, "debian", "12", true),
            ("Debian:12", Kind::Deb, "ubuntu", "12", false),
            ("Ubuntu:22.04:LTS", Kind::Deb, "ubuntu", "22.04", true),
            ("Ubuntu:Pro:22.04:LTS", Kind::Deb, "ubuntu", "22.04", false),
            ("Alpine:v3.19", Kind::Apk, "alpine", "3.19.1", true),
            ("Rocky Linux:9", Kind::Rpm, "rocky", "9.3", true),
            ("PyPI", Kind::Pypi, "debian", "12", true),
            ("PyPI", Kind::Npm, "debian", "12", false),
        ] {
            assert_eq!(fits(ecosystem, kind, Some(&system(id, version))), want, "{ecosystem} {id} {version}");
        }
        assert!(!fits("Debian:12", Kind::Deb, None));
        assert_eq!(name(Kind::Pypi, "Foo.-_Bar"), "foo-bar");
    }
}
