//! Names that are being taken: between the check and the moment the directory shows the object, somebody else may
//! ask for the same name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_kube_types::AdmissionOutcome;

/// After this time the directory shows what was written, or it is gone again.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);

/// A name: its kind, where it is unique, and itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    pub kind: &'static str,
    pub within: Option<String>,
    pub name: String,
}

#[derive(Debug)]
struct Taken {
    id: String,
    number: u64,
    /// When the object was stored; `None`: on the way.
    written: Option<Instant>,
}

#[derive(Debug, Default)]
struct Inner {
    names: HashMap<Name, Taken>,
    numbers: u64,
}

/// The names on the way. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pending(Arc<Mutex<Inner>>);

/// A taken name, to be settled when the outcome of the write is known.
#[derive(Clone, Debug)]
pub struct Claim {
    name: Name,
    number: u64,
}

impl Pending {
    /// Takes the name for the object `id`; `None`: another object is taking it. The directory was asked before.
    pub fn claim(&self, name: Name, id: &str) -> Option<Claim> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.names.retain(|_, taken| taken.written.is_none_or(|at| at.elapsed() < SHOWN_WITHIN));
        if inner.names.get(&name).is_some_and(|taken| taken.id != id) {
            return None;
        }
        inner.numbers += 1;
        let number = inner.numbers;
        inner.names.insert(name.clone(), Taken { id: id.to_owned(), number, written: None });
        Some(Claim { name, number })
    }

    pub fn settle(&self, claim: &Claim, outcome: AdmissionOutcome) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = inner.names.get_mut(&claim.name).filter(|t| t.number == claim.number) else {
            return;
        };
        match outcome {
            AdmissionOutcome::Written => taken.written = Some(Instant::now()),
            AdmissionOutcome::Abandoned => {
                inner.names.remove(&claim.name);
            }
        }
    }

    /// The object is gone: so is its hold on its names.
    pub fn release(&self, kind: &'static str, id: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.names.retain(|name, taken| !(name.kind == kind && taken.id == id && taken.written.is_some()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once() {
        let pending = Pending::default();
        let web = || Name { kind: "project", within: Some("acme".to_owned()), name: "web".to_owned() };
        let first = pending.claim(web(), "1").expect("free");
        assert!(pending.claim(web(), "2").is_none(), "on the way");
        let again = pending.claim(web(), "1").expect("the same object, tried again");
        pending.settle(&first, AdmissionOutcome::Abandoned);
        assert!(pending.claim(web(), "2").is_none(), "an older try does not give the name away");
        pending.settle(&again, AdmissionOutcome::Written);
        assert!(pending.claim(web(), "2").is_none(), "written and not yet shown");
        pending.release("project", "1");
        let second = pending.claim(web(), "2").expect("gone");
        pending.settle(&second, AdmissionOutcome::Abandoned);
        assert!(pending.claim(web(), "3").is_some());
    }
}
