//! One layer or directory, looked through once. A layer's result does not depend on the layers below it, so
//! it can be kept by digest and used in every image that has the layer; [`crate::merge`] puts them together.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::Options;
use crate::analysers::{self, Finding};
use crate::compliance::Observer;
use crate::error::{ScanError, refused};
use crate::files::{Content, Entry, Kind, Limits};

const PROBLEMS_MAX: usize = 200;
/// In one layer or directory.
const OBSERVATIONS_MAX: usize = 200_000;
/// Links at the top (`lib -> usr/lib`), which other layers write through.
const LINKS_MAX: usize = 64;
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What one layer says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Analysis {
    pub(crate) files: BTreeMap<String, Vec<Finding>>,
    /// Paths that this layer removes.
    pub(crate) whiteouts: BTreeSet<String>,
    /// Directories whose content below this layer is gone.
    pub(crate) opaque: BTreeSet<String>,
    pub(crate) links: BTreeMap<String, String>,
    /// Directories at the top; one takes the place of a link below.
    pub(crate) top_directories: BTreeSet<String>,
    shadows: Shadows,
    pub(crate) problems: Vec<(String, String)>,
}

/// Every path of a layer that is no directory, as the first half of its SHA-256: enough to tell what it covers in
/// the layers below.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Shadows(Vec<u128>);

fn shadow(path: &str) -> u128 {
    let digest: [u8; 32] = sha2::Sha256::digest(path.as_bytes()).into();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(half)
}

impl Analysis {
    /// Does this layer put something in the place of `path`, or of a directory above it?
    pub(crate) fn covers(&self, path: &str) -> bool {
        self.covers_from(path, 0)
    }

    /// The same, leaving out the first `from` bytes of the path.
    pub(crate) fn covers_from(&self, path: &str, from: usize) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.filter(|end| *end > from).any(|end| self.shadows.0.binary_search(&shadow(&path[..end])).is_ok())
    }
}

/// Takes the entries of one layer or directory.
pub(crate) struct Collector<'a> {
    limits: &'a Limits,
    os_only: bool,
    /// Looks at every file, if checks are wanted.
    observer: Option<Observer<'a>>,
    observations: usize,
    /// A layer: names may be whiteouts, and what covers what matters.
    layered: bool,
    packages: usize,
    analysis: Analysis,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(options: &'a Options, layered: bool) -> Self {
        Self {
            limits: &options.limits,
            os_only: options.os_only,
            observer: options.checks.then(|| Observer { malware: &options.malware }),
            observations: 0,
            layered,
            packages: 0,
            analysis: Analysis::default(),
        }
    }

    pub(crate) fn finish(mut self) -> Analysis {
        self.analysis.shadows.0.sort_unstable();
        self.analysis.shadows.0.dedup();
        self.analysis
    }

    pub(crate) fn visit(&mut self, entry: Entry<'_>) -> Result<(), ScanError> {
        let Entry { path, kind, mode } = entry;
        if self.layered && self.whiteout(path) {
            return Ok(());
        }
        if matches!(kind, Kind::Directory) {
            if !path.contains('/') && self.analysis.top_directories.len() < LINKS_MAX {
                self.analysis.top_directories.insert(path.to_owned());
                self.analysis.links.remove(path);
            }
            return Ok(());
        }
        if self.layered {
            self.analysis.shadows.0.push(shadow(path));
            // A later entry of the same layer takes the place of an earlier one.
            self.analysis.files.remove(path);
            self.analysis.links.remove(path);
        }
        match kind {
            Kind::Symlink(target) => {
                self.link(path, target);
                let seen = self.observer.as_ref().map(|observer| observer.by_name(path, None));
                self.put(path, seen.into_iter().flatten().map(Finding::Observed).collect())?;
            }
            Kind::HardLink(target) => {
                if let Some(findings) = self.analysis.files.get(target).cloned() {
                    self.put(path, findings)?;
                }
            }
            Kind::File(file) => self.file(path, file, mode)?,
            Kind::Directory | Kind::Special => {}
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &str) -> bool {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(hidden) = name.strip_prefix(WHITEOUT) else { return false };
        if name == OPAQUE {
            self.analysis.opaque.insert(parent.to_owned());
        } else if !hidden.is_empty() && !hidden.starts_with(WHITEOUT) {
            let separator = if parent.is_empty() { "" } else { "/" };
            self.analysis.whiteouts.insert(format!("{parent}{separator}{hidden}"));
        }
        true
    }

    fn link(&mut self, path: &str, target: &str) {
        if path.contains('/') || self.analysis.links.len() >= LINKS_MAX {
            return;
        }
        let target = target.trim_start_matches('/').trim_start_matches("./").trim_end_matches('/');
        if !target.is_empty() && !target.split('/').any(|part| matches!(part, "" | "." | "..")) {
            self.analysis.links.insert(path.to_owned(), target.to_owned());
        }
    }

    fn file(&mut self, path: &str, file: crate::files::File<'_>, mode: u32) -> Result<(), ScanError> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let candidate = analysers::Candidate {
            path,
            name,
            size_bytes: file.size_bytes,
            executable: file.executable,
            nesting_max: self.limits.nesting_max,
        };
        let wanted: Vec<_> = analysers::wanting(&candidate, self.os_only).collect();
        let observer = self.observer.as_ref();
        let seen = observer.map(|observer| observer.by_name(path, Some(mode))).unwrap_or_default();
        let mut findings: Vec<Finding> = seen.into_iter().map(Finding::Observed).collect();
        let observer = self.observer.filter(|observer| observer.wants(path, file.size_bytes));
        if wanted.is_empty() && observer.is_none() {
            return self.put(path, findings);
        }
        if let Some(content) = self.content(path, file) {
            for analyser in wanted {
                match (analyser.read)(&candidate, &content) {
                    Ok(found) => findings.extend(found),
                    Err(message) => self.problem(path, message),
                }
            }
            match observer.map_or(Ok(Vec::new()), |observer| observer.by_content(path, &content)) {
                Ok(seen) => findings.extend(seen.into_iter().map(Finding::Observed)),
                Err(message) => self.problem(path, message),
            }
        }
        self.put(path, findings)
    }

    /// None if it cannot be looked into, which is a problem unless it is gone.
    fn content(&mut self, path: &str, file: crate::files::File<'_>) -> Option<Content> {
        if file.size_bytes > self.limits.file_max_bytes {
            self.problem(path, format!("it has {} bytes and was not looked into", file.size_bytes));
            return None;
        }
        match (file.content)() {
            Ok(content) => Some(content),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                self.problem(path, error.to_string());
                None
            }
        }
    }

    fn put(&mut self, path: &str, mut findings: Vec<Finding>) -> Result<(), ScanError> {
        let observed = findings.iter().filter(|finding| matches!(finding, Finding::Observed(_))).count();
        if self.observations + observed > OBSERVATIONS_MAX {
            self.problem(
                path,
                format!("checks saw more than {OBSERVATIONS_MAX} things; this is not among them"),
            );
            findings.retain(|finding| !matches!(finding, Finding::Observed(_)));
        } else {
            self.observations += observed;
        }
        if findings.is_empty() {
            return Ok(());
        }
        self.packages += findings.len() - observed.min(findings.len());
        if self.packages > self.limits.packages_max {
            return Err(refused(format!("there are more than {} packages", self.limits.packages_max)));
        }
        self.analysis.files.insert(path.to_owned(), findings);
        Ok(())
    }

    fn problem(&mut self, path: &str, message: String) {
        if self.analysis.problems.len() < PROBLEMS_MAX {
            self.analysis.problems.push((path.to_owned(), message));
        }
    }
}
