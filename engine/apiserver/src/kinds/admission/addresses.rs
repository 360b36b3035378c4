//! Cluster addresses and node ports of services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gantry_kube_types::{FieldError, StatusError};
use gantry_store::{Key, Store};
use ipnet::IpNet;
use rand::Rng as _;
use serde_json::{Value, json};

use super::AdmissionConfig;
use super::taken::{Claim, Look, Taken, claims};
use crate::admission::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::kinds::value::{child, default_to, integer, items, items_mut, put, remove, string, text};

/// Gives services their addresses and node ports.
pub(super) struct Addresses {
    config: AdmissionConfig,
    taken: Taken,
}

impl Addresses {
    pub(super) fn new(config: AdmissionConfig, store: Store) -> Self {
        Self { config, taken: Taken::new(store) }
    }
}

#[async_trait::async_trait]
impl AdmissionPlugin for Addresses {
    fn name(&self) -> &'static str {
        "ServiceAddresses"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        if !request.is("", "services") || !matches!(request.operation, Operation::Create | Operation::Update)
        {
            return Ok(());
        }
        keep_from_old(request.object, request.old_object);
        let own = Key::new("", "services", request.namespace, request.name);
        let mut look = self.taken.look();
        self.give_address(request, &own, &mut look)?;
        self.give_ports(request, &own, &mut look)?;
        self.give_health_port(request, &own, &mut look)
    }
}

/// An update that leaves out what was allocated keeps it.
fn keep_from_old(new: &mut Value, old: Option<&Value>) {
    let Some(old) = old else { return };
    let kind = text(new, "/spec/type").to_owned();
    let before = items(old, "/spec/ports").to_vec();
    let Some(spec) = child(new, "spec") else { return };
    if kind == "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            remove(spec, key);
        }
        return;
    }
    if string(spec, "clusterIP").is_empty() && text(old, "/spec/type") != "ExternalName" {
        put(spec, "clusterIP", text(old, "/spec/clusterIP"));
    }
    if local_balancer(spec) && integer(spec, "/healthCheckNodePort").unwrap_or(0) == 0 {
        if let Some(number) = integer(old, "/spec/healthCheckNodePort").filter(|n| *n > 0) {
            put(spec, "healthCheckNodePort", number);
        }
    } else if !local_balancer(spec) {
        remove(spec, "healthCheckNodePort");
    }
    let exposed = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    for port in items_mut(spec, "/ports") {
        let number = integer(port, "/nodePort").unwrap_or(0);
        if !exposed && before.iter().any(|p| number != 0 && integer(p, "/nodePort") == Some(number)) {
            remove(port, "nodePort");
        } else if exposed && number == 0 {
            let same = before.iter().find(|p| {
                integer(p, "/port") == integer(port, "/port")
                    && string(p, "protocol") == string(port, "protocol")
            });
            if let Some(number) = same.and_then(|p| integer(p, "/nodePort")) {
                put(port, "nodePort", number);
            }
        }
    }
    drop_with_type(spec, &old["spec"], &kind);
}

/// What belonged to the old type and was not touched goes with it.
fn drop_with_type(spec: &mut Value, old: &Value, kind: &str) {
    let external = matches!(kind, "NodePort" | "LoadBalancer") || !items(spec, "/externalIPs").is_empty();
    let keys: [(&str, bool); 3] = [
        ("externalTrafficPolicy", external),
        ("allocateLoadBalancerNodePorts", kind == "LoadBalancer"),
        ("loadBalancerClass", kind == "LoadBalancer"),
    ];
    for (key, fits) in keys {
        if !fits && spec.get(key) == old.get(key) {
            remove(spec, key);
        }
    }
}

/// A balancer that asks each node whether it has pods of the service.
fn local_balancer(spec: &Value) -> bool {
    string(spec, "type") == "LoadBalancer" && string(spec, "externalTrafficPolicy") == "Local"
}

