//! `/OS-FEDERATION`: identity providers, mappings, protocols and service providers, kept for Keystone's clients.

use super::routes::Routes;
use axum::routing::get;
use gantry_identity_api::KeystoneRecord;
use serde_json::{Value, json};

use super::call::{Call, fresh_id, text};
use super::errors::ApiError;
use super::mapping;
use super::records::{
    Naming, Readers, Records, Scope, all, as_is, brings_nothing, duplicate, find, kept_by_nothing,
    no_defaults, not_found, object_name, takes_nothing, unchecked,
};
use super::schema::{Form, Json, Shape, may, must, null};
use crate::directory::State;

pub(crate) const PROVIDERS: &str = "identity_providers";
/// The provider stands where others have the parent.
pub(super) const PROTOCOL_RECORDS: &str = "protocols";
/// The ids by which a provider is known to its users' browsers, each of one provider only.
const REMOTE_IDS: &str = "remote_ids";

const PROVIDER: Shape = Shape::closed(
    "identity_provider",
    &[
        may("enabled", Form::Boolean),
        null("description", Form::Text),
        null(REMOTE_IDS, Form::Array),
        null("domain_id", Form::Text),
        null("authorization_ttl", Form::Integer(0)),
    ],
);

pub(super) static IDENTITY_PROVIDERS: Records = Records {
    plural: PROVIDERS,
    word: "Identity Provider",
    action: "identity_provider",
    path: "/OS-FEDERATION/identity_providers",
    naming: Naming::Client,
    new: PROVIDER,
    change: PROVIDER,
    defaults: || {
        json!({
            "enabled": false, "description": null, "remote_ids": [], "domain_id": null, "authorization_ttl": null,
        })
    },
    filters: &["id", "enabled"],
    readers: Readers::Administrators,
    check: check_provider,
    keeps: kept_by_nothing,
    brings: brings_nothing,
    takes: protocols_of,
    not_found,
    conflict: |_| "Duplicate entry: None".to_owned(),
    shown: |call, record, all, listed| {
        all.insert("links".to_owned(), linked_provider(call, &record.spec.id, listed));
    },
};

/// Where a provider is, and in lists also where its protocols are.
pub(super) fn linked_provider(call: &Call, id: &str, listed: bool) -> Value {
    let own = call.url(&format!("OS-FEDERATION/identity_providers/{id}"));
    if listed {
        json!({ "self": own, "protocols": format!("{own}/protocols") })
    } else {
        json!({ "self": own })
    }
}

/// Where a protocol is, and its provider.
pub(super) fn linked_protocol(call: &Call, provider: &str, id: &str) -> Value {
    let provider = call.url(&format!("OS-FEDERATION/identity_providers/{provider}"));
    json!({ "self": format!("{provider}/protocols/{id}"), "identity_provider": provider })
}

