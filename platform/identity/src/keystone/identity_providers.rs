//! `/OS-FEDERATION/identity_providers` and their protocols: what Keystone's clients have made and keep here, and beside
//! it the [`IdentityProvider`] objects, by which people do come.
//!
//! Of an object, clients change what Keystone has words for: whether it is enabled, and its description. How it is
//! reached is changed where it is made: with kubectl or `gantry identity-provider`.
//!
//! The protocols of an object are those by which people sign in below its own path ([`super::sources`]): `openid` of an
//! OpenID provider, `keystone` of another Keystone. A directory has none: its people sign in with their passwords, at
//! `/auth/tokens`. They follow from the object's type, and no mapping belongs to them: its `groupMapping` says more.

use std::sync::Arc;

use axum::extract::Path;
use axum::routing::get;
use gantry_identity_api::{IdentityProvider, ProviderType};
use http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Body, Call, done, object, shown, text};
use super::errors::ApiError;
use super::federation::{IDENTITY_PROVIDERS, PROTOCOLS, PROVIDERS, linked_protocol, linked_provider};
use super::records::{Scope, all};
use super::routes::Routes;
use super::schema::Json;
use super::typed::store_change;
use crate::admission::rules_provider;
use crate::directory::table::Entry;
use crate::policy::{Act, Authority, Subject};

/// What clients may change of an object.
const CHANGEABLE: [&str; 2] = ["enabled", "description"];

/// The routes.
pub(super) fn routes() -> Routes {
    let protocols = |path: &str| format!("{}/{{identity_provider}}/protocols{path}", IDENTITY_PROVIDERS.path);
    Routes::new()
        .route(IDENTITY_PROVIDERS.path, get(list))
        .route(
            &format!("{}/{{identity_provider}}", IDENTITY_PROVIDERS.path),
            get(show).put(create).patch(update).delete(delete),
        )
        .route(&protocols(""), get(list_protocols))
        .route(
            &protocols("/{protocol}"),
            get(show_protocol).put(create_protocol).patch(update_protocol).delete(delete_protocol),
        )
}

/// The object with this id.
fn own(call: &Call, id: &str) -> Option<Arc<IdentityProvider>> {
    call.state().providers.get(id).cloned()
}

fn subject(provider: &IdentityProvider) -> Subject<'_> {
    Subject::Provider { domain: &provider.spec.domain }
}

/// An object in Keystone's words.
fn full(call: &Call, provider: &IdentityProvider, listed: bool) -> Json {
    let (id, spec) = (provider.id(), &provider.spec);
    let issuer = text(&spec.config, "issuer").filter(|_| spec.provider_type == ProviderType::Oidc);
    let description = Some(&spec.description).filter(|text| !text.is_empty());
    let mut all = object(json!({
        "id": id,
        "enabled": spec.enabled,
        "description": description,
        "domain_id": spec.domain,
        "remote_ids": issuer.into_iter().collect::<Vec<_>>(),
        // Its people are in its groups as long as it says so, not for a time.
        "authorization_ttl": null,
    }));
    all.insert("links".to_owned(), linked_provider(call, &id, listed));
    all
}

async fn list(call: Call) -> Answer {
    let items = {
        let state = call.state();
        if !call.may_list(&state) {
            return Err(ApiError::forbidden("list_identity_providers"));
        }
        let seen = state.providers.iter().filter(|p| call.may(&state, Act::Read, &subject(p)));
        let mut items: Vec<Json> = seen.map(|p| full(&call, p, true)).collect();
        // Of no domain, whatever they say: they are the platform's.
        if call.sees_all(&state) {
            items.extend(all(&state, PROVIDERS, None).map(|r| IDENTITY_PROVIDERS.full(&call, r, true)));
        }
        items
    };
    call.list(PROVIDERS, IDENTITY_PROVIDERS.filters, items)
}

async fn show(call: Call, Path(id): Path<String>) -> Answer {
    let Some(found) = own(&call, &id) else {
        return IDENTITY_PROVIDERS.get(&call, &Scope { parent: None, id: &id });
    };
    call.require(&call.state(), Act::Read, &subject(&found), "get_identity_provider")?;
    Ok(shown(StatusCode::OK, IDENTITY_PROVIDERS.new.member, full(&call, &found, false)))
}

/// Always a record: a place that people come from needs more than Keystone has words for.
async fn create(call: Call, Path(id): Path<String>, body: Body) -> Answer {
    IDENTITY_PROVIDERS.create(&call, None, Some(&id), body).await
}

