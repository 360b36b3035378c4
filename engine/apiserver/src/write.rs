//! `create` and `update`, and the steps every write takes.

use std::sync::Arc;

use axum::body::Body;
use gantry_kube_logic::{apply, meta};
use gantry_kube_types::{FieldError, StatusError};
use gantry_store::{Expect, Key, Mutation, Object, Revision, WriteError};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::admission::{AdmissionRequest, Effects, Operation};
use crate::encode::{self, Template};
use crate::kind::{ActionRequest, Kind};
use crate::objects;
use crate::reader::Reader;
use crate::request::Context;
use crate::subresource::Part;
use crate::{read, respond};

/// Tries with another random name before a `generateName` create gives up.
const GENERATED_NAME_TRIES_MAX: usize = 8;
/// Tries of a write without `resourceVersion` that others keep overtaking.
pub(crate) const CONFLICT_TRIES_MAX: usize = 10;

/// What upstream says to a writer who was overtaken.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Who has already written `managedFields`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    /// Nobody yet: the server tracks the change.
    Track,
    /// Server-side apply has.
    Applied,
}

pub(crate) async fn create(context: Context, body: Body) -> Result<Response<Body>, StatusError> {
    let output = context.output()?;
    let dry_run = context.query.dry_run("CreateOptions")?;
    let mut warnings = Vec::new();
    let object = context.object(body, &mut warnings).await?;
    if !meta::resource_version(&object).is_empty() {
        return Err(StatusError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let generated = meta::name(&object).is_empty()
        && object["metadata"]["generateName"].as_str().is_some_and(|n| !n.is_empty());
    let mut tries = 0;
    let stored = loop {
        tries += 1;
        // Only a name that the server makes up is worth another try.
        if !generated || tries == GENERATED_NAME_TRIES_MAX {
            break create_object(&context, object, dry_run, Fields::Track, &mut warnings).await?;
        }
        match create_object(&context, object.clone(), dry_run, Fields::Track, &mut warnings).await {
            Err(error) if error.reason == "AlreadyExists" => {}
            done => break done?,
        }
    };
    let mut response = read::answer(&context, StatusCode::CREATED, stored, output)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// Creates one object; returns its bytes in the served version.
pub(crate) async fn create_object(
    context: &Context,
    mut object: Value,
    dry_run: bool,
    fields: Fields,
    warnings: &mut Vec<String>,
) -> Result<bytes::Bytes, StatusError> {
    let kind = &context.kind;
    let now = Timestamp::now();
    objects::settle_namespace(kind, &mut object, context.namespace())?;
    if meta::name(&object).is_empty()
        && let Some(base) = object["metadata"]["generateName"].as_str().filter(|b| !b.is_empty())
    {
        object["metadata"]["name"] = objects::generate_name(base).into();
    }
    kind.strategy.default(&mut object);
    objects::initialise(kind, &mut object, now);
    kind.strategy.prepare_create(&mut object);
    let reader = context.server.reader();
    let effects = Effects::default();
    let name = meta::name(&object).to_owned();
    context.making(&name);
    let admitted = Write { context, name: &name, operation: Operation::Create, dry_run, reader: &reader };
    admitted.mutate(&mut object, None, &effects).await?;
    if fields == Fields::Track {
        apply::track_update(None, &mut object, context.schema(), &context.manager(now))?;
    }
    let mut errors = objects::validate(kind, &object);
    errors.extend(kind.strategy.validate_create(&object));
    errors.extend(kind.check.iter().flat_map(|check| check(&object, None)));
    refuse(context, &name, &errors)?;
    admitted.validate(&mut object, None, &effects).await?;
    warnings.extend(kind.strategy.warnings(&object));
    context.note(effects.remarks(), warnings);
    if dry_run {
        let taken = reader.snapshot().get(&context.key(&name)).is_some();
        return if taken { Err(exists(context, &name)) } else { Ok(encode::to_bytes(&object)) };
    }
    let template = encode::to_storage(kind, &object);
    let stored = put(context, context.key(&name), Expect::Absent, template).await;
    let stored = stored.map_err(|e| write_error(context, &name, e))?;
    effects.settle();
    Ok(encode::served(kind, &stored))
}

fn exists(context: &Context, name: &str) -> StatusError {
    StatusError::already_exists(&context.kind.info.group, &context.kind.info.resource, name)
}

pub(crate) async fn put(
    context: &Context,
    key: Key,
    expect: Expect,
    template: Template,
) -> Result<Arc<Object>, WriteError> {
    let encode = Box::new(move |revision: Revision| template.fill(revision));
    context.server.store.write(Mutation::Put { key, expect, encode }).await
}

pub(crate) fn write_error(context: &Context, name: &str, error: WriteError) -> StatusError {
    match error {
        WriteError::Exists => exists(context, name),
        WriteError::NotFound => context.kind.not_found(name),
        WriteError::Conflict { .. } => context.conflict(name, MODIFIED),
        WriteError::TooLarge { .. } => StatusError::too_large(error.to_string()),
        WriteError::Unavailable(_) => StatusError::service_unavailable(error.to_string()).retry_after(1),
    }
}

/// 422 where there is an error.
pub(crate) fn refuse(context: &Context, name: &str, errors: &[FieldError]) -> Result<(), StatusError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid(&context.kind.info.group, &context.kind.info.kind, name, errors))
}

/// One write on its way through admission.
pub(crate) struct Write<'a> {
    pub(crate) context: &'a Context,
    pub(crate) name: &'a str,
    pub(crate) operation: Operation,
    pub(crate) dry_run: bool,
    pub(crate) reader: &'a Reader,
}