fn check_provider(
    state: &State,
    scope: &Scope<'_>,
    body: &mut Json,
    old: Option<&KeystoneRecord>,
) -> Result<(), ApiError> {
    if old.is_none() && state.provider_called(scope.id).is_some() {
        let detail = format!("Duplicate entry: people come here by an IdentityProvider called {}", scope.id);
        return Err(ApiError::conflict("identity_provider", &detail));
    }
    if body.get(REMOTE_IDS) == Some(&Value::Null) {
        body.insert(REMOTE_IDS.to_owned(), json!([]));
    }
    let ids = |body: &Json| body.get(REMOTE_IDS).and_then(Value::as_array).cloned().unwrap_or_default();
    let wanted = ids(body);
    let others = all(state, PROVIDERS, None).filter(|r| r.spec.id != scope.id);
    let taken: Vec<Value> = others.flat_map(|r| ids(&r.spec.attributes)).collect();
    if let Some(id) = wanted.iter().find(|id| taken.contains(id)) {
        let id = id.as_str().unwrap_or_default();
        return Err(ApiError::conflict("identity_provider", &format!("Duplicate remote ID: {id}")));
    }
    match (text(body, "domain_id"), old) {
        (Some(id), Some(old)) if text(&old.spec.attributes, "domain_id") != Some(id) => {
            Err(ApiError::invalid("Cannot change Domain ID"))
        }
        (Some(id), _) if state.domains.get(id).is_none() => Err(ApiError::not_found("domain", id)),
        (None, None) => {
            // Users of a provider that names no domain belong to one of the provider's own.
            body.insert("domain_id".to_owned(), json!(fresh_id()));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn protocols_of(state: &State, provider: &KeystoneRecord) -> Vec<String> {
    let of = all(state, "protocols", Some(&provider.spec.id));
    of.map(|p| object_name("protocols", Some(&provider.spec.id), &p.spec.id)).collect()
}

const MAPPING: Shape = Shape::open("mapping", &[]);

static MAPPINGS: Records = Records {
    plural: "mappings",
    word: "mapping",
    action: "mapping",
    path: "/OS-FEDERATION/mappings",
    naming: Naming::Client,
    new: MAPPING,
    change: MAPPING,
    defaults: || json!({ "schema_version": "1.0" }),
    filters: &["id"],
    readers: Readers::Administrators,
    check: |_, _, body, _| mapping::check(body),
    keeps: kept_by_nothing,
    brings: brings_nothing,
    takes: takes_nothing,
    not_found,
    conflict: |_| "Duplicate entry".to_owned(),
    shown: as_is,
};

const PROTOCOL: &[super::schema::Field] =
    &[must("mapping_id", Form::Text), null("remote_id_attribute", Form::Text)];

pub(super) static PROTOCOLS: Records = Records {
    plural: PROTOCOL_RECORDS,
    word: "federated protocol",
    action: "protocol",
    path: "/OS-FEDERATION/identity_providers/{identity_provider}/protocols",
    naming: Naming::Client,
    new: Shape::open("protocol", PROTOCOL),
    change: Shape::open("protocol", PROTOCOL),
    defaults: no_defaults,
    filters: &["id", "mapping_id"],
    readers: Readers::Administrators,
    check: check_protocol,
    keeps: kept_by_nothing,
    brings: brings_nothing,
    takes: takes_nothing,
    not_found: |word, scope| {
        let provider = scope.parent.unwrap_or_default();
        ApiError::gone(format!("Could not find {word} {} for Identity Provider: {provider}.", scope.id))
    },
    conflict: duplicate,
    shown: |call, record, all, _| {
        let provider = record.spec.parent.as_deref().unwrap_or_default();
        all.insert("links".to_owned(), linked_protocol(call, provider, &record.spec.id));
    },
};

fn check_protocol(
    state: &State,
    scope: &Scope<'_>,
    body: &mut Json,
    _old: Option<&KeystoneRecord>,
) -> Result<(), ApiError> {
    let provider = scope.parent.unwrap_or_default();
    if find(state, PROVIDERS, None, provider).is_none() {
        return Err(ApiError::not_found(IDENTITY_PROVIDERS.word, provider));
    }
    match text(body, "mapping_id") {
        Some(mapping) if find(state, "mappings", None, mapping).is_none() => {
            Err(ApiError::invalid(format!("Invalid mapping id: {mapping}")))
        }
        _ => Ok(()),
    }
}

const SERVICE_PROVIDER: &[super::schema::Field] = &[
    must("auth_url", Form::Url),
    must("sp_url", Form::Url),
    may("enabled", Form::Boolean),
    null("description", Form::Text),
    null("relay_state_prefix", Form::Text),
];

static SERVICE_PROVIDERS: Records = Records {
    plural: "service_providers",
    word: "Service Provider",
    action: "service_provider",
    path: "/OS-FEDERATION/service_providers",
    naming: Naming::Client,
    new: Shape::closed("service_provider", SERVICE_PROVIDER),
    change: Shape::closed("service_provider", SERVICE_PROVIDER),
    defaults: || json!({ "enabled": false, "description": null, "relay_state_prefix": "ss:mem:" }),
    filters: &["id", "enabled"],
    readers: Readers::Administrators,
    check: unchecked,
    keeps: kept_by_nothing,
    brings: brings_nothing,
    takes: takes_nothing,
    not_found,
    conflict: |id| format!("Duplicate entry found with ID {id}"),
    shown: as_is,
};

/// The enabled service providers, as tokens carry them.
pub(crate) fn service_providers(state: &State) -> Vec<Value> {
    let on = all(state, SERVICE_PROVIDERS.plural, None)
        .filter(|r| r.spec.attributes.get("enabled") == Some(&json!(true)));
    let shown = on.map(|r| {
        let a = &r.spec.attributes;
        json!({ "id": r.spec.id, "auth_url": a.get("auth_url"), "sp_url": a.get("sp_url") })
    });
    shown.collect()
}

/// The routes.
pub(crate) fn routes() -> Routes {
    super::identity_providers::routes()
        .merge(MAPPINGS.routes())
        .merge(SERVICE_PROVIDERS.routes())
        .route("/OS-FEDERATION/projects", get(|call: Call| super::auth::own_projects(call)))
        .route("/OS-FEDERATION/domains", get(|call: Call| super::auth::own_domains(call)))
}

#[cfg(test)]
mod tests {
    use super::super::records::new_object;
    use super::*;
    use crate::directory::tests::{put, two_organisations};

    #[test]
    fn a_remote_id_belongs_to_one_provider_and_a_protocol_to_a_mapping() {
        let mut state = two_organisations();
        let object = |value: Value| super::super::call::object(value);
        let remote = object(json!({ "remote_ids": ["u1"], "domain_id": "acme" }));
        put(&mut state, new_object(PROVIDERS, None, "idp", remote));
        put(&mut state, new_object("mappings", None, "m", Json::new()));
        let provider = |id: &str, body: Value| {
            check_provider(&state, &Scope { parent: None, id }, &mut object(body), None).is_ok()
        };
        assert!(provider("idp2", json!({ "remote_ids": ["u2"] })));
        assert!(provider("idp", json!({ "remote_ids": ["u1"] })));
        assert!(!provider("idp2", json!({ "remote_ids": ["u2", "u1"] })));
        assert!(!provider("idp2", json!({ "domain_id": "nope" })));
        let protocol = |parent: &str, mapping: &str| {
            let scope = Scope { parent: Some(parent), id: "saml2" };
            check_protocol(&state, &scope, &mut object(json!({ "mapping_id": mapping })), None).is_ok()
        };
        assert!(protocol("idp", "m") && !protocol("idp", "n") && !protocol("nope", "m"));
    }
}
