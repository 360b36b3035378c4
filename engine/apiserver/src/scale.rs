//! The `scale` subresource of every kind that says where its replicas stand.

use axum::body::Body;
use gantry_kube_logic::meta;
use gantry_kube_logic::schema::Schema;
use gantry_kube_types::{FieldError, StatusError};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::encode;
use crate::kind::ScalePaths;
use crate::patch::Patch;
use crate::request::{self, Context};
use crate::write::{self, CONFLICT_TRIES_MAX, Fields, Live, MODIFIED};
use crate::{read, respond};

pub(crate) async fn serve(context: Context, body: Body) -> Result<Response<Body>, StatusError> {
    let output = context.output()?;
    let paths = context.kind.strategy.scale().ok_or_else(StatusError::no_such_resource)?;
    let name = context.info.name.clone();
    if context.info.verb == "get" {
        let current = context.current(&name)?;
        let scale = scale_of(&encode::decode(&context.kind, &current), &paths);
        return respond::success(StatusCode::OK, encode::to_bytes(&scale), output);
    }
    let dry_run = context.query.dry_run("UpdateOptions")?;
    let wish = Wish::read(&context, body).await?;
    let mut tries = 0;
    loop {
        tries += 1;
        let live = Live::of(&context, context.current(&name)?);
        let mut object = live.value.clone();
        let scale = scale_of(&object, &paths);
        let wanted = wish.onto(&scale)?;
        let fixed = check(&context, &wanted, &scale)?;
        let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let detail = "must be greater than or equal to 0";
            let errors = [FieldError::invalid("spec.replicas", replicas, detail)];
            return Err(StatusError::invalid("autoscaling", "Scale", &name, &errors));
        }
        set_path(&mut object, &paths.spec_replicas, replicas.into());
        let mut warnings = Vec::new();
        match write::replace(&context, &live, object, dry_run, Fields::Track, &mut warnings).await {
            Err(error) if error.is_conflict() && !fixed && tries < CONFLICT_TRIES_MAX => {}
            done => {
                let object: Value = serde_json::from_slice(&done?).map_err(StatusError::internal)?;
                let scale = encode::to_bytes(&scale_of(&object, &paths));
                return read::answer(&context, StatusCode::OK, scale, output);
            }
        }
    }
}

/// What is asked of a scale.
enum Wish {
    Whole(Value),
    Patch(Patch),
}

impl Wish {
    async fn read(context: &Context, body: Body) -> Result<Self, StatusError> {
        let bytes = request::read_body(body).await?;
        if context.info.verb == "update" {
            return Ok(Self::Whole(request::parse(&context.content_type(), &bytes)?.value));
        }
        Ok(Self::Patch(Patch::read(context, bytes)?))
    }

    fn onto(&self, scale: &Value) -> Result<Value, StatusError> {
        match self {
            Self::Whole(scale) => Ok(scale.clone()),
            // A scale has neither lists nor keys to merge by: both merges mean the same.
            Self::Patch(Patch::Strategic(patch) | Patch::Merge(patch) | Patch::Apply(patch)) => {
                gantry_kube_logic::patch::merge_patch(scale, patch)
            }
            Self::Patch(patch) => patch.onto(scale, &Schema::default()),
        }
    }
}

/// Refuses another object's scale; true where the writer fixes the version.
fn check(context: &Context, wanted: &Value, scale: &Value) -> Result<bool, StatusError> {
    let name = meta::name(wanted);
    if !name.is_empty() && name != context.info.name {
        return Err(StatusError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            context.info.name
        )));
    }
    let version = meta::resource_version(wanted);
    if !version.is_empty() && version != meta::resource_version(scale) {
        return Err(context.conflict(&context.info.name, MODIFIED));
    }
    Ok(!version.is_empty() && context.info.verb == "update")
}

/// `autoscaling/v1` `Scale` of an object.
fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let number = |path: &str| object.pointer(&pointer(path)).and_then(Value::as_i64).unwrap_or(0);
    let source = &object["metadata"];
    let mut metadata = json!({ "name": source["name"] });
    for field in ["namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = source.get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({ "replicas": number(&paths.status_replicas) });
    let selector = paths.label_selector.as_ref().and_then(|path| object.pointer(&pointer(path)));
    if let Some(text) = selector.and_then(selector_text) {
        status["selector"] = text.into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": { "replicas": number(&paths.spec_replicas) }, "status": status,
    })
}

/// A label selector as text: `a=b,c in (d,e)`.
fn selector_text(selector: &Value) -> Option<String> {
    if let Some(text) = selector.as_str() {
        return Some(text.to_owned());
    }
    let fields = selector.as_object()?;
    let structured = fields.contains_key("matchLabels") || fields.contains_key("matchExpressions");
    let labels = if structured { selector["matchLabels"].as_object() } else { Some(fields) };
    let mut parts: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or("");
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match expression["operator"].as_str().unwrap_or("") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.sort_unstable();
    Some(parts.join(","))
}

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

fn set_path(object: &mut Value, path: &str, value: Value) {
    let mut at = object;
    for part in path.split('.').filter(|p| !p.is_empty()) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_replicas_and_selector() {
        let object = json!({
            "metadata": { "name": "web", "namespace": "d", "resourceVersion": "7" },
            "spec": { "replicas": 3, "selector": { "matchLabels": { "b": "c" }, "matchExpressions": [
                { "key": "a", "operator": "In", "values": ["x", "y"] }] } },
            "status": { "replicas": 2 },
        });
        let scale = scale_of(&object, &ScalePaths::workload());
        assert_eq!(scale["spec"]["replicas"], 3);
        assert_eq!(scale["status"], json!({ "replicas": 2, "selector": "a in (x,y),b=c" }));
    }
}
