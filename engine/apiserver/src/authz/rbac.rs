//! RBAC over the stored roles and bindings.

use gantry_kube_logic::rbac::{GROUP, PolicyRule, RbacKind, RuleIndex};
use gantry_kube_types::{Attributes, Authorizer, Decision, Explanation, UserInfo, Visibility, groups};
use gantry_store::{Key, Prefix, Store};

use super::derived::{Derive, Derived};

impl Derive for RuleIndex {
    fn apply(&mut self, key: &Key, value: Option<&[u8]>) {
        let Some(kind) = RbacKind::from_resource(key.resource()) else { return };
        if let Err(error) = Self::apply(self, kind, key.namespace(), key.name(), value) {
            tracing::error!(%key, %error, "a stored role or binding does not decode and grants nothing");
        }
    }
}

/// Decides by the roles and bindings in the store; a write of one is in effect once it is acknowledged.
pub struct RbacAuthorizer {
    index: Derived<RuleIndex>,
}

impl RbacAuthorizer {
    pub fn new(store: Store) -> Self {
        let prefixes = RbacKind::ALL.iter().map(|kind| Prefix::resource(GROUP, kind.resource())).collect();
        Self { index: Derived::new(store, prefixes) }
    }

    /// Every rule that holds for the user in `namespace`, and what could not be resolved.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        self.index.read().rules_for(user, namespace)
    }

    /// Why, or what is missing. Roles are named that the asker knows anyway: `all`, those in `known`, those
    /// bound where the question is about, and the Roles of a namespace that is the user's.
    pub(crate) fn explain_bindings(&self, asked: &Attributes, all: bool, known: &[&str]) -> Explanation {
        let index = self.index.read();
        let theirs = index.is_bound(&asked.user, &asked.namespace);
        index.explain(asked, &|kind, _, name| {
            all || (kind == "ClusterRole" && known.contains(&name))
                || (theirs && (kind == "Role" || index.is_used_in(&asked.namespace, kind, name)))
        })
    }

    /// The rules of the role a binding in `namespace` refers to.
    pub(crate) fn role_rules(&self, kind: &str, namespace: &str, name: &str) -> Option<Vec<PolicyRule>> {
        self.index.read().role_rules(kind, namespace, name).map(<[PolicyRule]>::to_vec)
    }
}

/// A namespace is theirs who are bound to a role in it, whatever the role grants.
#[async_trait::async_trait]
impl Visibility for RbacAuthorizer {
    fn resources(&self) -> Vec<(String, String)> {
        vec![(String::new(), "namespaces".to_owned())]
    }

    fn visible(&self, user: &UserInfo, group: &str, resource: &str, name: &str) -> bool {
        group.is_empty() && resource == "namespaces" && self.index.read().is_bound(user, name)
    }

    fn generation(&self) -> u64 {
        self.index.generation()
    }

    async fn changed(&self, seen: u64) {
        self.index.changed(seen).await;
    }
}

impl Authorizer for RbacAuthorizer {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(groups::MASTERS) {
            return Decision::Allow(String::new());
        }
        self.index.read().decide(attributes)
    }

    fn decisions_version(&self, _: &UserInfo) -> Option<u64> {
        Some(self.index.generation())
    }
}
