//! Which advisories reports were compared with, and the packages of all of them: new advisories are compared with what
//! they concern, and no layer is read again.

use std::collections::HashSet;
use std::io;

use gantry_oci::Digest;
use gantry_scanner::Report;
use gantry_scanner::advisories::{AdvisoryData, Changes, Inventory, Rematched};
use gantry_scanner::rating::Grade;
use serde::{Deserialize, Serialize};

use super::kept::Kept;
use super::{Scans, compare};
use crate::Registry;
use crate::gate::Place;

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

/// An image that has another grade than before, by the platform's policy.
pub(super) struct Regraded {
    pub(super) image: Digest,
    pub(super) before: Option<Grade>,
    pub(super) now: Option<Grade>,
}

impl Scans {
    /// Compares reports with advisories that are new since the last time; nothing if there are none. Gives the images
    /// whose grade is another by it.
    pub(super) fn follow(&self, registry: &Registry) -> io::Result<Option<Vec<Regraded>>> {
        let Some(index) = self.data.current() else { return Ok(None) };
        let data = index.data();
        let mut matched = self.matched();
        if is_same(matched.data.as_ref(), &data) {
            return Ok(None);
        }
        let mut regraded = Vec::new();
        // Another index may count from the beginning: its changes are not those since the one before.
        let before = matched
            .data
            .as_ref()
            .filter(|known| known.source == data.source && known.generation != data.generation);
        let changes = match before.and_then(|known| known.generation) {
            Some(generation) => index.changes_since(generation).map_err(io::Error::other)?,
            None => Changes::All,
        };
        let mut touched = 0;
        match changes {
            Changes::Packages(_) => {
                let mut result = Ok(());
                let each = &mut |again: Rematched<'_>| {
                    if result.is_err() {
                        return;
                    }
                    let apply = |report: &mut Report| {
                        again.apply(report, &index);
                        Ok(())
                    };
                    match self.update(registry, again.report, apply) {
                        Ok(changed) => regraded.extend(changed),
                        Err(error) => result = Err(error),
                    }
                };
                touched += matched.inventory.rematch(&index, &changes, each).map_err(io::Error::other)?;
                result?;
            }
            Changes::All => {
                for image in self.kept.images() {
                    let compare = |report: &mut Report| compare(&index, report);
                    regraded.extend(self.update(registry, &image.to_string(), compare)?);
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
        self.kept.put_matched(&*matched)?;
        Ok(Some(regraded))
    }

    fn update(
        &self,
        registry: &Registry,
        image: &str,
        change: impl FnOnce(&mut Report) -> io::Result<()>,
    ) -> io::Result<Option<Regraded>> {
        let Ok(image) = image.parse::<Digest>() else { return Ok(None) };
        let Some(mut report) = self.kept.report(&image)? else { return Ok(None) };
        let grade = |report: &Report| {
            let name = report.target.name.clone();
            registry.rated(report.clone(), &name, &Place::default()).rating.map(|rating| rating.grade)
        };
        let before = grade(&report);
        change(&mut report)?;
        let now = grade(&report);
        self.kept.put_report(&image, &report)?;
        self.grades.forget(&image);
        Ok((before != now).then_some(Regraded { image, before, now }))
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
