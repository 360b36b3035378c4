//! What the front door serves, each part with the paths it answers: the routers and the list that the tests of its
//! closedness walk through come of the same table, so that no route is forgotten. The Kubernetes API lists itself.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use gantry_frontdoor::{AuthPolicy, FrontDoorBuilder};
use gantry_routes::Routes;
use serde_json::json;

/// Where the list is; for whoever is signed in.
const PATH: &str = "/gantry/routes";

/// Everything at and below one path.
pub struct Service {
    prefix: &'static str,
    policy: AuthPolicy,
    router: Router,
    paths: Vec<String>,
}

impl Service {
    /// `paths` are all that `router` answers; those that are not below `prefix` do not come to it from here.
    pub fn new(prefix: &'static str, policy: AuthPolicy, router: Router, paths: &[String]) -> Self {
        let below = |path: &&String| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        Self { prefix, policy, router, paths: paths.iter().filter(below).cloned().collect() }
    }

    pub fn of(prefix: &'static str, policy: AuthPolicy, routes: Routes) -> Self {
        let paths = routes.paths();
        Self::new(prefix, policy, routes.router(), &paths)
    }

    /// With something around its router.
    #[must_use]
    pub fn within(self, around: impl FnOnce(Router) -> Router) -> Self {
        Self { router: around(self.router), ..self }
    }
}

/// Gives all to the front door, and the list of them. `around` is what stands around the list's own router.
pub fn serve(
    builder: FrontDoorBuilder,
    mut services: Vec<Service>,
    around: impl FnOnce(Router) -> Router,
) -> FrontDoorBuilder {
    services.push(listing(&services).within(around));
    services
        .into_iter()
        .fold(builder, |builder, service| builder.route_with(service.prefix, service.policy, service.router))
}

fn listing(services: &[Service]) -> Service {
    let own = vec![PATH.to_owned()];
    let all = services.iter().map(|service| (service.prefix, &service.paths)).chain([(PATH, &own)]);
    let all: Vec<_> = all.map(|(prefix, paths)| json!({ "prefix": prefix, "routes": paths })).collect();
    let list = Arc::new(json!({ "services": all }));
    let list = get(move || {
        let list = list.clone();
        async move { axum::Json(list.as_ref().clone()) }
    });
    Service::of(PATH, AuthPolicy::Authenticated, Routes::new().route(PATH, list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_lists_what_is_below_its_prefix() {
        let paths = ["/v2", "/v2/", "/v2/x", "/v20", "/token"].map(str::to_owned);
        let service = Service::new("/v2", AuthPolicy::Delegated, Router::new(), &paths);
        assert_eq!(service.paths, ["/v2", "/v2/", "/v2/x"]);
    }
}
