//! Semantic checks of the built-in kinds, with upstream's messages and field paths
//! (`pkg/apis/*/validation`).

mod batch;
mod cluster;
mod container;
mod cron;
mod network;
mod placement;
mod pod;
mod security;
mod storage;
#[cfg(test)]
mod tests;
mod volume;
mod workload;

use serde_json::Value;

pub(crate) use batch::{cron_job, job, job_update};
pub(crate) use cluster::*;
pub(crate) use network::*;
pub(crate) use pod::{pod, pod_update};
pub(crate) use storage::{
    claim, claim_update, storage_class, storage_class_update, volume as persistent_volume,
    volume_update as persistent_volume_update,
};
pub(crate) use workload::*;

use crate::kinds::format;
use crate::kinds::report::{Errors, Path};
use crate::kinds::value::{field, integer, is_set, items};

fn number_errors(number: i64, path: &Path, errors: &mut Errors) {
    for problem in format::port_number(number) {
        errors.invalid(path, number, problem);
    }
}

fn required(object: &Value, key: &str, path: &Path, errors: &mut Errors) {
    if !is_set(object, key) {
        errors.required(&path.child(key), "");
    }
}

fn non_negative(object: &Value, key: &str, path: &Path, errors: &mut Errors) {
    if let Some(number) = field(object, key).and_then(Value::as_i64).filter(|n| *n < 0) {
        errors.invalid(&path.child(key), number, "must be greater than or equal to 0");
    }
}

/// The field, where given, is between the bounds.
fn range(object: &Value, key: &str, low: i64, high: i64, path: &Path, errors: &mut Errors) {
    if let Some(number) = integer(object, &format!("/{key}")).filter(|n| !(low..=high).contains(n)) {
        errors.invalid(&path.child(key), number, format!("must be between {low} and {high}, inclusive"));
    }
}

/// The only field among `keys` that is set, else how many are.
fn exactly_one<'k>(object: &Value, keys: &[&'k str]) -> Result<&'k str, usize> {
    let given: Vec<&str> = keys.iter().filter(|k| field(object, k).is_some()).copied().collect();
    match given.as_slice() {
        [one] => Ok(one),
        many => Err(many.len()),
    }
}

/// A path below another one; empty is fine.
fn relative_path(text: &str, path: &Path, errors: &mut Errors) {
    if text.starts_with('/') {
        errors.invalid(path, text, "must be a relative path");
    }
    if text.split('/').any(|part| part == "..") {
        errors.invalid(path, text, "must not contain '..'");
    }
}

/// A quantity of 0 or more, in nano-units.
fn check_quantity(value: &Value, path: &Path, errors: &mut Errors) -> Option<i128> {
    let found = format::quantity_of(value);
    match found {
        None => errors.invalid(
            path,
            value.clone(),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        Some(amount) if amount < 0 => {
            errors.invalid(path, value.clone(), "must be greater than or equal to 0");
        }
        Some(_) => {}
    }
    found
}

/// A count or a share of one; `capped`: of at most 100%.
fn int_or_percent(object: &Value, key: &str, capped: bool, path: &Path, errors: &mut Errors) {
    let at = path.child(key);
    match field(object, key) {
        Some(Value::String(text)) => match format::percent(text) {
            None => errors.invalid(
                &at,
                text.as_str(),
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                 '93%', regex used for validation is '[0-9]+%')",
            ),
            Some(share) if capped && share > 100 => {
                errors.invalid(&at, text.as_str(), "must not be greater than 100%");
            }
            Some(_) => {}
        },
        _ => non_negative(object, key, path, errors),
    }
}

/// Zero, or zero percent.
fn is_zero(value: &Value) -> bool {
    value.is_null() || value.as_i64() == Some(0) || value.as_str().and_then(format::percent) == Some(0)
}
