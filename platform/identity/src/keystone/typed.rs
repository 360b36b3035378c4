//! Collections that are kinds of their own: domains, projects, users, groups, roles. One description each, the same
//! handlers for all.

use std::sync::PoisonError;

use axum::extract::Path;
use axum::response::Response;
use gantry_kube_types::SecurityEvent;
use http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Body, Call, done, fresh_id, shown};
use super::errors::ApiError;
use super::schema::{Json, Shape};
use crate::directory::table::{Entry, Table};
use crate::directory::{State, Stored};
use crate::policy::{Act, Subject};

/// What a collection is.
pub(crate) trait Collection: Send + Sync + 'static {
    type Kind: Stored + Entry + Send + Sync;
    /// `users`
    const PLURAL: &'static str;
    /// Attributes of new objects.
    const NEW: Shape;
    /// Attributes of changes.
    const CHANGE: Shape;
    /// Attributes a list can be limited by.
    const FILTERS: &'static [&'static str];
    /// What making, changing and deleting one is in the audit trail.
    const EVENTS: Option<[SecurityEvent; 3]> = None;

    fn table(state: &State) -> &Table<Self::Kind>;

    fn subject(object: &Self::Kind) -> Subject<'_>;

    /// The attributes as clients see them, without id and links.
    fn show(object: &Self::Kind) -> Json;

    /// A new object out of checked attributes; checks what depends on other objects.
    fn create(call: &Call, state: &State, id: &str, body: &mut Json) -> Result<Self::Kind, ApiError>;

    /// Takes checked attributes over. Called again when somebody else changed the object meanwhile.
    fn change(state: &State, object: &mut Self::Kind, body: &Json) -> Result<(), ApiError>;

    /// May a list be asked for at all?
    fn may_list(call: &Call, state: &State) -> bool {
        call.may_list(state)
    }

    /// Why the object cannot go.
    fn keeps(_state: &State, _object: &Self::Kind) -> Option<ApiError> {
        None
    }

    /// What the list shows of the object under this query.
    fn listed(call: &Call, object: &Self::Kind) -> Option<Json> {
        Some(full::<Self>(call, object))
    }

    /// Before the new object is stored: secrets that go with it. Gives what only the answer to the maker shows.
    fn prepare(
        _call: &Call,
        _object: &Self::Kind,
        _body: &mut Json,
    ) -> impl Future<Output = Result<Json, ApiError>> + Send {
        async { Ok(Json::new()) }
    }

    /// After the new object is stored: what can be said of it only then.
    fn finish(_call: &Call, _made: &Self::Kind) -> impl Future<Output = Result<(), ApiError>> + Send {
        async { Ok(()) }
    }

    /// Before a change is stored.
    fn prepare_change(
        _call: &Call,
        _object: &Self::Kind,
        _body: &mut Json,
    ) -> impl Future<Output = Result<(), ApiError>> + Send {
        async { Ok(()) }
    }

    /// Takes away what hangs on the object, before it.
    fn cascade(call: &Call, object: &Self::Kind) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// `user`, from `{"user": …}`
fn member<C: Collection + ?Sized>() -> &'static str {
    C::NEW.member
}

/// The object with id and links.
pub(crate) fn full<C: Collection + ?Sized>(call: &Call, found: &C::Kind) -> Json {
    let id = found.id();
    let mut all = C::show(found);
    all.insert("links".to_owned(), json!({ "self": call.url(&format!("{}/{id}", C::PLURAL)) }));
    all.insert("id".to_owned(), json!(id));
    all
}

/// The object, where the caller may do `act` with it.
pub(crate) fn find<C: Collection>(
    call: &Call,
    state: &State,
    id: &str,
    act: Act,
    action: &str,
) -> Result<std::sync::Arc<C::Kind>, ApiError> {
    let Some(found) = C::table(state).get(id) else {
        return Err(call.absent(state, action, ApiError::not_found(C::Kind::WORD, id)));
    };
    call.require(state, act, &C::subject(found), action)?;
    Ok(found.clone())
}

/// `GET /PLURAL`
pub(crate) async fn list<C: Collection>(call: Call) -> Answer {
    let items = {
        let state = call.state();
        if !C::may_list(&call, &state) {
            return Err(ApiError::forbidden(&format!("list_{}", C::PLURAL)));
        }
        let seen = C::table(&state).iter().filter(|o| call.may(&state, Act::Read, &C::subject(o)));
        seen.filter_map(|o| C::listed(&call, o)).collect()
    };
    call.list(C::PLURAL, C::FILTERS, items)
}

/// `GET /PLURAL/{id}`
pub(crate) async fn get<C: Collection>(call: Call, Path(id): Path<String>) -> Answer {
    let state = call.state();
    let found = find::<C>(&call, &state, &id, Act::Read, &format!("get_{}", member::<C>()))?;
    Ok(shown(StatusCode::OK, member::<C>(), full::<C>(&call, &found)))
}

/// `POST /PLURAL`
pub(crate) async fn create<C: Collection>(call: Call, body: Body) -> Answer {
    let mut body = body.new_object(&C::NEW)?;
    let object = {
        let state = call.state();
        let object = C::create(&call, &state, &fresh_id(), &mut body)?;
        call.require(&state, Act::Create, &C::subject(&object), &format!("create_{}", member::<C>()))?;
        object
    };
    let id = object.id();
    let added = C::prepare(&call, &object, &mut body).await?;
    let made = match call.core.objects.create(&object).await {
        Ok(made) => made,
        Err(error) => {
            call.core.vault.delete_owner(&id).await?;
            return Err(error.into());
        }
    };
    C::finish(&call, &made).await?;
    audit::<C>(&call, 0, &id).await?;
    let all = full::<C>(&call, &made).into_iter().chain(added).collect();
    Ok(shown(StatusCode::CREATED, member::<C>(), all))
}

