//! The node authoriser: a node may do its work, and read only what its own pods need (upstream
//! `plugin/pkg/auth/authorizer/node`).

use gantry_kube_logic::rbac::PolicyRule;
use gantry_kube_logic::rbac::defaults::node_rules;
use gantry_kube_logic::rbac::matching::allows;
use gantry_kube_types::{Attributes, Authorizer, Decision, UserInfo, groups, users};
use gantry_store::{Prefix, Store};

use super::derived::Derived;
use super::node_graph::{NodeGraph, Referent};
use crate::reader::Reader;

const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The name of the node the caller is: user `system:node:NAME` in group `system:nodes`.
pub(crate) fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.username.strip_prefix(users::NODE_PREFIX).filter(|name| !name.is_empty())?;
    user.in_group(groups::NODES).then_some(name)
}

/// Decides for nodes alone; has no opinion about anybody else.
pub struct NodeAuthorizer {
    graph: Derived<NodeGraph>,
    rules: Vec<PolicyRule>,
}

impl NodeAuthorizer {
    pub fn new(store: Store) -> Self {
        Self { graph: Derived::new(store, vec![Prefix::resource("", "pods")]), rules: node_rules() }
    }

    fn referenced(&self, node: &str, what: Referent, attributes: &Attributes) -> Decision {
        let Attributes { verb, subresource, namespace, name, .. } = attributes;
        if !matches!(verb.as_str(), "get" | "list" | "watch") || !subresource.is_empty() {
            return no("can only read resources of this type");
        }
        if name.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(node, self.graph.read().refers(node, what, namespace, name))
    }

    fn related(&self, node: &str, is_related: bool) -> Decision {
        if is_related {
            return Decision::Allow(String::new());
        }
        no(&format!("no relationship found between node '{node}' and this object"))
    }

    /// A volume is the node's through the claim it is bound to.
    fn volume(&self, node: &str, attributes: &Attributes) -> Decision {
        if attributes.verb != "get" || !attributes.subresource.is_empty() || attributes.name.is_empty() {
            return no("can only get individual resources of this type");
        }
        let volume =
            Reader::new(self.graph.store().snapshot()).get("", "persistentvolumes", "", &attributes.name);
        let claim = volume.as_ref().map(|volume| &volume["spec"]["claimRef"]);
        let text = |field: &str| claim.and_then(|claim| claim[field].as_str()).unwrap_or("");
        let (namespace, name) = (text("namespace"), text("name"));
        self.related(node, self.graph.read().refers(node, Referent::Claim, namespace, name))
    }

    fn token(&self, node: &str, attributes: &Attributes) -> Decision {
        let Attributes { verb, subresource, namespace, name, .. } = attributes;
        match (verb.as_str(), subresource.as_str()) {
            ("get", "") | ("create", "token") if !name.is_empty() => {
                let refers = self.graph.read().refers(node, Referent::ServiceAccount, namespace, name);
                self.related(node, refers)
            }
            _ => no("can only get individual service accounts and create tokens for them"),
        }
    }

    fn lease(&self, node: &str, attributes: &Attributes) -> Decision {
        if !matches!(attributes.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
            return no("can only get, create, update, patch, or delete a node lease");
        }
        if attributes.namespace != LEASE_NAMESPACE {
            return no(&format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
        }
        // The name of a create is in the body: admission looks at it.
        if attributes.verb != "create" && attributes.name != node {
            return no("can only access node lease with the same name as the requesting node");
        }
        Decision::Allow(String::new())
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let Some(node) = node_of(&attributes.user) else { return Decision::NoOpinion(String::new()) };
        if attributes.is_resource_request {
            match (attributes.group.as_str(), attributes.resource.as_str()) {
                ("", "secrets") => return self.referenced(node, Referent::Secret, attributes),
                ("", "configmaps") => return self.referenced(node, Referent::ConfigMap, attributes),
                ("", "persistentvolumeclaims") => return self.referenced(node, Referent::Claim, attributes),
                ("", "persistentvolumes") => return self.volume(node, attributes),
                ("", "serviceaccounts") => return self.token(node, attributes),
                ("coordination.k8s.io", "leases") => return self.lease(node, attributes),
                ("", "nodes")
                    if !matches!(attributes.verb.as_str(), "get" | "list" | "watch" | "create")
                        && attributes.name != node =>
                {
                    return no(&format!("node '{node}' cannot change another node"));
                }
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| allows(rule, attributes)) {
            return Decision::Allow(String::new());
        }
        Decision::NoOpinion(String::new())
    }

    /// Of everybody else it has no opinion, ever.
    fn decisions_version(&self, user: &UserInfo) -> Option<u64> {
        node_of(user).is_none().then_some(0)
    }
}

fn no(why: &str) -> Decision {
    Decision::NoOpinion(why.to_owned())
}
