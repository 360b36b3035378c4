//! Names of repositories, tags and images (OCI Distribution specification, *Pulling manifests*).

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// Longest repository name, as other registries and clients have it.
pub const REPOSITORY_NAME_MAX_BYTES: usize = 255;
/// Longest tag of the specification.
pub const TAG_MAX_BYTES: usize = 128;

/// Why a string names no image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    #[error(
        "{0:?} is no repository name: lower-case words of a-z 0-9 joined by . _ __ or -, parted by /, {REPOSITORY_NAME_MAX_BYTES} bytes at most"
    )]
    Repository(String),
    #[error(
        "{0:?} is no tag: letters, digits, _ . and -, beginning with none of . and -, {TAG_MAX_BYTES} at most"
    )]
    Tag(String),
    #[error(transparent)]
    Digest(#[from] crate::digest::DigestError),
}

/// `demo/hello`: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(String);

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl RepositoryName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a reference without a tag means.
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }
}

/// The name without a registry's host before it, as images of other tools have it (`docker.io/library/web:1`): what
/// stands before the first slash is one where it has a dot or a port, or is `localhost`. What could be no host (`..`)
/// stays, and is then no name.
pub fn without_host(name: &str) -> &str {
    match name.split_once('/') {
        Some((host, rest)) if (host.contains(['.', ':']) || host == "localhost") && is_host(host) => rest,
        _ => name,
    }
}

/// The only name that an archive gives to an image may be a tag: layouts have it alone, and a repository called `1.0`
/// is not what was meant.
pub fn may_be_tag(name: &str) -> bool {
    !without_host(name).contains(['/', ':', '@'])
}

/// A name or an address, and perhaps a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let is_label = |label: &str| {
        let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        let inside = bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        ends(bytes.first()) && ends(bytes.last()) && inside
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    port.is_none_or(is_port)
        && match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.split('.').all(is_label),
        }
}

impl FromStr for RepositoryName {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() <= REPOSITORY_NAME_MAX_BYTES && text.split('/').all(is_path_component) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceError::Repository(text.chars().take(300).collect()))
        }
    }
}

/// Words of `[a-z0-9]+` with exactly one separator (`.`, `_`, `__`, or any number of `-`) between.
fn is_path_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().copied().is_some_and(word) || !bytes.last().copied().is_some_and(word) {
        return false;
    }
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    separators
        .filter(|s| !s.is_empty())
        .all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let bytes = text.as_bytes();
        let good = bytes.first().copied().is_some_and(ok)
            && bytes.len() <= TAG_MAX_BYTES
            && bytes.iter().all(|b| ok(*b) || matches!(b, b'.' | b'-'));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceError::Tag(text.chars().take(150).collect()))
        }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image within one registry: `REPOSITORY[:TAG][@DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub repository: RepositoryName,
    pub tag: Option<Tag>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// What goes after `/manifests/`: the digest if there is one, else the tag, else `latest`.
    pub fn identifier(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_string(),
            (None, None) => Tag::latest().to_string(),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a host's port, which has no place here.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.parse()?)),
            _ => (rest, None),
        };
        Ok(Self { repository: name.parse()?, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_follow_the_grammar() {
        for good in ["a", "demo/hello", "a.b/c_d/e__f/g---h/0", "library/x86-64"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in
            ["", "/", "a/", "/a", "a//b", "A", "a___b", "a..b", "-a", "a-", "_a", "a/../b", ".", "a b", &long]
        {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_are_left_out_and_what_is_none_is_not() {
        for (name, want) in [
            ("docker.io/library/web:1", "library/web:1"),
            ("localhost/x:1", "x:1"),
            ("127.0.0.1:5000/x", "x"),
            ("[::1]:5000/x", "x"),
            ("[fd00::7]/x", "x"),
            ("Registry.example.org/x", "x"),
            ("demo/x:1", "demo/x:1"),
            ("x:1", "x:1"),
            ("../x", "../x"),
            ("./x", "./x"),
            ("../../etc/x", "../../etc/x"),
            ("a..b/x", "a..b/x"),
            (".example.org/x", ".example.org/x"),
            ("host:/x", "host:/x"),
            ("host:port/x", "host:port/x"),
            (":5000/x", ":5000/x"),
            ("[]:5000/x", "[]:5000/x"),
            ("sha256:-/x", "sha256:-/x"),
        ] {
            assert_eq!(without_host(name), want, "{name}");
        }
        for (name, want) in
            [("1.0", true), ("latest", true), ("web:1", false), ("demo/web", false), ("h.io/web", true)]
        {
            assert_eq!(may_be_tag(name), want, "{name}");
        }
    }

    #[test]
    fn references_take_a_tag_and_a_digest() {
        let digest = Digest::of(b"x");
        let full: Reference = format!("demo/hello:1.0@{digest}").parse().expect("a reference");
        assert_eq!(full.tag.as_ref().map(Tag::as_str), Some("1.0"));
        assert_eq!(full.identifier(), digest.to_string());
        assert_eq!(full.to_string(), format!("demo/hello:1.0@{digest}"));
        let bare: Reference = "demo".parse().expect("a reference");
        assert_eq!(bare.identifier(), "latest");
        for bad in ["demo:", "demo:.x", "demo@sha256:1", "host:5000/x", ":1", "demo:a:b"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
