//! `/OS-TRUST/trusts`: a user lets another act with some of their roles.

use std::sync::Arc;

use super::routes::Routes;
use axum::extract::Path;
use axum::routing::get;
use gantry_identity_api::{Role, Trust, TrustSpec, User};
use gantry_kube_types::SecurityEvent;
use http::StatusCode;
use serde_json::{Value, json};

use super::application_credentials::expiry;
use super::call::{Answer, Body, Call, done, fresh_id, object, shown, text};
use super::errors::ApiError;
use super::roles::Roles;
use super::schema::{Field, Form, Json, Shape, may, must, null};
use super::timestamps;
use super::typed::{full as full_role, list_of};
use crate::directory::State;
use crate::directory::assignments::Target;
use crate::directory::resolve;
use crate::directory::table::Entry;
use crate::hanging::Hanging;
use crate::policy::{Act, Authority, Subject};

/// How often a trust can be handed on at most, as Keystone has it by default.
const REDELEGATION_MAX: u32 = 3;
const FIELDS: &[Field] = &[
    must("trustee_user_id", Form::Text),
    must("trustor_user_id", Form::Text),
    must("impersonation", Form::Boolean),
    null("project_id", Form::Text),
    null("remaining_uses", Form::Integer(1)),
    null("expires_at", Form::Text),
    null("allow_redelegation", Form::Boolean),
    null("redelegation_count", Form::Integer(0)),
    may("roles", Form::Array),
];
const NEW: Shape = Shape::open("trust", FIELDS);

/// The routes.
pub(crate) fn routes() -> Routes {
    let trusts = "/OS-TRUST/trusts";
    Routes::new()
        .route(trusts, get(list).post(create))
        .route(&format!("{trusts}/{{trust}}"), get(show).delete(delete))
        .route(&format!("{trusts}/{{trust}}/roles"), get(list_roles))
        .route(&format!("{trusts}/{{trust}}/roles/{{role}}"), get(show_role))
}

fn subject(trust: &Trust) -> Subject<'_> {
    Subject::Trust { trustor: &trust.spec.trustor, trustee: &trust.spec.trustee }
}

fn brief(call: &Call, trust: &Trust) -> Json {
    let (id, spec) = (trust.id(), &trust.spec);
    let uses = trust.status.as_ref().map_or(0, |s| s.uses);
    object(json!({
        "id": id,
        "trustor_user_id": spec.trustor,
        "trustee_user_id": spec.trustee,
        "project_id": spec.project,
        "impersonation": spec.impersonation,
        "expires_at": spec.expires_at.as_ref().map(|at| timestamps::zulu(at.0)),
        "remaining_uses": spec.uses_max.map(|max| max.saturating_sub(uses)),
        "redelegated_trust_id": spec.redelegated_trust,
        "redelegation_count": spec.redelegation_count.unwrap_or(0),
        "deleted_at": null,
        "links": { "self": call.url(&format!("OS-TRUST/trusts/{id}")) },
    }))
}

fn roles(state: &State, trust: &Trust) -> Vec<Arc<Role>> {
    trust.spec.roles.iter().filter_map(|id| state.roles.get(id).cloned()).collect()
}

fn full(call: &Call, state: &State, trust: &Trust) -> Json {
    let mut all = brief(call, trust);
    let roles: Vec<Value> =
        roles(state, trust).iter().map(|role| Value::Object(full_role::<Roles>(call, role))).collect();
    let link = call.url(&format!("OS-TRUST/trusts/{}/roles", trust.id()));
    all.insert("roles".to_owned(), Value::Array(roles));
    all.insert("roles_links".to_owned(), json!({ "self": link, "next": null, "previous": null }));
    all
}

fn found(call: &Call, state: &State, id: &str, act: Act, action: &str) -> Result<Arc<Trust>, ApiError> {
    let expired = |t: &Trust| t.spec.expires_at.as_ref().is_some_and(|at| at.0 <= call.core.now());
    let found =
        state.trusts.get(id).filter(|t| !expired(t)).ok_or_else(|| ApiError::not_found("trust", id))?;
    call.require(state, act, &subject(found), action)?;
    Ok(found.clone())
}

async fn list(call: Call) -> Answer {
    let (trustor, trustee) = (call.query.get("trustor_user_id"), call.query.get("trustee_user_id"));
    let items = {
        let state = call.state();
        let own = [trustor, trustee].contains(&Some(call.user()));
        if !own && !call.sees_all(&state) {
            return Err(ApiError::forbidden("list_trusts"));
        }
        let seen = state.trusts.iter().filter(|t| call.may(&state, Act::Read, &subject(t)));
        seen.map(|trust| brief(&call, trust)).collect()
    };
    call.list("trusts", &["trustor_user_id", "trustee_user_id"], items)
}

