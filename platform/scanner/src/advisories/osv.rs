//! The fields of an OSV document (ossf.github.io/osv-schema, 1.7) that matching needs.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(super) struct Advisory {
    pub id: String,
    #[serde(default)]
    pub modified: Option<Timestamp>,
    #[serde(default)]
    pub published: Option<Timestamp>,
    #[serde(default)]
    pub withdrawn: Option<Timestamp>,
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What a distribution's advisory is made from.
    #[serde(default)]
    pub upstream: Vec<String>,
    #[serde(default)]
    pub summary: Option<String>,
    #[serde(default)]
    pub severity: Vec<Score>,
    #[serde(default)]
    pub affected: Vec<Affected>,
    #[serde(default)]
    pub database_specific: Words,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Score {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub score: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Affected {
    #[serde(default)]
    pub package: Option<Name>,
    #[serde(default)]
    pub severity: Vec<Score>,
    #[serde(default)]
    pub ranges: Vec<Range>,
    #[serde(default)]
    pub versions: Vec<String>,
    #[serde(default)]
    pub ecosystem_specific: Words,
}

/// How bad it is in a database's own words. Whatever else a database writes there, in whatever form, is its own matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Value")]
pub(super) struct Words {
    pub severity: Option<String>,
    pub urgency: Option<String>,
}

impl From<Value> for Words {
    fn from(value: Value) -> Self {
        let word = |name: &str| value[name].as_str().map(str::to_owned);
        Self { severity: word("severity"), urgency: word("urgency") }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Name {
    #[serde(default)]
    pub ecosystem: String,
    #[serde(default)]
    pub name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Range {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub events: Vec<Event>,
}

/// One of them is set.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Event {
    #[serde(default)]
    pub introduced: Option<String>,
    #[serde(default)]
    pub fixed: Option<String>,
    #[serde(default)]
    pub last_affected: Option<String>,
}
