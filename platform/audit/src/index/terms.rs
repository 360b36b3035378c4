//! Terms of records and of queries. Their numbers are on disk: they must not change.

use std::collections::HashMap;

use gantry_audit_api::frame::Kind;
use gantry_audit_api::query::{Query, resource_terms};
use gantry_audit_api::record::{Record, words};

/// A field and its value, hashed.
pub(crate) type Term = u64;

/// What a term is about; the numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Field {
    Id = 1,
    User = 2,
    Project = 3,
    Namespace = 4,
    Verb = 5,
    Resource = 6,
    Name = 7,
    Outcome = 8,
    Event = 9,
    Word = 10,
    /// `record`, `checkpoint`, `tombstone`.
    Kind = 11,
    /// The id of a user.
    Uid = 12,
    /// The domain that the object belongs to.
    Domain = 13,
}

/// FNV-1a with a finaliser, so that also the high bits depend on all of the input.
pub(crate) fn term(field: Field, value: &[u8]) -> Term {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in std::iter::once(&(field as u8)).chain(value) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Texts whose terms are remembered.
const TEXTS_MAX: usize = 2048;
const TEXT_BYTES_MAX: usize = 512;

/// Terms of the words of texts that come again and again: users, programs, namespaces, reasons.
#[derive(Default)]
pub(crate) struct Texts(HashMap<Box<str>, Box<[Term]>>);

impl Texts {
    fn visit(&mut self, text: &str, common: bool, mut visit: impl FnMut(Term)) {
        if !common || text.len() > TEXT_BYTES_MAX {
            return words(text, |word| visit(term(Field::Word, word)));
        }
        if let Some(terms) = self.0.get(text) {
            return terms.iter().for_each(|term| visit(*term));
        }
        let mut terms = Vec::new();
        words(text, |word| terms.push(term(Field::Word, word)));
        terms.iter().for_each(|term| visit(*term));
        if self.0.len() >= TEXTS_MAX {
            self.0.clear();
        }
        self.0.insert(text.into(), terms.into());
    }
}

/// The one term that no other record has.
pub(crate) fn of_id(id: &str) -> Term {
    term(Field::Id, id.as_bytes())
}

/// Every term of a record; some come more than once.
pub(crate) fn of_record(record: &Record<'_>, texts: &mut Texts, mut visit: impl FnMut(Term)) {
    let object = &record.object_ref;
    let mut field = |field: Field, value: &str| {
        if !value.is_empty() {
            visit(term(field, value.as_bytes()));
        }
    };
    field(Field::Kind, "record");
    field(Field::Id, &record.audit_id);
    for user in std::iter::once(&record.user).chain(&record.impersonated_user) {
        field(Field::User, &user.username);
        field(Field::Uid, &user.uid);
    }
    field(Field::Project, record.project());
    field(Field::Domain, record.object_domain());
    field(Field::Namespace, &object.namespace);
    field(Field::Verb, &record.verb);
    for resource in resource_terms(record).into_iter().flatten() {
        field(Field::Resource, &resource);
    }
    field(Field::Name, &object.name);
    field(Field::Outcome, record.outcome().name());
    field(Field::Event, record.event());
    record.texts(|text, common| texts.visit(text, common, &mut visit));
}

/// The one term of a frame that is no record; none where a later version wrote it.
pub(crate) fn of_kind(kind: Kind) -> Option<Term> {
    let name: &[u8] = match kind {
        Kind::Record => b"record",
        Kind::Checkpoint => b"checkpoint",
        Kind::Tombstone => b"tombstone",
        Kind::Like | Kind::Other(_) => return None,
    };
    Some(term(Field::Kind, name))
}

/// The terms that a record must all have.
pub(crate) fn of_query(query: &Query) -> Vec<Term> {
    let fields = [
        (Field::User, &query.user),
        (Field::Project, &query.project),
        (Field::Namespace, &query.namespace),
        (Field::Verb, &query.verb),
        (Field::Resource, &query.resource),
        (Field::Name, &query.name),
        (Field::Outcome, &query.outcome),
        (Field::Event, &query.event),
    ];
    let mut terms: Vec<Term> =
        fields.iter().filter_map(|(field, value)| Some(term(*field, value.as_ref()?.as_bytes()))).collect();
    terms.extend(query.words().iter().map(|word| term(Field::Word, word)));
    if terms.is_empty() {
        terms.push(term(Field::Kind, b"record"));
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_the_ones_on_disk() {
        assert_eq!(term(Field::User, b"acme/alice"), 0x5989_b0b1_3dc5_283f);
        assert_ne!(term(Field::User, b"a"), term(Field::Name, b"a"));
    }
}
