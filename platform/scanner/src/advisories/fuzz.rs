//! The parsers of this folder as functions of bytes; see [`crate::fuzz`].

use super::osv::Advisory;
use super::{index, matching};
use crate::Kind;

pub(crate) fn document(bytes: &[u8]) {
    let Ok(advisory) = serde_json::from_slice::<Advisory>(bytes) else { return };
    for (_, value) in index::fuzz::postings(&advisory) {
        posting(&value);
    }
    for affected in &advisory.affected {
        let _ = matching::affected(Kind::Deb, "1.0-1", affected);
        let _ = matching::severity(&advisory, affected);
    }
}

pub(crate) fn posting(bytes: &[u8]) {
    index::fuzz::posting(bytes);
}

pub(crate) fn table(file: std::fs::File) {
    index::fuzz::table(file);
}
