//! Jobs and cron jobs.

use serde_json::Value;

use super::non_negative;
use super::pod::check_pod_spec;
use crate::kinds::report::{Errors, Path};
use crate::kinds::selector::{check_labels, selector_matches};
use crate::kinds::value::{at, child_if, field, is_set, remove, same, string, text, truth};

/// Jobs add 11 characters to the names of their cron jobs.
const CRON_NAME_BYTES_MAX: usize = 52;

pub(crate) fn job(object: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    check_job_spec(&object["spec"], &path, errors);
    let labels = at(object, "/spec/template/metadata/labels");
    match at(object, "/spec/selector") {
        None => errors.required(&path.child("selector"), ""),
        Some(selector) if !selector_matches(selector, labels) => {
            let at = path.child("template").child("metadata").child("labels");
            let value = labels.cloned().unwrap_or_default();
            errors.invalid(&at, value, "`selector` does not match template `labels`");
        }
        Some(_) => {}
    }
}

fn check_job_spec(spec: &Value, path: &Path, errors: &mut Errors) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(spec, key, path, errors);
    }
    let mode = string(spec, "completionMode");
    if !mode.is_empty() {
        errors.one_of(&path.child("completionMode"), mode, &["Indexed", "NonIndexed"]);
    }
    if mode == "Indexed" && field(spec, "completions").is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    if mode != "Indexed" && is_set(spec, "backoffLimitPerIndex") {
        let value = spec["backoffLimitPerIndex"].clone();
        errors.invalid(&path.child("backoffLimitPerIndex"), value, "requires indexed completion mode");
    }
    if let Some(policy) = field(spec, "podReplacementPolicy").and_then(Value::as_str) {
        errors.one_of(&path.child("podReplacementPolicy"), policy, &["Failed", "TerminatingOrFailed"]);
    }
    let template = path.child("template");
    check_labels(&spec["template"], "/metadata/labels", &template.child("metadata").child("labels"), errors);
    let at = template.child("spec");
    check_pod_spec(&spec["template"]["spec"], &at, errors);
    if text(spec, "/template/spec/restartPolicy") == "Always" {
        errors.required(&at.child("restartPolicy"), "valid values: \"OnFailure\", \"Never\"");
    }
}

pub(crate) fn job_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let elastic = text(new, "/spec/completionMode") == "Indexed"
        && at(new, "/spec/completions") == at(new, "/spec/parallelism")
        && at(new, "/spec/completions").is_some();
    for key in ["completions", "selector", "completionMode", "backoffLimitPerIndex", "podFailurePolicy"] {
        if key == "completions" && elastic {
            continue;
        }
        errors.immutable(&path.child(key), field(&new["spec"], key), field(&old["spec"], key));
    }
    // Queue controllers place a job before they let it start.
    let waiting = truth(old, "/spec/suspend") && at(old, "/status/startTime").is_none();
    let fixed = |object: &Value| {
        let mut template = object["spec"]["template"].clone();
        if waiting {
            if let Some(metadata) = child_if(&mut template, "metadata") {
                remove(metadata, "labels");
                remove(metadata, "annotations");
            }
            if let Some(spec) = child_if(&mut template, "spec") {
                for key in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
                    remove(spec, key);
                }
            }
        }
        template
    };
    if !same(Some(&fixed(new)), Some(&fixed(old))) {
        errors.invalid(&path.child("template"), new["spec"]["template"].clone(), "field is immutable");
    }
}

pub(crate) fn cron_job(object: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &object["spec"];
    let name = text(object, "/metadata/name");
    if name.len() > CRON_NAME_BYTES_MAX {
        let detail = format!("must be no more than {CRON_NAME_BYTES_MAX} characters");
        errors.invalid(&Path::new("metadata").child("name"), name, detail);
    }
    let schedule = string(spec, "schedule");
    if schedule.is_empty() {
        errors.required(&path.child("schedule"), "");
    } else if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(&path.child("schedule"), schedule, detail);
    } else if let Some(why) = super::cron::problem(schedule) {
        errors.invalid(&path.child("schedule"), schedule, why);
    }
    if let Some(zone) = field(spec, "timeZone").and_then(Value::as_str) {
        check_zone(zone, &path.child("timeZone"), errors);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    errors.one_of(&path.child("concurrencyPolicy"), string(spec, "concurrencyPolicy"), &policies);
    for key in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(spec, key, &path, errors);
    }
    let job = &spec["jobTemplate"]["spec"];
    let at = path.child("jobTemplate").child("spec");
    check_job_spec(job, &at, errors);
    if is_set(job, "selector") {
        errors.invalid(&at.child("selector"), job["selector"].clone(), "`selector` will be auto-generated");
    }
    if truth(job, "/manualSelector") {
        errors.one_of(&at.child("manualSelector"), "true", &["<nil>", "false"]);
    }
}

fn check_zone(zone: &str, path: &Path, errors: &mut Errors) {
    if zone.is_empty() {
        errors.invalid(path, zone, "timeZone must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("local") {
        errors.invalid(
            path,
            zone,
            "timeZone must be an explicit time zone as defined in \
                                    https://www.iana.org/time-zones",
        );
    } else if jiff::tz::db().get(zone).is_err() {
        errors.invalid(path, zone, format!("unknown time zone {zone}"));
    }
}
