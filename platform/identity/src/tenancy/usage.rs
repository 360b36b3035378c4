//! What pods, claims and services take of quotas, and how they are counted.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::net::IpAddr;

use gantry_kube_logic::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::kept::kept_of;
use super::quota::{Amounts, plus, zero};

/// What counts against a tree's quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    Pod,
    Claim,
    Service,
}

impl Counted {
    pub fn of(group: &str, resource: &str) -> Option<Self> {
        match (group, resource) {
            ("", "pods") => Some(Self::Pod),
            ("", "persistentvolumeclaims") => Some(Self::Claim),
            ("", "services") => Some(Self::Service),
            _ => None,
        }
    }

    /// What the object takes.
    pub fn usage(self, object: &Value) -> Amounts {
        let mut amounts = Amounts::default();
        match self {
            Self::Pod if ended(object) => {}
            Self::Pod => {
                amounts.set("pods", one());
                amounts.set("cpu", pod_request(object, "cpu"));
                amounts.set("memory", pod_request(object, "memory"));
            }
            Self::Claim => {
                let asked = object.pointer("/spec/resources/requests/storage");
                amounts.set("volumes", quantity(asked));
            }
            Self::Service => {
                let balancer = object["spec"]["type"] == "LoadBalancer";
                amounts.set("loadBalancers", number(usize::from(balancer)));
                amounts.set("addresses", number(usize::from(balancer) + external_addresses(object)));
            }
        }
        amounts
    }
}

fn one() -> Quantity {
    number(1)
}

fn number(count: usize) -> Quantity {
    Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// Addresses outside the cluster that a service asks for by name; one that is written twice, or in two ways, is one.
fn external_addresses(service: &Value) -> usize {
    let named = service["spec"]["externalIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    // What is no address the API refuses; it counts as what it is called until then.
    let same = |text: &str| {
        text.parse::<IpAddr>().map_or_else(|_| text.to_owned(), |ip| ip.to_canonical().to_string())
    };
    named.map(same).collect::<BTreeSet<String>>().len()
}

fn ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn quantity(value: Option<&Value>) -> Quantity {
    value.and_then(|v| Quantity::from_json(v).ok()).unwrap_or_else(zero)
}

/// What a container asks for; a limit alone is a request, as the API's defaults have it.
fn container_request(container: &Value, resource: &str) -> Quantity {
    let of = |kind: &str| container["resources"][kind].get(resource);
    quantity(of("requests").or_else(|| of("limits")))
}

/// The most a pod asks for at any moment of its life: its containers and sidecars together, or an init container
/// with the sidecars that were started before it.
fn pod_request(pod: &Value, resource: &str) -> Quantity {
    let list = |field: &str| pod["spec"][field].as_array().map(Vec::as_slice).unwrap_or_default();
    let (mut sidecars, mut most) = (zero(), zero());
    for init in list("initContainers") {
        let asked = plus(sidecars, container_request(init, resource));
        if init["restartPolicy"] == "Always" {
            sidecars = asked;
        }
        most = if asked > most { asked } else { most };
    }
    let running =
        list("containers").iter().fold(sidecars, |sum, c| plus(sum, container_request(c, resource)));
    let most = if running > most { running } else { most };
    plus(most, quantity(pod["spec"]["overhead"].get(resource)))
}

/// Marks which kind a [`Use`] was read as.
pub trait Counts: kube::Resource<DynamicType = ()> + Send + Sync + 'static {
    const KIND: Counted;
}

impl Counts for Pod {
    const KIND: Counted = Counted::Pod;
}

impl Counts for PersistentVolumeClaim {
    const KIND: Counted = Counted::Claim;
}

impl Counts for Service {
    const KIND: Counted = Counted::Service;
}

/// An object as far as quotas know it: where it is and what it takes.
#[derive(Clone, Debug)]
pub struct Use<K> {
    metadata: ObjectMeta,
    pub amounts: Amounts,
    kind: PhantomData<fn() -> K>,
}

impl<'de, K: Counts> Deserialize<'de> for Use<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, amounts: K::KIND.usage(&object), kind: PhantomData })
    }
}

kept_of!([K: Counts] Use<K>, K);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(cpu: &str) -> Value {
        json!({"resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn a_pod_counts_with_the_most_it_asks_for() {
        let sidecar = json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        for (spec, cpu) in [
            (json!({"containers": [container("1"), container("500m")]}), "1500m"),
            (json!({"containers": [{"resources": {"limits": {"cpu": "2"}}}]}), "2"),
            (json!({"containers": [{}]}), "0"),
            (json!({"initContainers": [container("4")], "containers": [container("1")]}), "4"),
            (json!({"initContainers": [sidecar, container("4")], "containers": [container("1")]}), "5"),
            (
                json!({"initContainers": [sidecar], "containers": [container("3")], "overhead": {"cpu": "1"}}),
                "5",
            ),
        ] {
            let amounts = Counted::Pod.usage(&json!({"spec": spec}));
            assert_eq!(amounts.get(0).to_string(), cpu, "{spec}");
            assert_eq!(amounts.get(2).to_string(), "1");
        }
        let ended = json!({"spec": {"containers": [container("1")]}, "status": {"phase": "Succeeded"}});
        assert!(Counted::Pod.usage(&ended).is_zero());
    }

    #[test]
    fn claims_count_bytes_and_services_what_they_take_outside() {
        let claim = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
        assert_eq!(Counted::Claim.usage(&claim).get(3).to_string(), "3Gi");
        for (spec, addresses, balancers) in [
            (json!({"type": "ClusterIP"}), 0, 0),
            (json!({}), 0, 0),
            (json!({"type": "NodePort"}), 0, 0),
            (json!({"type": "LoadBalancer"}), 1, 1),
            (json!({"type": "ClusterIP", "externalIPs": ["203.0.113.1"]}), 1, 0),
            (json!({"type": "LoadBalancer", "externalIPs": ["203.0.113.1", "203.0.113.2"]}), 3, 1),
            (json!({"externalIPs": ["203.0.113.1", "203.0.113.1", "::ffff:203.0.113.1"]}), 1, 0),
            (json!({"externalIPs": ["2001:db8::1", "2001:DB8:0::1", "2001:db8::2"]}), 2, 0),
            (json!({"externalIPs": []}), 0, 0),
        ] {
            let amounts = Counted::Service.usage(&json!({"spec": spec}));
            let want = (number(addresses), number(balancers));
            assert_eq!((amounts.get(5), amounts.get(6)), want, "{spec}");
        }
    }
}
