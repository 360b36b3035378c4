//! `/projects`: tenants, and `/projects/{id}/tags`.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::Path;
use axum::response::IntoResponse;
use gantry_identity_api::{Domain, Named, Project, ProjectSpec};
use http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Body, Call, done, object, shown, text};
use super::cascade;
use super::domains::{Domains, domain_of, keep, known_domain};
use super::errors::ApiError;
use super::schema::{Form, Json, Shape, may, must, null, tags};
use super::typed::{Collection, check_immutable, check_options, find, full, store_change};
use crate::admission::given_from_above;
use crate::directory::State;
use crate::directory::table::{Entry, Table};
use crate::hanging;
use crate::policy::{Act, Authority, Subject};

pub(crate) struct Projects;

const KNOWN: &[&str] = &["links"];
/// How deep a tree is shown.
const DEPTH_MAX: usize = 64;

impl Collection for Projects {
    type Kind = Project;
    const PLURAL: &'static str = "projects";
    const NEW: Shape = Shape::open(
        "project",
        &[
            must("name", Form::Name(64)),
            null("domain_id", Form::Name(64)),
            null("parent_id", Form::Name(64)),
            null("description", Form::Text),
            may("enabled", Form::Boolean),
            may("is_domain", Form::Boolean),
            may("tags", Form::Tags),
            may("options", Form::Object),
        ],
    );
    const CHANGE: Shape = Self::NEW;
    const FILTERS: &'static [&'static str] = &["name", "domain_id", "enabled", "parent_id", "is_domain"];

    fn table(state: &State) -> &Table<Project> {
        &state.projects
    }

    fn subject(project: &Project) -> Subject<'_> {
        Subject::Project {
            id: project.metadata.name.as_deref(),
            domain: &project.spec.domain,
            parent: project.spec.parent.as_deref(),
        }
    }

    fn show(project: &Project) -> Json {
        let spec = &project.spec;
        let mut all = spec.extra.clone();
        all.entry("options").or_insert_with(|| json!({}));
        all.extend(object(json!({
            "name": project.display_name(),
            "domain_id": spec.domain,
            "parent_id": spec.parent.as_ref().unwrap_or(&spec.domain),
            "description": spec.description,
            "enabled": spec.enabled,
            "is_domain": false,
            "tags": spec.tags,
        })));
        all
    }

    fn create(call: &Call, state: &State, id: &str, body: &mut Json) -> Result<Project, ApiError> {
        if body.get("is_domain") == Some(&json!(true)) {
            return Err(ApiError::invalid(
                "A project that acts as a domain is made as a domain: POST /v3/domains.",
            ));
        }
        check_options(body)?;
        let parent = text(body, "parent_id").map(str::to_owned);
        let mut domain = domain_of(call, body);
        let above = parent.as_deref().filter(|parent| state.domains.get(parent).is_none());
        let gone = |word: &str, id: &str| ApiError::invalid(format!("Could not find {word}: {id}."));
        if let Some(parent) = above {
            let found = state.projects.get(parent).ok_or_else(|| gone("project", parent))?;
            check_parent_domain(body, &domain, &found.spec.domain)?;
            domain.clone_from(&found.spec.domain);
        } else if let Some(parent) = &parent {
            check_parent_domain(body, &domain, parent)?;
            domain.clone_from(parent);
        }
        if state.domains.get(&domain).is_none() {
            known_domain(call, state, &domain, "create_project").map_err(|_| gone("domain", &domain))?;
        }
        let spec =
            ProjectSpec { parent: above.map(str::to_owned), domain, enabled: true, ..ProjectSpec::default() };
        let mut project = Project::new(id, spec);
        take(state, &mut project, body)?;
        Ok(project)
    }

    fn change(state: &State, project: &mut Project, body: &Json) -> Result<(), ApiError> {
        check_options(body)?;
        check_immutable("project", &project.id(), project.spec.extra.get("options"), Some(body))?;
        let spec = &project.spec;
        if text(body, "domain_id").is_some_and(|id| id != spec.domain) {
            return Err(ApiError::invalid("Cannot change Domain ID"));
        }
        if text(body, "parent_id").is_some_and(|id| id != spec.parent.as_deref().unwrap_or(&spec.domain)) {
            return Err(ApiError::refused("Update of `parent_id` is not allowed."));
        }
        if body.get("is_domain") == Some(&json!(true)) {
            return Err(ApiError::invalid("Update of `is_domain` is not allowed."));
        }
        check_enabled(state, project, body)?;
        take(state, project, body)
    }

    fn keeps(state: &State, project: &Project) -> Option<ApiError> {
        let id = project.id();
        if let Err(why) = check_immutable("project", &id, project.spec.extra.get("options"), None) {
            return Some(why);
        }
        // What is below it and on its way out goes before it.
        let mut below = state.children(&id).filter(|p| p.metadata.deletion_timestamp.is_none());
        below.next().map(|_| {
            ApiError::refused(format!(
                "Cannot delete the project {id} since it is not a leaf in the hierarchy. Use the cascade option if \
                 you want to delete a whole subtree."
            ))
        })
    }

    async fn prepare_change(call: &Call, project: &Project, body: &mut Json) -> Result<(), ApiError> {
        let state = call.state();
        let mut after = project.clone();
        take(&state, &mut after, body)?;
        let from_above = |state: &State, who: &Authority| given_from_above(state, who, project, &after);
        call.within_rights(&state, from_above, "update_project")
    }

    async fn cascade(call: &Call, project: &Project) -> Result<(), ApiError> {
        let doomed = hanging::of_project(&call.state(), &project.id());
        cascade::act(call, doomed).await
    }
}

