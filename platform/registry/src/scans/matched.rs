//! Which advisories reports were compared with, and the packages of all of them: new advisories are compared with what
//! they concern, and no layer is read again.

use std::collections::HashSet;
use std::io;

use gantry_oci::Digest;
use gantry_scanner::Report;
use gantry_scanner::advisories::{AdvisoryData, Inventory};
use serde::{Deserialize, Serialize};

use super::kept::Kept;
use super::{Scans, compare};

/// What all reports were compared with.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Matched {
    pub(super) data: Option<AdvisoryData>,
    inventory: Inventory,
    /// Not on disk as it is.
    #[serde(skip)]
    changed: bool,
}

/// Is it one state of one index? Being looked at again does not change it.
pub(super) fn is_same(known: Option<&AdvisoryData>, now: &AdvisoryData) -> bool {
    let state =
        |data: &AdvisoryData| (data.source.clone(), data.generation, data.advisories, data.newest_modified);
    known.is_some_and(|known| state(known) == state(now))
}

impl Matched {
    /// As it was saved, and with the reports that came since.
    pub(super) fn load(kept: &Kept) -> io::Result<Self> {
        let mut matched: Self = kept.matched()?.unwrap_or_default();
        let images: HashSet<String> = kept.images().iter().map(ToString::to_string).collect();
        let gone: Vec<String> =
            matched.inventory.names().filter(|name| !images.contains(*name)).map(str::to_owned).collect();
        gone.iter().for_each(|name| matched.inventory.remove(name));
        for image in kept.images() {
            if !matched.inventory.contains(&image.to_string())
                && let Some(report) = kept.report(&image)?
            {
                matched.add(&image, &report);
            }
        }
        Ok(matched)
    }

    pub(super) fn add(&mut self, image: &Digest, report: &Report) {
        self.inventory.add(&image.to_string(), report);
        self.changed = true;
    }

    pub(super) fn forget(&mut self, image: &Digest) {
        self.inventory.remove(&image.to_string());
        self.changed = true;
    }
}

impl Scans {
    /// Compares reports with advisories that are new since the last time.
    pub(super) fn follow(&self) -> io::Result<()> {
        let Some(index) = self.data.current() else { return Ok(()) };
        let data = index.data();
        let mut matched = self.matched();
        if is_same(matched.data.as_ref(), &data) {
            return Ok(());
        }
        // Another index may count from the beginning: its changes are not those since the one before.
        let before = matched
            .data
            .as_ref()
            .filter(|known| known.source == data.source && known.generation != data.generation);
        let mut touched = 0;
        match before.and_then(|known| known.generation) {
            Some(generation) => {
                let changes = index.changes_since(generation).map_err(io::Error::other)?;
                let mut result = Ok(());
                let each = &mut |again: gantry_scanner::advisories::Rematched<'_>| {
                    if result.is_ok() {
                        result = self.update(again.report, |report| {
                            again.apply(report, &index);
                            Ok(())
                        });
                    }
                };
                touched += matched.inventory.rematch(&index, &changes, each).map_err(io::Error::other)?;
                result?;
            }
            None => {
                for image in self.kept.images() {
                    self.update(&image.to_string(), |report| compare(&index, report))?;
                    touched += 1;
                }
            }
        }
        tracing::info!(
            reports = touched,
            generation = data.generation,
            "new advisories were compared with images"
        );
        matched.data = Some(data.clone());
        matched.changed = false;
        *self.compared() = Some(data);
        self.kept.put_matched(&*matched)
    }

    fn update(&self, image: &str, change: impl FnOnce(&mut Report) -> io::Result<()>) -> io::Result<()> {
        let Ok(image) = image.parse::<Digest>() else { return Ok(()) };
        let Some(mut report) = self.kept.report(&image)? else { return Ok(()) };
        change(&mut report)?;
        self.kept.put_report(&image, &report)
    }

    /// Writes the inventory down, if it changed.
    pub(super) fn save(&self) -> io::Result<()> {
        let mut matched = self.matched();
        if !matched.changed {
            return Ok(());
        }
        matched.inventory = matched.inventory.compact();
        matched.changed = false;
        self.kept.put_matched(&*matched)
    }
}
