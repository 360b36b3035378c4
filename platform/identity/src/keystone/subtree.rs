//! `/projects/{project}/cascade`: a project with all below it.

use std::sync::Arc;

use axum::extract::Path;
use gantry_identity_api::Project;
use http::StatusCode;
use serde_json::Value;

use super::call::{Answer, Body, Call, done, shown};
use super::cascade;
use super::errors::ApiError;
use super::projects::Projects;
use super::schema::Json;
use super::typed::{Collection, check_immutable, find, full, store_change};
use crate::admission::given_from_above;
use crate::directory::State;
use crate::directory::table::Entry;
use crate::hanging;
use crate::policy::{Act, Authority};

/// The project first, then all below it, where the caller may do `act` with each of them.
fn tree(call: &Call, state: &State, id: &str, act: Act, action: &str) -> Result<Vec<Arc<Project>>, ApiError> {
    let mut all = vec![find::<Projects>(call, state, id, act, action)?];
    for project in state.below(id) {
        call.require(state, act, &Projects::subject(&project), action)?;
        all.push(project);
    }
    Ok(all)
}

/// `DELETE /projects/{project}/cascade`; what is below it must have been disabled.
pub(crate) async fn delete(call: Call, Path(id): Path<String>) -> Answer {
    let doomed = {
        let state = call.state();
        let tree = tree(&call, &state, &id, Act::Delete, "delete_project")?;
        for project in &tree {
            check_immutable("project", &project.id(), project.spec.extra.get("options"), None)?;
        }
        if tree.iter().skip(1).any(|project| project.spec.enabled) {
            return Err(ApiError::refused(format!(
                "Cannot delete project {id} since its subtree contains enabled projects."
            )));
        }
        hanging::of_whole_project(&state, &id)
    };
    cascade::act(&call, doomed).await?;
    call.core.objects.remove::<Project>(&id).await?;
    done()
}

/// `PATCH /projects/{project}/cascade`: `enabled`, and nothing else.
pub(crate) async fn update(call: Call, Path(id): Path<String>, body: Body) -> Answer {
    let (mut tree, enabled) = {
        let state = call.state();
        let action = "update_project";
        let tree = tree(&call, &state, &id, Act::Update, action)?;
        let body = body.change(&Projects::CHANGE)?;
        let enabled = asked(&full::<Projects>(&call, &tree[0]), &body)?;
        if enabled && state.ancestry(&id).iter().skip(1).any(|above| !above.spec.enabled) {
            return Err(ApiError::refused(format!(
                "Cannot enable project {id} since it has disabled parents"
            )));
        }
        for project in &tree {
            check_immutable("project", &project.id(), project.spec.extra.get("options"), Some(&body))?;
            let mut after = (**project).clone();
            after.spec.enabled = enabled;
            let from_above = |state: &State, who: &Authority| given_from_above(state, who, project, &after);
            call.within_rights(&state, from_above, action)?;
        }
        (tree, enabled)
    };
    // At no moment is one enabled below one that is not.
    if !enabled {
        tree.reverse();
    }
    for project in tree.iter().filter(|project| project.spec.enabled != enabled) {
        let set = |_: &State, project: &mut Project| {
            project.spec.enabled = enabled;
            Ok(())
        };
        store_change(&call, &project.id(), set).await?;
    }
    let changed = find::<Projects>(&call, &call.state(), &id, Act::Read, "get_project")?;
    Ok(shown(StatusCode::OK, "project", full::<Projects>(&call, &changed)))
}

/// `enabled`; what else is said must be as it is.
fn asked(now: &Json, body: &Json) -> Result<bool, ApiError> {
    let other = body.iter().any(|(name, value)| name != "enabled" && now.get(name) != Some(value));
    match body.get("enabled").and_then(Value::as_bool) {
        Some(enabled) if !other => Ok(enabled),
        _ => Err(ApiError::invalid("Cascade update is only allowed for enabled attribute.")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::directory::tests::put;
    use crate::keystone::new_record;
    use crate::keystone::tests::Platform;
    use crate::tenancy::tests::{change, organisations};
    use crate::token::TokenScope;

    /// Alice administers the platform, bob the project web, with shop and cart below it.
    fn acme() -> State {
        let mut state =
            organisations(&["admin alice system", "admin bob project:web", "reader eve project:cart"]);
        let limit = json!({ "project_id": "cart" }).as_object().cloned().expect("attributes");
        put(&mut state, new_record("limits", None, "l", limit));
        state
    }

    fn enabled(platform: &Platform) -> String {
        let state = platform.core.directory.read();
        let mark = |id: &str| state.projects.get(id).map_or('-', |p| if p.spec.enabled { '1' } else { '0' });
        ["web", "shop", "cart", "ops"].into_iter().map(mark).collect()
    }

    fn set(change: Value) -> Value {
        json!({ "project": change })
    }

    #[tokio::test]
    async fn a_whole_tree_is_disabled_and_enabled_and_deleted() {
        let platform = Platform::of(acme());
        let root = platform.token("alice", TokenScope::System);
        for (what, body, status, left) in [
            ("PATCH /projects/web", set(json!({"enabled": false})), 403, "1111"),
            ("PATCH /projects/web/cascade", set(json!({"description": "x"})), 400, "1111"),
            ("PATCH /projects/web/cascade", set(json!({"enabled": false, "description": "x"})), 400, "1111"),
            ("PATCH /projects/web/cascade", set(json!({"enabled": false, "name": "web"})), 200, "0001"),
            ("PATCH /projects/shop/cascade", set(json!({"enabled": true})), 403, "0001"),
            ("PATCH /projects/web/cascade", set(json!({"enabled": true})), 200, "1111"),
            ("DELETE /projects/web/cascade", Value::Null, 403, "1111"),
            ("PATCH /projects/shop/cascade", set(json!({"enabled": false})), 200, "1001"),
            ("DELETE /projects/web", Value::Null, 403, "1001"),
            ("DELETE /projects/web/cascade", Value::Null, 204, "---1"),
            ("DELETE /projects/web/cascade", Value::Null, 404, "---1"),
        ] {
            let said = platform.call(&root, what, body.clone()).await;
            assert_eq!((said.status, enabled(&platform).as_str()), (status, left), "{what} {body}: {said:?}");
        }
        let state = platform.core.directory.read();
        assert_eq!(state.records.len(), 0, "limits of what was below");
        assert_eq!(state.assignments.iter().count(), 1, "only alice's");
    }

    #[tokio::test]
    async fn it_is_not_for_who_may_not_do_it_one_by_one() {
        let mut state = acme();
        let options = json!({ "immutable": true });
        change::<Project>(&mut state, "cart", |p| drop(p.spec.extra.insert("options".to_owned(), options)));
        let platform = Platform::of(state);
        let root = platform.token("alice", TokenScope::System);
        let scope = TokenScope::Project { id: "web".to_owned(), domain: "acme".to_owned() };
        let bob = platform.token("bob", scope);
        let disable = set(json!({ "enabled": false }));
        // Whether his own project is enabled is given from above.
        let said = platform.call(&bob, "PATCH /projects/web/cascade", disable.clone()).await;
        assert_eq!((said.status, enabled(&platform).as_str()), (403, "1111"), "{said:?}");
        for what in ["PATCH /projects/web/cascade", "DELETE /projects/web/cascade"] {
            let said = platform.call(&root, what, disable.clone()).await;
            assert_eq!((said.status, enabled(&platform).as_str()), (403, "1111"), "immutable: {said:?}");
        }
    }
}
