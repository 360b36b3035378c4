//! Whose the records of each collection are, and which secrets go with one.

use gantry_identity_api::KeystoneRecord;

use super::call::text;
use super::records::find;
use super::{credentials, domain_config, endpoint_filter, federation, oauth1};
use crate::access_rules::RULES;
use crate::directory::State;
use crate::vault::SecretKey;

fn parent(record: &KeystoneRecord) -> Option<&str> {
    record.spec.parent.as_deref()
}

fn attribute<'a>(record: &'a KeystoneRecord, name: &str) -> Option<&'a str> {
    text(&record.spec.attributes, name)
}

/// The user with whom the record goes.
pub(crate) fn user_of(record: &KeystoneRecord) -> Option<&str> {
    match record.spec.collection.as_str() {
        RULES | oauth1::ACCESS_TOKENS => parent(record),
        oauth1::REQUEST_TOKENS => attribute(record, "authorizing_user_id"),
        credentials::COLLECTION => attribute(record, "user_id").or_else(|| parent(record)),
        _ => attribute(record, "user_id"),
    }
}

/// The project with which the record goes.
pub(crate) fn project_of(record: &KeystoneRecord) -> Option<&str> {
    match record.spec.collection.as_str() {
        endpoint_filter::BY_ENDPOINT | endpoint_filter::BY_GROUP => parent(record),
        _ => attribute(record, "project_id"),
    }
}

/// The domain with which the record goes.
pub(crate) fn domain_of<'a>(state: &'a State, record: &'a KeystoneRecord) -> Option<&'a str> {
    match record.spec.collection.as_str() {
        domain_config::COLLECTION => Some(&record.spec.id),
        federation::PROTOCOL_RECORDS => {
            let provider = find(state, federation::PROVIDERS, None, parent(record)?)?;
            attribute(provider, "domain_id")
        }
        _ => attribute(record, "domain_id"),
    }
}

/// Where in the vault the record's secrets are.
pub(crate) fn secrets_of(record: &KeystoneRecord) -> Vec<SecretKey> {
    match record.spec.collection.as_str() {
        credentials::COLLECTION => credentials::secrets(record),
        oauth1::ACCESS_TOKENS | oauth1::REQUEST_TOKENS => oauth1::secrets(record),
        domain_config::COLLECTION => domain_config::secrets(&record.spec.id),
        _ => Vec::new(),
    }
}
