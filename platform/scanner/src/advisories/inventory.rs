//! The packages of many reports, so that new advisories are compared with what they concern, and no layer is read
//! again.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{AdvisoryError, Changes, Index, PackageKey, Vulnerability};
use crate::{Found, OperatingSystem, Package, Report};

/// Reports by name, and each package of them once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Inventory {
    stored: Stored,
    numbers: HashMap<(Option<u32>, Package), u32>,
    systems: HashMap<OperatingSystem, u32>,
}

/// The form that is kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    systems: Vec<OperatingSystem>,
    packages: Vec<Item>,
    /// Numbers of packages; those that somebody else mends are none.
    reports: BTreeMap<String, Vec<u32>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Item {
    system: Option<u32>,
    found: Found,
}

impl From<Stored> for Inventory {
    fn from(stored: Stored) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let numbers = stored.packages.iter().enumerate();
        let numbers = numbers.map(|(n, item)| ((item.system, item.found.package.clone()), number(n)));
        let systems = stored.systems.iter().enumerate().map(|(n, system)| (system.clone(), number(n)));
        Self { numbers: numbers.collect(), systems: systems.collect(), stored }
    }
}

impl From<Inventory> for Stored {
    fn from(inventory: Inventory) -> Self {
        inventory.stored
    }
}

impl Inventory {
    /// Enters `report` under `name`, in the place of what was there. Packages that no report has any more stay until
    /// [`Self::compact`].
    pub fn add(&mut self, name: &str, report: &Report) {
        let system = report.operating_system.as_ref().map(|system| self.system(system));
        let ours = report.packages.iter().filter(|found| found.owner.is_none());
        let numbers = ours.map(|found| self.number(system, found)).collect();
        self.stored.reports.insert(name.to_owned(), numbers);
    }

    pub fn remove(&mut self, name: &str) {
        self.stored.reports.remove(name);
    }

    pub fn contains(&self, name: &str) -> bool {
        self.stored.reports.contains_key(name)
    }

    /// The names of all reports.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.stored.reports.keys().map(String::as_str)
    }

    pub fn reports(&self) -> usize {
        self.stored.reports.len()
    }

    /// Without the packages that no report has.
    #[must_use]
    pub fn compact(&self) -> Self {
        let mut compact = Self::default();
        for (name, numbers) in &self.stored.reports {
            let items = numbers.iter().filter_map(|n| self.stored.packages.get(*n as usize));
            let renumbered = items.map(|item| {
                let system = item.system.and_then(|n| self.stored.systems.get(n as usize));
                let system = system.map(|system| compact.system(system));
                compact.number(system, &item.found)
            });
            let renumbered = renumbered.collect();
            compact.stored.reports.insert(name.clone(), renumbered);
        }
        compact
    }

    fn system(&mut self, system: &OperatingSystem) -> u32 {
        if let Some(number) = self.systems.get(system) {
            return *number;
        }
        // There are fewer than four thousand million of anything that fits memory.
        let number = self.stored.systems.len() as u32;
        self.systems.insert(system.clone(), number);
        self.stored.systems.push(system.clone());
        number
    }

    fn number(&mut self, system: Option<u32>, found: &Found) -> u32 {
        let key = (system, found.package.clone());
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = self.stored.packages.len() as u32;
        self.numbers.insert(key, number);
        let found = Found { locations: Vec::new(), ..found.clone() };
        self.stored.packages.push(Item { system, found });
        number
    }

    /// Compares what `changes` concern with `index`, each package once, and calls `each` for every report that has
    /// one of them. Gives the number of these reports.
    pub fn rematch(
        &self,
        index: &Index,
        changes: &Changes,
        each: &mut dyn FnMut(Rematched<'_>),
    ) -> Result<usize, AdvisoryError> {
        let results = self.results(index, changes)?;
        let mut touched = 0;
        for (report, numbers) in &self.stored.reports {
            let of = |n: &u32| Some((&self.stored.packages.get(*n as usize)?.found, results.get(n)?));
            let found: Vec<_> = numbers.iter().filter_map(of).collect();
            if !found.is_empty() {
                touched += 1;
                each(Rematched { report, found });
            }
        }
        Ok(touched)
    }

    /// What is known now of every package that changed.
    fn results(
        &self,
        index: &Index,
        changes: &Changes,
    ) -> Result<HashMap<u32, Vec<Vulnerability>>, AdvisoryError> {
        let mut by_system: BTreeMap<Option<u32>, Vec<u32>> = BTreeMap::new();
        for (n, item) in (0_u32..).zip(&self.stored.packages) {
            let key = PackageKey::of(&item.found.package, self.system_of(item.system));
            let is_changed = match changes {
                Changes::All => key.is_some(),
                Changes::Packages(changed) => key.is_some_and(|key| changed.contains(&key)),
            };
            if is_changed {
                by_system.entry(item.system).or_default().push(n);
            }
        }
        let mut results = HashMap::new();
        for (system, numbers) in by_system {
            // A URL alone does not tell the package of one source from that of another.
            for n in numbers {
                let found = std::slice::from_ref(&self.stored.packages[n as usize].found);
                results.insert(n, index.matched(found, self.system_of(system))?);
            }
        }
        Ok(results)
    }

    fn system_of(&self, number: Option<u32>) -> Option<&OperatingSystem> {
        self.stored.systems.get(number? as usize)
    }
}

/// What is known anew of some packages of a report.
pub struct Rematched<'a> {
    /// The name it was entered under.
    pub report: &'a str,
    found: Vec<(&'a Found, &'a Vec<Vulnerability>)>,
}

impl Rematched<'_> {
    /// The vulnerabilities of the packages that changed.
    pub fn vulnerabilities(&self) -> impl Iterator<Item = &Vulnerability> {
        self.found.iter().flat_map(|(_, found)| found.iter())
    }

    /// Puts what is known now in the place of what `report` says of these packages.
    pub fn apply(&self, report: &mut Report, index: &Index) {
        let again: HashSet<&str> = self.found.iter().map(|(found, _)| found.purl.as_str()).collect();
        let mut all = report.vulnerabilities.take().unwrap_or_default();
        all.retain(|known| !again.contains(known.purl.as_str()));
        all.extend(self.vulnerabilities().cloned());
        super::hits::sort(&mut all);
        report.vulnerabilities = Some(all);
        report.advisory_data = Some(index.data());
    }
}
