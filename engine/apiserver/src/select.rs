//! Which objects a list or watch selects.

use std::borrow::Cow;

use gantry_kube_types::StatusError;
use gantry_store::Object;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::encode;
use crate::kind::Kind;
use crate::query::{Query, Selectors};

/// The selectors of a request, checked against the fields the kind knows.
pub(crate) struct Selection {
    selectors: Selectors,
    /// Are fields wanted beyond name and namespace, which the key has?
    needs_fields: bool,
}

/// The little that label selectors need; the rest of the object is skipped, not built.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    metadata: HeadMetadata,
}

#[derive(Default, Deserialize)]
struct HeadMetadata {
    #[serde(default)]
    labels: Option<Map<String, Value>>,
}

impl Selection {
    pub(crate) fn of(kind: &Kind, query: &Query) -> Result<Self, StatusError> {
        let selectors = Selectors::of(query)?;
        let known = kind.strategy.selectable_fields(&Value::Null);
        let mut needs_fields = false;
        for requirement in &selectors.fields.requirements {
            let field = requirement.field.as_str();
            if matches!(field, "metadata.name" | "metadata.namespace") {
                continue;
            }
            needs_fields = true;
            if !known.iter().any(|(name, _)| *name == field) {
                return Err(StatusError::bad_request(format!("field label not supported: {field}")));
            }
        }
        Ok(Self { selectors, needs_fields })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.selectors.is_everything()
    }

    /// The one name wanted.
    pub(crate) fn name(&self) -> Option<&str> {
        self.selectors.field("metadata.name")
    }

    pub(crate) fn matches(&self, kind: &Kind, object: &Object) -> bool {
        if self.is_everything() {
            return true;
        }
        let fields = if self.needs_fields {
            kind.strategy.selectable_fields(&encode::decode(kind, object))
        } else {
            Vec::new()
        };
        let field = |name: &str| -> Cow<'_, str> {
            match name {
                "metadata.name" => object.key.name().into(),
                "metadata.namespace" => object.key.namespace().into(),
                _ => fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str()).unwrap_or("").into(),
            }
        };
        if !self.selectors.fields.matches(field) {
            return false;
        }
        if self.selectors.labels.is_everything() {
            return true;
        }
        let head = serde_json::from_slice::<Head>(&object.value);
        head.is_ok_and(|head| self.selectors.labels.matches(head.metadata.labels.as_ref()))
    }
}
