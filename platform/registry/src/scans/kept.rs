//! What scans leave on disk, beside the content they are about.
//!
//! ```text
//! scans/reports-VERSION/ALGORITHM-HEX.json    what is in an image and known of it, by the digest of its manifest
//! scans/layers-VERSION/ALGORITHM-HEX.json     what one layer says, by its digest; may go at any time
//! scans/matched-VERSION.json                  packages of all reports, and the advisories they were last compared with
//! ```
//!
//! A version is part of the name: what another version wrote is not read, and goes at the start. Reports hold facts.
//! What they are worth (exceptions, grades) depends on who asks, and is worked out at each reading.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use gantry_oci::Digest;
use gantry_scanner::{ANALYSIS_VERSION, Analysis, Report, SCHEMA_VERSION};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Changes with the form of what is kept here.
const FORMAT: u32 = 1;
/// What one layer may say to be kept.
const LAYER_MAX_BYTES: u64 = 64 << 20;
const LAYERS_MAX_BYTES: u64 = 512 << 20;

/// The files of scans.
pub(crate) struct Kept {
    root: PathBuf,
    reports: Mutex<HashSet<Digest>>,
    layers: Mutex<Layers>,
}

#[derive(Default)]
struct Layers {
    sizes: BTreeMap<String, (SystemTime, u64)>,
    total_bytes: u64,
}

impl Kept {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let root = root.join("scans");
        let kept = Self { root, reports: Mutex::default(), layers: Mutex::default() };
        for directory in [kept.reports_directory(), kept.layers_directory()] {
            gantry_base::fs::create_directory(&directory, 0o700)?;
        }
        kept.forget_other_versions()?;
        let names = names(&kept.reports_directory())?;
        *kept.reports() = names.iter().filter_map(|(name, _)| digest_of(name)).collect();
        let mut layers = kept.layers();
        for (name, metadata) in names_of_layers(&kept.layers_directory())? {
            layers.total_bytes += metadata.1;
            layers.sizes.insert(name, metadata);
        }
        drop(layers);
        Ok(kept)
    }

    fn reports_directory(&self) -> PathBuf {
        self.root.join(format!("reports-{FORMAT}.{SCHEMA_VERSION}"))
    }

    fn layers_directory(&self) -> PathBuf {
        self.root.join(format!("layers-{FORMAT}.{ANALYSIS_VERSION}"))
    }

    fn matched_file(&self) -> PathBuf {
        self.root.join(format!("matched-{FORMAT}.{SCHEMA_VERSION}.json"))
    }

    fn forget_other_versions(&self) -> io::Result<()> {
        let ours = [self.reports_directory(), self.layers_directory(), self.matched_file()];
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if !ours.contains(&path) {
                gantry_base::fs::remove_all(&path)?;
            }
        }
        Ok(())
    }

    fn reports(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layers(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has(&self, image: &Digest) -> bool {
        self.reports().contains(image)
    }

    pub(crate) fn images(&self) -> Vec<Digest> {
        self.reports().iter().cloned().collect()
    }

    /// What was found in the image, if that is known.
    pub(crate) fn report(&self, image: &Digest) -> io::Result<Option<Report>> {
        if !self.has(image) {
            return Ok(None);
        }
        let report = read(&self.reports_directory().join(file_name(image)))?;
        if report.is_none() {
            // Damaged, or somebody took it away: it is made again.
            self.reports().remove(image);
        }
        Ok(report)
    }

    pub(crate) fn put_report(&self, image: &Digest, report: &Report) -> io::Result<()> {
        write(&self.reports_directory().join(file_name(image)), report)?;
        self.reports().insert(image.clone());
        Ok(())
    }

    pub(crate) fn remove_report(&self, image: &Digest) -> io::Result<()> {
        self.reports().remove(image);
        remove(&self.reports_directory().join(file_name(image)))
    }

    /// What a layer says, if that is kept.
    pub(crate) fn layer(&self, layer: &Digest) -> io::Result<Option<Analysis>> {
        let name = file_name(layer);
        if !self.layers().sizes.contains_key(&name) {
            return Ok(None);
        }
        read(&self.layers_directory().join(name))
    }

    /// Keeps what a layer says, in the place of what was kept longest.
    pub(crate) fn put_layer(&self, layer: &Digest, analysis: &Analysis) -> io::Result<()> {
        let bytes = serde_json::to_vec(analysis)?;
        let size = bytes.len() as u64;
        if size > LAYER_MAX_BYTES {
            return Ok(());
        }
        let name = file_name(layer);
        gantry_base::fs::write_atomic(&self.layers_directory().join(&name), &bytes, 0o600)?;
        for old in self.layers().add(name, size, LAYERS_MAX_BYTES) {
            remove(&self.layers_directory().join(old))?;
        }
        Ok(())
    }

    pub(crate) fn matched<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        read(&self.matched_file())
    }

    pub(crate) fn put_matched(&self, matched: &impl Serialize) -> io::Result<()> {
        write(&self.matched_file(), matched)
    }
}

