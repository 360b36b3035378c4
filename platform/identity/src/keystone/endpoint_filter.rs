//! `/OS-EP-FILTER`: which endpoints a project's catalogue shows, one by one and by groups.

use std::collections::BTreeSet;

use super::routes::Routes;
use axum::extract::Path;
use axum::routing::{get, put};
use gantry_identity_api::KeystoneRecord;
use serde_json::{Value, json};

use super::call::{Answer, Api, Call, done, object, text};
use super::catalog::ENDPOINTS;
use super::errors::ApiError;
use super::projects::Projects;
use super::records::{
    Naming, Readers, Records, Scope, all, as_is, brings_nothing, duplicate, find, kept_by_nothing,
    new_object, no_defaults, not_found, object_name,
};
use super::schema::{Form, Json, Shape, may, must, null};
use super::typed::list_of;
use super::users::plain;
use crate::directory::State;
use crate::policy::{Act, Subject};

/// Endpoint and project; the project stands where others have the parent.
pub(super) const BY_ENDPOINT: &str = "project_endpoints";
/// Endpoint group and project.
pub(super) const BY_GROUP: &str = "project_endpoint_groups";

/// `/OS-EP-FILTER/endpoint_groups`
pub(crate) static ENDPOINT_GROUPS: Records = Records {
    plural: "endpoint_groups",
    word: "Endpoint Group",
    action: "endpoint_group",
    path: "/OS-EP-FILTER/endpoint_groups",
    naming: Naming::Ours,
    new: Shape::open(
        "endpoint_group",
        &[must("name", Form::Name(255)), must("filters", Form::Object), null("description", Form::Text)],
    ),
    change: Shape::open(
        "endpoint_group",
        &[may("name", Form::Name(255)), may("filters", Form::Object), null("description", Form::Text)],
    ),
    defaults: no_defaults,
    filters: &["name"],
    readers: Readers::Administrators,
    check: check_group,
    keeps: kept_by_nothing,
    brings: brings_nothing,
    takes: |state, group| associations(state, BY_GROUP, &group.spec.id),
    not_found,
    conflict: duplicate,
    shown: as_is,
};

/// Names of the associations of projects with what goes.
fn associations(state: &State, collection: &'static str, id: &str) -> Vec<String> {
    let of = all(state, collection, None).filter(|r| r.spec.id == id);
    of.map(|r| object_name(collection, r.spec.parent.as_deref(), id)).collect()
}

/// Names of the associations that go with an endpoint.
pub(super) fn of_endpoint(state: &State, endpoint: &KeystoneRecord) -> Vec<String> {
    associations(state, BY_ENDPOINT, &endpoint.spec.id)
}

fn check_group(
    _: &State,
    _: &Scope<'_>,
    body: &mut Json,
    _: Option<&KeystoneRecord>,
) -> Result<(), ApiError> {
    let Some(Value::Object(filters)) = body.get("filters") else { return Ok(()) };
    let known = ["service_id", "region_id", "interface"];
    if !filters.keys().any(|key| known.contains(&key.as_str())) {
        return Err(ApiError::expecting("service_id or region_id or interface", "endpoint_group"));
    }
    Ok(())
}

/// Does the endpoint have what the group's filters ask for?
fn in_group(group: &KeystoneRecord, endpoint: &KeystoneRecord) -> bool {
    let Some(Value::Object(filters)) = group.spec.attributes.get("filters") else { return false };
    filters.iter().all(|(name, wanted)| endpoint.spec.attributes.get(name) == Some(wanted))
}

/// Is there the endpoint, and the service it is of?
fn is_there(state: &State, endpoint: &str) -> bool {
    let found = find(state, "endpoints", None, endpoint);
    let service = found.and_then(|e| text(&e.spec.attributes, "service_id"));
    service.is_some_and(|service| find(state, "services", None, service).is_some())
}

/// Ids of the endpoints a project is limited to; `None`: it is not limited. What is associated with something that
/// is gone (deleted as an object, by whoever) counts for nothing: it would empty the project's catalogue for good.
pub(crate) fn endpoints_of(state: &State, project: &str) -> Option<BTreeSet<String>> {
    let associated = all(state, BY_ENDPOINT, Some(project)).filter(|r| is_there(state, &r.spec.id));
    let mut ids: BTreeSet<String> = associated.map(|r| r.spec.id.clone()).collect();
    let mut limited = !ids.is_empty();
    for association in all(state, BY_GROUP, Some(project)) {
        let Some(group) = find(state, ENDPOINT_GROUPS.plural, None, &association.spec.id) else { continue };
        limited = true;
        let members = all(state, "endpoints", None).filter(|e| in_group(group, e));
        ids.extend(members.map(|e| e.spec.id.clone()));
    }
    limited.then_some(ids)
}

