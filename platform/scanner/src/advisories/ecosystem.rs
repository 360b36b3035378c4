//! OSV's names of ecosystems, and of packages in them.

use crate::{Kind, OperatingSystem, Package};

/// Is `ecosystem` (`Debian:12`, `Alpine:v3.19`, `PyPI`) the one of a package of `kind` on `system`?
pub(super) fn fits(ecosystem: &str, kind: Kind, system: Option<&OperatingSystem>) -> bool {
    let (name, release) = ecosystem.split_once(':').unwrap_or((ecosystem, ""));
    let wanted = match kind {
        Kind::Pypi => "PyPI",
        Kind::Npm => "npm",
        Kind::Golang => "Go",
        Kind::Cargo => "crates.io",
        Kind::Maven => "Maven",
        Kind::Gem => "RubyGems",
        Kind::Composer => "Packagist",
        Kind::Nuget => "NuGet",
        Kind::Deb | Kind::Apk | Kind::Rpm => {
            return system.is_some_and(|system| is_distribution(name, release, system));
        }
    };
    name == wanted
}

/// The release is compared as far as the ecosystem names one: `Debian:12`, `Rocky Linux:9` for 9.3.
fn is_distribution(name: &str, release: &str, system: &OperatingSystem) -> bool {
    let wanted = match system.id.as_str() {
        "debian" => "Debian",
        "ubuntu" => "Ubuntu",
        "alpine" => "Alpine",
        "rocky" => "Rocky Linux",
        "almalinux" => "AlmaLinux",
        "rhel" => "Red Hat",
        "wolfi" => "Wolfi",
        "chainguard" => "Chainguard",
        "opensuse-leap" | "opensuse-tumbleweed" => "openSUSE",
        "sles" => "SUSE",
        "mageia" => "Mageia",
        "openeuler" => "openEuler",
        _ => return false,
    };
    // `22.04:LTS` and `Pro:22.04:LTS` name the release among other words.
    let mut words = release.split(':').map(|word| word.strip_prefix('v').unwrap_or(word));
    let version = system.version_id.as_str();
    let is_ours =
        |word: &str| version == word || version.strip_prefix(word).is_some_and(|rest| rest.starts_with('.'));
    name == wanted
        && (release.is_empty()
            || (!words.clone().any(|word| word == "Pro")
                && words.any(|word| !word.is_empty() && is_ours(word))))
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
