//! One operation and its parameters.

use serde_json::{Map, Value, json};

use super::Dialect;
use super::definitions::META;

/// `(name, JSON type, what it says)`
type Parameter = (&'static str, &'static str, &'static str);

pub(super) const PRETTY: Parameter = ("pretty", "string", "If 'true', then the output is pretty printed.");
const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. Valid values are: All.",
);
const FIELD_MANAGER: Parameter =
    ("fieldManager", "string", "The name of the actor that is making these changes.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do with unknown or duplicate fields in the body: Ignore, Warn or Strict.",
);
const FORCE: Parameter =
    ("force", "boolean", "Force \"Apply\" requests: take over conflicting fields of other people.");
const RESOURCE_VERSION: Parameter =
    ("resourceVersion", "string", "A constraint on what resource versions a request may be served from.");
const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Requests watch events of type BOOKMARK."),
    ("continue", "string", "The token of the previous page, to get the next one."),
    ("fieldSelector", "string", "Restricts the returned objects by their fields. Defaults to everything."),
    ("labelSelector", "string", "Restricts the returned objects by their labels. Defaults to everything."),
    ("limit", "integer", "The maximum number of objects of one page."),
    RESOURCE_VERSION,
    ("resourceVersionMatch", "string", "How resourceVersion is applied to list calls."),
    ("sendInitialEvents", "boolean", "A watch begins with events for the objects there are."),
    ("timeoutSeconds", "integer", "How long a list or watch may take."),
    ("watch", "boolean", "Watch for changes and return them as a stream."),
];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "How long the object has to end by itself; 0 deletes at once."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "How dependents are collected: Orphan, Background or Foreground."),
];

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    List,
    Post,
    DeleteCollection,
    Get,
    Put,
    Patch,
    Delete,
}

impl Action {
    pub fn method(self) -> &'static str {
        match self {
            Self::List | Self::Get => "get",
            Self::Post => "post",
            Self::DeleteCollection | Self::Delete => "delete",
            Self::Put => "put",
            Self::Patch => "patch",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::DeleteCollection => "deletecollection",
            other => other.method(),
        }
    }

    /// How the operation's id begins.
    pub fn verb(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Post => "create",
            Self::DeleteCollection | Self::Delete => "delete",
            Self::Get => "read",
            Self::Put => "replace",
            Self::Patch => "patch",
        }
    }

    fn parameters(self) -> Vec<Parameter> {
        match self {
            Self::Get => Vec::new(),
            Self::List => LIST.to_vec(),
            Self::Post | Self::Put => vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION],
            Self::Patch => vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE],
            Self::Delete => DELETE.to_vec(),
            Self::DeleteCollection => {
                let list = LIST.iter().filter(|p| !matches!(p.0, "watch" | "allowWatchBookmarks"));
                DELETE.iter().chain(list).copied().collect()
            }
        }
    }
}

/// One operation, ready to be written.
pub(super) struct Operation<'o> {
    pub action: Action,
    pub id: String,
    pub tag: &'o str,
    pub description: String,
    /// Definition names; of the body of a POST or PUT too.
    pub body: &'o str,
    pub response: &'o str,
    /// `x-kubernetes-group-version-kind`
    pub kind: Value,
    pub custom: bool,
}

const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
/// Custom resources have no merge keys for a strategic merge; clients look here before they send one.
const CUSTOM_PATCH_TYPES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
const JSON: &[&str] = &["application/json", "application/yaml"];

impl Operation<'_> {
    pub fn encode(&self, dialect: Dialect) -> Value {
        let mut operation = Map::new();
        let mut put = |name: &str, value: Value| operation.insert(name.to_owned(), value);
        put("description", self.description.as_str().into());
        put("operationId", self.id.as_str().into());
        put("tags", json!([self.tag]));
        let queries = self.action.parameters();
        let mut parameters: Vec<Value> = queries.iter().map(|p| parameter(p, "query", dialect)).collect();
        let body = self.body();
        match dialect {
            Dialect::V2 => {
                put("produces", json!(JSON));
                if let Some((body, types, required)) = &body {
                    put("consumes", json!(types));
                    let schema = json!({"$ref": dialect.reference(body)});
                    parameters
                        .push(json!({"in": "body", "name": "body", "required": required, "schema": schema}));
                }
            }
            Dialect::V3 => {
                if let Some((body, types, required)) = &body {
                    put("requestBody", json!({"content": content(body, types), "required": required}));
                }
            }
        }
        put("parameters", parameters.into());
        put("responses", self.responses(dialect));
        put("x-kubernetes-action", self.action.word().into());
        put("x-kubernetes-group-version-kind", self.kind.clone());
        Value::Object(operation)
    }

    /// The definition, the media types, and whether the body must be there.
    fn body(&self) -> Option<(String, &'static [&'static str], bool)> {
        match self.action {
            Action::List | Action::Get => None,
            Action::Post | Action::Put => Some((self.body.to_owned(), JSON, true)),
            Action::Patch => {
                let types = if self.custom { CUSTOM_PATCH_TYPES } else { PATCH_TYPES };
                Some((format!("{META}Patch"), types, true))
            }
            Action::Delete | Action::DeleteCollection => Some((format!("{META}DeleteOptions"), JSON, false)),
        }
    }

    fn responses(&self, dialect: Dialect) -> Value {
        let codes: &[(&str, &str)] = match self.action {
            Action::Post => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            Action::Put | Action::Patch => &[("200", "OK"), ("201", "Created")],
            Action::Delete => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        };
        let mut responses = Map::new();
        for (code, words) in codes {
            let response = match dialect {
                Dialect::V2 => {
                    json!({"description": words, "schema": {"$ref": dialect.reference(self.response)}})
                }
                Dialect::V3 => json!({"description": words, "content": content(self.response, JSON)}),
            };
            responses.insert((*code).to_owned(), response);
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        Value::Object(responses)
    }
}

fn content(definition: &str, types: &[&str]) -> Value {
    let schema = json!({"schema": {"$ref": Dialect::V3.reference(definition)}});
    types.iter().map(|media_type| ((*media_type).to_owned(), schema.clone())).collect::<Map<_, _>>().into()
}

/// `place`: `query` or `path`.
pub(super) fn parameter((name, kind, words): &Parameter, place: &str, dialect: Dialect) -> Value {
    let mut parameter = json!({"name": name, "in": place, "description": words});
    if place == "path" {
        parameter["required"] = true.into();
    }
    match dialect {
        Dialect::V2 => {
            parameter["type"] = (*kind).into();
            parameter["uniqueItems"] = true.into();
        }
        Dialect::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
    }
    parameter
}
