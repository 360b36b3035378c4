//! Collections that Gantry only keeps: one description each, the same handlers for all.

use std::sync::Arc;

use super::routes::Routes;
use axum::extract::Path;
use axum::routing::{get, patch, put};
use gantry_identity_api::{KeystoneRecord, KeystoneRecordSpec};
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::call::{Answer, Body, Call, done, fresh_id, shown, text};
use super::errors::ApiError;
use super::schema::{Json, Shape};
use super::typed::store_change;
use crate::directory::State;
use crate::hanging;
use crate::policy::{Act, Subject};

/// Checks attributes against other objects: the new attributes, and the record that is there already.
pub(crate) type Check = fn(&State, &Scope<'_>, &mut Json, Option<&KeystoneRecord>) -> Result<(), ApiError>;

/// Who gives an object its id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// We do, at `POST`.
    Ours,
    /// The client may, in the body of a `POST` or with a `PUT`.
    ClientMay,
    /// The client does, with a `PUT`.
    Client,
}

/// Who may look; to change takes an administrator of the system, where the collection says nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    Everybody,
    Administrators,
}

/// What a collection is.
pub(crate) struct Records {
    /// As in [`KeystoneRecordSpec::collection`], and the member of lists: `regions`.
    pub(crate) plural: &'static str,
    /// What messages call one: `region`, `Endpoint Group`.
    pub(crate) word: &'static str,
    /// Keystone's word in the names of actions: `region`.
    pub(crate) action: &'static str,
    /// Below `/v3`, with the parent's parameter: `/regions`.
    pub(crate) path: &'static str,
    pub(crate) naming: Naming,
    pub(crate) new: Shape,
    pub(crate) change: Shape,
    /// Attributes a new object has where the client says nothing.
    pub(crate) defaults: fn() -> Value,
    pub(crate) filters: &'static [&'static str],
    pub(crate) readers: Readers,
    pub(crate) check: Check,
    /// Why the record cannot go.
    pub(crate) keeps: fn(&State, &KeystoneRecord) -> Option<ApiError>,
    /// What a new record brings with it.
    pub(crate) brings: fn(&State, &Json) -> Vec<KeystoneRecord>,
    /// Names of the records that go with it.
    pub(crate) takes: fn(&State, &KeystoneRecord) -> Vec<String>,
    pub(crate) not_found: fn(word: &str, scope: &Scope<'_>) -> ApiError,
    pub(crate) conflict: fn(id: &str) -> String,
    /// Changes what is shown: further links, attributes that are computed.
    pub(crate) shown: fn(&Call, &KeystoneRecord, &mut Json, listed: bool),
}

/// Where a record is or would be.
pub(crate) struct Scope<'a> {
    pub(crate) parent: Option<&'a str>,
    pub(crate) id: &'a str,
}

/// The usual: nothing depends on anything.
pub(crate) fn unchecked(
    _: &State,
    _: &Scope<'_>,
    _: &mut Json,
    _: Option<&KeystoneRecord>,
) -> Result<(), ApiError> {
    Ok(())
}

/// The usual: anything may go.
pub(crate) fn kept_by_nothing(_: &State, _: &KeystoneRecord) -> Option<ApiError> {
    None
}

/// The usual: itself alone.
pub(crate) fn brings_nothing(_: &State, _: &Json) -> Vec<KeystoneRecord> {
    Vec::new()
}

/// The usual: itself alone.
pub(crate) fn takes_nothing(_: &State, _: &KeystoneRecord) -> Vec<String> {
    Vec::new()
}

/// The usual `Could not find …`.
pub(crate) fn not_found(word: &str, scope: &Scope<'_>) -> ApiError {
    ApiError::not_found(word, scope.id)
}

/// The usual `Duplicate ID`.
pub(crate) fn duplicate(id: &str) -> String {
    format!("Duplicate ID, {id}.")
}

/// The usual: as it is.
pub(crate) fn as_is(_: &Call, _: &KeystoneRecord, _: &mut Json, _: bool) {}

/// The usual: nothing.
pub(crate) fn no_defaults() -> Value {
    json!({})
}

/// `metadata.name` of a record: clients choose ids that are no Kubernetes names.
pub(crate) fn object_name(collection: &str, parent: Option<&str>, id: &str) -> String {
    let mut hash = Sha256::new();
    for part in [collection, parent.unwrap_or_default(), id] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..16])
}

/// A record of a collection.
pub(crate) fn find<'a>(
    state: &'a State,
    collection: &str,
    parent: Option<&str>,
    id: &str,
) -> Option<&'a Arc<KeystoneRecord>> {
    let found = state.records.get(&object_name(collection, parent, id))?;
    (found.spec.collection == collection && found.spec.parent.as_deref() == parent && found.spec.id == id)
        .then_some(found)
}

