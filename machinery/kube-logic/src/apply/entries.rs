//! `metadata.managedFields`: its entries, their order and their bound.

use serde_json::{Value, json};

use super::Manager;
use super::set::Set;

/// More managers than these that update are merged, the longest ago first, as upstream.
const UPDATE_MANAGERS_MAX: usize = 10;
/// The manager that stands for those.
const ANCIENT: &str = "ancient-changes";

/// How a manager writes. Ordered as entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub operation: Operation,
    pub manager: Manager,
    pub set: Set,
    /// As it was read, until the set changes.
    raw: Option<Value>,
}

impl Entry {
    pub fn new(operation: Operation, manager: Manager) -> Self {
        Self { operation, manager, set: Set::default(), raw: None }
    }

    fn decode(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let operation = match value["operation"].as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if value["fieldsType"].as_str().is_some_and(|t| t != "FieldsV1") {
            return None;
        }
        let set = value.get("fieldsV1").map_or_else(|| Some(Set::default()), Set::decode)?;
        let manager = Manager {
            name: text("manager"),
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
        };
        Some(Self { operation, manager, set, raw: Some(value.clone()) })
    }

    fn encode(self) -> Value {
        if let Some(raw) = self.raw {
            return raw;
        }
        let operation = match self.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        };
        let mut entry = json!({
            "manager": self.manager.name,
            "operation": operation,
            "apiVersion": self.manager.api_version,
            "time": self.manager.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.set.encode(),
        });
        if !self.manager.subresource.is_empty() {
            entry["subresource"] = self.manager.subresource.into();
        }
        entry
    }

    /// The same writer? One that applies is the same in every version.
    pub fn is(&self, operation: Operation, manager: &Manager) -> bool {
        self.operation == operation
            && self.manager.name == manager.name
            && self.manager.subresource == manager.subresource
            && (operation == Operation::Apply || self.manager.api_version == manager.api_version)
    }

    /// Changes the set; the entry is written anew only if that changed it.
    pub fn change(&mut self, change: impl FnOnce(&mut Set)) -> bool {
        let before = self.set.clone();
        change(&mut self.set);
        let changed = self.set != before;
        if changed {
            self.raw = None;
        }
        changed
    }

    /// Says that `manager` wrote, in its version and at its time.
    pub fn stamp(&mut self, manager: &Manager) {
        self.manager = manager.clone();
        self.raw = None;
    }

    /// As in conflicts: `"kubectl-edit" using apps/v1`.
    pub fn words(&self) -> String {
        let manager = &self.manager;
        let mut words = format!("{:?}", manager.name);
        if !manager.subresource.is_empty() {
            words.push_str(&format!(" with subresource {:?}", manager.subresource));
        }
        if self.operation == Operation::Update {
            words.push_str(&format!(" using {}", manager.api_version));
        }
        words
    }
}

/// Reads a `managedFields` value; `None` where any of it is not well-formed.
pub(super) fn decode(managed: &Value) -> Option<Vec<Entry>> {
    managed.as_array()?.iter().map(Entry::decode).collect()
}

/// Does a writer ask to forget all owners, by `[]` or `[{}]`?
pub(super) fn is_reset(managed: &Value) -> bool {
    match managed.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

/// The `managedFields` value; `None` where nobody owns anything.
pub(super) fn encode(mut entries: Vec<Entry>) -> Option<Value> {
    entries.retain(|entry| !entry.set.is_empty());
    bound(&mut entries);
    entries.sort_by(|a, b| order(a).cmp(&order(b)));
    (!entries.is_empty()).then(|| entries.into_iter().map(Entry::encode).collect())
}

fn order(entry: &Entry) -> (Operation, &str, &str, &str, &str) {
    let m = &entry.manager;
    (entry.operation, m.time.as_str(), m.name.as_str(), m.api_version.as_str(), m.subresource.as_str())
}

fn bound(entries: &mut Vec<Entry>) {
    let is_update =
        |entry: &Entry| entry.operation == Operation::Update && entry.manager.subresource.is_empty();
    while entries.iter().filter(|e| is_update(e)).count() > UPDATE_MANAGERS_MAX {
        let young = |e: &Entry| !is_update(e) || e.manager.name == ANCIENT;
        let candidates = entries.iter().enumerate().filter(|(_, e)| !young(e));
        let Some(oldest) = candidates.min_by(|a, b| order(a.1).cmp(&order(b.1))).map(|(at, _)| at) else {
            return;
        };
        let old = entries.remove(oldest);
        let manager = Manager { name: ANCIENT.to_owned(), ..old.manager };
        let bucket = match entries.iter().position(|e| e.is(Operation::Update, &manager)) {
            Some(at) => &mut entries[at],
            None => {
                entries.push(Entry::new(Operation::Update, manager.clone()));
                match entries.last_mut() {
                    Some(last) => last,
                    None => return,
                }
            }
        };
        bucket.set.union(old.set);
        bucket.stamp(&manager);
    }
}
