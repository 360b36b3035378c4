//! Whose session it is and what it is good for.

use gantry_identity_api::Named as _;
use serde_json::{Value, json};

use crate::directory::State;
use crate::directory::resolve::Roles;
use crate::keystone::{domain_brief, project_brief, timestamps, user_brief};
use crate::session::Session;

/// What `gantry whoami` shows, and where the session can go from here.
pub(super) fn of(state: &State, session: &Session) -> Value {
    let grants = &session.authority.grants;
    let at = |place: Value, roles: &Roles| {
        let mut place = place;
        place["roles"] = names(state, roles);
        place
    };
    let projects = grants.projects.iter().map(|(id, roles)| at(project_brief(state, id), roles));
    let domains = grants.domains.iter().map(|(id, roles)| at(domain_brief(state, id), roles));
    let roles: Vec<String> = session.roles.iter().map(|role| role.display_name()).collect();
    json!({
        "username": session.info.username,
        "user": user_brief(state, &session.user),
        "groups": session.info.groups,
        "methods": session.claims.methods,
        "scope": scope(state, session),
        "roles": roles,
        "projects": projects.collect::<Vec<_>>(),
        "domains": domains.collect::<Vec<_>>(),
        "system": names(state, &grants.system),
        "expiresAt": timestamps::zulu(session.claims.expires_at),
    })
}

fn names(state: &State, roles: &Roles) -> Value {
    let name = |id: &String| state.roles.get(id).map_or_else(|| id.clone(), |role| role.display_name());
    roles.iter().map(name).collect()
}

/// As it is asked for. Null: all that the user has.
fn scope(state: &State, session: &Session) -> Value {
    use crate::directory::assignments::Target;
    match &session.scope {
        None => Value::Null,
        Some(Target::System) => json!({ "system": { "all": true } }),
        Some(Target::Domain(id)) => json!({ "domain": domain_brief(state, id) }),
        Some(Target::Project(id)) => json!({ "project": project_brief(state, id) }),
    }
}