/// The records of a collection, of one parent where it is given.
pub(crate) fn all<'a>(
    state: &'a State,
    collection: &'a str,
    parent: Option<&'a str>,
) -> impl Iterator<Item = &'a Arc<KeystoneRecord>> {
    let of = state.records.iter().filter(move |r| r.spec.collection == collection);
    of.filter(move |r| parent.is_none() || r.spec.parent.as_deref() == parent)
}

/// A new record's object.
pub(crate) fn new_object(
    collection: &str,
    parent: Option<&str>,
    id: &str,
    attributes: Json,
) -> KeystoneRecord {
    let spec = KeystoneRecordSpec {
        collection: collection.to_owned(),
        parent: parent.map(str::to_owned),
        id: id.to_owned(),
        attributes,
    };
    KeystoneRecord::new(&object_name(collection, parent, id), spec)
}

impl Records {
    /// The path of the record below `/v3`.
    fn path_of(&self, record: &KeystoneRecord) -> String {
        let path = self.path.trim_start_matches('/');
        let path = match (&record.spec.parent, path.find('{'), path.find('}')) {
            (Some(parent), Some(from), Some(to)) => format!("{}{parent}{}", &path[..from], &path[to + 1..]),
            _ => path.to_owned(),
        };
        format!("{path}/{}", record.spec.id)
    }

    /// The attributes with id and links.
    pub(crate) fn full(&self, call: &Call, record: &KeystoneRecord, listed: bool) -> Json {
        let mut all = record.spec.attributes.clone();
        all.insert("id".to_owned(), json!(record.spec.id));
        all.insert("links".to_owned(), json!({ "self": call.url(&self.path_of(record)) }));
        (self.shown)(call, record, &mut all, listed);
        all
    }

    pub(crate) fn require(&self, call: &Call, state: &State, act: Act, action: &str) -> Result<(), ApiError> {
        let open = act == Act::Read && self.readers == Readers::Everybody;
        let subject = if open { Subject::Platform } else { Subject::Private };
        call.require(state, act, &subject, action)
    }

    pub(crate) fn list(&self, call: &Call, parent: Option<&str>) -> Answer {
        let items = {
            let state = call.state();
            self.require(call, &state, Act::Read, &format!("list_{}", self.plural))?;
            all(&state, self.plural, parent).map(|r| self.full(call, r, true)).collect()
        };
        call.list(self.plural, self.filters, items)
    }

    pub(crate) fn get(&self, call: &Call, scope: &Scope<'_>) -> Answer {
        let state = call.state();
        self.require(call, &state, Act::Read, &format!("get_{}", self.action))?;
        let found = find(&state, self.plural, scope.parent, scope.id);
        let found = found.ok_or_else(|| (self.not_found)(self.word, scope))?;
        Ok(shown(StatusCode::OK, self.new.member, self.full(call, found, false)))
    }

    pub(crate) async fn create(
        &self,
        call: &Call,
        parent: Option<&str>,
        id: Option<&str>,
        body: Body,
    ) -> Answer {
        {
            self.require(call, &call.state(), Act::Create, &format!("create_{}", self.action))?;
        }
        let mut body = body.new_object(&self.new)?;
        let own = (self.naming != Naming::Ours).then(|| text(&body, "id").map(str::to_owned)).flatten();
        let id = match (id, own) {
            (Some(id), Some(own)) if own != id => {
                let message = format!("Conflicting {} IDs specified: \"{id}\" != \"{own}\"", self.action);
                return Err(ApiError::invalid(message));
            }
            (Some(id), _) => id.to_owned(),
            (None, Some(own)) if !own.is_empty() => own,
            (None, _) => fresh_id(),
        };
        let made = self.store(call, parent, &id, &mut body).await?;
        Ok(shown(StatusCode::CREATED, self.new.member, self.full(call, &made, false)))
    }

