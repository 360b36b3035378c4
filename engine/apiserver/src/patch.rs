//! `patch`: JSON, merge and strategic merge patches, and server-side apply.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use gantry_kube_logic::{apply, fields, meta, patch as logic};
use gantry_kube_types::{FieldError, StatusError};
use gantry_store::Object;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use crate::objects;
use crate::request::{self, Context};
use crate::write::{self, CONFLICT_TRIES_MAX, Fields, Live};
use crate::{read, respond};

/// A patch, read but not applied.
pub(crate) enum Patch {
    Json(Bytes),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

impl Patch {
    /// 415 for other media types. Custom resources have no strategic merge patch.
    pub(crate) fn read(context: &Context, body: Bytes) -> Result<Self, StatusError> {
        let custom = context.kind.open_api.is_some();
        let document = |media_type: &str| request::parse(media_type, &body).map(|d| d.value);
        match context.content_type().as_str() {
            "application/json-patch+json" => Ok(Self::Json(body)),
            "application/merge-patch+json" => Ok(Self::Merge(document("application/json")?)),
            "application/strategic-merge-patch+json" if !custom => {
                Ok(Self::Strategic(document("application/json")?))
            }
            "application/apply-patch+yaml" => Ok(Self::Apply(document("application/apply-patch+yaml")?)),
            _ => {
                let strategic = if custom { "" } else { "application/strategic-merge-patch+json, " };
                Err(StatusError::unsupported_media_type(format!(
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, {strategic}\
                     application/apply-patch+yaml"
                )))
            }
        }
    }

    /// The object after the patch (not for [`Patch::Apply`]).
    pub(crate) fn onto(
        &self,
        target: &Value,
        schema: &gantry_kube_logic::schema::Schema,
    ) -> Result<Value, StatusError> {
        match self {
            Self::Json(patch) => logic::json_patch(target, patch),
            Self::Merge(patch) => logic::merge_patch(target, patch),
            Self::Strategic(patch) => logic::strategic_merge(target, patch, schema),
            Self::Apply(_) => Err(StatusError::internal("apply is not a patch of an object")),
        }
    }
}

pub(crate) async fn patch(context: Context, body: Body) -> Result<Response<Body>, StatusError> {
    let output = context.output()?;
    let dry_run = context.query.dry_run("PatchOptions")?;
    let patch = Patch::read(&context, request::read_body(body).await?)?;
    let mut warnings = Vec::new();
    let mut tries = 0;
    let (status, bytes) = loop {
        tries += 1;
        warnings.clear();
        let current = context.server.store.snapshot().get(&context.key(&context.info.name));
        let done = match (&patch, &current) {
            (Patch::Apply(applied), _) => {
                server_side_apply(&context, applied, current.as_ref(), dry_run, &mut warnings).await
            }
            (_, None) => Err(context.kind.not_found(&context.info.name)),
            (patch, Some(current)) => patch_object(&context, patch, current, dry_run, &mut warnings).await,
        };
        match done {
            Err(error) if tries < CONFLICT_TRIES_MAX && overtaken(&context, &error, current.as_ref()) => {}
            done => break done?,
        }
    };
    let mut response = read::answer(&context, status, bytes, output)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// Did somebody write between our read and our write? Then the patch is tried on what they wrote; one
/// that names a `resourceVersion` fails then, as its writer wants.
fn overtaken(context: &Context, error: &StatusError, seen: Option<&Arc<Object>>) -> bool {
    if !error.is_conflict() && error.reason != "AlreadyExists" {
        return false;
    }
    let now = context.server.store.snapshot().get(&context.key(&context.info.name));
    now.as_ref().map(|o| o.revision) != seen.map(|o| o.revision)
}

async fn patch_object(
    context: &Context,
    patch: &Patch,
    current: &Arc<Object>,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<(StatusCode, Bytes), StatusError> {
    let live = Live::of(context, current.clone());
    let mut new = patch.onto(&live.value, context.schema())?;
    settle(context, &mut new, warnings)?;
    let bytes = write::replace(context, &live, new, dry_run, Fields::Track, warnings).await?;
    Ok((StatusCode::OK, bytes))
}

/// The patched object must still be one of this kind, of this name.
fn settle(context: &Context, new: &mut Value, warnings: &mut Vec<String>) -> Result<(), StatusError> {
    context.check_kind(new)?;
    objects::settle_name(new, &context.info.name)?;
    objects::settle_namespace(&context.kind, new, context.namespace())?;
    let strict = fields::decode(new, context.schema())?;
    context.judge(&strict, warnings)
}

async fn server_side_apply(
    context: &Context,
    applied: &Value,
    current: Option<&Arc<Object>>,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<(StatusCode, Bytes), StatusError> {
    if context.query.text("fieldManager").is_empty() {
        let errors = [FieldError::required("fieldManager", "is required for apply patch")];
        return Err(StatusError::invalid("meta.k8s.io", "PatchOptions", "", &errors));
    }
    let mut applied = applied.clone();
    if applied["metadata"]["managedFields"].as_array().is_some_and(|f| !f.is_empty()) {
        return Err(StatusError::bad_request("metadata.managedFields must be nil"));
    }
    for field in ["apiVersion", "kind"] {
        if applied[field].as_str().unwrap_or("").is_empty() {
            return Err(StatusError::bad_request(format!("invalid object type: {field} must be set")));
        }
    }
    settle(context, &mut applied, warnings)?;
    let manager = context.manager(Timestamp::now());
    let force = context.query.flag("force");
    let live = current.map(|stored| Live::of(context, stored.clone()));
    let wanted = meta::resource_version(&applied).to_owned();
    match (&live, wanted.as_str()) {
        (_, "") => {}
        (Some(live), version) if version == meta::resource_version(&live.value) => {}
        _ => return Err(context.conflict(&context.info.name, write::MODIFIED)),
    }
    meta::metadata_mut(&mut applied).shift_remove("resourceVersion");
    let new = apply::apply(live.as_ref().map(|l| &l.value), &applied, context.schema(), &manager, force)?;
    match live {
        Some(live) => {
            let bytes = write::replace(context, &live, new, dry_run, Fields::Applied, warnings).await?;
            Ok((StatusCode::OK, bytes))
        }
        None if !context.info.subresource.is_empty() => Err(context.kind.not_found(&context.info.name)),
        None => {
            let bytes = write::create_object(context, new, dry_run, Fields::Applied, warnings).await?;
            Ok((StatusCode::CREATED, bytes))
        }
    }
}
