//! `/registered_limits` and `/limits`: limits that services look up and keep themselves.

use super::routes::Routes;
use axum::Json as JsonBody;
use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::get;
use gantry_identity_api::KeystoneRecord;
use http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Body, Call, done, fresh_id, shown, text};
use super::errors::ApiError;
use super::records::{
    Naming, Readers, Records, all, as_is, brings_nothing, find, kept_by_nothing, new_object, not_found,
    object_name, takes_nothing, unchecked,
};
use super::schema::{Form, Json, Shape, bad, may, must, null, python};
use super::typed::store_change;
use super::users::plain;
use crate::directory::State;
use crate::policy::{Act, Subject};

const REGISTERED: &[super::schema::Field] = &[
    must("service_id", Form::Uuid),
    must("resource_name", Form::Name(255)),
    must("default_limit", Form::Integer(-1)),
    null("region_id", Form::Text),
    null("description", Form::Text),
];

static REGISTERED_LIMITS: Records = Records {
    plural: "registered_limits",
    word: "registered limit",
    action: "registered_limit",
    path: "/registered_limits",
    naming: Naming::Ours,
    new: Shape::closed("registered_limit", REGISTERED),
    change: Shape::closed("registered_limit", REGISTERED),
    defaults: || json!({ "region_id": null, "description": null }),
    filters: &["service_id", "region_id", "resource_name"],
    readers: Readers::Everybody,
    check: unchecked,
    keeps: kept_by_nothing,
    brings: brings_nothing,
    takes: takes_nothing,
    not_found,
    conflict: |_| "Duplicate entry".to_owned(),
    shown: as_is,
};

const LIMIT: &[super::schema::Field] = &[
    must("service_id", Form::Uuid),
    must("resource_name", Form::Name(255)),
    must("resource_limit", Form::Integer(-1)),
    null("project_id", Form::Text),
    null("domain_id", Form::Text),
    null("region_id", Form::Text),
    null("description", Form::Text),
];

static LIMITS: Records = Records {
    plural: "limits",
    word: "limit",
    action: "limit",
    path: "/limits",
    new: Shape::closed("limit", LIMIT),
    change: Shape::closed(
        "limit",
        &[may("resource_limit", Form::Integer(-1)), null("description", Form::Text)],
    ),
    defaults: || json!({ "project_id": null, "domain_id": null, "region_id": null, "description": null }),
    filters: &["service_id", "region_id", "resource_name", "project_id", "domain_id"],
    ..REGISTERED_LIMITS_BASE
};

/// What both have in common.
const REGISTERED_LIMITS_BASE: Records = Records {
    plural: "",
    word: "",
    action: "",
    path: "",
    naming: Naming::Ours,
    new: Shape::closed("", &[]),
    change: Shape::closed("", &[]),
    defaults: super::records::no_defaults,
    filters: &[],
    readers: Readers::Everybody,
    check: unchecked,
    keeps: kept_by_nothing,
    brings: brings_nothing,
    takes: takes_nothing,
    not_found,
    conflict: |_| String::new(),
    shown: as_is,
};

/// The routes of both collections.
pub(crate) fn routes() -> Routes {
    let of = |table: &'static Records| {
        let lists = get(move |call: Call| async move { list(&call, table) })
            .post(move |call: Call, body: Body| async move { create(&call, table, body).await });
        let one = get(move |call: Call, Path(id): Path<String>| async move { show(&call, table, &id) })
            .patch(move |call: Call, Path(id): Path<String>, body: Body| async move {
                update(&call, table, &id, body).await
            })
            .delete(move |call: Call, Path(id): Path<String>| async move { delete(&call, table, &id).await });
        Routes::new().route(table.path, lists).route(&format!("{}/{{{}}}", table.path, table.action), one)
    };
    of(&REGISTERED_LIMITS).merge(of(&LIMITS)).route("/limits/model", get(model))
}

/// `GET /limits/model`
async fn model(_call: Call) -> Answer {
    let description = "Limit enforcement and validation does not take project hierarchy into consideration.";
    plain(json!({ "model": { "name": "flat", "description": description } }))
}

fn absent(table: &Records, id: &str) -> ApiError {
    ApiError::gone(format!("Could not find {} for {id}.", table.word))
}

