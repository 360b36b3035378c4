//! Which objects of identity a user sees in lists and watches, and which namespaces a narrowed credential does not.

use std::sync::Arc;

use gantry_identity_api::GROUP;
use gantry_kube_types::{Attributes, UserInfo, Visibility};

use crate::authorizer::subject;
use crate::narrowed::within;
use crate::policy::{Act, may};
use crate::tenancy::World;
use crate::tenancy::callers::Scope;

/// Everything that is filtered.
const RESOURCES: [&str; 10] = [
    "domains",
    "projects",
    "users",
    "groups",
    "roles",
    "roleassignments",
    "applicationcredentials",
    "identityproviders",
    "trusts",
    "keystonerecords",
];

/// [`Visibility`] by the policy: what one may read, one sees.
pub struct OwnKinds(Arc<World>);

impl OwnKinds {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self(world)
    }

    fn reads(&self, user: &UserInfo, resource: &str, name: &str) -> bool {
        let caller = self.0.caller(user);
        let state = self.0.directory.read();
        subject(&state, resource, name).is_some_and(|s| may(&state, &caller.authority, Act::Read, &s))
    }
}

#[async_trait::async_trait]
impl Visibility for OwnKinds {
    fn resources(&self) -> Vec<(String, String)> {
        let own = RESOURCES.iter().map(|resource| (GROUP.to_owned(), (*resource).to_owned()));
        own.chain([(String::new(), "namespaces".to_owned())]).collect()
    }

    fn visible(&self, user: &UserInfo, group: &str, resource: &str, name: &str) -> bool {
        // Namespaces are shown by the bindings in them.
        group == GROUP && self.reads(user, resource, name)
    }

    fn hides(&self, user: &UserInfo, group: &str, resource: &str, name: &str) -> bool {
        let caller = self.0.caller(user);
        if caller.scope == Scope::Whole {
            return false;
        }
        if group == GROUP {
            return !self.reads(user, resource, name);
        }
        let get = Attributes {
            user: user.clone(),
            verb: "get".to_owned(),
            is_resource_request: true,
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: if resource == "namespaces" { name.to_owned() } else { String::new() },
            name: name.to_owned(),
            ..Attributes::default()
        };
        !within(&self.0.directory.read(), &self.0.namespaces, &caller, &get)
    }

    fn generation(&self) -> u64 {
        self.0.generation()
    }

    async fn changed(&self, seen: u64) {
        let (mut kinds, mut namespaces) = (self.0.directory.changes(), self.0.namespaces.generation());
        loop {
            if self.0.generation() != seen {
                return;
            }
            // The senders live as long as the world, so waiting ends with a change.
            tokio::select! { _ = kinds.changed() => {}, _ = namespaces.changed() => {} }
        }
    }
}

#[cfg(test)]
#[path = "visibility/tests.rs"]
mod tests;
