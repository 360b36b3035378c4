//! `delete` and `deletecollection`: grace, finalizers and propagation.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use gantry_kube_logic::meta;
use gantry_kube_logic::negotiate::{Form, Output};
use gantry_kube_types::{FieldError, StatusError};
use gantry_store::{Expect, Mutation, Object};
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admission::{Effects, Operation};
use crate::encode;
use crate::objects;
use crate::request::{self, Context};
use crate::respond;
use crate::select::Selection;
use crate::write::{self, CONFLICT_TRIES_MAX, Write};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// `metav1.DeleteOptions`, from the body and the query.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub preconditions: Option<Preconditions>,
    pub dry_run: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    async fn read(context: &Context, body: Body) -> Result<Self, StatusError> {
        let bytes = request::read_body(body).await?;
        let mut options = if bytes.is_empty() {
            Self::default()
        } else {
            let document = request::parse(&context.content_type(), &bytes)?;
            serde_json::from_value(document.value)
                .map_err(|e| StatusError::bad_request(format!("cannot read DeleteOptions: {e}")))?
        };
        let query = &context.query;
        if let Some(seconds) = query.number("gracePeriodSeconds")? {
            options.grace_period_seconds.get_or_insert(seconds);
        }
        if let Some(policy) = query.get("propagationPolicy").filter(|p| !p.is_empty()) {
            options.propagation_policy.get_or_insert_with(|| policy.to_owned());
        }
        if query.get("orphanDependents").is_some() {
            options.orphan_dependents.get_or_insert(query.flag("orphanDependents"));
        }
        if query.dry_run("DeleteOptions")? {
            options.dry_run.get_or_insert_with(|| vec!["All".to_owned()]);
        }
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), StatusError> {
        let mut errors = Vec::new();
        if let Some(policy) = &self.propagation_policy
            && !matches!(policy.as_str(), "Orphan" | "Background" | "Foreground")
        {
            let known = ["Background", "Foreground", "Orphan"];
            errors.push(FieldError::not_supported("propagationPolicy", policy.as_str(), &known));
        }
        if self.propagation_policy.is_some() && self.orphan_dependents.is_some() {
            errors.push(FieldError::invalid(
                "propagationPolicy",
                self.propagation_policy.clone(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if self.dry_run.iter().flatten().any(|d| d != "All") {
            errors.push(FieldError::not_supported("dryRun", json!(self.dry_run), &["All"]));
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(StatusError::invalid("meta.k8s.io", "DeleteOptions", "", &errors))
    }

    fn is_dry_run(&self) -> bool {
        self.dry_run.as_ref().is_some_and(|d| !d.is_empty())
    }

    /// The finalizer that makes the garbage collector act first; `None` for background.
    fn finalizer(&self) -> Option<&'static str> {
        match (self.propagation_policy.as_deref(), self.orphan_dependents) {
            (Some("Orphan"), _) | (None, Some(true)) => Some(ORPHAN),
            (Some("Foreground"), _) => Some(FOREGROUND),
            _ => None,
        }
    }

    fn chooses_propagation(&self) -> bool {
        self.propagation_policy.is_some() || self.orphan_dependents.is_some()
    }
}

pub(crate) async fn delete(context: Context, body: Body) -> Result<Response<Body>, StatusError> {
    let output = context.output()?;
    let options = DeleteOptions::read(&context, body).await?;
    let (outcome, old) = delete_object(&context, &context.info.name, &options).await?;
    match outcome {
        Outcome::Waits(bytes) => respond_object(&context, bytes, output),
        Outcome::Gone(bytes) if context.kind.info.resource == "pods" => {
            respond_object(&context, bytes, output)
        }
        Outcome::Gone(_) => {
            let info = &context.kind.info;
            let mut details = json!({
                "name": context.info.name, "kind": info.resource, "uid": old["metadata"]["uid"],
            });
            if !info.group.is_empty() {
                details["group"] = info.group.as_ref().into();
            }
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            respond::success(StatusCode::OK, encode::to_bytes(&status), output)
        }
    }
}

fn respond_object(context: &Context, bytes: Bytes, output: Output) -> Result<Response<Body>, StatusError> {
    crate::read::answer(context, StatusCode::OK, bytes, output)
}

/// What became of the object, in the served version.
pub(crate) enum Outcome {
    Gone(Bytes),
    /// It stays for now: finalizers or a grace period.
    Waits(Bytes),
}

/// Deletes one object; also for evictions. Gives what was there, too.
pub(crate) async fn delete_object(
    context: &Context,
    name: &str,
    options: &DeleteOptions,
) -> Result<(Outcome, Value), StatusError> {
    let fixed = options.preconditions.as_ref().is_some_and(|p| p.resource_version.is_some());
    let mut tries = 0;
    loop {
        tries += 1;
        let current = context.current(name)?;
        match delete_once(context, name, options, &current).await {
            Err(error)
                if error.is_conflict() && !fixed && tries < CONFLICT_TRIES_MAX && {
                    let now = context.server.store.snapshot().get(&current.key);
                    now.is_some_and(|now| now.revision != current.revision)
                } => {}
            done => return done,
        }
    }
}

async fn delete_once(
    context: &Context,
    name: &str,
    options: &DeleteOptions,
    current: &Arc<Object>,
) -> Result<(Outcome, Value), StatusError> {
    let kind = &context.kind;
    let old = encode::decode(kind, current);
    check_preconditions(context, name, options, &old)?;
    let reader = context.server.reader();
    let effects = Effects::default();
    let dry_run = options.is_dry_run();
    let write = Write { context, name, operation: Operation::Delete, dry_run, reader: &reader };
    let mut nothing = Value::Null;
    write.mutate(&mut nothing, Some(&old), &effects).await?;
    write.validate(&mut nothing, Some(&old), &effects).await?;
    context.note(effects.remarks(), &mut Vec::new());
    let plan = plan(context, &old, options, Timestamp::now());
    let expect = Expect::Revision(current.revision);
    let outcome = match plan {
        Plan::Nothing => Outcome::Waits(encode::served(kind, current)),
        Plan::Mark(new) if dry_run => Outcome::Waits(encode::to_bytes(&new)),
        Plan::Remove(new) if dry_run => Outcome::Gone(encode::to_bytes(&new)),
        Plan::Mark(new) => {
            let template = encode::to_storage(kind, &new);
            let stored = write::put(context, current.key.clone(), expect, template).await;
            let stored = stored.map_err(|e| write::write_error(context, name, e))?;
            Outcome::Waits(encode::served(kind, &stored))
        }
        Plan::Remove(new) => {
            let template = encode::to_storage(kind, &new);
            let encode = Box::new(move |revision| template.fill(revision));
            let mutation = Mutation::Delete { key: current.key.clone(), expect, encode: Some(encode) };
            let gone = context.server.store.write(mutation).await;
            let gone = gone.map_err(|e| write::write_error(context, name, e))?;
            Outcome::Gone(encode::served(kind, &gone))
        }
    };
    if !dry_run {
        effects.settle();
    }
    Ok((outcome, old))
}

fn check_preconditions(
    context: &Context,
    name: &str,
    options: &DeleteOptions,
    old: &Value,
) -> Result<(), StatusError> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    let (uid, version) = (meta::uid(old), meta::resource_version(old));
    match (&wanted.uid, &wanted.resource_version) {
        (Some(want), _) if want != uid => Err(context.conflict(
            name,
            format!(
                "Precondition failed: UID in precondition: {want}, UID in object meta: {uid}"
            ),
        )),
        (_, Some(want)) if want != version => Err(context.conflict(
            name,
            format!(
                "Precondition failed: ResourceVersion in precondition: {want}, ResourceVersion in object meta: {version}"
            ),
        )),
        _ => Ok(()),
    }
}

/// What a delete does to the object.
#[derive(Debug, PartialEq)]
enum Plan {
    /// It already waits for the same end.
    Nothing,
    /// It stays, marked.
    Mark(Value),
    Remove(Value),
}

fn plan(context: &Context, old: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let kind = &context.kind;
    let mut new = old.clone();
    set_propagation(&mut new, options);
    let asked = options.grace_period_seconds.map(|s| s.max(0));
    let grace = kind.strategy.deletion_grace_seconds(old, asked).unwrap_or(0);
    let blocked = objects::has_finalizers(kind, &new);
    if grace == 0 && !blocked {
        return Plan::Remove(new);
    }
    // A second delete only shortens the time that is left.
    let left = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if !meta::is_being_deleted(old) || left.is_none_or(|left| grace < left) {
        let starts = if meta::is_being_deleted(old) { deletion_asked(old).unwrap_or(now) } else { now };
        let ends = starts + SignedDuration::from_secs(grace);
        let counted = kind.open_api.is_some() || old["metadata"].get("generation").is_some();
        let metadata = meta::metadata_mut(&mut new);
        metadata.insert("deletionTimestamp".to_owned(), objects::timestamp(ends).into());
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
        if counted {
            let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(0);
            metadata.insert("generation".to_owned(), (generation + 1).into());
        }
        if kind.info.group.is_empty() && kind.info.resource == "namespaces" {
            new["status"]["phase"] = "Terminating".into();
        }
    }
    if new == *old { Plan::Nothing } else { Plan::Mark(new) }
}

/// When the first delete came.
fn deletion_asked(object: &Value) -> Option<Timestamp> {
    let ends: Timestamp = meta::deletion_timestamp(object)?.parse().ok()?;
    let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    Some(ends - SignedDuration::from_secs(grace))
}

/// Puts the wanted propagation's finalizer in place of the others.
fn set_propagation(object: &mut Value, options: &DeleteOptions) {
    if !options.chooses_propagation() {
        return;
    }
    let mut finalizers: Vec<Value> =
        meta::finalizers(object).filter(|f| *f != ORPHAN && *f != FOREGROUND).map(Value::from).collect();
    finalizers.extend(options.finalizer().map(Value::from));
    let metadata = meta::metadata_mut(object);
    if finalizers.is_empty() {
        metadata.shift_remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), finalizers.into());
    }
}

/// Deletes what the selectors choose; answers with a list of what was there.
pub(crate) async fn collection(context: Context, body: Body) -> Result<Response<Body>, StatusError> {
    let output = context.output()?;
    let options = DeleteOptions::read(&context, body).await?;
    let selection = Selection::of(&context.kind, &context.query)?;
    let snapshot = context.server.store.snapshot();
    let chosen: Vec<_> =
        snapshot.scan(&context.prefix(), None).filter(|o| selection.matches(&context.kind, o)).collect();
    let mut items = Vec::with_capacity(chosen.len());
    for object in &chosen {
        match delete_object(&context, object.key.name(), &options).await {
            Ok((Outcome::Gone(bytes) | Outcome::Waits(bytes), _)) => {
                items.push(serde_json::from_slice::<Value>(&bytes).map_err(StatusError::internal)?);
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let info = &context.kind.info;
    let list = json!({
        "kind": info.list_kind, "apiVersion": info.api_version(),
        "metadata": { "resourceVersion": context.server.store.revision().to_string() }, "items": items,
    });
    let output = Output { form: Form::Object, ..output };
    respond::success(StatusCode::OK, encode::to_bytes(&list), output)
}