impl Write<'_> {
    fn request<'b>(
        &'b self,
        object: &'b mut Value,
        old_object: Option<&'b Value>,
        effects: &'b Effects,
    ) -> AdmissionRequest<'b> {
        AdmissionRequest {
            user: &self.context.user,
            operation: self.operation,
            kind: &self.context.kind,
            namespace: self.context.namespace(),
            name: self.name,
            subresource: &self.context.info.subresource,
            object,
            old_object,
            dry_run: self.dry_run,
            reader: self.reader,
            effects,
        }
    }

    pub(crate) async fn mutate(
        &self,
        object: &mut Value,
        old: Option<&Value>,
        effects: &Effects,
    ) -> Result<(), StatusError> {
        let mut request = self.request(object, old, effects);
        for plugin in &self.context.server.admission {
            let admitted = plugin.admit(&mut request).await;
            self.refused(admitted, effects)?;
        }
        Ok(())
    }

    pub(crate) async fn validate(
        &self,
        object: &mut Value,
        old: Option<&Value>,
        effects: &Effects,
    ) -> Result<(), StatusError> {
        let request = self.request(object, old, effects);
        for plugin in &self.context.server.admission {
            let valid = plugin.validate(&request).await;
            self.refused(valid, effects)?;
        }
        Ok(())
    }

    /// What admission says of a refused write goes to the audit record all the same.
    fn refused(&self, done: Result<(), StatusError>, effects: &Effects) -> Result<(), StatusError> {
        if done.is_err() {
            self.context.note(effects.remarks(), &mut Vec::new());
        }
        done
    }
}

