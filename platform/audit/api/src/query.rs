//! The words of a search, as the query API and the command line have them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record::{Outcome, Record, words};

/// Results of one page where the caller names no number.
pub const LIMIT_DEFAULT: usize = 100;
/// The longest page.
pub const LIMIT_MAX: usize = 1000;
/// Words of one free-text search.
pub const WORDS_MAX: usize = 16;

/// What to look for. Every field that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Who asked, or as whom it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The id of a project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// `pods`, `pods/exec`, `deployments.apps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `success`, `denied`, `failed`, `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// A kind of security event: `login-failed`, `right-changed`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The earliest time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The latest time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Words that must all occur, in any order, whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the page before ended.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub continue_: Option<String>,
    /// As kubectl has it: some of the fields above, `verb=delete,user=acme/alice`.
    #[serde(rename = "fieldSelector", skip_serializing_if = "Option::is_none")]
    pub field_selector: Option<String>,
    /// A watch: stay, and send what comes as its events, from this version of a list on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub watch: bool,
    #[serde(rename = "resourceVersion", skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Stay, and send what comes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
}

impl Query {
    /// What is wrong with it, for the user.
    pub fn problem(&self) -> Option<String> {
        if let Some(outcome) = &self.outcome
            && !["success", "denied", "failed", "error"].contains(&outcome.as_str())
        {
            return Some(format!("outcome {outcome:?} is none of success, denied, failed, error"));
        }
        if self.limit.is_some_and(|limit| limit == 0 || limit > LIMIT_MAX) {
            return Some(format!("limit must be between 1 and {LIMIT_MAX}"));
        }
        if self.continue_.as_ref().is_some_and(|token| token.parse::<u64>().is_err()) {
            return Some("continue is not what a list gave".to_owned());
        }
        if self.resource_version.as_ref().is_some_and(|version| version.parse::<u64>().is_err()) {
            return Some("resourceVersion is not what a list gave".to_owned());
        }
        if let Some(q) = &self.q {
            let count = self.words().len();
            if count == 0 {
                return Some(format!("q={q:?} has no word of two letters or more"));
            }
            if count > WORDS_MAX {
                return Some(format!("q has more than {WORDS_MAX} words"));
            }
        }
        None
    }

    /// The field of a selector, by its name here or by its path in an event.
    pub fn field_mut(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "user" | "user.username" => &mut self.user,
            "project" => &mut self.project,
            "namespace" | "objectRef.namespace" => &mut self.namespace,
            "verb" => &mut self.verb,
            "resource" | "objectRef.resource" => &mut self.resource,
            "name" | "objectRef.name" => &mut self.name,
            "outcome" => &mut self.outcome,
            "event" => &mut self.event,
            "q" => &mut self.q,
            _ => return None,
        })
    }

    /// The words of `q`.
    pub fn words(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        words(self.q.as_deref().unwrap_or_default(), |word| all.push(word.to_vec()));
        all.sort();
        all.dedup();
        all
    }

    pub fn page(&self) -> usize {
        self.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX)
    }

    /// Whether a record is one that is looked for.
    pub fn matches(&self, record: &Record<'_>) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|w| w == text);
        let user = self.user.as_ref().is_none_or(|wanted| {
            *wanted == record.user.username
                || record.impersonated_user.as_ref().is_some_and(|u| *wanted == u.username)
        });
        let received_us = if self.since.is_some() || self.until.is_some() { record.received_us() } else { 0 };
        user && is(&self.project, record.project())
            && is(&self.namespace, &record.object_ref.namespace)
            && is(&self.verb, &record.verb)
            && self.resource.as_ref().is_none_or(|wanted| is_resource(wanted, record))
            && is(&self.name, &record.object_ref.name)
            && self.outcome.as_ref().is_none_or(|wanted| *wanted == record.outcome().name())
            && is(&self.event, record.event())
            && self.since.is_none_or(|since| received_us >= since.as_microsecond())
            && self.until.is_none_or(|until| received_us <= until.as_microsecond())
            && (self.q.is_none() || has_words(record, &self.words()))
    }
}

