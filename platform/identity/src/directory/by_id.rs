//! Objects in the order of their ids, which are parts of them and nowhere else.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

/// What has an id.
pub trait Keyed {
    /// The id, where it is.
    fn key(&self) -> &str;
}

/// One among the others: a set of these is searched by id.
#[derive(Clone, Debug)]
pub(super) struct ById<T>(pub(super) Arc<T>);

impl<T: Keyed> Borrow<str> for ById<T> {
    fn borrow(&self) -> &str {
        self.0.key()
    }
}

impl<T: Keyed> PartialEq for ById<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl<T: Keyed> Eq for ById<T> {}

impl<T: Keyed> PartialOrd for ById<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Keyed> Ord for ById<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}
