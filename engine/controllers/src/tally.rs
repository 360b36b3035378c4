//! How many objects of each resource every namespace has, custom ones included: fed by the watches of
//! the garbage collector, read by resource quotas.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Group and plural resource.
pub(crate) type Resource = (String, String);
type Listener = Arc<dyn Fn(Option<&str>) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Tally(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    counts: HashMap<Resource, HashMap<String, i64>>,
    /// Resources whose first list is complete.
    complete: HashSet<Resource>,
    listeners: Vec<Listener>,
}

impl Tally {
    /// `listener` hears of every namespace whose numbers changed; `None`: of all of them.
    pub(crate) fn on_change(&self, listener: impl Fn(Option<&str>) + Send + Sync + 'static) {
        self.lock().listeners.push(Arc::new(listener));
    }

    /// One more object in the namespace, or one less.
    pub(crate) fn add(&self, resource: &Resource, namespace: &str, change: i64) {
        if namespace.is_empty() {
            return;
        }
        let listeners = {
            let mut inner = self.lock();
            let namespaces = inner.counts.entry(resource.clone()).or_default();
            let count = namespaces.entry(namespace.to_owned()).or_insert(0);
            *count += change;
            if *count <= 0 {
                namespaces.remove(namespace);
            }
            // Before the first list is complete a number says nothing; everybody hears of its end.
            if inner.complete.contains(resource) { inner.listeners.clone() } else { Vec::new() }
        };
        listeners.iter().for_each(|listener| listener(Some(namespace)));
    }

    /// The first list of a resource is complete.
    pub(crate) fn complete(&self, resource: &Resource) {
        let listeners = {
            let mut inner = self.lock();
            if inner.complete.insert(resource.clone()) { inner.listeners.clone() } else { Vec::new() }
        };
        listeners.iter().for_each(|listener| listener(None));
    }

    /// `None`: not known yet.
    pub(crate) fn count(&self, resource: &Resource, namespace: &str) -> Option<i64> {
        let inner = self.lock();
        if !inner.complete.contains(resource) {
            return None;
        }
        let count = inner.counts.get(resource).and_then(|namespaces| namespaces.get(namespace));
        Some(count.copied().unwrap_or(0))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Listeners run outside the lock; inside nothing can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_once_they_mean_something() {
        let tally = Tally::default();
        let heard: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
        let keep = heard.clone();
        tally.on_change(move |namespace| {
            keep.lock().expect("no panic").push(namespace.map(str::to_owned));
        });
        let widgets = ("example.com".to_owned(), "widgets".to_owned());
        tally.add(&widgets, "a", 1);
        assert_eq!(tally.count(&widgets, "a"), None);
        tally.complete(&widgets);
        tally.complete(&widgets);
        tally.add(&widgets, "a", 1);
        tally.add(&widgets, "b", 1);
        tally.add(&widgets, "b", -1);
        assert_eq!((tally.count(&widgets, "a"), tally.count(&widgets, "b")), (Some(2), Some(0)));
        let heard = heard.lock().expect("no panic").clone();
        assert_eq!(heard, [None, Some("a".into()), Some("b".into()), Some("b".into())]);
    }
}