async fn show(call: Call, Path(id): Path<String>) -> Answer {
    let state = call.state();
    let found = found(&call, &state, &id, Act::Read, "get_trust")?;
    Ok(shown(StatusCode::OK, "trust", full(&call, &state, &found)))
}

/// The roles that can be handed on: the user's, of those that the credential the user asks with is good for.
pub(crate) fn roles_to_give(state: &State, who: &Authority, user: &User, scope: &Target) -> resolve::Roles {
    let effective = who.grants.in_scope(scope);
    state
        .roles_in(user, scope)
        .into_iter()
        .filter(|id| effective.is_some_and(|own| own.contains(id)))
        .collect()
}

/// Ids of the roles asked for, which the trustor must have in the project.
fn roles_of(
    state: &State,
    who: &Authority,
    trustor: &str,
    project: Option<&str>,
    asked: &Value,
) -> Result<Vec<String>, ApiError> {
    let target = project.map(|project| Target::Project(project.into()));
    let user = state.users.get(trustor).ok_or_else(|| ApiError::not_found("user", trustor))?;
    let own = target.map(|target| roles_to_give(state, who, user, &target)).unwrap_or_default();
    let mut ids = Vec::new();
    for asked in asked.as_array().into_iter().flatten() {
        let by = |name: &str| asked.get(name).and_then(Value::as_str);
        let found = match (by("id"), by("name")) {
            (Some(id), _) => state.roles.get(id),
            (None, Some(name)) => state.roles.by_name(None, name),
            (None, None) => None,
        };
        let word = by("id").or(by("name")).unwrap_or_default();
        let id = found.map_or_else(|| word.to_owned(), |role| role.id());
        if !own.contains(&id) {
            return Err(ApiError::not_found("role", &id));
        }
        ids.push(id);
    }
    Ok(ids)
}

/// How often it can be handed on. A trust made from a trust counts down.
fn redelegation(call: &Call, state: &State, spec: &mut TrustSpec, body: &Json) -> Result<(), ApiError> {
    let refused = |why: &str| {
        ApiError::refused(format!("You are not authorized to perform the requested action: {why}"))
    };
    let allowed = body.get("allow_redelegation") == Some(&Value::Bool(true));
    let asked = body.get("redelegation_count").and_then(Value::as_u64);
    let asked = asked.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    if allowed && spec.uses_max.is_some() {
        return Err(ApiError::malformed("remaining_uses must not be set if redelegation is allowed."));
    }
    let mut max = REDELEGATION_MAX;
    if let Some(id) = &call.session.claims.trust {
        let parent = state.trusts.get(id).ok_or_else(|| ApiError::not_found("trust", id))?;
        let left = parent.spec.redelegation_count.unwrap_or(0);
        if !parent.spec.allow_redelegation || left == 0 {
            return Err(refused("Redelegation is not allowed."));
        }
        let more =
            spec.roles.iter().any(|role| !state.implied(parent.spec.roles.iter().cloned()).contains(role));
        let later = match (&spec.expires_at, &parent.spec.expires_at) {
            (Some(at), Some(end)) => at.0 > end.0,
            (None, Some(end)) => {
                spec.expires_at = Some(end.clone());
                false
            }
            _ => false,
        };
        let other = spec.project != parent.spec.project || (spec.impersonation && !parent.spec.impersonation);
        if more || later || other {
            return Err(refused("A redelegated trust has no more than the trust it comes from."));
        }
        max = left - 1;
        spec.redelegated_trust = Some(id.clone());
    }
    let count = asked.unwrap_or(if allowed { max } else { 0 });
    if count > max {
        return Err(refused(&format!(
            "Requested redelegation depth of {count} is greater than allowed {max}"
        )));
    }
    spec.allow_redelegation = allowed && count > 0;
    spec.redelegation_count = Some(if allowed { count } else { 0 });
    Ok(())
}

