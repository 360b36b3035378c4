//! The ServiceAccount `default` of a namespace, as far as the component cares: which pull secrets its pods get.
//!
//! The account is the engine's, and its other secrets are the tenants': the component adds one name to its list, and
//! puts it back where somebody took it out.

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer};

use super::kept::kept_of;
use super::names;

/// Whom pods run as that name nobody.
pub const DEFAULT: &str = "default";

/// An account as it is kept in memory.
#[derive(Clone, Debug)]
pub struct DefaultAccount {
    metadata: ObjectMeta,
    /// Names of Secrets, in its order.
    pub pull_secrets: Vec<String>,
}

impl DefaultAccount {
    /// The list that it should have; nothing where it has it.
    pub fn missing(&self) -> Option<Vec<String>> {
        if self.pull_secrets.iter().any(|name| name == names::PULL_SECRET) {
            return None;
        }
        let mut list = self.pull_secrets.clone();
        list.push(names::PULL_SECRET.to_owned());
        Some(list)
    }
}

impl<'de> Deserialize<'de> for DefaultAccount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = ServiceAccount::deserialize(deserializer)?;
        let metadata = ObjectMeta {
            name: object.metadata.name,
            namespace: object.metadata.namespace,
            resource_version: object.metadata.resource_version,
            ..ObjectMeta::default()
        };
        let secrets = object.image_pull_secrets.into_iter().flatten();
        Ok(Self { metadata, pull_secrets: secrets.map(|secret| secret.name).collect() })
    }
}

kept_of!([] DefaultAccount, ServiceAccount);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_list_gets_what_it_misses_and_keeps_the_rest() {
        let account = |secrets: &[&str]| {
            let list: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
            let object = json!({"metadata": {"name": "default"}, "imagePullSecrets": list});
            serde_json::from_value::<DefaultAccount>(object).expect("an account")
        };
        let none: DefaultAccount = serde_json::from_value(json!({"metadata": {}})).expect("an account");
        assert_eq!(none.missing().expect("a list"), ["gantry-registry"]);
        assert_eq!(account(&["quay"]).missing().expect("a list"), ["quay", "gantry-registry"]);
        assert_eq!(account(&["gantry-registry", "quay"]).missing(), None);
    }
}