async fn update(call: Call, Path(id): Path<String>, body: Body) -> Answer {
    const ACTION: &str = "update_identity_provider";
    let Some(found) = own(&call, &id) else {
        return IDENTITY_PROVIDERS.update(&call, Scope { parent: None, id: &id }, body).await;
    };
    call.require(&call.state(), Act::Update, &subject(&found), ACTION)?;
    let mut body = body.change(&IDENTITY_PROVIDERS.change)?;
    if body.get("remote_ids") == Some(&Value::Null) {
        body.insert("remote_ids".to_owned(), json!([]));
    }
    unchangeable(&full(&call, &found, false), &body)?;
    let change = |state: &_, provider: &mut IdentityProvider| {
        take(provider, &body);
        // As admission asks it of who writes the object.
        call.within_rights(state, |state, who: &Authority| rules_provider(state, who, provider), ACTION)
    };
    let changed = store_change(&call, &id, change).await?;
    Ok(shown(StatusCode::OK, IDENTITY_PROVIDERS.change.member, full(&call, &changed, false)))
}

/// Refuses what would change more than clients can.
fn unchangeable(shown: &Json, body: &Json) -> Result<(), ApiError> {
    let other = |(name, value): &(&String, &Value)| {
        !CHANGEABLE.contains(&name.as_str()) && name.as_str() != "links" && shown.get(*name) != Some(*value)
    };
    match body.iter().find(other).map(|(name, _)| name.as_str()) {
        None => Ok(()),
        Some("domain_id") => Err(ApiError::invalid("Cannot change Domain ID")),
        Some(name) => Err(ApiError::invalid(format!(
            "Cannot change {name} of this identity provider: it follows from how the provider is reached, which \
             `gantry identity-provider set` changes"
        ))),
    }
}

fn take(provider: &mut IdentityProvider, body: &Json) {
    if let Some(enabled) = body.get("enabled").and_then(Value::as_bool) {
        provider.spec.enabled = enabled;
    }
    if let Some(description) = body.get("description") {
        provider.spec.description = description.as_str().unwrap_or_default().to_owned();
    }
}

async fn delete(call: Call, Path(id): Path<String>) -> Answer {
    let Some(found) = own(&call, &id) else {
        return IDENTITY_PROVIDERS.delete(&call, Scope { parent: None, id: &id }).await;
    };
    call.require(&call.state(), Act::Delete, &subject(&found), "delete_identity_provider")?;
    call.core.objects.delete::<IdentityProvider>(&id).await?;
    done()
}

/// The protocol of the object's type, in Keystone's words.
fn protocol(call: &Call, provider: &IdentityProvider) -> Option<Json> {
    let id = match provider.spec.provider_type {
        ProviderType::Oidc => "openid",
        ProviderType::Keystone => "keystone",
        ProviderType::Ldap => return None,
    };
    let mut all = object(json!({ "id": id, "mapping_id": null, "remote_id_attribute": null }));
    all.insert("links".to_owned(), linked_protocol(call, &provider.id(), id));
    Some(all)
}

async fn list_protocols(call: Call, Path(provider): Path<String>) -> Answer {
    let Some(found) = own(&call, &provider) else { return PROTOCOLS.list(&call, Some(&provider)) };
    call.require(&call.state(), Act::Read, &subject(&found), "list_protocols")?;
    call.list(PROTOCOLS.plural, PROTOCOLS.filters, protocol(&call, &found).into_iter().collect())
}

async fn show_protocol(call: Call, Path((provider, id)): Path<(String, String)>) -> Answer {
    let scope = Scope { parent: Some(&provider), id: &id };
    let Some(found) = own(&call, &provider) else { return PROTOCOLS.get(&call, &scope) };
    call.require(&call.state(), Act::Read, &subject(&found), "get_protocol")?;
    let own = protocol(&call, &found).filter(|own| text(own, "id") == Some(&id));
    let own = own.ok_or_else(|| (PROTOCOLS.not_found)(PROTOCOLS.word, &scope))?;
    Ok(shown(StatusCode::OK, PROTOCOLS.new.member, own))
}

async fn create_protocol(call: Call, Path((provider, id)): Path<(String, String)>, body: Body) -> Answer {
    has_its_own(&call, &provider, "create_protocol")?;
    PROTOCOLS.create(&call, Some(&provider), Some(&id), body).await
}

async fn update_protocol(call: Call, Path((provider, id)): Path<(String, String)>, body: Body) -> Answer {
    has_its_own(&call, &provider, "update_protocol")?;
    PROTOCOLS.update(&call, Scope { parent: Some(&provider), id: &id }, body).await
}

async fn delete_protocol(call: Call, Path((provider, id)): Path<(String, String)>) -> Answer {
    has_its_own(&call, &provider, "delete_protocol")?;
    PROTOCOLS.delete(&call, Scope { parent: Some(&provider), id: &id }).await
}

/// Nobody gives an object other protocols than it has.
fn has_its_own(call: &Call, provider: &str, action: &str) -> Result<(), ApiError> {
    let Some(found) = own(call, provider) else { return Ok(()) };
    call.require(&call.state(), Act::Update, &subject(&found), action)?;
    Err(ApiError::refused(format!(
        "The protocols of identity provider {provider} follow from its type and cannot be changed."
    )))
}