/// The routes of associations.
pub(crate) fn routes() -> Routes {
    let base = "/OS-EP-FILTER";
    let endpoint = Link { collection: BY_ENDPOINT, action: "endpoint", of: "endpoints", project_first: true };
    let group =
        Link { collection: BY_GROUP, action: "endpoint_group", of: "endpoint_groups", project_first: false };
    ENDPOINT_GROUPS
        .routes()
        .route(&format!("{base}/projects/{{project}}/endpoints"), get(endpoints_of_project))
        .route(&format!("{base}/projects/{{project}}/endpoint_groups"), get(groups_of_project))
        .route(&format!("{base}/endpoints/{{endpoint}}/projects"), get(projects_of_endpoint))
        .route(&format!("{base}/endpoint_groups/{{endpoint_group}}/projects"), get(projects_of_group))
        .route(&format!("{base}/endpoint_groups/{{endpoint_group}}/endpoints"), get(endpoints_of_group))
        .route(&format!("{base}/projects/{{project}}/endpoints/{{endpoint}}"), endpoint.methods())
        .route(&format!("{base}/endpoint_groups/{{endpoint_group}}/projects/{{project}}"), group.methods())
}

/// One kind of association of projects.
#[derive(Clone, Copy)]
struct Link {
    collection: &'static str,
    action: &'static str,
    /// The collection at the other end.
    of: &'static str,
    /// In the path.
    project_first: bool,
}

impl Link {
    fn methods(self) -> axum::routing::MethodRouter<Api> {
        put(move |call: Call, Path(path): Path<(String, String)>| async move { self.add(&call, path).await })
            .get(move |call: Call, Path(path): Path<(String, String)>| async move { self.get(&call, path) })
            .delete(move |call: Call, Path(path): Path<(String, String)>| async move {
                self.remove(&call, path).await
            })
    }

    /// Project and id of what it is associated with, in this order.
    fn order(self, path: (String, String)) -> (String, String) {
        if self.project_first { path } else { (path.1, path.0) }
    }

    fn require(self, call: &Call, state: &State, act: Act) -> Result<(), ApiError> {
        let verb = match act {
            Act::Read => "check",
            Act::Delete => "remove",
            _ => "add",
        };
        call.require(state, act, &Subject::Private, &format!("{verb}_{}_in_project", self.action))
    }

    /// Both ends must be there.
    fn check_ends(self, state: &State, project: &str, id: &str) -> Result<(), ApiError> {
        if find(state, self.of, None, id).is_none() {
            let word = if self.project_first { "endpoint" } else { ENDPOINT_GROUPS.word };
            return Err(ApiError::not_found(word, id));
        }
        if state.projects.get(project).is_none() {
            return Err(ApiError::not_found("project", project));
        }
        Ok(())
    }

    fn missing(self, project: &str, id: &str) -> ApiError {
        if self.project_first {
            ApiError::gone(format!("Endpoint {id} not found in project {project}"))
        } else {
            ApiError::gone("Endpoint Group Project Association not found")
        }
    }

    async fn add(self, call: &Call, path: (String, String)) -> Answer {
        let (project, id) = self.order(path);
        {
            let state = call.state();
            self.require(call, &state, Act::Create)?;
            self.check_ends(&state, &project, &id)?;
        }
        // With the project's id among the attributes it goes away with the project.
        let attributes = object(json!({ "project_id": project }));
        let record = new_object(self.collection, Some(&project), &id, attributes);
        match call.core.objects.create(&record).await {
            Ok(_) | Err(crate::errors::IdentityError::Conflict(_)) => done(),
            Err(error) => Err(error.into()),
        }
    }

    fn get(self, call: &Call, path: (String, String)) -> Answer {
        let (project, id) = self.order(path);
        let state = call.state();
        self.require(call, &state, Act::Read)?;
        self.check_ends(&state, &project, &id)?;
        if find(&state, self.collection, Some(&project), &id).is_none() {
            return Err(self.missing(&project, &id));
        }
        if self.project_first {
            return done();
        }
        let link = call.url(&format!("OS-EP-FILTER/endpoint_groups/{id}/projects/{project}"));
        plain(json!({ "project_endpoint_group": {
            "endpoint_group_id": id, "project_id": project, "links": { "self": link },
        } }))
    }

