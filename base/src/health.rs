//! One place where every part says how it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// How a part is. The message is for people: what is wrong and what is being done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "message", rename_all = "lowercase")]
pub enum Health {
    Ok,
    Starting,
    Degraded(String),
    /// Not part of this installation, with the reason.
    Off(String),
}

/// The parts of this process and their health; cheap to clone, shared by all who report or ask.
#[derive(Clone, Default, Debug)]
pub struct HealthBoard(Arc<Mutex<BTreeMap<String, Health>>>);

impl HealthBoard {
    pub fn set(&self, part: &str, health: Health) {
        self.lock().insert(part.to_owned(), health);
    }

    pub fn all(&self) -> BTreeMap<String, Health> {
        self.lock().clone()
    }

    /// Ready: every part is ok, or deliberately off.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(|health| matches!(health, Health::Ok | Health::Off(_)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Health>> {
        // A panic while holding the lock leaves the map as it was: plain inserts, no invariant.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