/// Limits of a project or domain are for who may see it.
fn seen(call: &Call, state: &State, record: &KeystoneRecord) -> bool {
    if record.spec.collection == REGISTERED_LIMITS.plural || call.sees_all(state) {
        return true;
    }
    let attributes = &record.spec.attributes;
    let session = &call.session;
    let own = session.scope_domain.as_ref().and_then(|d| d.metadata.name.as_deref());
    let project = text(attributes, "project_id").and_then(|id| state.projects.get(id));
    project.is_some_and(|p| {
        let id = p.metadata.name.as_deref();
        let subject = Subject::Project { id, domain: &p.spec.domain, parent: p.spec.parent.as_deref() };
        call.may(state, Act::Read, &subject)
    }) || text(attributes, "domain_id").is_some_and(|id| own == Some(id))
}

fn list(call: &Call, table: &Records) -> Answer {
    let items = {
        let state = call.state();
        let seen = all(&state, table.plural, None).filter(|r| seen(call, &state, r));
        seen.map(|r| table.full(call, r, true)).collect()
    };
    call.list(table.plural, table.filters, items)
}

fn show(call: &Call, table: &Records, id: &str) -> Answer {
    let state = call.state();
    let found = find(&state, table.plural, None, id).ok_or_else(|| absent(table, id))?;
    if !seen(call, &state, found) {
        return Err(ApiError::forbidden(&format!("get_{}", table.action)));
    }
    Ok(shown(StatusCode::OK, table.action, table.full(call, found, false)))
}

/// What two records must not have in common.
fn key(attributes: &Json) -> [Option<&str>; 5] {
    ["service_id", "region_id", "resource_name", "project_id", "domain_id"].map(|name| text(attributes, name))
}

/// Checks a new or changed one against what else there is.
fn check(state: &State, table: &Records, id: Option<&str>, object: &Json) -> Result<(), ApiError> {
    let is = |collection: &str, name: &str| {
        text(object, name).is_none_or(|id| find(state, collection, None, id).is_some())
    };
    if !is("services", "service_id") {
        return Err(ApiError::expecting("service_id", table.action));
    }
    if !is("regions", "region_id") {
        return Err(ApiError::expecting("region_id", table.action));
    }
    let mut others = all(state, table.plural, None).filter(|r| Some(r.spec.id.as_str()) != id);
    if others.any(|r| key(&r.spec.attributes) == key(object)) {
        return Err(ApiError::conflict(table.action, "Duplicate entry"));
    }
    if table.plural == LIMITS.plural {
        let registered = all(state, REGISTERED_LIMITS.plural, None);
        let mut names = registered.map(|r| &r.spec.attributes);
        let same = |a: &Json| {
            ["service_id", "region_id", "resource_name"]
                .iter()
                .all(|name| text(a, name) == text(object, name))
        };
        if !names.any(same) {
            let message = "Unable to create a limit that has no corresponding registered limit.";
            return Err(ApiError::refused(message));
        }
    }
    Ok(())
}

fn check_shape(table: &Records, at: usize, object: &mut Json) -> Result<(), ApiError> {
    if let Some(field) = table.new.fields.iter().find(|f| f.required && !object.contains_key(f.name)) {
        let whole = Value::Object(object.clone());
        return Err(bad(&at.to_string(), &whole, &format!("'{}' is a required property", field.name)));
    }
    table.new.new_object(object)?;
    let has = |name: &str| object.get(name).is_some_and(|v| !v.is_null());
    if table.plural == LIMITS.plural && has("project_id") == has("domain_id") {
        let whole = Value::Object(object.clone());
        let said = format!("{} must have one of project_id and domain_id", python(&whole));
        return Err(bad(&at.to_string(), &whole, &said));
    }
    Ok(())
}

/// Several at once: all are checked before the first is stored.
async fn create(call: &Call, table: &Records, mut body: Body) -> Answer {
    let mut checked: Vec<(String, Json)> = Vec::new();
    {
        let state = call.state();
        call.require(&state, Act::Create, &Subject::Private, &format!("create_{}", table.plural))?;
        let Some(Value::Array(wanted)) = body.0.remove(table.plural) else {
            return Err(ApiError::invalid(format!("'{}' is a required property", table.plural)));
        };
        for (at, value) in wanted.into_iter().enumerate() {
            let Value::Object(mut object) = value else {
                let message = format!("{} is not of type 'object'", python(&value));
                return Err(bad(&at.to_string(), &value, &message));
            };
            check_shape(table, at, &mut object)?;
            if let Value::Object(defaults) = (table.defaults)() {
                for (name, value) in defaults {
                    object.entry(name).or_insert(value);
                }
            }
            check(&state, table, None, &object)?;
            if checked.iter().any(|(_, other)| key(other) == key(&object)) {
                return Err(ApiError::conflict(table.action, "Duplicate entry"));
            }
            checked.push((fresh_id(), object));
        }
    }
    let mut made = Vec::new();
    for (id, object) in checked {
        let record = call.core.objects.create(&new_object(table.plural, None, &id, object)).await?;
        made.push(Value::Object(table.full(call, &record, false)));
    }
    let mut answer = Json::new();
    answer.insert(table.plural.to_owned(), Value::Array(made));
    Ok((StatusCode::CREATED, JsonBody(answer)).into_response())
}

