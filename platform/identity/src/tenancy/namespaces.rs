//! Which namespaces there are and whose they are, for everybody who decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use gantry_identity_api::labels;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use tokio::sync::watch;

/// What matters of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Id of the project it belongs to; `None`: it is not the component's.
    pub project: Option<Arc<str>>,
    pub labels: BTreeMap<String, String>,
    /// The labels that the component put there, besides its own.
    pub given: Option<String>,
    /// Says itself whom it was made for, whatever became of its labels.
    pub marked: bool,
    pub leaving: bool,
}

impl Known {
    /// A namespace is the project's for which the component made it, so that labels that somebody changes by hand can
    /// be put back. Where that is not written in it, both labels have to say so: one alone may be somebody's mistake.
    pub fn of(namespace: &Namespace) -> Self {
        let has = namespace.labels();
        let made_for = namespace.annotations().get(super::names::MADE_FOR);
        let managed = has.get(labels::MANAGED_BY).is_some_and(|by| by == labels::MANAGED_BY_VALUE);
        let labelled = has.get(labels::PROJECT).filter(|_| managed);
        let project = made_for.or(labelled).map(|id| id.as_str().into());
        Self {
            project,
            labels: has.clone(),
            given: namespace.annotations().get(super::names::GIVEN_LABELS).cloned(),
            marked: made_for.is_some(),
            leaving: namespace.metadata.deletion_timestamp.is_some(),
        }
    }
}

#[derive(Debug, Default)]
struct Map {
    by_name: BTreeMap<String, Arc<Known>>,
    by_project: BTreeMap<Arc<str>, BTreeSet<String>>,
}

/// All namespaces. Cheap to clone; reading never waits for the server.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    map: RwLock<Map>,
    generation: watch::Sender<u64>,
}

impl Namespaces {
    pub fn get(&self, name: &str) -> Option<Arc<Known>> {
        self.read().by_name.get(name).cloned()
    }

    /// Id of the project the namespace belongs to.
    pub fn project_of(&self, name: &str) -> Option<Arc<str>> {
        self.read().by_name.get(name)?.project.clone()
    }

    /// The project's namespaces, leaving ones included.
    pub fn of_project(&self, project: &str) -> Vec<String> {
        self.read().by_project.get(project).into_iter().flatten().cloned().collect()
    }

    /// Every namespace of every project, with the project's id.
    pub fn owned(&self) -> Vec<(String, Arc<str>)> {
        let map = self.read();
        let owned =
            map.by_project.iter().flat_map(|(id, names)| names.iter().map(|n| (n.clone(), id.clone())));
        owned.collect()
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        *self.0.generation.borrow()
    }

    /// Tells of every later change of what belongs to whom.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    pub(crate) fn put(&self, name: &str, known: Option<Known>) {
        {
            let mut map = self.0.map.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(old) = map.by_name.remove(name)
                && let Some(project) = &old.project
                && let Some(names) = map.by_project.get_mut(project)
            {
                names.remove(name);
                if names.is_empty() {
                    map.by_project.remove(project);
                }
            }
            if let Some(known) = known {
                if let Some(project) = &known.project {
                    map.by_project.entry(project.clone()).or_default().insert(name.to_owned());
                }
                map.by_name.insert(name.to_owned(), Arc::new(known));
            }
        }
        self.0.generation.send_modify(|at| *at += 1);
    }

    fn read(&self) -> RwLockReadGuard<'_, Map> {
        // A panic between the two maps is mended by the next event of the namespace.
        self.0.map.read().unwrap_or_else(PoisonError::into_inner)
    }
}
