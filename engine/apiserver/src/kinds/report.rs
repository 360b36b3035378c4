//! Collecting field errors with their paths.

use std::fmt;

use gantry_kube_types::{FieldError, FieldErrorKind};
use serde_json::Value;

/// Where a field stands: `spec.containers[0].image`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path(String);

impl Path {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The field errors found so far, in the order they were found.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    pub(crate) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    pub(crate) fn required(&mut self, path: &Path, detail: &str) {
        self.0.push(FieldError::required(path.to_string(), detail));
    }

    pub(crate) fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: impl Into<String>) {
        self.0.push(FieldError::invalid(path.to_string(), value, detail));
    }

    pub(crate) fn forbidden(&mut self, path: &Path, detail: impl Into<String>) {
        self.0.push(FieldError::forbidden(path.to_string(), detail));
    }

    pub(crate) fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(path.to_string(), value));
    }

    pub(crate) fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        self.0.push(FieldError::new(FieldErrorKind::NotFound, path.to_string(), Some(value.into()), ""));
    }

    pub(crate) fn too_long(&mut self, path: &Path, max: usize) {
        let detail = format!("may not be more than {max} bytes");
        self.0.push(FieldError::new(FieldErrorKind::TooLong, path.to_string(), None, detail));
    }

    pub(crate) fn too_many(&mut self, path: &Path, actual: usize, max: usize) {
        let detail = format!("must have at most {max} items");
        let value = Some(Value::from(actual));
        self.0.push(FieldError::new(FieldErrorKind::TooMany, path.to_string(), value, detail));
    }

    /// The value is one of `supported`, else an error that lists them.
    pub(crate) fn one_of(&mut self, path: &Path, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            let mut sorted = supported.to_vec();
            sorted.sort_unstable();
            self.0.push(FieldError::not_supported(path.to_string(), value, &sorted));
        }
    }

    /// One `Invalid` error for each problem a format check found.
    pub(crate) fn all(&mut self, path: &Path, value: &str, problems: Vec<String>) {
        for problem in problems {
            self.invalid(path, value, problem);
        }
    }

    /// The value did not change, else upstream's `field is immutable`.
    pub(crate) fn immutable(&mut self, path: &Path, new: Option<&Value>, old: Option<&Value>) {
        if !crate::kinds::value::same(new, old) {
            self.invalid(path, new.cloned().unwrap_or(Value::Null), "field is immutable");
        }
    }
}