    async fn remove(self, call: &Call, path: (String, String)) -> Answer {
        let (project, id) = self.order(path);
        {
            let state = call.state();
            self.require(call, &state, Act::Delete)?;
            // One whose other end is gone is still there to be taken away.
            if find(&state, self.collection, Some(&project), &id).is_none() {
                self.check_ends(&state, &project, &id)?;
                return Err(self.missing(&project, &id));
            }
        }
        let name = object_name(self.collection, Some(&project), &id);
        call.core.objects.delete::<KeystoneRecord>(&name).await?;
        done()
    }
}

async fn endpoints_of_project(call: Call, Path(project): Path<String>) -> Answer {
    let items = {
        let state = call.state();
        require(&call, &state, "list_endpoints_for_project")?;
        let ids = endpoints_of(&state, &project).unwrap_or_default();
        let found = ids.iter().filter_map(|id| find(&state, "endpoints", None, id));
        found.map(|e| ENDPOINTS.full(&call, e, true)).collect()
    };
    call.list("endpoints", ENDPOINTS.filters, items)
}

async fn groups_of_project(call: Call, Path(project): Path<String>) -> Answer {
    let items = {
        let state = call.state();
        require(&call, &state, "list_endpoint_groups_for_project")?;
        let ids = all(&state, BY_GROUP, Some(&project));
        let found = ids.filter_map(|r| find(&state, ENDPOINT_GROUPS.plural, None, &r.spec.id));
        found.map(|g| ENDPOINT_GROUPS.full(&call, g, true)).collect()
    };
    call.list("endpoint_groups", ENDPOINT_GROUPS.filters, items)
}

async fn endpoints_of_group(call: Call, Path(group): Path<String>) -> Answer {
    let items = {
        let state = call.state();
        require(&call, &state, "list_endpoints_associated_with_endpoint_group")?;
        let found = find(&state, ENDPOINT_GROUPS.plural, None, &group);
        let found = found.ok_or_else(|| ApiError::not_found(ENDPOINT_GROUPS.word, &group))?;
        let members = all(&state, "endpoints", None).filter(|e| in_group(found, e));
        members.map(|e| ENDPOINTS.full(&call, e, true)).collect()
    };
    call.list("endpoints", ENDPOINTS.filters, items)
}

async fn projects_of_endpoint(call: Call, Path(endpoint): Path<String>) -> Answer {
    let projects = {
        let state = call.state();
        require(&call, &state, "list_projects_for_endpoint")?;
        if find(&state, "endpoints", None, &endpoint).is_none() {
            return Err(ApiError::not_found("endpoint", &endpoint));
        }
        let shown = state.projects.iter().filter(|p| {
            let id = p.metadata.name.as_deref().unwrap_or_default();
            find(&state, BY_ENDPOINT, Some(id), &endpoint).is_some()
        });
        shown.cloned().collect()
    };
    list_of::<Projects>(&call, projects)
}

async fn projects_of_group(call: Call, Path(group): Path<String>) -> Answer {
    let projects = {
        let state = call.state();
        require(&call, &state, "list_projects_associated_with_endpoint_group")?;
        let links = all(&state, BY_GROUP, None).filter(|r| r.spec.id == group);
        let ids = links.filter_map(|r| text(&r.spec.attributes, "project_id").map(str::to_owned));
        ids.filter_map(|id| state.projects.get(&id).cloned()).collect()
    };
    list_of::<Projects>(&call, projects)
}

