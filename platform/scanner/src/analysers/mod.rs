//! One file per kind of metadata. An analyser says by path which files it wants and reads each on its own: it
//! knows nothing of layers, nor of other files.

mod apk;
mod bdb;
mod dpkg;
mod elf;
mod java;
mod misc;
mod ndb;
mod npm;
mod os_release;
mod python;
mod rpm;
mod sqlite;

use serde::{Deserialize, Serialize};

use crate::compliance::Observation;
use crate::files::Content;
use crate::package::{OperatingSystem, Package};

/// Bound of metadata that is text.
pub(crate) const TEXT_MAX_BYTES: u64 = 64 << 20;

/// What one file says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Finding {
    Package(Package),
    /// A package in an archive within the file; `inner` begins with `!/`.
    Within {
        inner: String,
        package: Package,
    },
    OperatingSystem(OperatingSystem),
    /// Files that a package of the distribution brought, of those that analysers look into.
    Owned {
        package: String,
        paths: Vec<String>,
    },
    /// What a check looks at.
    Observed(Observation),
}

/// A file before it is opened.
pub(crate) struct Candidate<'a> {
    pub path: &'a str,
    /// The last part of the path.
    pub name: &'a str,
    pub size_bytes: u64,
    pub executable: bool,
    pub nesting_max: usize,
}

type Read = fn(&Candidate<'_>, &Content) -> Result<Vec<Finding>, String>;

pub(crate) struct Analyser {
    /// Reads what the distribution's package manager wrote.
    pub os: bool,
    pub wants: fn(&Candidate<'_>) -> bool,
    pub read: Read,
}

/// Directories and files that analysers of the distribution want: a scan of nothing else need not walk further.
pub(crate) const OS_PATHS: &[&str] = &[
    "etc/os-release",
    "usr/lib/os-release",
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d",
    "lib/apk/db/installed",
    "usr/lib/apk/db/installed",
    "var/lib/rpm",
    "usr/lib/sysimage/rpm",
    "usr/share/rpm",
];

const ANALYSERS: &[Analyser] = &[
    os_release::ANALYSER,
    dpkg::STATUS,
    dpkg::LISTS,
    apk::ANALYSER,
    rpm::ANALYSER,
    python::ANALYSER,
    npm::PACKAGE,
    npm::LOCK,
    java::ANALYSER,
    misc::GEMSPEC,
    misc::COMPOSER,
    misc::DOTNET,
    elf::ANALYSER,
];

/// The analysers that want a file.
pub(crate) fn wanting<'a>(
    candidate: &'a Candidate<'_>,
    os_only: bool,
) -> impl Iterator<Item = &'static Analyser> + use<'a> {
    let chosen = move |analyser: &&Analyser| (analyser.os || !os_only) && (analyser.wants)(candidate);
    ANALYSERS.iter().filter(chosen)
}

/// Is this a path that an analyser of languages may look into? Asked for the lists of files of packages.
pub(crate) fn may_hold_language_packages(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let executable = path.contains("bin/") || path.contains("/libexec/") || path.contains("/lib/go");
    let candidate = Candidate { path, name, size_bytes: u64::MAX, executable, nesting_max: 0 };
    ANALYSERS.iter().any(|analyser| !analyser.os && (analyser.wants)(&candidate))
}

/// A name or version that can be one: not empty, no control characters, not endless.
pub(crate) fn plausible(text: &str) -> bool {
    !text.is_empty() && text.len() <= 512 && !text.chars().any(char::is_control)
}

/// `Key: value` paragraphs with continuation lines, as in control files and mail headers. `each` gets the fields
/// of one paragraph at a time.
pub(crate) fn paragraphs<'t>(text: &'t str, mut each: impl FnMut(&Fields<'t>)) {
    let mut fields = Fields(Vec::new());
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            if !fields.0.is_empty() {
                each(&fields);
                fields.0.clear();
            }
        } else if !line.starts_with([' ', '\t'])
            && let Some((key, value)) = line.split_once(':')
        {
            fields.0.push((key, value.trim()));
        }
    }
}

/// Fields of one paragraph; first lines only, which is what is asked for.
pub(crate) struct Fields<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Fields<'t> {
    pub(crate) fn get(&self, key: &str) -> Option<&'t str> {
        self.all(key).next().filter(|value| !value.is_empty())
    }

    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &'t str> {
        self.0.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| *value)
    }
}