pub(crate) async fn update(context: Context, body: Body) -> Result<Response<Body>, StatusError> {
    let output = context.output()?;
    let dry_run = context.query.dry_run("UpdateOptions")?;
    let mut warnings = Vec::new();
    let mut object = context.object(body, &mut warnings).await?;
    let name = context.info.name.clone();
    objects::settle_name(&mut object, &name)?;
    objects::settle_namespace(&context.kind, &mut object, context.namespace())?;
    let (bytes, created) = match put_object(&context, &object, dry_run, &mut warnings).await {
        Err(error)
            if error.is_not_found()
                && context.kind.strategy.allows_create_on_update()
                && context.info.subresource.is_empty()
                && meta::uid(&object).is_empty() =>
        {
            meta::metadata_mut(&mut object).shift_remove("resourceVersion");
            (create_object(&context, object, dry_run, Fields::Track, &mut warnings).await?, true)
        }
        done => (done?, false),
    };
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = read::answer(&context, status, bytes, output)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

async fn put_object(
    context: &Context,
    object: &Value,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<bytes::Bytes, StatusError> {
    let name = context.info.name.as_str();
    let unconditional = meta::resource_version(object).is_empty();
    if unconditional && !context.kind.strategy.allows_unconditional_update() {
        let errors = [FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update")];
        context.current(name)?;
        refuse(context, name, &errors)?;
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let live = Live::of(context, context.current(name)?);
        let done = replace(context, &live, object.clone(), dry_run, Fields::Track, warnings).await;
        match done {
            Err(error) if unconditional && error.is_conflict() && tries < CONFLICT_TRIES_MAX => {}
            done => return done,
        }
    }
}

/// A stored object and what it says in the served version.
pub(crate) struct Live {
    pub(crate) stored: Arc<Object>,
    pub(crate) value: Value,
}

impl Live {
    pub(crate) fn of(context: &Context, stored: Arc<Object>) -> Self {
        let value = encode::decode(&context.kind, &stored);
        Self { stored, value }
    }
}

/// Replaces `live` by `new` (served version), or fails with a conflict where it has changed since.
pub(crate) async fn replace(
    context: &Context,
    live: &Live,
    mut new: Value,
    dry_run: bool,
    fields: Fields,
    warnings: &mut Vec<String>,
) -> Result<bytes::Bytes, StatusError> {
    let kind = &context.kind;
    let name = context.info.name.as_str();
    let part = Part::of(&context.info.subresource).ok_or_else(|| context.not_allowed())?;
    let old = &live.value;
    check_preconditions(context, &new, old)?;
    let now = Timestamp::now();
    prepare(kind, part, &mut new, old);
    let reader = context.server.reader();
    let effects = Effects::default();
    let write = Write { context, name, operation: Operation::Update, dry_run, reader: &reader };
    write.mutate(&mut new, Some(old), &effects).await?;
    if !part.is_status() {
        objects::count_generation(kind, &mut new, old);
    }
    if fields == Fields::Track {
        apply::track_update(Some(old), &mut new, context.schema(), &context.manager(now))?;
    }
    refuse(context, name, &check(kind, part, &new, old))?;
    write.validate(&mut new, Some(old), &effects).await?;
    if part == Part::Main {
        warnings.extend(kind.strategy.warnings(&new));
    }
    context.note(effects.remarks(), warnings);
    if dry_run {
        return Ok(encode::to_bytes(&new));
    }
    let stored = store_replacement(context, &live.stored, &new, old).await?;
    effects.settle();
    Ok(stored)
}

/// Leaves of `new` what this write may change.
fn prepare(kind: &Kind, part: Part, new: &mut Value, old: &Value) {
    kind.strategy.default(new);
    match part {
        Part::Main => {
            objects::carry_over(kind, new, old);
            kind.strategy.prepare_update(new, old);
        }
        Part::Status => {
            objects::carry_over_for_status(new, old);
            kind.strategy.prepare_status_update(new, old);
        }
        _ => *new = part.taken(new, old),
    }
    new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
}

fn check(kind: &Kind, part: Part, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = objects::validate_update(kind, new, old);
    errors.extend(match part {
        Part::Main => kind.strategy.validate_update(new, old),
        Part::Status => kind.strategy.validate_status_update(new, old),
        Part::Finalize | Part::Approval => Vec::new(),
        // What a plain update may not change is just what these are for.
        Part::Resize | Part::EphemeralContainers => kind.strategy.validate_create(new),
    });
    if part == Part::Main {
        errors.extend(kind.check.iter().flat_map(|check| check(new, Some(old))));
    }
    errors.extend(part.check(new, old));
    errors
}

/// Writes the new state; the last finalizer's removal from a deleted object removes the object, and an
/// update that changes nothing writes nothing.
async fn store_replacement(
    context: &Context,
    current: &Arc<Object>,
    new: &Value,
    old: &Value,
) -> Result<bytes::Bytes, StatusError> {
    let kind = &context.kind;
    let name = context.info.name.as_str();
    let expect = Expect::Revision(current.revision);
    let graceful = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    if meta::is_being_deleted(old) && !graceful && !objects::has_finalizers(kind, new) {
        let template = encode::to_storage(kind, new);
        let encode = Box::new(move |revision| template.fill(revision));
        let mutation = Mutation::Delete { key: current.key.clone(), expect, encode: Some(encode) };
        let gone = context.server.store.write(mutation).await.map_err(|e| write_error(context, name, e))?;
        return Ok(encode::served(kind, &gone));
    }
    if same_but_for_times(new, old) {
        return Ok(encode::served(kind, current));
    }
    let template = encode::to_storage(kind, new);
    let stored = put(context, current.key.clone(), expect, template).await;
    let stored = stored.map_err(|e| write_error(context, name, e))?;
    Ok(encode::served(kind, &stored))
}

/// Equal, the times in `managedFields` aside.
fn same_but_for_times(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new == old };
    same_fields(new, old, "metadata") && {
        let metadata = |object| Map::get(object, "metadata").and_then(Value::as_object);
        match (metadata(new), metadata(old)) {
            (Some(new), Some(old)) => {
                same_fields(new, old, "managedFields")
                    && timeless(new.get("managedFields")) == timeless(old.get("managedFields"))
            }
            (new, old) => new == old,
        }
    }
}

fn same_fields(new: &Map<String, Value>, old: &Map<String, Value>, but: &str) -> bool {
    let rest = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key(but));
    rest(new) == rest(old) && new.iter().all(|(name, value)| name == but || old.get(name) == Some(value))
}

fn timeless(managed_fields: Option<&Value>) -> Vec<Value> {
    let entries = managed_fields.and_then(Value::as_array).into_iter().flatten();
    entries
        .map(|entry| {
            let mut entry = entry.clone();
            if let Some(fields) = entry.as_object_mut() {
                fields.shift_remove("time");
            }
            entry
        })
        .collect()
}

fn check_preconditions(context: &Context, new: &Value, old: &Value) -> Result<(), StatusError> {
    let name = context.info.name.as_str();
    let (wanted, uid) = (meta::uid(new), meta::uid(old));
    if !wanted.is_empty() && wanted != uid {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
        return Err(context.conflict(name, why));
    }
    let version = meta::resource_version(new);
    if !version.is_empty() && version != "0" && version != meta::resource_version(old) {
        return Err(context.conflict(name, MODIFIED));
    }
    Ok(())
}

/// A `POST` that a kind answers itself.
pub(crate) async fn act(context: Context, body: Body) -> Result<Response<Body>, StatusError> {
    let output = context.output()?;
    let dry_run = context.query.dry_run("CreateOptions")?;
    let bytes = crate::request::read_body(body).await?;
    let mut document = crate::request::parse(&context.content_type(), &bytes)?;
    let mut warnings = Vec::new();
    if context.info.subresource.is_empty() {
        context.check_kind(&mut document.value)?;
        let found = gantry_kube_logic::fields::decode(&mut document.value, context.schema())?;
        document.strict.extend(found);
        context.judge(&document.strict, &mut warnings)?;
    }
    let action = context.kind.actions.get(context.info.subresource.as_str());
    let action = action.cloned().ok_or_else(StatusError::no_such_resource)?;
    let request = ActionRequest {
        server: &context.server,
        user: &context.user,
        kind: &context.kind,
        namespace: context.namespace(),
        name: &context.info.name,
        object: document.value,
        dry_run,
        reader: context.server.reader(),
    };
    let answer = action.run(request).await?;
    let answer = if answer.is_null() {
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
    } else {
        answer
    };
    let mut response = respond::success(StatusCode::CREATED, encode::to_bytes(&answer), output)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}