impl Layers {
    /// Enters a layer, and gives the names of those that have to go for it.
    fn add(&mut self, name: String, size: u64, max: u64) -> Vec<String> {
        if let Some((_, old)) = self.sizes.insert(name, (SystemTime::now(), size)) {
            self.total_bytes -= old;
        }
        self.total_bytes += size;
        if self.total_bytes <= max {
            return Vec::new();
        }
        let mut by_age: Vec<(SystemTime, u64, String)> =
            self.sizes.iter().map(|(name, (at, size))| (*at, *size, name.clone())).collect();
        by_age.sort();
        let mut gone = Vec::new();
        // A quarter at once, so that this is seldom.
        for (_, size, name) in by_age {
            if self.total_bytes <= max / 4 * 3 {
                break;
            }
            self.total_bytes -= size;
            self.sizes.remove(&name);
            gone.push(name);
        }
        gone
    }
}

fn file_name(digest: &Digest) -> String {
    format!("{}-{}.json", digest.algorithm().as_str(), digest.hex())
}

fn digest_of(name: &str) -> Option<Digest> {
    name.strip_suffix(".json")?.replacen('-', ":", 1).parse().ok()
}

fn names(directory: &Path) -> io::Result<Vec<(String, fs::Metadata)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_name().into_string() {
            Ok(name) if digest_of(&name).is_some() => found.push((name, entry.metadata()?)),
            // Of a process that died while it wrote.
            _ => remove(&entry.path())?,
        }
    }
    Ok(found)
}

fn names_of_layers(directory: &Path) -> io::Result<Vec<(String, (SystemTime, u64))>> {
    let all = names(directory)?.into_iter();
    Ok(all
        .map(|(name, found)| (name, (found.modified().unwrap_or(SystemTime::UNIX_EPOCH), found.len())))
        .collect())
}

/// Nothing where it is not there, or is not what it should be.
fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(bytes) = gantry_base::fs::read_optional(path)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a scan's file is damaged and will be made again");
            remove(path).map(|()| None)
        }
    }
}

fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    gantry_base::fs::write_atomic(path, &serde_json::to_vec(value)?, 0o600)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_bounded_and_the_oldest_go() {
        let mut layers = Layers::default();
        assert!(layers.add("a".to_owned(), 40, 100).is_empty());
        assert!(layers.add("b".to_owned(), 40, 100).is_empty());
        assert!(layers.add("b".to_owned(), 50, 100).is_empty());
        assert_eq!(layers.add("c".to_owned(), 20, 100), ["a"]);
        assert_eq!(layers.total_bytes, 70);
    }

    #[test]
    fn what_is_damaged_or_of_another_version_is_made_again() {
        let folder = tempfile::tempdir().expect("a directory");
        let image = Digest::of(b"image");
        let kept = Kept::open(folder.path()).expect("opened");
        let layer = Analysis::default();
        kept.put_layer(&image, &layer).expect("kept");
        assert!(kept.layer(&image).expect("read").is_some());
        let path = kept.reports_directory().join(file_name(&image));
        gantry_base::fs::write_atomic(&path, b"{", 0o600).expect("written");
        let old = folder.path().join("scans/reports-0.1");
        gantry_base::fs::create_directory(&old, 0o700).expect("made");
        let kept = Kept::open(folder.path()).expect("opened");
        assert!(kept.has(&image) && !old.exists());
        assert!(kept.layer(&image).expect("read").is_some());
        assert!(kept.report(&image).expect("read").is_none() && !kept.has(&image));
        assert!(!path.exists());
    }
}
