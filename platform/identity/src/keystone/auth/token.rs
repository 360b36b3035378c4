//! A token as clients see it.

use gantry_identity_api::Named;
use serde_json::{Value, json};

use crate::directory::State;
use crate::directory::assignments::Target;
use crate::directory::table::Entry;
use crate::keystone::application_credentials::access_rules;
use crate::keystone::assignments::project_brief;
use crate::keystone::schema::Json;
use crate::keystone::users::{brief, domain_brief};
use crate::keystone::{call, catalog, federation, timestamps};
use crate::session::Session;

/// What [`crate::providers`] call a directory.
const LDAP: &str = "ldap";

/// The member `token` of an answer.
pub(crate) fn body(state: &State, session: &Session, with_catalog: bool) -> Json {
    let claims = &session.claims;
    let expires = session.user.status.as_ref().and_then(|s| s.password_expires_at.as_ref());
    let mut user = brief(state, &session.user);
    user["password_expires_at"] = json!(expires.map(|at| timestamps::plain(at.0)));
    // Who signs in with a password of a directory is a user like others to Keystone's clients.
    if let Some(federation) = claims.federation.as_ref().filter(|f| f.protocol != LDAP) {
        let groups: Vec<Value> = federation.groups.iter().map(|id| json!({ "id": id })).collect();
        user["OS-FEDERATION"] = json!({
            "identity_provider": { "id": federation.provider },
            "protocol": { "id": federation.protocol },
            "groups": groups,
        });
    }
    let mut all = call::object(json!({
        "methods": claims.methods,
        "user": user,
        "audit_ids": claims.audit_ids(),
        "expires_at": timestamps::zulu(claims.expires_at),
        "issued_at": timestamps::zulu(claims.issued_at),
    }));
    let Some(scope) = &session.scope else { return all };
    match scope {
        Target::System => drop(all.insert("system".to_owned(), json!({ "all": true }))),
        Target::Domain(id) => drop(all.insert("domain".to_owned(), domain_brief(state, id))),
        Target::Project(id) => {
            all.insert("project".to_owned(), project_brief(state, id));
            all.insert("is_domain".to_owned(), json!(false));
        }
    }
    let roles = session.roles.iter().map(|role| json!({ "id": role.id(), "name": role.display_name() }));
    all.insert("roles".to_owned(), roles.collect());
    delegation(state, session, &mut all);
    if with_catalog {
        all.insert("catalog".to_owned(), of_session(state, session));
        let providers = federation::service_providers(state);
        if !providers.is_empty() {
            all.insert("service_providers".to_owned(), Value::Array(providers));
        }
    }
    all
}

/// What the token was made with, where it was not the user's own password.
fn delegation(state: &State, session: &Session, all: &mut Json) {
    let claims = &session.claims;
    let credential = claims.application_credential.as_deref();
    if let Some(credential) = credential.and_then(|id| state.application_credentials.get(id)) {
        let mut shown = json!({
            "id": credential.id(),
            "name": credential.spec.name,
            "restricted": !credential.spec.unrestricted,
        });
        if !credential.spec.access_rules.is_empty() {
            shown["access_rules"] = access_rules(state, credential);
        }
        all.insert("application_credential".to_owned(), shown);
    }
    if let Some(trust) = claims.trust.as_deref().and_then(|id| state.trusts.get(id)) {
        let shown = json!({
            "id": trust.id(),
            "impersonation": trust.spec.impersonation,
            "trustee_user": { "id": trust.spec.trustee },
            "trustor_user": { "id": trust.spec.trustor },
        });
        all.insert("OS-TRUST:trust".to_owned(), shown);
    }
    if let Some(oauth) = &claims.oauth {
        let shown = json!({ "access_token_id": oauth.access_token, "consumer_id": oauth.consumer });
        all.insert("OS-OAUTH1".to_owned(), shown);
    }
}

/// The catalogue of the session's scope.
pub(crate) fn of_session(state: &State, session: &Session) -> Value {
    let project = session.project.as_ref().map(|p| p.id());
    catalog::catalog(state, project.as_deref(), &session.user.id())
}