fn require(call: &Call, state: &State, action: &str) -> Result<(), ApiError> {
    call.require(state, Act::Read, &Subject::Private, action)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::{forget, put, two_organisations};
    use crate::keystone::tests::{Platform, Said};
    use crate::tenancy::tests::organisations;
    use crate::token::TokenScope;

    fn record(collection: &str, parent: Option<&str>, id: &str, attributes: Value) -> KeystoneRecord {
        new_object(collection, parent, id, object(attributes))
    }

    #[test]
    fn a_project_is_limited_by_endpoints_and_by_groups() {
        let mut state = two_organisations();
        put(&mut state, record("services", None, "s", json!({})));
        for (id, interface) in [("e1", "public"), ("e2", "internal"), ("e3", "public")] {
            let attributes = json!({ "interface": interface, "region_id": "R", "service_id": "s" });
            put(&mut state, record("endpoints", None, id, attributes));
        }
        assert_eq!(endpoints_of(&state, "web"), None);
        put(&mut state, record(BY_ENDPOINT, Some("web"), "e2", json!({})));
        assert_eq!(endpoints_of(&state, "web"), Some(BTreeSet::from(["e2".to_owned()])));
        put(
            &mut state,
            record("endpoint_groups", None, "g", json!({ "filters": { "interface": "public" } })),
        );
        put(&mut state, record(BY_GROUP, Some("web"), "g", json!({})));
        assert_eq!(endpoints_of(&state, "web").map(|ids| ids.len()), Some(3));
        assert_eq!(endpoints_of(&state, "ops"), None);
        // A group that matches nothing leaves nothing.
        put(&mut state, record("endpoint_groups", None, "h", json!({ "filters": { "region_id": "Q" } })));
        put(&mut state, record(BY_GROUP, Some("ops"), "h", json!({})));
        assert_eq!(endpoints_of(&state, "ops"), Some(BTreeSet::new()));
    }

    /// A platform with a service, and who administers it; the project web is associated with the endpoint `e` of two,
    /// and with a group of none.
    async fn associated() -> (Platform, String) {
        let mut state = organisations(&["admin alice system", "member bob project:web"]);
        put(&mut state, record("services", None, "s", json!({ "type": "compute" })));
        for (id, interface) in [("e", "public"), ("f", "internal")] {
            let url = format!("http://{id}");
            let attributes = json!({ "interface": interface, "service_id": "s", "url": url });
            put(&mut state, record("endpoints", None, id, attributes));
        }
        put(&mut state, record("endpoint_groups", None, "g", json!({ "filters": { "region_id": "Q" } })));
        let platform = Platform::of(state);
        let root = platform.token("alice", TokenScope::System);
        for what in ["endpoint_groups/g/projects/web", "projects/web/endpoints/e"] {
            let said = platform.call(&root, &format!("PUT /OS-EP-FILTER/{what}"), Value::Null).await;
            assert_eq!(said.status, 204, "{what}: {said:?}");
        }
        (platform, root)
    }

    /// The URLs in the catalogue of the project web.
    async fn urls(platform: &Platform) -> Vec<String> {
        let scope = TokenScope::Project { id: "web".to_owned(), domain: "acme".to_owned() };
        let said = platform.call(&platform.token("bob", scope), "GET /auth/catalog", Value::Null).await;
        let services = said.body["catalog"].as_array().cloned().unwrap_or_default();
        let endpoints = services.iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
        endpoints.map(|e| e["url"].as_str().unwrap_or_default().to_owned()).collect()
    }

    async fn deletes(platform: &Platform, root: &str, path: &str) -> Said {
        platform.call(root, &format!("DELETE {path}"), Value::Null).await
    }

    #[tokio::test]
    async fn what_a_project_is_associated_with_takes_the_association_along() {
        let (platform, root) = associated().await;
        assert_eq!(urls(&platform).await, ["http://e"]);
        assert_eq!(deletes(&platform, &root, "/endpoints/e").await.status, 204);
        assert_eq!(urls(&platform).await, [""; 0], "the group is still there, and has nothing");
        assert_eq!(deletes(&platform, &root, "/OS-EP-FILTER/endpoint_groups/g").await.status, 204);
        let mut all = urls(&platform).await;
        all.sort();
        assert_eq!(all, ["http://f"], "not limited any more");
        let said = deletes(&platform, &root, "/OS-EP-FILTER/projects/web/endpoints/e").await;
        assert_eq!(said.status, 404, "{said:?}");
        assert_eq!(all_of(&platform), 0);

        let (platform, root) = associated().await;
        assert_eq!(deletes(&platform, &root, "/services/s").await.status, 204);
        assert_eq!(all_of(&platform), 1, "only the one with the group");
    }

    fn all_of(platform: &Platform) -> usize {
        let state = platform.core.directory.read();
        all(&state, BY_ENDPOINT, None).chain(all(&state, BY_GROUP, None)).count()
    }

    #[tokio::test]
    async fn an_association_with_what_is_gone_counts_for_nothing_and_can_be_removed() {
        for gone in [("endpoints", "e"), ("services", "s")] {
            let (platform, root) = associated().await;
            // As kubectl deletes it: the object and nothing else.
            for (collection, id) in [gone, ("endpoint_groups", "g")] {
                forget::<KeystoneRecord>(&platform.core.directory, &object_name(collection, None, id));
            }
            let limited = endpoints_of(&platform.core.directory.read(), "web");
            assert_eq!(limited, None, "{gone:?}");
            for what in ["projects/web/endpoints/e", "endpoint_groups/g/projects/web"] {
                let path = format!("/OS-EP-FILTER/{what}");
                let said = deletes(&platform, &root, &path).await;
                assert_eq!(said.status, 204, "{gone:?} {what}: {said:?}");
                assert_eq!(deletes(&platform, &root, &path).await.status, 404, "{gone:?} {what}");
            }
            assert_eq!(all_of(&platform), 0, "{gone:?}");
        }
    }
}