impl Addresses {
    fn give_address(
        &self,
        request: &mut AdmissionRequest<'_>,
        own: &Key,
        look: &mut Look<'_>,
    ) -> Result<(), StatusError> {
        if text(request.object, "/spec/type") == "ExternalName" {
            return Ok(());
        }
        let asked = text(request.object, "/spec/clusterIP").to_owned();
        let old = request.old_object.map(|o| text(o, "/spec/clusterIP").to_owned()).unwrap_or_default();
        let old_kind = request.old_object.map(|o| text(o, "/spec/type")).unwrap_or_default();
        if !old.is_empty() && old != asked && old_kind != "ExternalName" {
            let error = FieldError::invalid("spec.clusterIPs[0]", json!([asked]), "may not change once set");
            return Err(StatusError::invalid("", "Service", request.name, &[error]));
        }
        let given = if asked == "None" || !asked.is_empty() && asked == old {
            asked
        } else {
            let address = self.choose_address(request, &asked, own, look)?;
            look.reserve(Claim::Address(address), own, request.effects);
            address.to_string()
        };
        let family = match given.parse::<IpAddr>() {
            Ok(address) if address.is_ipv6() => "IPv6",
            Err(_) if self.config.service_range.addr().is_ipv6() => "IPv6",
            _ => "IPv4",
        };
        if let Some(spec) = child(request.object, "spec") {
            put(spec, "clusterIPs", json!([given]));
            put(spec, "clusterIP", given);
            default_to(spec, "ipFamilies", json!([family]));
            default_to(spec, "ipFamilyPolicy", "SingleStack");
        }
        Ok(())
    }

    fn choose_address(
        &self,
        request: &AdmissionRequest<'_>,
        asked: &str,
        own: &Key,
        look: &Look<'_>,
    ) -> Result<IpAddr, StatusError> {
        let refuse = |detail: String| {
            let error = FieldError::invalid("spec.clusterIPs", json!([asked]), detail);
            StatusError::invalid("", "Service", request.name, &[error])
        };
        let range = self.config.service_range;
        let first = offset(range.network(), 1);
        let is_api = request.namespace == "default" && request.name == "kubernetes";
        let free = |address: &IpAddr| {
            (is_api || *address != first)
                && *address != range.network()
                && (range.addr().is_ipv6() || *address != range.broadcast())
                && look.is_free(&Claim::Address(*address), own)
        };
        let wanted = if asked.is_empty() && is_api { first.to_string() } else { asked.to_owned() };
        if wanted.is_empty() {
            return dynamic_addresses(range)
                .find(free)
                .ok_or_else(|| StatusError::internal("failed to allocate a serviceIP: range is full"));
        }
        let address: IpAddr = wanted.parse().map_err(|_| {
            refuse("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned())
        })?;
        if !range.contains(&address) {
            return Err(refuse(format!(
                "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range \
                 of valid IPs is {range}"
            )));
        }
        if !free(&address) {
            return Err(refuse(format!("failed to allocate IP {address}: provided IP is already allocated")));
        }
        Ok(address)
    }

    fn give_ports(
        &self,
        request: &mut AdmissionRequest<'_>,
        own: &Key,
        look: &mut Look<'_>,
    ) -> Result<(), StatusError> {
        let kind = text(request.object, "/spec/type");
        let wanted = request.object.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&json!(false));
        if kind != "NodePort" && kind != "LoadBalancer" {
            return Ok(());
        }
        let kept = request.old_object.map(claims).unwrap_or_default();
        let mut list = items(request.object, "/spec/ports").to_vec();
        for index in 0..list.len() {
            let protocol = string(&list[index], "protocol").to_owned();
            let asked = integer(&list[index], "/nodePort").unwrap_or(0);
            let claim = |port: u16| Claim::Port(port, protocol.clone());
            let holds = u16::try_from(asked).is_ok_and(|port| kept.contains(&claim(port)));
            if holds || asked == 0 && kind == "LoadBalancer" && !wanted {
                continue;
            }
            let port = if asked == 0 {
                let siblings: BTreeSet<i64> = list.iter().filter_map(|p| integer(p, "/nodePort")).collect();
                self.dynamic_ports()
                    .find(|p| !siblings.contains(&i64::from(*p)) && look.is_free(&claim(*p), own))
            } else {
                let inside = u16::try_from(asked).ok().filter(|p| self.config.node_ports.contains(p));
                inside.filter(|p| look.is_free(&claim(*p), own))
            };
            let Some(port) = port else {
                return Err(self.port_error(request.name, &format!("spec.ports[{index}].nodePort"), asked));
            };
            look.reserve(claim(port), own, request.effects);
            put(&mut list[index], "nodePort", port);
        }
        if let Some(spec) = child(request.object, "spec") {
            put(spec, "ports", list);
        }
        Ok(())
    }

