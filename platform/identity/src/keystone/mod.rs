//! The Keystone v3 API at `/identity/v3`, for OpenStack's clients and services.
//!
//! Every handler works on what the [`crate::directory`] knows, asks [`crate::policy`] and writes through
//! [`crate::objects`]: the same objects, rights and checks as everywhere else. What Gantry has no kind for is a
//! [`gantry_identity_api::KeystoneRecord`] of a collection that one table describes.

mod application_credentials;
mod assignments;
mod auth;
mod call;
mod cascade;
mod catalog;
pub(crate) mod collections;
mod credentials;
mod domain_config;
mod domains;
mod endpoint_filter;
mod errors;
mod federation;
mod grants;
mod groups;
mod identity_providers;
mod limits;
mod mapping;
mod noted;
mod oauth1;
mod projects;
mod query;
mod records;
mod revocations;
mod roles;
mod routes;
mod schema;
mod sources;
mod subtree;
pub(crate) mod timestamps;
mod trusts;
mod typed;
mod users;
mod versions;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use gantry_kube_types::RequestId;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue, VARY, WWW_AUTHENTICATE};

use crate::core::Core;
pub(crate) use assignments::project_brief;
pub(crate) use auth::{rules_left, scope};
pub(crate) use call::{Answer, Api, Body, Call, Visit, text};
use call::{PREFIX, base_url};
pub(crate) use domain_config::secrets as domain_secrets;
pub(crate) use errors::ApiError;
pub(crate) use federation::PROVIDERS as PROVIDER_RECORDS;
use noted::noted;
#[cfg(test)]
pub(crate) use records::new_object as new_record;
pub(crate) use records::{find as find_record, object_name as record_name};
use routes::Routes;
pub(crate) use sources::unavailable;
use typed::{Collection, create, delete, list, update};
pub(crate) use users::{brief as user_brief, domain_brief};

/// Every path of the API, from `/identity` on.
pub fn router(core: Arc<Core>) -> Router {
    let router = table().router().method_not_allowed_fallback(not_allowed);
    router.layer(from_fn(dressed)).with_state(Api(core))
}

/// The paths that [`router`] answers, sorted, with the names of their parameters.
pub fn paths() -> Vec<String> {
    table().paths()
}

fn table() -> Routes {
    let version = format!("{PREFIX}/v3");
    version_3()
        .map(noted)
        .below(&version)
        .route(PREFIX, get(versions::list))
        .route(&format!("{PREFIX}/"), get(versions::list))
        .route(&version, get(versions::show))
        .route(&format!("{version}/"), get(versions::show))
        .route(&format!("{PREFIX}/{{*path}}"), any(unknown))
}

/// Paths below `/identity/v3`.
fn version_3() -> Routes {
    typed_routes()
        .merge(auth::routes())
        .merge(grants::routes())
        .merge(domain_config::routes())
        .merge(credentials::routes())
        .merge(application_credentials::routes())
        .merge(trusts::routes())
        .merge(catalog::routes())
        .merge(endpoint_filter::routes())
        .merge(limits::routes())
        .merge(federation::routes())
        .merge(sources::routes())
        .merge(oauth1::routes())
        .route("/role_assignments", get(assignments::list))
        .route("/OS-REVOKE/events", get(revocations::list))
        .route("/s3tokens", any(not_minted))
        .route("/ec2tokens", any(not_minted))
}

fn typed_routes() -> Routes {
    use domains::Domains;
    use groups::Groups;
    use projects::Projects;
    use roles::Roles;
    use users::Users;
    Routes::new()
        .merge(collection::<Domains>("domain"))
        .merge(collection::<Users>("user"))
        .merge(collection::<Groups>("group"))
        .merge(collection::<Roles>("role"))
        .route("/projects", get(projects::list).post(create::<Projects>))
        .route("/projects/{project}", get(projects::get).patch(update::<Projects>).delete(delete::<Projects>))
        .route("/projects/{project}/cascade", axum::routing::patch(subtree::update).delete(subtree::delete))
        .route(
            "/projects/{project}/tags",
            get(projects::list_tags).put(projects::set_tags).delete(projects::delete_tags),
        )
        .route(
            "/projects/{project}/tags/{tag}",
            get(projects::get_tag).put(projects::add_tag).delete(projects::delete_tag),
        )
        .route("/users/{user}/password", axum::routing::post(users::change_password))
        .route("/users/{user}/projects", get(users::list_projects))
        .route("/users/{user}/groups", get(users::list_groups))
        .route("/groups/{group}/users", get(groups::list_users))
        .route(
            "/groups/{group}/users/{user}",
            get(groups::has_user).put(groups::add_user).delete(groups::remove_user),
        )
        .route("/roles/{role}/implies", get(roles::list_implied))
        .route(
            "/roles/{role}/implies/{implied}",
            get(roles::get_implied).put(roles::add_implied).delete(roles::remove_implied),
        )
        .route("/role_inferences", get(roles::list_inferences))
}

/// The two paths that every collection of a kind of its own has.
fn collection<C: Collection>(parameter: &str) -> Routes {
    Routes::new().route(&format!("/{}", C::PLURAL), get(list::<C>).post(create::<C>)).route(
        &format!("/{}/{{{parameter}}}", C::PLURAL),
        get(typed::get::<C>).patch(update::<C>).delete(delete::<C>),
    )
}

/// Tokens are not made from signatures of other protocols.
async fn not_minted() -> ApiError {
    let message =
        "Cannot mint a token from an EC2 or S3 credential: the ec2credential auth method is not enabled.";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

async fn unknown() -> ApiError {
    ApiError::gone("The requested URL was not found on the server.")
}

async fn not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for the requested URL.")
}

/// What every answer carries.
async fn dressed(request: Request, next: Next) -> Response {
    let base = base_url(request.headers(), request.uri());
    let id = request.extensions().get::<RequestId>().map(|id| format!("req-{}", id.0));
    let mut response = next.run(request).await.into_response();
    let unauthorized = response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("X-Auth-Token"));
    let mut put = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    if unauthorized {
        put(WWW_AUTHENTICATE, &format!("Keystone uri=\"{base}\""));
    }
    if let Some(id) = id {
        put(HeaderName::from_static("x-openstack-request-id"), &id);
    }
    response
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod attacks_routes;
#[cfg(test)]
mod attacks_signin;
#[cfg(test)]
mod attacks_tokens;
#[cfg(test)]
mod clients;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod trail_tests;

#[cfg(test)]
mod table_tests {
    use super::*;

    #[test]
    fn the_routes_do_not_contradict_each_other() {
        let paths = paths();
        for pair in paths.windows(2) {
            assert_ne!(pair[0], pair[1], "twice");
        }
        // Building panics where two paths cannot stand beside each other.
        let _router: Router<Api> = table().router();
        assert!(paths.len() > 90, "{}", paths.len());
    }
}