#[cfg(test)]
mod tests {
    use gantry_identity_api::{IdentityProviderSpec, UserSpec};

    use super::*;
    use crate::directory::tests::put;
    use crate::keystone::tests::{Platform, Said};
    use crate::tenancy::tests::organisations;
    use crate::token::TokenScope;

    const ALL: &str = "/OS-FEDERATION/identity_providers";

    fn provider(id: &str, kind: ProviderType, domain: &str, config: Value) -> IdentityProvider {
        let spec = IdentityProviderSpec {
            provider_type: kind,
            domain: domain.to_owned(),
            enabled: true,
            config: object(config),
            ..IdentityProviderSpec::default()
        };
        IdentityProvider::new(id, spec)
    }

    /// One provider of each type, and what clients have made; alice is of the platform, bob of acme, eve of globex.
    fn platform(more: &[&str]) -> Platform {
        let roles = ["admin alice system", "admin bob domain:acme", "reader eve domain:globex"];
        let mut state = organisations(&[&roles[..], more].concat());
        let issuer = json!({ "issuer": "https://id.example.org", "clientId": "gantry" });
        let mut oidc = provider("corporate", ProviderType::Oidc, "acme", issuer);
        oidc.spec.name = Some("Corporate sign-in".to_owned());
        put(&mut state, oidc);
        put(&mut state, provider("directory", ProviderType::Ldap, "acme", json!({})));
        put(&mut state, provider("other", ProviderType::Keystone, "globex", json!({})));
        let attributes = json!({ "enabled": true, "domain_id": "acme", "remote_ids": ["https://idp.test"] });
        put(&mut state, super::super::new_record(PROVIDERS, None, "idp", object(attributes)));
        Platform::of(state)
    }

    fn tokens(platform: &Platform) -> [String; 3] {
        let of = |domain: &str| TokenScope::Domain(domain.to_owned());
        [("alice", TokenScope::System), ("bob", of("acme")), ("eve", of("globex"))]
            .map(|(user, scope)| platform.token(user, scope))
    }

    fn ids(said: &Said, plural: &str) -> Vec<String> {
        let items = said.body[plural].as_array().unwrap_or_else(|| panic!("{said:?}"));
        items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect()
    }

    #[tokio::test]
    async fn everybody_sees_the_providers_that_kubectl_shows_them() {
        let platform = platform(&[]);
        let [alice, bob, eve] = tokens(&platform);
        for (who, query, want) in [
            (&alice, "", vec!["corporate", "directory", "idp", "other"]),
            (&alice, "?id=directory", vec!["directory"]),
            (&alice, "?enabled=false", vec![]),
            (&bob, "", vec!["corporate", "directory"]),
            (&eve, "", vec!["other"]),
        ] {
            let said = platform.call(who, &format!("GET {ALL}{query}"), Value::Null).await;
            let mut seen = ids(&said, PROVIDERS);
            seen.sort();
            assert_eq!(seen, want, "{query}: {said:?}");
        }
        for (who, id, status) in [
            (&bob, "corporate", 200),
            (&bob, "other", 403),
            (&bob, "idp", 403),
            (&bob, "nonesuch", 403),
            (&eve, "other", 200),
            (&alice, "other", 200),
            (&alice, "nonesuch", 404),
            // Its name is for people who sign in.
            (&alice, "Corporate%20sign-in", 404),
        ] {
            let said = platform.call(who, &format!("GET {ALL}/{id}"), Value::Null).await;
            assert_eq!(said.status, status, "{id}: {said:?}");
        }
    }

    #[tokio::test]
    async fn an_object_is_shown_in_keystones_words() {
        let platform = platform(&[]);
        let [alice, ..] = tokens(&platform);
        for (id, domain, remote, protocols) in [
            ("corporate", "acme", json!(["https://id.example.org"]), vec!["openid"]),
            ("directory", "acme", json!([]), vec![]),
            ("other", "globex", json!([]), vec!["keystone"]),
        ] {
            let said = platform.call(&alice, &format!("GET {ALL}/{id}"), Value::Null).await;
            let own = format!("https://localhost/identity/v3{ALL}/{id}");
            let want = json!({
                "id": id, "enabled": true, "description": null, "domain_id": domain, "remote_ids": remote,
                "authorization_ttl": null, "links": { "self": own },
            });
            assert_eq!(said.body["identity_provider"], want, "{id}");
            let said = platform.call(&alice, &format!("GET {ALL}/{id}/protocols"), Value::Null).await;
            assert_eq!(ids(&said, "protocols"), protocols, "{id}");
            for (protocol, status) in [("openid", protocols.contains(&"openid")), ("saml2", false)] {
                let what = format!("GET {ALL}/{id}/protocols/{protocol}");
                let said = platform.call(&alice, &what, Value::Null).await;
                assert_eq!(said.status, if status { 200 } else { 404 }, "{what}: {said:?}");
            }
        }
    }