    fn give_health_port(
        &self,
        request: &mut AdmissionRequest<'_>,
        own: &Key,
        look: &mut Look<'_>,
    ) -> Result<(), StatusError> {
        let asked = integer(request.object, "/spec/healthCheckNodePort").unwrap_or(0);
        let before = request.old_object.and_then(|o| integer(o, "/spec/healthCheckNodePort")).unwrap_or(0);
        if !local_balancer(&request.object["spec"]) || asked != 0 && asked == before {
            return Ok(());
        }
        let free = |port: &u16| look.is_free(&Claim::Port(*port, "TCP".to_owned()), own);
        let port = match u16::try_from(asked) {
            Ok(0) => self.dynamic_ports().find(free),
            Ok(port) => Some(port).filter(|p| self.config.node_ports.contains(p)).filter(free),
            Err(_) => None,
        };
        let port = port.ok_or_else(|| self.port_error(request.name, "spec.healthCheckNodePort", asked))?;
        look.reserve(Claim::Port(port, "TCP".to_owned()), own, request.effects);
        if let Some(spec) = child(request.object, "spec") {
            put(spec, "healthCheckNodePort", port);
        }
        Ok(())
    }

    fn port_error(&self, name: &str, field: &str, asked: i64) -> StatusError {
        let (low, high) = (self.config.node_ports.start(), self.config.node_ports.end());
        let inside = u16::try_from(asked).is_ok_and(|p| self.config.node_ports.contains(&p));
        let detail = match (asked, inside) {
            (0, _) => return StatusError::internal("failed to allocate a nodePort: range is full"),
            (_, true) => "provided port is already allocated".to_owned(),
            (_, false) => {
                format!("provided port is not in the valid range. The range of valid ports is {low}-{high}")
            }
        };
        let error = FieldError::invalid(field, asked, detail);
        StatusError::invalid("", "Service", name, &[error])
    }

    /// Beginning at a random port above the part kept for ports that users choose, then around.
    fn dynamic_ports(&self) -> impl Iterator<Item = u16> {
        let (low, high) = (*self.config.node_ports.start(), *self.config.node_ports.end());
        let size = high.saturating_sub(low).saturating_add(1);
        let fixed = (size / 32).clamp(16, 128).min(size - 1);
        let start = rand::rng().random_range(fixed..size);
        (start..size).chain(fixed..start).chain(0..fixed).map(move |step| low + step)
    }
}

/// Hosts of the range, from a random one above the part kept for addresses that users choose.
fn dynamic_addresses(range: IpNet) -> impl Iterator<Item = IpAddr> {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(16);
    let size = 1_u32 << bits;
    let fixed = (size / 16).clamp(16, 256).min(size.saturating_sub(1)).max(1);
    let start = if fixed < size { rand::rng().random_range(fixed..size) } else { 1 };
    let network = range.network();
    (start..size)
        .chain(fixed.min(start)..start)
        .chain(1..fixed.min(size))
        .map(move |step| offset(network, step))
}

fn offset(network: IpAddr, step: u32) -> IpAddr {
    match network {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).saturating_add(step).into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).saturating_add(u128::from(step)).into()),
    }
}
