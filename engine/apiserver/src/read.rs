//! `get` and `list`.

use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use gantry_kube_logic::negotiate::{Form, Output};
use gantry_kube_types::{FieldError, StatusError};
use gantry_store::{Object, Snapshot};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::encode;
use crate::query::resource_version;
use crate::request::Context;
use crate::respond;
use crate::select::Selection;
use crate::table::{self, IncludeObject};
use crate::views::View;

pub(crate) fn get(context: &Context) -> Result<Response<Body>, StatusError> {
    let output = context.output()?;
    not_in_the_future(context, &context.server.store.snapshot())?;
    let object = context.current(&context.info.name)?;
    answer(context, StatusCode::OK, encode::served(&context.kind, &object), output)
}

/// One object in the form asked for. `object` is in the served version.
pub(crate) fn answer(
    context: &Context,
    status: StatusCode,
    object: Bytes,
    output: Output,
) -> Result<Response<Body>, StatusError> {
    let body = match output.form {
        Form::Object => object,
        Form::Metadata => encode::to_bytes(&table::partial(parse(&object)?)),
        Form::Table => {
            let object = parse(&object)?;
            let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
            let row = table::row(&context.kind, object, IncludeObject::of(&context.query)?, Timestamp::now());
            encode::to_bytes(&table::table(metadata, table::columns(&context.kind), vec![row]))
        }
    };
    respond::success(status, body, output)
}

fn parse(object: &[u8]) -> Result<Value, StatusError> {
    serde_json::from_slice(object).map_err(StatusError::internal)
}

/// Where the next page begins, and the state all pages show.
#[derive(Serialize, Deserialize)]
struct Continue {
    /// Revision.
    rv: u64,
    namespace: String,
    name: String,
}

impl Continue {
    fn parse(token: &str) -> Result<Self, StatusError> {
        let bad = || StatusError::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
        serde_json::from_slice(&bytes).map_err(|_| bad())
    }