fn check_parent_domain(body: &Json, asked: &str, parent: &str) -> Result<(), ApiError> {
    if body.get("domain_id").is_some_and(|d| !d.is_null()) && asked != parent {
        return Err(ApiError::invalid(format!(
            "Cannot create project, since it specifies its domain_id {asked}, but specifies a parent in a different \
             domain ({parent})."
        )));
    }
    Ok(())
}

/// An enabled project stands below enabled ones only.
fn check_enabled(state: &State, project: &Project, body: &Json) -> Result<(), ApiError> {
    let id = project.id();
    match body.get("enabled").and_then(Value::as_bool) {
        Some(false) if state.children(&id).any(|child| child.spec.enabled) => Err(ApiError::refused(
            format!("Cannot disable project {id} since its subtree contains enabled projects."),
        )),
        Some(true) if state.ancestry(&id).iter().skip(1).any(|above| !above.spec.enabled) => {
            Err(ApiError::refused(format!("Cannot enable project {id} since it has disabled parents")))
        }
        _ => Ok(()),
    }
}

fn take(state: &State, project: &mut Project, body: &Json) -> Result<(), ApiError> {
    let id = project.id();
    if let Some(name) = text(body, "name") {
        let taken = state.projects.by_name(Some(&project.spec.domain), name).filter(|other| other.id() != id);
        if let Some(other) = taken {
            let detail = format!(
                "it is not permitted to have two projects with either the same name or same id in the same domain: \
                 name is {name}, project id {}",
                other.id()
            );
            return Err(ApiError::conflict("project", &detail));
        }
        project.spec.name = Some(name.to_owned());
    }
    if let Some(description) = body.get("description") {
        project.spec.description = description.as_str().unwrap_or_default().to_owned();
    }
    if let Some(enabled) = body.get("enabled").and_then(Value::as_bool) {
        project.spec.enabled = enabled;
    }
    if let Some(Value::Array(tags)) = body.get("tags") {
        project.spec.tags = tags.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect();
    }
    keep(&mut project.spec.extra, &Projects::NEW, body, KNOWN);
    Ok(())
}

/// A domain, as the project it also is for Keystone's clients.
fn domain_as_project(call: &Call, domain: &Domain) -> Json {
    let mut all = full::<Domains>(call, domain);
    all.insert("domain_id".to_owned(), Value::Null);
    all.insert("parent_id".to_owned(), Value::Null);
    all.insert("is_domain".to_owned(), json!(true));
    all.insert("links".to_owned(), json!({ "self": call.url(&format!("projects/{}", domain.id())) }));
    all
}

/// `GET /projects`: with `is_domain` the domains instead.
pub(crate) async fn list(call: Call) -> Answer {
    if !call.query.flag("is_domain") {
        return super::typed::list::<Projects>(call).await;
    }
    let items = {
        let state = call.state();
        if !call.may_list(&state) {
            return Err(ApiError::forbidden("list_projects"));
        }
        let seen = state.domains.iter().filter(|d| call.may(&state, Act::Read, &Domains::subject(d)));
        seen.map(|d| domain_as_project(&call, d)).collect()
    };
    call.list("projects", Projects::FILTERS, items)
}

/// `GET /projects/{id}`, with the tree above and below where asked for.
pub(crate) async fn get(call: Call, Path(id): Path<String>) -> Answer {
    let state = call.state();
    if let Some(domain) = state.domains.get(&id) {
        call.require(&state, Act::Read, &Domains::subject(domain), "get_project")?;
        return Ok(shown(StatusCode::OK, "project", domain_as_project(&call, domain)));
    }
    let found = find::<Projects>(&call, &state, &id, Act::Read, "get_project")?;
    let mut all = full::<Projects>(&call, &found);
    relatives(&call, &state, &found, &mut all)?;
    Ok(shown(StatusCode::OK, "project", all))
}