    #[tokio::test]
    async fn clients_switch_an_object_and_describe_it_and_change_nothing_else() {
        let platform = platform(&[]);
        let [alice, bob, eve] = tokens(&platform);
        for (who, id, change, status) in [
            (&bob, "directory", json!({ "enabled": false }), 200),
            (&bob, "directory", json!({ "enabled": true, "description": "People" }), 200),
            (&bob, "directory", json!({ "description": null }), 200),
            (&bob, "other", json!({ "enabled": false }), 403),
            (&eve, "other", json!({ "enabled": false }), 403),
            (&alice, "corporate", json!({ "remote_ids": ["https://elsewhere.test"] }), 400),
            (&alice, "corporate", json!({ "remote_ids": ["https://id.example.org"] }), 200),
            (&alice, "directory", json!({ "remote_ids": null }), 200),
            (&alice, "directory", json!({ "authorization_ttl": 60 }), 400),
            (&alice, "directory", json!({ "domain_id": "globex" }), 400),
            (&alice, "directory", json!({ "enabled": "bogus" }), 400),
        ] {
            let body = json!({ "identity_provider": change });
            let said = platform.call(who, &format!("PATCH {ALL}/{id}"), body).await;
            assert_eq!(said.status, status, "{id} {change}: {said:?}");
            if let (200, Some(enabled)) = (status, change.get("enabled")) {
                assert_eq!(&said.body["identity_provider"]["enabled"], enabled, "{said:?}");
                let state = platform.core.directory.read();
                assert_eq!(state.providers.get(id).map(|p| json!(p.spec.enabled)).as_ref(), Some(enabled));
            }
        }
    }

    #[tokio::test]
    async fn who_does_not_rule_its_people_changes_no_provider() {
        let mut state = organisations(&["admin alice system", "admin bob domain:acme", "admin carl system"]);
        let spec = UserSpec {
            domain: "acme".to_owned(),
            enabled: true,
            provider: Some("directory".to_owned()),
            ..UserSpec::default()
        };
        put(&mut state, gantry_identity_api::User::new("carl", spec));
        put(&mut state, provider("directory", ProviderType::Ldap, "acme", json!({})));
        let platform = Platform::of(state);
        let [alice, bob] = [
            platform.token("alice", TokenScope::System),
            platform.token("bob", TokenScope::Domain("acme".to_owned())),
        ];
        let body = || json!({ "identity_provider": { "enabled": false } });
        let what = format!("PATCH {ALL}/directory");
        let said = platform.call(&bob, &what, body()).await;
        assert_eq!(said.status, 403, "{said:?}");
        assert!(said.message().contains("not yours to give"), "{said:?}");
        assert_eq!(platform.call(&alice, &what, body()).await.status, 200);
    }

    #[tokio::test]
    async fn objects_go_for_whom_they_are_and_names_are_given_once() {
        let platform = platform(&[]);
        let [alice, bob, _] = tokens(&platform);
        let new = || json!({ "identity_provider": { "enabled": true } });
        for (who, what, body, status) in [
            (&alice, format!("PUT {ALL}/directory"), new(), 409),
            (&alice, format!("PUT {ALL}/Corporate%20sign-in"), new(), 409),
            (&alice, format!("PUT {ALL}/idp"), new(), 409),
            (&bob, format!("PUT {ALL}/directory"), new(), 403),
            (&alice, format!("PUT {ALL}/corporate/protocols/saml2"), protocol_body(), 403),
            (&alice, format!("PATCH {ALL}/corporate/protocols/openid"), protocol_body(), 403),
            (&alice, format!("DELETE {ALL}/corporate/protocols/openid"), Value::Null, 403),
            (&bob, format!("DELETE {ALL}/other"), Value::Null, 403),
            (&bob, format!("DELETE {ALL}/idp"), Value::Null, 403),
            (&bob, format!("DELETE {ALL}/directory"), Value::Null, 204),
            (&bob, format!("DELETE {ALL}/directory"), Value::Null, 403),
            (&alice, format!("DELETE {ALL}/idp"), Value::Null, 204),
            (&alice, format!("DELETE {ALL}/idp"), Value::Null, 404),
            // Free again.
            (&alice, format!("PUT {ALL}/directory"), new(), 201),
        ] {
            let said = platform.call(who, &what, body).await;
            assert_eq!(said.status, status, "{what}: {said:?}");
        }
    }

    fn protocol_body() -> Value {
        json!({ "protocol": { "mapping_id": "m" } })
    }
}