    fn token(&self) -> String {
        // Strings and a number always serialise.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// One page of a list.
struct Page {
    revision: u64,
    items: Vec<Arc<Object>>,
    next: Option<String>,
    remaining: Option<usize>,
}

pub(crate) fn list(context: &Context) -> Result<Response<Body>, StatusError> {
    let output = context.output()?;
    let selection = Selection::of(&context.kind, &context.query)?;
    let page = page(context, &selection)?;
    let body = match output.form {
        Form::Object => splice(context, &page),
        form => {
            let include = IncludeObject::of(&context.query)?;
            encode::to_bytes(&formed(context, &page, form, include))
        }
    };
    respond::success(StatusCode::OK, body, output)
}

fn page(context: &Context, selection: &Selection) -> Result<Page, StatusError> {
    let limit = usize::try_from(context.query.number("limit")?.unwrap_or(0)).unwrap_or(0);
    let from = match context.query.text("continue") {
        "" => None,
        token => Some(Continue::parse(token)?),
    };
    let snapshot = state(context, from.as_ref())?;
    let mut prefix = context.prefix();
    if let Some(name) = selection.name() {
        prefix = prefix.named(name);
    }
    let after = from.as_ref().map(|c| (c.namespace.as_str(), c.name.as_str()));
    let mut view = context.server.views.as_ref().and_then(|views| views.of(context));
    let whole = view.as_ref().is_none_or(View::is_full);
    let mut rest = snapshot
        .scan(&prefix, after)
        .filter(|o| selection.matches(&context.kind, o))
        .filter(|o| view.as_mut().is_none_or(|view| view.sees(o.key.name())));
    if limit == 0 {
        return Ok(Page {
            revision: snapshot.revision(),
            items: rest.collect(),
            next: None,
            remaining: None,
        });
    }
    let items: Vec<_> = rest.by_ref().take(limit).collect();
    let more = rest.next().is_some();
    let next = items.last().filter(|_| more).map(|last| {
        let (namespace, name) = (last.key.namespace().to_owned(), last.key.name().to_owned());
        Continue { rv: snapshot.revision(), namespace, name }.token()
    });
    // Counting what a selector leaves would mean reading everything on every page.
    let remaining = (more && whole && selection.is_everything()).then(|| rest.count() + 1);
    Ok(Page { revision: snapshot.revision(), items, next, remaining })
}

/// The state a list shows, by `continue`, `resourceVersion` and `resourceVersionMatch`.
fn state(context: &Context, from: Option<&Continue>) -> Result<Snapshot, StatusError> {
    let store = &context.server.store;
    if let Some(from) = from {
        if !context.query.text("resourceVersionMatch").is_empty() {
            return Err(StatusError::bad_request("resourceVersionMatch is forbidden for continue"));
        }
        return store.snapshot_at(from.rv).ok_or_else(|| {
            StatusError::expired(
                "The provided continue parameter is too old to display a consistent list result. You must start a \
                 new list without the continue parameter.",
            )
        });
    }
    let version = resource_version(context.query.text("resourceVersion"))?;
    let rule = context.query.text("resourceVersionMatch");
    let refuse = |why: &str| {
        let errors = [FieldError::forbidden("resourceVersionMatch", why)];
        StatusError::invalid("meta.k8s.io", "ListOptions", "", &errors)
    };
    match (rule, version) {
        ("", _) | ("NotOlderThan", Some(_)) => {}
        ("Exact", Some(0)) => {
            return Err(refuse("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
        ("Exact", Some(wanted)) => {
            let current = store.revision();
            if wanted > current {
                return Err(too_new(wanted, current));
            }
            return store.snapshot_at(wanted).ok_or_else(|| {
                StatusError::expired(format!("too old resource version: {wanted} ({current})"))
            });
        }
        (_, None) => {
            return Err(refuse("resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        (other, _) => {
            let errors =
                [FieldError::not_supported("resourceVersionMatch", other, &["Exact", "NotOlderThan", ""])];
            return Err(StatusError::invalid("meta.k8s.io", "ListOptions", "", &errors));
        }
    }
    let snapshot = store.snapshot();
    not_in_the_future(context, &snapshot)?;
    Ok(snapshot)
}

fn not_in_the_future(context: &Context, snapshot: &Snapshot) -> Result<(), StatusError> {
    match resource_version(context.query.text("resourceVersion"))? {
        Some(wanted) if wanted > snapshot.revision() => Err(too_new(wanted, snapshot.revision())),
        _ => Ok(()),
    }
}

fn too_new(wanted: u64, current: u64) -> StatusError {
    let mut error = StatusError::timeout(format!("Too large resource version: {wanted}, current: {current}"))
        .retry_after(1);
    if let Some(details) = &mut error.details {
        details.causes.push(gantry_kube_types::StatusCause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        });
    }
    error
}

fn metadata(page: &Page) -> Value {
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if let Some(next) = &page.next {
        metadata["continue"] = next.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

/// A list made of the stored bytes of its items.
fn splice(context: &Context, page: &Page) -> Bytes {
    let info = &context.kind.info;
    let items: usize = page.items.iter().map(|o| o.value.len() + 1).sum();
    let mut out = Vec::with_capacity(items + 256);
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        r#"{{"kind":{},"apiVersion":{},"metadata":{},"items":["#,
        Value::from(info.list_kind.as_ref()),
        Value::from(info.api_version()),
        metadata(page)
    );
    for (index, object) in page.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&encode::served(&context.kind, object));
    }
    out.extend_from_slice(b"]}");
    Bytes::from(out)
}

fn formed(context: &Context, page: &Page, form: Form, include: IncludeObject) -> Value {
    let kind = &context.kind;
    let objects = page.items.iter().map(|object| encode::decode(kind, object));
    if form == Form::Metadata {
        let items: Vec<Value> = objects.map(table::partial).collect();
        return json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata(page), "items": items,
        });
    }
    let now = Timestamp::now();
    let rows = objects.map(|object| table::row(kind, object, include, now)).collect();
    table::table(metadata(page), table::columns(kind), rows)
}
