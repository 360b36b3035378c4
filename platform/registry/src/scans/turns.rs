//! Whose turn it is: owners take turns, however much one of them has pushed.

use std::collections::{HashMap, VecDeque};

use gantry_registry_api::Owner;

/// What waits, in a line for each owner.
pub(super) struct Turns<T> {
    lines: HashMap<Owner, VecDeque<T>>,
    /// Those who have a line, the next one first.
    order: VecDeque<Owner>,
    length: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), order: VecDeque::new(), length: 0 }
    }
}

impl<T> Turns<T> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, owner: Owner, waiting: T) {
        self.length += 1;
        if let Some(line) = self.lines.get_mut(&owner) {
            line.push_back(waiting);
            return;
        }
        self.order.push_back(owner.clone());
        self.lines.insert(owner, VecDeque::from([waiting]));
    }

    /// The first of the owner whose turn it is, who comes last then.
    pub(super) fn pop(&mut self) -> Option<T> {
        let owner = self.order.pop_front()?;
        let line = self.lines.get_mut(&owner)?;
        let first = line.pop_front()?;
        self.length -= 1;
        match line.is_empty() {
            true => drop(self.lines.remove(&owner)),
            false => self.order.push_back(owner),
        }
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_pushes_much_waits_for_itself() {
        let mut turns = Turns::default();
        let (busy, other) = (Owner::of_project("busy"), Owner::of_project("other"));
        for n in 0..3 {
            turns.push(busy.clone(), format!("busy {n}"));
        }
        turns.push(other.clone(), "other 0".to_owned());
        turns.push(Owner::default(), "platform 0".to_owned());
        assert_eq!(turns.pop().as_deref(), Some("busy 0"));
        // Who comes back stands behind those who wait.
        turns.push(other, "other 1".to_owned());
        let mut rest = Vec::new();
        while let Some(next) = turns.pop() {
            rest.push(next);
        }
        assert_eq!(rest, ["other 0", "platform 0", "busy 1", "other 1", "busy 2"]);
        assert_eq!((turns.len(), turns.lines.len(), turns.order.len()), (0, 0, 0));
    }
}
