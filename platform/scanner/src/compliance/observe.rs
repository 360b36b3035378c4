//! What checks look at in files, one file at a time.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::secrets;
use crate::files::Content;

const HASHES_MAX: usize = 5_000_000;
const LINE_MAX_BYTES: usize = 1024;
const SHELLS: &[&str] = &["sh", "ash", "bash", "dash", "ksh", "zsh", "busybox"];
const MANAGERS: &[&str] =
    &["apk", "apt", "apt-get", "dnf", "dpkg", "microdnf", "rpm", "yum", "zypper", "pacman"];
const PROGRAMS: &[&str] = &["bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin"];
/// Where tools keep what they fetched, and endings of what is worth a mention there.
const CACHES: &[(&str, &str, &[&str])] = &[
    ("apt", "var/lib/apt/lists/", &["_Packages", "_InRelease", "_Release", ".lz4", ".gz"]),
    ("apt", "var/cache/apt/archives/", &[".deb"]),
    ("apk", "var/cache/apk/", &[".apk", ".gz"]),
    ("dnf", "var/cache/dnf/", &[".rpm", ".xml", ".gz", ".zst", ".solv"]),
    ("yum", "var/cache/yum/", &[".rpm", ".xml", ".gz", ".sqlite"]),
    ("pip", "root/.cache/pip/", &[""]),
    ("npm", "root/.npm/_cacache/", &[""]),
];

/// What is seen in one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Observation {
    Setuid,
    Setgid,
    WorldWritable,
    Secret { rule: String, line: u64, shown: String },
    Cache { tool: String },
    Shell,
    PackageManager,
    Malware { name: String, sha256: String },
}

impl Observation {
    /// Is it in the image even where an upper layer removes the file?
    pub(crate) fn stays(&self) -> bool {
        matches!(self, Self::Secret { .. } | Self::Malware { .. } | Self::Cache { .. })
    }
}

/// Why a list of malware is not taken.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the list of malware is not valid: {message}")]
pub struct MalwareListError {
    pub line: usize,
    pub message: String,
}

/// Known files by SHA-256.
#[derive(Clone, Debug, Default)]
pub struct MalwareList(HashMap<[u8; 32], Arc<str>>);

impl MalwareList {
    /// One per line: the SHA-256 in hexadecimal, then perhaps a name. `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self, MalwareListError> {
        let mut list = HashMap::new();
        for (n, line) in text.lines().enumerate() {
            let invalid = |message: &str| MalwareListError { line: n + 1, message: message.to_owned() };
            if line.len() > LINE_MAX_BYTES {
                return Err(invalid("it is too long"));
            }
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (hash, name) =
                line.split_once(char::is_whitespace).unwrap_or((line, "on the list of malware"));
            let hash = bytes(hash).ok_or_else(|| invalid("64 hexadecimal digits are expected first"))?;
            list.insert(hash, Arc::from(name.trim()));
            if list.len() > HASHES_MAX {
                return Err(invalid("there are too many"));
            }
        }
        Ok(Self(list))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn bytes(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Looks at files as the options say.
#[derive(Clone, Copy)]
pub(crate) struct Observer<'a> {
    pub malware: &'a MalwareList,
}

impl Observer<'_> {
    /// What path and mode say. Links have no mode of their own.
    pub(crate) fn by_name(&self, path: &str, mode: Option<u32>) -> Vec<Observation> {
        let mut seen = Vec::new();
        if let Some(mode) = mode {
            let is_program = mode & 0o111 != 0;
            let bits = [(0o4000, Observation::Setuid), (0o2000, Observation::Setgid)];
            seen.extend(
                bits.into_iter().filter(|(bit, _)| is_program && mode & bit != 0).map(|(_, seen)| seen),
            );
            if mode & 0o002 != 0 {
                seen.push(Observation::WorldWritable);
            }
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if PROGRAMS.contains(&parent) {
            if SHELLS.contains(&name) {
                seen.push(Observation::Shell);
            }
            if MANAGERS.contains(&name) {
                seen.push(Observation::PackageManager);
            }
        }
        let cache = CACHES.iter().find(|(_, directory, endings)| {
            path.starts_with(directory) && endings.iter().any(|ending| name.ends_with(ending))
        });
        seen.extend(cache.map(|(tool, ..)| Observation::Cache { tool: (*tool).to_owned() }));
        seen
    }

    /// Is the content looked at as well?
    pub(crate) fn wants(&self, path: &str, size_bytes: u64) -> bool {
        !self.malware.is_empty() || secrets::wants(path, size_bytes)
    }

    /// What the content says.
    pub(crate) fn by_content(&self, path: &str, content: &Content) -> Result<Vec<Observation>, String> {
        let mut seen = Vec::new();
        if !self.malware.is_empty() {
            let hash = hash(content).map_err(|error| error.to_string())?;
            if let Some(name) = self.malware.0.get(&hash) {
                let sha256 = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                seen.push(Observation::Malware { name: name.to_string(), sha256 });
            }
        }
        if secrets::wants(path, content.size_bytes()) {
            let bytes = content.all(content.size_bytes())?;
            seen.extend(secrets::in_file(path, &bytes).into_iter().map(|secret| Observation::Secret {
                rule: secret.rule.to_owned(),
                line: secret.line,
                shown: secret.shown,
            }));
        }
        Ok(seen)
    }
}

fn hash(content: &Content) -> std::io::Result<[u8; 32]> {
    let mut hasher = sha2::Sha256::new();
    let mut reader = content.reader(0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_modes_say_what_they_say() {
        let observer = Observer { malware: &MalwareList::default() };
        let cache = |tool: &str| Observation::Cache { tool: tool.to_owned() };
        for (path, mode, want) in [
            ("usr/bin/su", 0o4755, vec![Observation::Setuid]),
            ("usr/bin/wall", 0o2755, vec![Observation::Setgid]),
            ("etc/x", 0o2644, vec![]),
            ("etc/x", 0o666, vec![Observation::WorldWritable]),
            ("bin/busybox", 0o755, vec![Observation::Shell]),
            ("opt/sh", 0o755, vec![]),
            ("usr/bin/apt-get", 0o755, vec![Observation::PackageManager]),
            ("var/lib/apt/lists/deb.debian.org_debian_dists_x_Packages", 0o644, vec![cache("apt")]),
            ("var/lib/apt/lists/lock", 0o640, vec![]),
            ("root/.cache/pip/http/a/b", 0o600, vec![cache("pip")]),
        ] {
            assert_eq!(observer.by_name(path, Some(mode)), want, "{path}");
        }
    }

    #[test]
    fn lists_of_malware_say_where_they_are_wrong() {
        let hash = "ab".repeat(32);
        let list = MalwareList::parse(&format!("# a list\n{hash}  Eicar test\n\n{hash}\n")).expect("a list");
        assert_eq!(list.0.len(), 1);
        let error = MalwareList::parse(&format!("{hash}\nxyz\n")).expect_err("no hash").to_string();
        assert!(error.starts_with("line 2 of the list of malware is not valid: 64"), "{error}");
    }
}
