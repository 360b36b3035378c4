//! Package URLs (ECMA-427): one name for a package whoever speaks of it.

use std::fmt::Write as _;

use crate::package::{Kind, OperatingSystem, Package};

/// The URL of a package; `system` names the namespace of a distribution's packages.
pub(crate) fn of(package: &Package, system: Option<&OperatingSystem>) -> String {
    let (namespace, name) = parts(package, system);
    let mut url = format!("pkg:{}/", package.kind.as_str());
    for part in namespace.split('/').filter(|part| !part.is_empty()) {
        encode(part, &mut url);
        url.push('/');
    }
    encode(&name, &mut url);
    let (epoch, version) = match package.version.split_once(':') {
        Some((epoch, version)) if package.kind == Kind::Rpm => (Some(epoch), version),
        _ => (None, package.version.as_str()),
    };
    url.push('@');
    encode(version, &mut url);
    // Qualifiers in the order of their names.
    let distribution = system.filter(|_| package.kind.is_os()).map(|system| {
        if system.version_id.is_empty() {
            system.id.clone()
        } else {
            format!("{}-{}", system.id, system.version_id)
        }
    });
    let qualifiers =
        [("arch", package.architecture.as_deref()), ("distro", distribution.as_deref()), ("epoch", epoch)];
    let mut separator = '?';
    for (key, value) in qualifiers {
        let Some(value) = value else { continue };
        let _ = write!(url, "{separator}{key}=");
        encode(value, &mut url);
        separator = '&';
    }
    url
}

fn parts(package: &Package, system: Option<&OperatingSystem>) -> (String, String) {
    let name = package.name.as_str();
    let split = |separator: char| match name.rsplit_once(separator) {
        Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        None => (String::new(), name.to_owned()),
    };
    match package.kind {
        Kind::Deb | Kind::Apk | Kind::Rpm => {
            let id = system.map_or("", |system| if system.id == "rhel" { "redhat" } else { &system.id });
            (id.to_owned(), if package.kind == Kind::Rpm { name.to_owned() } else { name.to_lowercase() })
        }
        Kind::Pypi => (String::new(), name.to_lowercase().replace('_', "-")),
        Kind::Npm => split('/'),
        Kind::Maven => split(':'),
        Kind::Golang | Kind::Composer => {
            let (namespace, name) = split('/');
            (namespace.to_lowercase(), name.to_lowercase())
        }
        Kind::Cargo | Kind::Gem | Kind::Nuget => (String::new(), name.to_owned()),
    }
}

/// Percent-encodes all but unreserved characters and the colon.
fn encode(text: &str, url: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_of_the_specification() {
        let debian = OperatingSystem { id: "debian".into(), version_id: "12".into(), ..Default::default() };
        let url = |kind, name: &str, version: &str, arch: Option<&str>| {
            let mut package = Package::new(kind, name, version);
            package.architecture = arch.map(str::to_owned);
            of(&package, Some(&debian))
        };
        for (found, want) in [
            (
                url(Kind::Deb, "libstdc++6", "1:12.2.0-14", Some("amd64")),
                "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14?arch=amd64&distro=debian-12",
            ),
            (
                url(Kind::Rpm, "curl", "2:7.50.3-1.fc25", Some("i386")),
                "pkg:rpm/debian/curl@7.50.3-1.fc25?arch=i386&distro=debian-12&epoch=2",
            ),
            (url(Kind::Pypi, "Typing_Extensions", "4.8.0", None), "pkg:pypi/typing-extensions@4.8.0"),
            (url(Kind::Npm, "@angular/animation", "12.3.1", None), "pkg:npm/%40angular/animation@12.3.1"),
            (
                url(Kind::Maven, "org.apache.xmlgraphics:batik-anim", "1.9.1", None),
                "pkg:maven/org.apache.xmlgraphics/batik-anim@1.9.1",
            ),
            (
                url(Kind::Golang, "github.com/Masterminds/semver/v3", "v3.2.0", None),
                "pkg:golang/github.com/masterminds/semver/v3@v3.2.0",
            ),
            (url(Kind::Gem, "rake", "13.0.6", None), "pkg:gem/rake@13.0.6"),
        ] {
            assert_eq!(found, want);
        }
    }
}
