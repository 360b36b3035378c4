//! Which resources the server has now, custom ones included.

use kube::api::ApiResource;
use kube::discovery::{Discovery, Scope, verbs};

/// One resource, in the version its group recommends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub api: ApiResource,
    pub namespaced: bool,
    pub collectable: bool,
    pub deletes_collections: bool,
}

/// Reads discovery. Resources that come and go by themselves (events) are left out: they own nothing
/// and nothing may hold a namespace up for them.
pub async fn discover(client: &kube::Client) -> kube::Result<Vec<Resource>> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let mut resources = Vec::new();
    for group in discovery.groups() {
        for (api, capabilities) in group.recommended_resources() {
            let can = |verb| capabilities.supports_operation(verb);
            if api.plural.contains('/') || !can(verbs::LIST) {
                continue;
            }
            resources.push(Resource {
                namespaced: capabilities.scope == Scope::Namespaced,
                collectable: can(verbs::WATCH) && can(verbs::DELETE) && api.plural != "events",
                deletes_collections: can("deletecollection"),
                api,
            });
        }
    }
    Ok(resources)
}
