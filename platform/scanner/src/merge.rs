//! Layers put together as a runtime would see them: what an upper layer removes or covers is gone, and what stays
//! is attributed to the layer that brought it.

use std::collections::{BTreeMap, HashMap};

use gantry_oci::Digest;

use crate::analysers::Finding;
use crate::compliance::{Observation, Seen};
use crate::layers::Analysis;
use crate::package::{Found, Location, OperatingSystem, Package, Problem};
use crate::purl;

type File = Vec<(Finding, Option<Digest>)>;

/// The file system of all layers so far, as far as it matters.
#[derive(Default)]
pub(crate) struct Merged {
    files: BTreeMap<String, File>,
    links: BTreeMap<String, String>,
    problems: Vec<Problem>,
    /// What is still pulled with a layer when an upper one removes it.
    kept: Vec<(String, Observation, Option<Digest>)>,
}

/// The outcome.
pub(crate) struct Whole {
    pub system: Option<OperatingSystem>,
    pub packages: Vec<Found>,
    pub problems: Vec<Problem>,
    pub seen: Vec<Seen>,
}

impl Merged {
    /// Lays `analysis` over what is there.
    pub(crate) fn add(&mut self, layer: Option<&Digest>, analysis: &Analysis) {
        for path in &analysis.whiteouts {
            let path = self.resolve(path);
            self.remove_below(&path);
            self.files.remove(&path);
            self.links.remove(&path);
        }
        for path in &analysis.opaque {
            let path = self.resolve(path);
            self.remove_below(&path);
            if path.is_empty() {
                self.links.clear();
            }
        }
        self.links.retain(|path, _| !analysis.covers(path) && !analysis.top_directories.contains(path));
        self.links.extend(analysis.links.iter().map(|(path, to)| (path.clone(), to.clone())));
        let before: HashMap<String, File> = analysis
            .files
            .keys()
            .map(|path| self.resolve(path))
            .filter_map(|path| self.files.get(&path).cloned().map(|file| (path, file)))
            .collect();
        let links = &self.links;
        self.files
            .retain(|path, _| !names(links, path).any(|(name, from)| analysis.covers_from(&name, from)));
        for (path, findings) in &analysis.files {
            let path = self.resolve(path);
            let known = before.get(&path).map_or(&[][..], Vec::as_slice);
            // A database that is written again says mostly what it said: what was there came with a lower layer.
            let known: HashMap<&Finding, &Option<Digest>> =
                known.iter().map(|(finding, layer)| (finding, layer)).collect();
            let file = findings.iter().map(|finding| {
                let first = known.get(finding).map_or_else(|| layer.cloned(), |first| (*first).clone());
                (finding.clone(), first)
            });
            let file: File = file.collect();
            for (finding, first) in &file {
                if let Finding::Observed(seen) = finding
                    && seen.stays()
                    && first.as_ref() == layer
                {
                    self.kept.push((path.clone(), seen.clone(), layer.cloned()));
                }
            }
            self.files.insert(path, file);
        }
        self.problems.extend(analysis.problems.iter().map(|(path, message)| Problem {
            location: Location { path: path.clone(), layer: layer.cloned() },
            message: message.clone(),
        }));
    }

    /// A path with the link at the top followed: `lib/x` is `usr/lib/x` where `lib` leads to `usr/lib`.
    fn resolve(&self, path: &str) -> String {
        let (top, rest) = path.split_once('/').unwrap_or((path, ""));
        match self.links.get(top) {
            Some(target) if !rest.is_empty() => format!("{target}/{rest}"),
            _ => path.to_owned(),
        }
    }

    fn remove_below(&mut self, directory: &str) {
        if directory.is_empty() {
            return self.files.clear();
        }
        let prefix = format!("{directory}/");
        let below = self.files.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        for path in below.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.files.remove(&path);
        }
    }

    /// The operating system, every package once with its places, what checks saw, and what could not be read.
    pub(crate) fn finish(self) -> Whole {
        let seen = self.seen();
        let owners = self.owners();
        let system = self.system();
        let mut places: BTreeMap<Package, Vec<Location>> = BTreeMap::new();
        for (path, file) in self.files {
            for (finding, layer) in file {
                let (package, path) = match finding {
                    Finding::Package(package) => (package, path.clone()),
                    Finding::Within { inner, package } => (package, format!("{path}{inner}")),
                    Finding::OperatingSystem(_) | Finding::Owned { .. } | Finding::Observed(_) => continue,
                };
                places.entry(package).or_default().push(Location { path, layer });
            }
        }
        let found = places.into_iter().map(|(package, mut locations)| {
            locations.sort();
            locations.dedup();
            let owner = |at: &Location| owners.get(at.path.split("!/").next().unwrap_or(&at.path)).cloned();
            // One place that nobody owns is one that nobody mends.
            let all: Option<Vec<String>> = locations.iter().map(owner).collect();
            let owner = all.and_then(|all| all.into_iter().next()).filter(|_| !package.kind.is_os());
            Found { purl: purl::of(&package, system.as_ref()), package, locations, owner }
        });
        let packages = found.collect();
        Whole { system, packages, problems: self.problems, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        let place =
            |path: &str, layer: &Option<Digest>| Location { path: path.to_owned(), layer: layer.clone() };
        let kept = self.kept.iter().map(|(path, observation, layer)| Seen {
            hidden: !self.files.get(path).is_some_and(|file| {
                file.iter()
                    .any(|(finding, _)| matches!(finding, Finding::Observed(seen) if seen == observation))
            }),
            observation: observation.clone(),
            location: place(path, layer),
        });
        let files = self.files.iter().flat_map(|(path, file)| file.iter().map(move |each| (path, each)));
        let others = files.filter_map(|(path, (finding, layer))| match finding {
            Finding::Observed(seen) if seen.stays() => None,
            Finding::Observed(seen) => {
                Some(Seen { observation: seen.clone(), location: place(path, layer), hidden: false })
            }
            _ => None,
        });
        kept.chain(others).collect()
    }

    fn owners(&self) -> HashMap<String, String> {
        let mut owners = HashMap::new();
        for (finding, _) in self.files.values().flatten() {
            if let Finding::Owned { package, paths } = finding {
                owners.extend(paths.iter().map(|path| (self.resolve(path), package.clone())));
            }
        }
        owners
    }

    /// `etc/os-release` before `usr/lib/os-release`, as the manual page says.
    fn system(&self) -> Option<OperatingSystem> {
        let mut all = ["etc/os-release", "usr/lib/os-release"].into_iter().filter_map(|p| self.files.get(p));
        all.find_map(|file| {
            file.iter().find_map(|(finding, _)| match finding {
                Finding::OperatingSystem(system) => Some(system.clone()),
                _ => None,
            })
        })
    }
}

/// The names that lead to `path`: itself, and those through a link at the top, each with the length of what is not
/// part of it: a link that is made again covers nothing of what it leads to.
fn names<'a>(
    links: &'a BTreeMap<String, String>,
    path: &'a str,
) -> impl Iterator<Item = (String, usize)> + use<'a> {
    let through = links.iter().filter_map(move |(link, target)| {
        let rest = path.strip_prefix(target.as_str())?.strip_prefix('/')?;
        Some((format!("{link}/{rest}"), link.len()))
    });
    std::iter::once((path.to_owned(), 0)).chain(through)
}
