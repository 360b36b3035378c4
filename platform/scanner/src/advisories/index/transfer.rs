//! The index of one machine on another: its two files out, and in again, as an update would put them there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::table::Table;
use super::update::{locked, publish};
use super::{Index, MANIFEST_MAX_BYTES, Manifest, damaged};
use crate::advisories::AdvisoryError;

/// An index as it is to be carried elsewhere.
pub struct Exported {
    /// [`Manifest`] as JSON.
    pub manifest: Vec<u8>,
    /// What the manifest is about.
    pub table: File,
    pub table_bytes: u64,
}

/// What became of an index that was brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    New(Manifest),
    /// What is here was looked at later, or is the same, and stays.
    Kept(Manifest),
}

/// The index of `directory` as it is now, whatever is written meanwhile.
pub fn export(directory: &Path) -> Result<Exported, AdvisoryError> {
    let index = Index::open(directory)?;
    let io = |source| AdvisoryError::Io { path: directory.to_owned(), source };
    let manifest = serde_json::to_vec_pretty(&index.manifest).map_err(|error| io(error.into()))?;
    let table = index.table.file().try_clone().map_err(io)?;
    Ok(Exported { manifest, table_bytes: index.size_bytes(), table })
}

/// Reads the manifest of an index that was exported.
pub fn exported_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    if bytes.len() as u64 > MANIFEST_MAX_BYTES {
        return Err(format!("the manifest of the advisories has more than {MANIFEST_MAX_BYTES} bytes"));
    }
    super::parse(bytes).map_err(|error| error.to_string())
}

/// Puts an index in the place of the one in `directory`, unless that is as new: it is seen whole or not at all. `table`
/// is copied once; whoever gives it has checked where it is from.
pub fn install(
    directory: &Path,
    mut brought: Manifest,
    table: &mut dyn Read,
) -> Result<Installed, AdvisoryError> {
    let io = |source| AdvisoryError::Io { path: directory.to_owned(), source };
    let (_lock, old) = locked(directory)?;
    if let Some(old) = old.as_ref().filter(|old| checked(&old.manifest) >= checked(&brought)) {
        return Ok(Installed::Kept(old.manifest.clone()));
    }
    // All is new: who knows an older generation compares everything again.
    brought.generation =
        old.as_ref().map_or(brought.generation, |old| old.manifest.generation.max(brought.generation)) + 1;
    brought.changes_since = brought.generation;
    brought.table = format!("advisories-{}.table", brought.generation);
    let path = directory.join(&brought.table);
    let written = (|| {
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).map_err(io)?;
        io::copy(table, &mut file).and_then(|_| file.flush()).and_then(|()| file.sync_all()).map_err(io)?;
        // One that cannot be opened must not take the place of one that can.
        Table::open(file).map_err(|source| damaged(directory, &source))?;
        publish(directory, &brought).map_err(io)
    })();
    if let Err(error) = written {
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    if let Some(old) = old {
        // Whoever has it open keeps it.
        let _ = std::fs::remove_file(directory.join(&old.manifest.table));
    }
    Ok(Installed::New(brought))
}

/// When the sources were looked at, the one that was longest ago.
fn checked(manifest: &Manifest) -> Option<jiff::Timestamp> {
    manifest.sources.iter().map(|source| source.checked_at).min()
}
