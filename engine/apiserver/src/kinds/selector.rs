//! Label selectors: their checks and what they match.

use gantry_kube_logic::selector::LabelSelector;
use serde_json::Value;

use crate::kinds::format;
use crate::kinds::report::{Errors, Path};
use crate::kinds::value::{entries, items, string};

/// Keys are qualified names, values label values.
pub(crate) fn check_labels(object: &Value, pointer: &str, path: &Path, errors: &mut Errors) {
    for (key, value) in entries(object, pointer) {
        errors.all(path, key, format::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        errors.all(path, value, format::label_value(value));
    }
}

/// A `LabelSelector`: operators with the values they take.
pub(crate) fn check_selector(selector: &Value, path: &Path, errors: &mut Errors) {
    check_labels(selector, "/matchLabels", &path.child("matchLabels"), errors);
    for (index, expression) in items(selector, "/matchExpressions").iter().enumerate() {
        let at = path.child("matchExpressions").index(index);
        let values = items(expression, "/values");
        match string(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                &at.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        let key = string(expression, "key");
        errors.all(&at.child("key"), key, format::qualified_name(key));
    }
}

/// Is the selector empty (it would match everything)?
pub(crate) fn selects_everything(selector: &Value) -> bool {
    entries(selector, "/matchLabels").next().is_none() && items(selector, "/matchExpressions").is_empty()
}

/// Does a `LabelSelector` match these labels? A selector that is not valid matches nothing.
pub(crate) fn selector_matches(selector: &Value, labels: Option<&Value>) -> bool {
    LabelSelector::from_object(selector).is_ok_and(|s| s.matches(labels.and_then(Value::as_object)))
}