/// `PATCH /PLURAL/{id}`
pub(crate) async fn update<C: Collection>(call: Call, Path(id): Path<String>, body: Body) -> Answer {
    let action = format!("update_{}", member::<C>());
    let mut body = {
        let state = call.state();
        find::<C>(&call, &state, &id, Act::Update, &action)?;
        body.change(&C::CHANGE)?
    };
    if let Some(other) = body.remove("id").filter(|other| other.as_str() != Some(id.as_str())) {
        let message = format!("Cannot change {} ID: {other}", member::<C>());
        return Err(ApiError::invalid(message));
    }
    let found = { C::table(&call.state()).get(&id).cloned() };
    let found = found.ok_or_else(|| ApiError::not_found(C::Kind::WORD, &id))?;
    // Checked first against what is known: the messages are Keystone's, and secrets change only for good requests.
    C::change(&call.state(), &mut (*found).clone(), &body)?;
    C::prepare_change(&call, &found, &mut body).await?;
    let changed = store_change(&call, &id, |state, object| C::change(state, object, &body)).await?;
    audit::<C>(&call, 1, &id).await?;
    Ok(shown(StatusCode::OK, member::<C>(), full::<C>(&call, &changed)))
}

/// Applies a change that can fail in Keystone's words.
pub(crate) async fn store_change<K: Stored>(
    call: &Call,
    id: &str,
    change: impl Fn(&State, &mut K) -> Result<(), ApiError> + Send + Sync,
) -> Result<K, ApiError> {
    let failed = std::sync::Mutex::new(None);
    let changed = call.core.objects.update(id, |object: &mut K| {
        change(&call.state(), object).map_err(|error| {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            crate::errors::IdentityError::Invalid(String::new())
        })
    });
    let changed = changed.await;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    changed.map_err(|error| failed.unwrap_or_else(|| error.into()))
}

/// `DELETE /PLURAL/{id}`
pub(crate) async fn delete<C: Collection>(call: Call, Path(id): Path<String>) -> Answer {
    let found = {
        let state = call.state();
        let found = find::<C>(&call, &state, &id, Act::Delete, &format!("delete_{}", member::<C>()))?;
        if let Some(why) = C::keeps(&state, &found) {
            return Err(why);
        }
        found
    };
    C::cascade(&call, &found).await?;
    call.core.objects.remove::<C::Kind>(&id).await?;
    audit::<C>(&call, 2, &id).await?;
    done()
}

async fn audit<C: Collection>(call: &Call, at: usize, id: &str) -> Result<(), ApiError> {
    match C::EVENTS {
        Some(events) => call.record(events[at], C::PLURAL, id).await,
        None => Ok(()),
    }
}

/// Attributes the collection has no field for.
pub(crate) fn unknown(shape: &Shape, body: &Json, known: &[&str]) -> Json {
    let named = |key: &str| shape.fields.iter().any(|f| f.name == key) || known.contains(&key);
    let rest = body.iter().filter(|(key, _)| !named(key) && !matches!(key.as_str(), "id" | "links"));
    rest.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Is the object marked `immutable`? Then only the mark itself can change.
pub(crate) fn immutable(options: Option<&Value>) -> bool {
    options.and_then(|o| o.get("immutable")).and_then(Value::as_bool).unwrap_or(false)
}

/// Refuses to touch an immutable object, unless the change takes the mark away.
pub(crate) fn check_immutable(
    word: &str,
    id: &str,
    options: Option<&Value>,
    body: Option<&Json>,
) -> Result<(), ApiError> {
    let lifts = body.and_then(|b| b.get("options")).and_then(|o| o.get("immutable"));
    let lifts = lifts.is_some_and(|mark| mark.as_bool() != Some(true));
    if immutable(options) && !lifts {
        let verb = if body.is_some() { "update" } else { "delete" };
        return Err(ApiError::refused(format!(
            "Unable to {verb} immutable {word} resource: `{id}. Set resource option \"immutable\" to false first."
        )));
    }
    Ok(())
}

/// Checks `options`: only `immutable`, yes, no or null.
pub(crate) fn check_options(body: &Json) -> Result<(), ApiError> {
    let Some(Value::Object(options)) = body.get("options") else { return Ok(()) };
    for (name, value) in options {
        if name != "immutable" {
            let message = format!("Additional properties are not allowed ('{name}' was unexpected)");
            return Err(super::schema::bad("options", &Value::Object(options.clone()), &message));
        }
        if !value.is_boolean() && !value.is_null() {
            let message = format!("{} is not of type 'boolean', 'null'", super::schema::python(value));
            return Err(super::schema::bad(name, value, &message));
        }
    }
    Ok(())
}

/// Takes changed options over: null takes one away.
pub(crate) fn merge_options(options: &mut Json, body: &Json) {
    if let Some(Value::Object(changed)) = body.get("options") {
        for (name, value) in changed {
            if value.is_null() {
                options.remove(name);
            } else {
                options.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The response of a list of objects of a collection under another path.
pub(crate) fn list_of<C: Collection>(
    call: &Call,
    objects: Vec<std::sync::Arc<C::Kind>>,
) -> Result<Response, ApiError> {
    call.list(C::PLURAL, C::FILTERS, objects.iter().map(|o| full::<C>(call, o)).collect())
}