    /// Stores a checked new object.
    pub(crate) async fn store(
        &self,
        call: &Call,
        parent: Option<&str>,
        id: &str,
        body: &mut Json,
    ) -> Result<KeystoneRecord, ApiError> {
        let conflict = || ApiError::conflict(self.action, &(self.conflict)(id));
        let (object, brought) = {
            let state = call.state();
            if let Value::Object(defaults) = (self.defaults)() {
                for (name, value) in defaults {
                    body.entry(name).or_insert(value);
                }
            }
            if find(&state, self.plural, parent, id).is_some() {
                return Err(conflict());
            }
            (self.check)(&state, &Scope { parent, id }, body, None)?;
            body.remove("id");
            body.remove("links");
            (new_object(self.plural, parent, id, body.clone()), (self.brings)(&state, body))
        };
        for record in &brought {
            match call.core.objects.create(record).await {
                Ok(_) | Err(crate::errors::IdentityError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match call.core.objects.create(&object).await {
            Ok(made) => Ok(made),
            Err(crate::errors::IdentityError::Conflict(_)) => Err(conflict()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn update(&self, call: &Call, scope: Scope<'_>, body: Body) -> Answer {
        {
            let state = call.state();
            self.require(call, &state, Act::Update, &format!("update_{}", self.action))?;
            let found = find(&state, self.plural, scope.parent, scope.id);
            found.ok_or_else(|| (self.not_found)(self.word, &scope))?;
        }
        let body = body.change(&self.change)?;
        if text(&body, "id").is_some_and(|id| id != scope.id) {
            return Err(ApiError::invalid(format!("Cannot change {} ID", self.action)));
        }
        let name = object_name(self.plural, scope.parent, scope.id);
        let change = |state: &State, record: &mut KeystoneRecord| {
            let mut body = body.clone();
            (self.check)(state, &scope, &mut body, Some(record))?;
            body.remove("id");
            body.remove("links");
            record.spec.attributes.extend(body);
            Ok(())
        };
        let changed = store_change(call, &name, change).await?;
        Ok(shown(StatusCode::OK, self.change.member, self.full(call, &changed, false)))
    }

    pub(crate) async fn delete(&self, call: &Call, scope: Scope<'_>) -> Answer {
        let taken = {
            let state = call.state();
            self.require(call, &state, Act::Delete, &format!("delete_{}", self.action))?;
            let found = find(&state, self.plural, scope.parent, scope.id);
            let found = found.ok_or_else(|| (self.not_found)(self.word, &scope))?;
            if let Some(why) = (self.keeps)(&state, found) {
                return Err(why);
            }
            let taken = (self.takes)(&state, found);
            taken.iter().filter_map(|name| state.records.get(name)).map(|r| hanging::record(r)).collect()
        };
        super::cascade::act(call, taken).await?;
        let name = object_name(self.plural, scope.parent, scope.id);
        call.core.objects.delete::<KeystoneRecord>(&name).await?;
        done()
    }

    /// The collection's routes.
    pub(crate) fn routes(&'static self) -> Routes {
        let parent = |path: &[String], depth: usize| (path.len() > depth).then(|| path[0].clone());
        let lists = get(move |call: Call, Path(path): Path<Vec<String>>| async move {
            self.list(&call, parent(&path, 0).as_deref())
        });
        let lists = match self.naming {
            Naming::Client => lists,
            Naming::Ours | Naming::ClientMay => {
                lists.post(move |call: Call, Path(path): Path<Vec<String>>, body: Body| async move {
                    self.create(&call, parent(&path, 0).as_deref(), None, body).await
                })
            }
        };
        let one = get(move |call: Call, Path(path): Path<Vec<String>>| async move {
            let parent = parent(&path, 1);
            self.get(&call, &scope(&parent, &path))
        });
        let one = one.merge(patch(move |call: Call, Path(path): Path<Vec<String>>, body: Body| async move {
            let parent = parent(&path, 1);
            self.update(&call, scope(&parent, &path), body).await
        }));
        let one = one.delete(move |call: Call, Path(path): Path<Vec<String>>| async move {
            let parent = parent(&path, 1);
            self.delete(&call, scope(&parent, &path)).await
        });
        let one = match self.naming {
            Naming::Ours => one,
            Naming::Client | Naming::ClientMay => {
                one.merge(put(move |call: Call, Path(path): Path<Vec<String>>, body: Body| async move {
                    let parent = parent(&path, 1);
                    self.create(&call, parent.as_deref(), path.last().map(String::as_str), body).await
                }))
            }
        };
        let item = format!("{}/{{{}}}", self.path, self.action);
        Routes::new().route(self.path, lists).route(&item, one)
    }
}

fn scope<'a>(parent: &'a Option<String>, path: &'a [String]) -> Scope<'a> {
    Scope { parent: parent.as_deref(), id: path.last().map(String::as_str).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_records_differ_where_records_differ() {
        let names = [
            object_name("regions", None, "RegionOne"),
            object_name("regions", None, "RegionTwo"),
            object_name("services", None, "RegionOne"),
            object_name("regions", Some("RegionOne"), ""),
            object_name("regionsR", None, "egionOne"),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(super::super::schema::is_uuid(name));
            assert!(!names[..at].contains(name), "{at}");
        }
    }
}