fn spec_of(call: &Call, state: &State, body: &Json) -> Result<TrustSpec, ApiError> {
    let of = |name: &str| text(body, name).map(str::to_owned);
    let (trustor, trustee) =
        (of("trustor_user_id").unwrap_or_default(), of("trustee_user_id").unwrap_or_default());
    // Nobody hands on another's rights, whatever rights they have; a restricted credential hands on none.
    let from_trust = call.session.claims.trust.is_some();
    let allowed = call.may(state, Act::Create, &Subject::Trust { trustor: &trustor, trustee: &trustee });
    if trustor != call.user() || !(allowed || from_trust) {
        return Err(ApiError::forbidden("create_trust"));
    }
    if state.users.get(&trustee).is_none() {
        return Err(ApiError::not_found("user", &trustee));
    }
    let project = of("project_id");
    if let Some(id) = project.as_deref().filter(|id| state.projects.get(id).is_none()) {
        return Err(ApiError::not_found("project", id));
    }
    let asked = body.get("roles").cloned().unwrap_or_else(|| json!([]));
    if project.is_some() && asked.as_array().is_none_or(Vec::is_empty) {
        return Err(ApiError::refused(
            "You are not authorized to perform the requested action: At least one role should be specified.",
        ));
    }
    let uses = body.get("remaining_uses").and_then(Value::as_u64);
    let mut spec = TrustSpec {
        roles: roles_of(state, &call.session.authority, &trustor, project.as_deref(), &asked)?,
        trustor,
        trustee,
        project,
        impersonation: body.get("impersonation") == Some(&Value::Bool(true)),
        expires_at: expiry(body, call.core.now())?,
        uses_max: uses.map(|uses| u32::try_from(uses).unwrap_or(u32::MAX)),
        ..TrustSpec::default()
    };
    redelegation(call, state, &mut spec, body)?;
    Ok(spec)
}

async fn create(call: Call, body: Body) -> Answer {
    let body = body.new_object(&NEW)?;
    let spec = spec_of(&call, &call.state(), &body)?;
    let id = fresh_id();
    let made = call.core.objects.create(&Trust::new(&id, spec)).await?;
    call.record(SecurityEvent::CredentialCreated, "trusts", &id).await?;
    let all = full(&call, &call.state(), &made);
    Ok(shown(StatusCode::CREATED, "trust", all))
}

/// The trusts made from a trust, which end with it.
fn below(state: &State, id: &str) -> Vec<String> {
    let mut found = vec![id.to_owned()];
    let mut at = 0;
    while at < found.len() {
        let from = found[at].clone();
        let next = state.trusts.iter().filter(|t| t.spec.redelegated_trust.as_deref() == Some(from.as_str()));
        let next: Vec<String> = next.map(|t| t.id()).filter(|id| !found.contains(id)).collect();
        found.extend(next);
        at += 1;
    }
    found
}

async fn delete(call: Call, Path(id): Path<String>) -> Answer {
    let doomed = {
        let state = call.state();
        found(&call, &state, &id, Act::Delete, "delete_trust")?;
        below(&state, &id)
    };
    // The last made first: none is ever left without the one it comes from.
    let doomed = doomed.into_iter().rev().map(Hanging::Trust);
    super::cascade::act(&call, doomed.collect()).await?;
    call.record(SecurityEvent::CredentialDeleted, "trusts", &id).await?;
    done()
}

async fn list_roles(call: Call, Path(id): Path<String>) -> Answer {
    let roles = {
        let state = call.state();
        roles(&state, found(&call, &state, &id, Act::Read, "list_roles_for_trust")?.as_ref())
    };
    list_of::<Roles>(&call, roles)
}

async fn show_role(call: Call, Path((id, role)): Path<(String, String)>) -> Answer {
    let state = call.state();
    let trust = found(&call, &state, &id, Act::Read, "get_role_for_trust")?;
    let found = roles(&state, &trust).into_iter().find(|r| r.id() == role);
    let found = found.ok_or_else(|| ApiError::not_found("role", &role))?;
    Ok(shown(StatusCode::OK, "role", full_role::<Roles>(&call, &found)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::{assign, put, two_organisations};

    #[test]
    fn a_trust_has_no_role_that_the_trustor_does_not_have() {
        let mut state = two_organisations();
        assign(&mut state, "member alice project:web");
        let alice = state.users.get("alice").expect("a user");
        let whole = Authority::whole("alice", state.grants(alice));
        let roles =
            |project: Option<&str>, asked: Value| roles_of(&state, &whole, "alice", project, &asked).ok();
        assert_eq!(roles(Some("web"), json!([{"name": "member"}])), Some(vec!["member".to_owned()]));
        assert_eq!(roles(Some("web"), json!([{"id": "reader"}])), Some(vec!["reader".to_owned()]), "implied");
        assert_eq!(roles(Some("web"), json!([{"name": "admin"}])), None);
        assert_eq!(roles(Some("ops"), json!([{"name": "member"}])), None);
        assert_eq!(roles(None, json!([{"name": "member"}])), None);
    }

    #[test]
    fn trusts_made_from_a_trust_end_with_it() {
        let mut state = two_organisations();
        for (id, from) in [("a", None), ("b", Some("a")), ("c", Some("b")), ("d", None)] {
            let spec = TrustSpec { redelegated_trust: from.map(str::to_owned), ..TrustSpec::default() };
            put(&mut state, Trust::new(id, spec));
        }
        assert_eq!(below(&state, "a"), ["a", "b", "c"]);
    }
}
