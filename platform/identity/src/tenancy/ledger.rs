//! What is used and what is promised: the books behind tree quotas.
//!
//! A write is checked and entered under one lock, so that writes that arrive together never exceed a bound together.
//! An entry counts until the write is known to have failed, or until the informers show its object.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gantry_identity_api::Project;
use gantry_kube_types::AdmissionOutcome;
use kube::ResourceExt;

use super::namespaces::Namespaces;
use super::project;
use super::quota::{Alone, Amounts, Tree};
use super::usage::Counted;
use crate::directory::State;

/// After this time a written object that nobody has shown us was gone before we could see it.
const UNSEEN_MAX: Duration = Duration::from_secs(60);

/// One object that counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    pub kind: Counted,
    pub namespace: String,
    pub name: String,
}

/// What one write was promised.
#[derive(Clone, Debug)]
pub enum Entry {
    Use(Item, u64),
    Quota(String, u64),
}

#[derive(Debug)]
struct Promise<T> {
    what: T,
    number: u64,
    /// When it was stored; `None`: on the way.
    written: Option<Instant>,
}

#[derive(Debug, Default)]
struct Books {
    seen: HashMap<Item, Amounts>,
    promised: HashMap<Item, Promise<Amounts>>,
    /// Per namespace, of every object the larger of what is seen and what is promised.
    spaces: HashMap<String, Amounts>,
    /// Projects as they will be.
    projects: HashMap<String, Promise<Arc<Project>>>,
    numbers: u64,
}

/// The books. Checked by admission, kept by informers.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Books>);

impl Ledger {
    /// Enters what `item` will take, if the project's bounds allow. `Err` is the sentence for the caller.
    pub fn enter_use(
        &self,
        state: &State,
        namespaces: &Namespaces,
        project: &str,
        item: Item,
        want: Amounts,
    ) -> Result<Option<Entry>, String> {
        let mut books = self.lock();
        books.forget_unseen();
        if !books.admit(state, namespaces, project, &item, &want)? {
            return Ok(None);
        }
        let number = books.next();
        books.change(&item.namespace.clone(), &item.clone(), |books| {
            books.promised.insert(item.clone(), Promise { what: want, number, written: None });
        });
        Ok(Some(Entry::Use(item, number)))
    }

    /// What [`Ledger::enter_use`] would say. Nothing is entered: for a write that is only tried.
    pub fn check_use(
        &self,
        state: &State,
        namespaces: &Namespaces,
        project: &str,
        item: &Item,
        want: &Amounts,
    ) -> Result<(), String> {
        let mut books = self.lock();
        books.forget_unseen();
        books.admit(state, namespaces, project, item, want).map(drop)
    }

    /// Enters a project's quota, if what is above it allows.
    pub fn enter_quota(
        &self,
        state: &State,
        namespaces: &Namespaces,
        project: &Project,
    ) -> Result<Entry, String> {
        let mut books = self.lock();
        books.forget_shown(state);
        let tree = books.tree(state, namespaces, &project.spec.domain, Some(project));
        tree.carve(&project.name_any(), &project.spec.quota)?;
        let number = books.next();
        let promise = Promise { what: Arc::new(project.clone()), number, written: None };
        books.projects.insert(project.name_any(), promise);
        Ok(Entry::Quota(project.name_any(), number))
    }

    /// The tree of a domain as it is now, with what is promised.
    pub fn tree(&self, state: &State, namespaces: &Namespaces, domain: &str) -> Tree {
        let mut books = self.lock();
        books.forget_shown(state);
        books.tree(state, namespaces, domain, None)
    }

    /// The write of an entry has happened, or not.
    pub fn settle(&self, entry: &Entry, outcome: AdmissionOutcome) {
        let mut books = self.lock();
        let written = outcome == AdmissionOutcome::Written;
        match entry {
            Entry::Use(item, number) => {
                let Some(promise) = books.promised.get_mut(item).filter(|p| p.number == *number) else {
                    return;
                };
                promise.written = Some(Instant::now());
                if !written {
                    books.change(&item.namespace, item, |books| {
                        books.promised.remove(item);
                    });
                }
            }
            Entry::Quota(project, number) => {
                let Some(promise) = books.projects.get_mut(project).filter(|p| p.number == *number) else {
                    return;
                };
                promise.written = Some(Instant::now());
                if !written {
                    books.projects.remove(project);
                }
            }
        }
    }