/// A registered limit that others rest on keeps its name and stays.
fn held(state: &State, record: &KeystoneRecord) -> Result<(), ApiError> {
    if record.spec.collection != REGISTERED_LIMITS.plural {
        return Ok(());
    }
    let id = &record.spec.id;
    let rests = |a: &Json| {
        let names = ["service_id", "region_id", "resource_name"];
        names.iter().all(|name| text(a, name) == text(&record.spec.attributes, name))
    };
    if all(state, LIMITS.plural, None).any(|r| rests(&r.spec.attributes)) {
        return Err(ApiError::refused(format!(
            "Unable to update or delete registered limit {id} because there are project limits associated with it."
        )));
    }
    Ok(())
}

async fn update(call: &Call, table: &Records, id: &str, body: Body) -> Answer {
    let found = {
        let state = call.state();
        call.require(&state, Act::Update, &Subject::Private, &format!("update_{}", table.action))?;
        find(&state, table.plural, None, id).ok_or_else(|| absent(table, id))?.clone()
    };
    let body = body.change(&table.change)?;
    let renames = ["service_id", "region_id", "resource_name"].iter().any(|name| body.contains_key(*name));
    let change = |state: &State, record: &mut KeystoneRecord| {
        if renames {
            held(state, &found)?;
        }
        record.spec.attributes.extend(body.clone());
        check(state, table, Some(id), &record.spec.attributes)
    };
    let changed = store_change(call, &object_name(table.plural, None, id), change).await?;
    Ok(shown(StatusCode::OK, table.action, table.full(call, &changed, false)))
}

async fn delete(call: &Call, table: &Records, id: &str) -> Answer {
    {
        let state = call.state();
        call.require(&state, Act::Delete, &Subject::Private, &format!("delete_{}", table.action))?;
        held(&state, find(&state, table.plural, None, id).ok_or_else(|| absent(table, id))?)?;
    }
    call.core.objects.delete::<KeystoneRecord>(&object_name(table.plural, None, id)).await?;
    done()
}

/// The limits of a project, as they stand beside it in a tree.
pub(crate) fn of_project(call: &Call, state: &State, project: &str) -> Vec<Value> {
    let of =
        all(state, LIMITS.plural, None).filter(|r| text(&r.spec.attributes, "project_id") == Some(project));
    of.map(|r| Value::Object(LIMITS.full(call, r, true))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::{put, two_organisations};

    #[test]
    fn a_limit_rests_on_a_registered_one() {
        let mut state = two_organisations();
        let object = |value: Value| super::super::call::object(value);
        put(&mut state, new_object("services", None, "s", Json::new()));
        let registered = object(json!({"service_id": "s", "region_id": null, "resource_name": "cores"}));
        put(&mut state, new_object("registered_limits", None, "r", registered.clone()));
        let limit = |name: &str, project: &str| {
            object(json!({"service_id": "s", "resource_name": name, "project_id": project}))
        };
        assert!(check(&state, &LIMITS, None, &limit("cores", "web")).is_ok());
        assert!(check(&state, &LIMITS, None, &limit("bogus", "web")).is_err());
        put(&mut state, new_object("limits", None, "l", limit("cores", "web")));
        assert!(check(&state, &LIMITS, None, &limit("cores", "web")).is_err(), "twice");
        assert!(check(&state, &LIMITS, Some("l"), &limit("cores", "web")).is_ok(), "itself");
        assert!(check(&state, &LIMITS, None, &limit("cores", "ops")).is_ok());
        let kept = find(&state, "registered_limits", None, "r").expect("there").clone();
        assert!(held(&state, &kept).is_err());
        assert!(check(&state, &REGISTERED_LIMITS, None, &registered).is_err(), "twice");
    }
}