/// `pods` means its subresources too, `pods/exec` does not mean `pods`.
fn is_resource(wanted: &str, record: &Record<'_>) -> bool {
    resource_terms(record).iter().flatten().any(|term| term == wanted)
}

/// The names under which a record's resource is found.
pub fn resource_terms(record: &Record<'_>) -> [Option<String>; 4] {
    let object = &record.object_ref;
    if object.resource.is_empty() {
        return [const { None }; 4];
    }
    let (resource, sub, group) = (&object.resource, &object.subresource, &object.api_group);
    [
        Some(resource.to_string()),
        (!sub.is_empty()).then(|| format!("{resource}/{sub}")),
        (!group.is_empty()).then(|| format!("{resource}.{group}")),
        (!group.is_empty() && !sub.is_empty()).then(|| format!("{resource}/{sub}.{group}")),
    ]
}

fn has_words(record: &Record<'_>, wanted: &[Vec<u8>]) -> bool {
    let mut missing: Vec<&[u8]> = wanted.iter().map(Vec::as_slice).collect();
    record.texts(|text, _| words(text, |word| missing.retain(|w| *w != word)));
    missing.is_empty()
}

impl Outcome {
    pub const ALL: [Self; 4] = [Self::Success, Self::Denied, Self::Failed, Self::Error];
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"auditID":"a1","stage":"ResponseComplete","requestURI":"/apis/apps/v1/namespaces/acme-dev/deployments/web/scale","verb":"update","user":{"username":"acme/alice"},"impersonatedUser":{"username":"acme/bob"},"sourceIPs":["192.0.2.7"],"userAgent":"kubectl/v1.34","objectRef":{"resource":"deployments","namespace":"acme-dev","name":"web","apiGroup":"apps","subresource":"scale"},"responseStatus":{"code":403,"reason":"Forbidden","message":"not for you"},"requestReceivedTimestamp":"2026-11-25T10:00:00.5Z","annotations":{"audit.gantry.dev/project":"p1","audit.gantry.dev/event":"right-changed"}}"#;

    #[test]
    fn every_field_narrows() {
        let record = Record::parse(RECORD.as_bytes()).expect("a record");
        for (query, want) in [
            (r#"{}"#, true),
            (r#"{"user":"acme/alice"}"#, true),
            (r#"{"user":"acme/bob"}"#, true),
            (r#"{"user":"acme"}"#, false),
            (r#"{"project":"p1","namespace":"acme-dev","verb":"update","name":"web"}"#, true),
            (r#"{"project":"p2"}"#, false),
            (r#"{"resource":"deployments"}"#, true),
            (r#"{"resource":"deployments/scale"}"#, true),
            (r#"{"resource":"deployments.apps"}"#, true),
            (r#"{"resource":"deployments/scale.apps"}"#, true),
            (r#"{"resource":"deployments.extensions"}"#, false),
            (r#"{"outcome":"denied","event":"right-changed"}"#, true),
            (r#"{"outcome":"success"}"#, false),
            (r#"{"since":"2026-11-25T10:00:00Z","until":"2026-11-25T10:00:01Z"}"#, true),
            (r#"{"since":"2026-11-25T10:00:01Z"}"#, false),
            (r#"{"q":"KUBECTL web"}"#, true),
            (r#"{"q":"kube"}"#, false),
            (r#"{"q":"192.0.2.7"}"#, true),
        ] {
            let query: Query = serde_json::from_str(query).expect("a query");
            assert_eq!(query.matches(&record), want, "{query:?}");
        }
        assert_eq!(record.target(), "deployments/scale.apps");
    }

    #[test]
    fn a_bad_query_is_told() {
        for query in [r#"{"outcome":"ok"}"#, r#"{"limit":0}"#, r#"{"q":"- a"}"#, r#"{"continue":"x"}"#] {
            let query: Query = serde_json::from_str(query).expect("well-formed");
            assert!(query.problem().is_some(), "{query:?}");
        }
    }
}