    /// An informer shows the object, or (`None`) that it is gone.
    pub fn see(&self, item: &Item, amounts: Option<Amounts>) {
        let mut books = self.lock();
        books.change(&item.namespace, item, |books| match amounts {
            Some(amounts) => {
                let kept = books.promised.get(item).is_some_and(|p| !p.what.over(&amounts).is_zero());
                if !kept {
                    books.promised.remove(item);
                }
                books.seen.insert(item.clone(), amounts);
            }
            None => {
                books.seen.remove(item);
                books.promised.remove(item);
            }
        });
    }

    /// What a namespace takes.
    pub fn used_in(&self, namespace: &str) -> Amounts {
        self.lock().spaces.get(namespace).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // A panic in between leaves sums that the next event of the object mends.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn next(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Is there room for what `item` will take? `false`: there is, and nothing bounds it.
    fn admit(
        &self,
        state: &State,
        namespaces: &Namespaces,
        project: &str,
        item: &Item,
        want: &Amounts,
    ) -> Result<bool, String> {
        let more = want.over(&self.counts(item));
        let Some(found) = state.projects.get(project).filter(|_| !more.is_zero()) else { return Ok(false) };
        let alone = project::environment(found, &item.namespace).and_then(Alone::of);
        if let Some(alone) = &alone {
            alone.admit(&self.spaces.get(&item.namespace).copied().unwrap_or_default(), &more)?;
        }
        let tree = self.tree(state, namespaces, &found.spec.domain, None);
        let bounded = tree.is_bounded(project);
        if bounded {
            tree.admit(project, &more)?;
        }
        Ok(bounded || alone.is_some())
    }

    /// What the object counts with.
    fn counts(&self, item: &Item) -> Amounts {
        let seen = self.seen.get(item).copied().unwrap_or_default();
        self.promised.get(item).map_or(seen, |promise| promise.what.max(&seen))
    }

    /// Changes what is known of an object, and the sum of its namespace with it.
    fn change(&mut self, namespace: &str, item: &Item, change: impl FnOnce(&mut Self)) {
        let before = self.counts(item);
        change(self);
        let after = self.counts(item);
        if before == after {
            return;
        }
        let sum = self.spaces.entry(namespace.to_owned()).or_default();
        *sum = sum.minus(&before).plus(&after);
        if sum.is_zero() {
            self.spaces.remove(namespace);
        }
    }

    fn forget_unseen(&mut self) {
        let old = |promise: &Promise<Amounts>| promise.written.is_some_and(|at| at.elapsed() > UNSEEN_MAX);
        let unseen: Vec<Item> =
            self.promised.iter().filter(|(_, p)| old(p)).map(|(item, _)| item.clone()).collect();
        for item in unseen {
            self.change(&item.namespace, &item, |books| {
                books.promised.remove(&item);
            });
        }
    }

    fn forget_shown(&mut self, state: &State) {
        self.projects.retain(|id, promise| {
            let Some(written) = promise.written else { return true };
            let shown = state.projects.get(id).is_some_and(|p| p.spec == promise.what.spec);
            !shown && written.elapsed() < UNSEEN_MAX
        });
    }

    fn tree(&self, state: &State, namespaces: &Namespaces, domain: &str, asked: Option<&Project>) -> Tree {
        let mut changed: BTreeMap<String, &Project> =
            self.projects.iter().map(|(id, promise)| (id.clone(), promise.what.as_ref())).collect();
        if let Some(project) = asked {
            changed.insert(project.name_any(), project);
        }
        Tree::of(state, domain, &changed, |project| {
            let spaces = namespaces.of_project(project);
            let used = spaces.iter().filter_map(|namespace| self.spaces.get(namespace));
            used.fold(Amounts::default(), |sum, more| sum.plus(more))
        })
    }
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