fn relatives(call: &Call, state: &State, project: &Project, all: &mut Json) -> Result<(), ApiError> {
    for word in ["parents", "subtree"] {
        let has = |how: &str| call.query.flag(&format!("{word}_as_{how}"));
        if has("list") && has("ids") {
            return Err(ApiError::invalid(format!(
                "Cannot use {word}_as_list and {word}_as_ids query params at the same time."
            )));
        }
    }
    let limits = call.query.flag("include_limits");
    let one = |project: &Arc<Project>| {
        let mut shown = full::<Projects>(call, project);
        if limits {
            let id = project.id();
            shown.insert("limits".to_owned(), Value::Array(super::limits::of_project(call, state, &id)));
        }
        json!({ "project": shown })
    };
    let seen = |p: &Arc<Project>| call.may(state, Act::Read, &Projects::subject(p));
    let id = project.id();
    let above = state.ancestry(&id);
    let above = || above.iter().skip(1).copied();
    if call.query.flag("parents_as_list") {
        all.insert("parents".to_owned(), above().filter(|p| seen(p)).map(one).collect());
    } else if call.query.flag("parents_as_ids") {
        let top = json!({ project.spec.domain.as_str(): null });
        let tree =
            above().collect::<Vec<_>>().into_iter().rev().fold(top, |inner, p| json!({ p.id(): inner }));
        all.insert("parents".to_owned(), tree);
    }
    if call.query.flag("subtree_as_list") {
        let below = state.below(&id);
        all.insert("subtree".to_owned(), below.iter().filter(|p| seen(p)).map(one).collect());
    } else if call.query.flag("subtree_as_ids") {
        all.insert("subtree".to_owned(), ids_below(state, &id, DEPTH_MAX));
    }
    Ok(())
}

fn ids_below(state: &State, id: &str, depth: usize) -> Value {
    let children = if depth > 0 { state.children(id).collect() } else { Vec::new() };
    let tree: Json = children.into_iter().map(|p| (p.id(), ids_below(state, &p.id(), depth - 1))).collect();
    if tree.is_empty() { Value::Null } else { Value::Object(tree) }
}

fn list_of_tags(call: &Call, tags: &[String]) -> Answer {
    Ok(JsonBody(json!({ "links": { "self": call.own_url() }, "tags": tags })).into_response())
}

/// `GET /projects/{id}/tags`
pub(crate) async fn list_tags(call: Call, Path(id): Path<String>) -> Answer {
    let state = call.state();
    let found = find::<Projects>(&call, &state, &id, Act::Read, "list_project_tags")?;
    list_of_tags(&call, &found.spec.tags)
}

/// `PUT /projects/{id}/tags`: these and no others.
pub(crate) async fn set_tags(call: Call, Path(id): Path<String>, body: Body) -> Answer {
    let Some(Value::Array(wanted)) = body.0.get("tags") else {
        return Err(ApiError::invalid("'tags' is a required property"));
    };
    tags(wanted)?;
    let wanted: Vec<String> = wanted.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect();
    change_tags(&call, &id, "update_project_tags", |tags| {
        tags.clone_from(&wanted);
        Ok(())
    })
    .await?;
    list_of_tags(&call, &wanted)
}

/// `DELETE /projects/{id}/tags`
pub(crate) async fn delete_tags(call: Call, Path(id): Path<String>) -> Answer {
    change_tags(&call, &id, "delete_project_tags", |tags| {
        tags.clear();
        Ok(())
    })
    .await?;
    done()
}

/// `GET` and `HEAD /projects/{id}/tags/{tag}`
pub(crate) async fn get_tag(call: Call, Path((id, tag)): Path<(String, String)>) -> Answer {
    let state = call.state();
    let found = find::<Projects>(&call, &state, &id, Act::Read, "get_project_tag")?;
    if found.spec.tags.contains(&tag) { done() } else { Err(ApiError::not_found("project tag", &tag)) }
}

/// `PUT /projects/{id}/tags/{tag}`
pub(crate) async fn add_tag(call: Call, Path((id, tag)): Path<(String, String)>) -> Answer {
    change_tags(&call, &id, "create_project_tag", |found| {
        if !found.contains(&tag) {
            found.push(tag.clone());
        }
        tags(&found.iter().map(|t| json!(t)).collect::<Vec<_>>())
    })
    .await?;
    Ok(StatusCode::CREATED.into_response())
}

/// `DELETE /projects/{id}/tags/{tag}`
pub(crate) async fn delete_tag(call: Call, Path((id, tag)): Path<(String, String)>) -> Answer {
    change_tags(&call, &id, "delete_project_tag", |tags| {
        let before = tags.len();
        tags.retain(|t| *t != tag);
        if tags.len() < before { Ok(()) } else { Err(ApiError::not_found("project tag", &tag)) }
    })
    .await?;
    done()
}

async fn change_tags(
    call: &Call,
    id: &str,
    action: &str,
    change: impl Fn(&mut Vec<String>) -> Result<(), ApiError> + Send + Sync,
) -> Result<(), ApiError> {
    {
        let state = call.state();
        find::<Projects>(call, &state, id, Act::Update, action)?;
    }
    store_change(call, id, |_, project: &mut Project| change(&mut project.spec.tags)).await?;
    Ok(())
}
