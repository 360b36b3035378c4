//! What is inside an image or a root file system, and which of it is known to be vulnerable. A library that
//! needs no server: the registry and `gantry image scan` use it alike.

pub mod advisories;
mod analysers;
pub mod compliance;
mod error;
mod files;
#[doc(hidden)]
pub mod fuzz;
pub mod html;
pub mod judgement;
mod layers;
mod merge;
mod package;
mod purl;
pub mod rating;
mod report;
pub mod sarif;
pub mod sbom;
pub mod versions;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gantry_oci::Digest;
use gantry_oci::image::{Blob, Image};
use jiff::Timestamp;

pub use error::ScanError;
pub use files::Limits;
pub use layers::Analysis;
pub use package::{Found, Kind, Location, OperatingSystem, Package, Problem, Source};
pub use report::{Report, SCHEMA_VERSION, Target, TargetKind};

/// Changes when the same layer would give another [`Analysis`]: what was kept before is of no use then.
pub const ANALYSIS_VERSION: u32 = 1;

/// How to scan.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub limits: Limits,
    /// Only packages of the distribution.
    pub os_only: bool,
    /// Compliance checks as well, for which every file is looked at.
    pub checks: bool,
    /// Files that a check looks for.
    pub malware: Arc<compliance::MalwareList>,
}

/// Scans images and directories; a layer that several images share is looked through once.
#[derive(Default)]
pub struct Scanner {
    options: Options,
    analysed: BTreeMap<Digest, Arc<Analysis>>,
}

impl Scanner {
    pub fn new(options: Options) -> Self {
        Self { options, analysed: BTreeMap::new() }
    }

    /// Scans the layers of `image`, which the report calls `name`.
    pub fn image(&mut self, name: &str, image: &Image, now: Timestamp) -> Result<Report, ScanError> {
        let mut merged = merge::Merged::default();
        for blob in &image.layers {
            let analysis = self.layer(blob)?;
            merged.add(Some(&blob.digest), &analysis);
        }
        let target = Target {
            kind: TargetKind::Image,
            name: name.to_owned(),
            digest: Some(image.digest()),
            layers: image.layers.iter().map(|blob| blob.digest.clone()).collect(),
        };
        Ok(self.report(target, merged, Some((name, image)), now))
    }

    /// Scans everything below `root`.
    pub fn directory(&self, root: &Path, now: Timestamp) -> Result<Report, ScanError> {
        let limits = &self.options.limits;
        let mut collector = layers::Collector::new(&self.options, false);
        if self.options.os_only {
            files::some(root, analysers::OS_PATHS, limits, &mut |entry| collector.visit(entry))?;
        } else {
            files::directory(root, limits, &mut |entry| collector.visit(entry))?;
        }
        let mut merged = merge::Merged::default();
        merged.add(None, &collector.finish());
        let name = root.display().to_string();
        let target = Target { kind: TargetKind::Directory, name, digest: None, layers: Vec::new() };
        Ok(self.report(target, merged, None, now))
    }

    /// What was found in a layer before, so that it is not looked through again. It must come from a scan with the
    /// same options and the same [`ANALYSIS_VERSION`].
    pub fn know(&mut self, layer: Digest, analysis: Analysis) {
        self.analysed.insert(layer, Arc::new(analysis));
    }

    /// What was found in a layer of an image that was scanned, for who keeps it.
    pub fn analysis(&self, layer: &Digest) -> Option<&Arc<Analysis>> {
        self.analysed.get(layer)
    }

    fn layer(&mut self, blob: &Blob) -> Result<Arc<Analysis>, ScanError> {
        if let Some(analysis) = self.analysed.get(&blob.digest) {
            return Ok(Arc::clone(analysis));
        }
        let mut collector = layers::Collector::new(&self.options, true);
        files::layer(blob, &self.options.limits, &mut |entry| collector.visit(entry))?;
        let analysis = Arc::new(collector.finish());
        self.analysed.insert(blob.digest.clone(), Arc::clone(&analysis));
        Ok(analysis)
    }

    fn report(
        &self,
        target: Target,
        merged: merge::Merged,
        image: Option<(&str, &Image)>,
        now: Timestamp,
    ) -> Report {
        let merge::Whole { system: operating_system, packages, problems, seen } = merged.finish();
        let has_list = !self.options.malware.is_empty();
        let compliance = self
            .options
            .checks
            .then(|| compliance::evaluate(seen, operating_system.as_ref(), image, has_list, now));
        Report {
            schema_version: SCHEMA_VERSION,
            scanned_at: now,
            target,
            operating_system,
            packages,
            vulnerabilities: None,
            compliance,
            rating: None,
            advisory_data: None,
            problems,
        }
    }
}
