//! Services, endpoints, ingresses and network policies.

use serde_json::{Value, json};

use super::container::check_port;
use super::{number_errors, range, required};
use crate::kinds::format;
use crate::kinds::report::{Errors, Path};
use crate::kinds::selector::{check_labels, check_selector};
use crate::kinds::value::{at, field, integer, is_set, items, string, text};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(crate) fn service(object: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &object["spec"];
    let kind = string(spec, "type");
    errors.one_of(&path.child("type"), kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    let affinity = string(spec, "sessionAffinity");
    errors.one_of(&path.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    if let Some(client) = at(spec, "/sessionAffinityConfig/clientIP") {
        let at = path.child("sessionAffinityConfig").child("clientIP");
        range(client, "timeoutSeconds", 1, 86_400, &at, errors);
    }
    let ports = items(spec, "/ports");
    let headless = string(spec, "clusterIP") == "None";
    if kind == "ExternalName" {
        let name = string(spec, "externalName").trim_end_matches('.');
        if name.is_empty() {
            errors.required(&path.child("externalName"), "");
        } else {
            errors.all(&path.child("externalName"), name, format::dns1123_subdomain(name));
        }
        if is_set(spec, "clusterIP") {
            let detail = "may not be set when `type` is 'ExternalName'";
            errors.forbidden(&path.child("clusterIP"), detail);
        }
    } else if ports.is_empty() && !headless {
        errors.required(&path.child("ports"), "");
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let at = path.child("clusterIPs").index(0);
        errors.invalid(&at, "None", format!("may not be set to 'None' for {kind} services"));
    }
    check_service_ports(ports, kind, &path.child("ports"), errors);
    check_labels(object, "/spec/selector", &path.child("selector"), errors);
    check_reach(spec, kind, &path, errors);
}

fn check_service_ports(ports: &[Value], kind: &str, path: &Path, errors: &mut Errors) {
    let (mut names, mut used, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        let name = string(port, "name");
        if name.is_empty() && ports.len() > 1 {
            errors.required(&at.child("name"), "");
        } else if !name.is_empty() {
            errors.all(&at.child("name"), name, format::dns1123_label(name));
            if names.contains(&name) {
                errors.duplicate(&at.child("name"), name);
            }
        }
        names.push(name);
        let number = integer(port, "/port").unwrap_or(0);
        number_errors(number, &at.child("port"), errors);
        let protocol = string(port, "protocol");
        errors.one_of(&at.child("protocol"), protocol, &PROTOCOLS);
        if used.contains(&(number, protocol)) {
            errors.duplicate(&at, json!({"port": number, "protocol": protocol}));
        }
        used.push((number, protocol));
        if let Some(target) = field(port, "targetPort") {
            check_port(target, &at.child("targetPort"), errors);
        }
        let Some(node) = integer(port, "/nodePort").filter(|n| *n != 0) else { continue };
        if matches!(kind, "ClusterIP" | "ExternalName") {
            let detail = format!("may not be used when `type` is '{kind}'");
            errors.forbidden(&at.child("nodePort"), detail);
        } else if nodes.contains(&(node, protocol)) {
            errors.duplicate(&at.child("nodePort"), node);
        }
        nodes.push((node, protocol));
    }
}

/// Who may come from outside, and how.
fn check_reach(spec: &Value, kind: &str, path: &Path, errors: &mut Errors) {
    for (index, address) in items(spec, "/externalIPs").iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        errors.all(&path.child("externalIPs").index(index), address, format::ip(address));
    }
    for (index, source) in items(spec, "/loadBalancerSourceRanges").iter().enumerate() {
        let source = source.as_str().unwrap_or_default();
        let at = path.child("loadBalancerSourceRanges").index(index);
        errors.all(&at, source, format::cidr(source.trim()));
    }
    let external = matches!(kind, "NodePort" | "LoadBalancer") || is_set(spec, "externalIPs");
    if let Some(policy) = field(spec, "externalTrafficPolicy").and_then(Value::as_str) {
        let at = path.child("externalTrafficPolicy");
        if external {
            errors.one_of(&at, policy, &["Cluster", "Local"]);
        } else {
            errors.invalid(&at, policy, "may only be set for externally-accessible services");
        }
    }
    if let Some(policy) = field(spec, "internalTrafficPolicy").and_then(Value::as_str) {
        errors.one_of(&path.child("internalTrafficPolicy"), policy, &["Cluster", "Local"]);
    }
    if kind != "LoadBalancer" {
        for key in ["loadBalancerClass", "loadBalancerSourceRanges"] {
            if is_set(spec, key) {
                errors.forbidden(&path.child(key), "may only be used when `type` is 'LoadBalancer'");
            }
        }
    }
}

pub(crate) fn endpoints(object: &Value, errors: &mut Errors) {
    for (index, subset) in items(object, "/subsets").iter().enumerate() {
        let path = Path::new("subsets").index(index);
        let (ready, waiting) = (items(subset, "/addresses"), items(subset, "/notReadyAddresses"));
        if ready.is_empty() && waiting.is_empty() {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for (list, addresses) in [("addresses", ready), ("notReadyAddresses", waiting)] {
            for (index, address) in addresses.iter().enumerate() {
                let at = path.child(list).index(index).child("ip");
                check_endpoint_ip(string(address, "ip"), &at, errors);
            }
        }
        let ports = items(subset, "/ports");
        for (index, port) in ports.iter().enumerate() {
            let at = path.child("ports").index(index);
            if ports.len() > 1 && string(port, "name").is_empty() {
                errors.required(&at.child("name"), "");
            }
            number_errors(integer(port, "/port").unwrap_or(0), &at.child("port"), errors);
            errors.one_of(&at.child("protocol"), string(port, "protocol"), &PROTOCOLS);
        }
    }
}

/// Addresses through which a user could reach the host itself are refused.
fn check_endpoint_ip(text: &str, path: &Path, errors: &mut Errors) {
    let Ok(address) = text.parse::<std::net::IpAddr>() else {
        errors.all(path, text, format::ip(text));
        return;
    };
    let link_local = match address {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        errors.invalid(path, text, format!("may not be unspecified ({text})"));
    } else if address.is_loopback() {
        errors.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    } else if link_local {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    } else if address.is_multicast() {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;

pub(crate) fn endpoint_slice(object: &Value, errors: &mut Errors) {
    let family = string(object, "addressType");
    let at = Path::new("addressType");
    if family.is_empty() {
        errors.required(&at, "");
    } else {
        errors.one_of(&at, family, &["FQDN", "IPv4", "IPv6"]);
    }
    let endpoints = items(object, "/endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        errors.too_many(&Path::new("endpoints"), endpoints.len(), ENDPOINTS_MAX);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = Path::new("endpoints").index(index).child("addresses");
        let addresses = items(endpoint, "/addresses");
        if addresses.is_empty() {
            errors.required(&path, "must contain at least 1 address");
        }
        if addresses.len() > ADDRESSES_MAX {
            errors.too_many(&path, addresses.len(), ADDRESSES_MAX);
        }
        for (index, address) in addresses.iter().enumerate() {
            let (address, at) = (address.as_str().unwrap_or_default(), path.index(index));
            match family {
                "FQDN" => errors.all(&at, address, format::dns1123_subdomain(address)),
                _ if address.contains(':') != (family == "IPv6") => {
                    let word = if family == "IPv6" { "an IPv6" } else { "an IPv4" };
                    errors.invalid(&at, address, format!("must be {word} address"));
                }
                _ => check_endpoint_ip(address, &at, errors),
            }
        }
    }
    let mut names = Vec::new();
    for (index, port) in items(object, "/ports").iter().enumerate() {
        let at = Path::new("ports").index(index);
        let name = string(port, "name");
        if names.contains(&name) {
            errors.duplicate(&at.child("name"), name);
        }
        names.push(name);
        errors.one_of(&at.child("protocol"), string(port, "protocol"), &PROTOCOLS);
    }
}

pub(crate) fn endpoint_slice_update(new: &Value, old: &Value, errors: &mut Errors) {
    errors.immutable(&Path::new("addressType"), field(new, "addressType"), field(old, "addressType"));
}

pub(crate) fn ingress(object: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let rules = items(object, "/spec/rules");
    match at(object, "/spec/defaultBackend") {
        None if rules.is_empty() => {
            errors.invalid(&path, Value::from(rules), "either `defaultBackend` or `rules` must be specified")
        }
        None => {}
        Some(backend) => check_backend(backend, &path.child("defaultBackend"), errors),
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = path.child("rules").index(index);
        check_host(string(rule, "host"), &at.child("host"), errors);
        let Some(http) = field(rule, "http") else { continue };
        let at = at.child("http").child("paths");
        if items(http, "/paths").is_empty() {
            errors.required(&at, "");
        }
        for (index, route) in items(http, "/paths").iter().enumerate() {
            check_route(route, &at.index(index), errors);
        }
    }
    for (index, tls) in items(object, "/spec/tls").iter().enumerate() {
        for (number, host) in items(tls, "/hosts").iter().enumerate() {
            let at = path.child("tls").index(index).child("hosts").index(number);
            check_host(host.as_str().unwrap_or_default(), &at, errors);
        }
    }
}

fn check_host(host: &str, path: &Path, errors: &mut Errors) {
    if host.is_empty() {
        return;
    }
    if host.parse::<std::net::IpAddr>().is_ok() {
        errors.invalid(path, host, "must be a DNS name, not an IP address");
        return;
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    errors.all(path, host, format::dns1123_subdomain(name));
}

fn check_route(route: &Value, path: &Path, errors: &mut Errors) {
    let (kind, target) = (string(route, "pathType"), string(route, "path"));
    if kind.is_empty() {
        errors.required(&path.child("pathType"), "pathType must be specified");
    } else {
        errors.one_of(&path.child("pathType"), kind, &["Exact", "ImplementationSpecific", "Prefix"]);
    }
    let optional = kind == "ImplementationSpecific" && target.is_empty();
    if !optional && !target.starts_with('/') {
        errors.invalid(&path.child("path"), target, "must be an absolute path");
    }
    check_backend(&route["backend"], &path.child("backend"), errors);
}

fn check_backend(backend: &Value, path: &Path, errors: &mut Errors) {
    match (field(backend, "service"), field(backend, "resource")) {
        (Some(_), Some(_)) => {
            errors.invalid(path, "", "cannot set both resource and service backends");
        }
        (None, None) => errors.required(path, "resource or service backend is required"),
        (None, Some(_)) => {}
        (Some(service), None) => {
            let at = path.child("service");
            required(service, "name", &at, errors);
            let (name, number) = (text(service, "/port/name"), integer(service, "/port/number").unwrap_or(0));
            let port = at.child("port");
            match (name.is_empty(), number) {
                (true, 0) => errors.required(&at, "port name or number is required"),
                (true, number) => number_errors(number, &port.child("number"), errors),
                (false, 0) => errors.all(&port.child("name"), name, format::port_name(name)),
                (false, _) => errors.invalid(&at, "", "cannot set both port name & port number"),
            }
        }
    }
}

pub(crate) fn network_policy(object: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    if let Some(selector) = at(object, "/spec/podSelector") {
        check_selector(selector, &path.child("podSelector"), errors);
    }
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in items(object, &format!("/spec/{list}")).iter().enumerate() {
            let at = path.child(list).index(index);
            for (number, port) in items(rule, "/ports").iter().enumerate() {
                check_policy_port(port, &at.child("ports").index(number), errors);
            }
            for (number, peer) in items(rule, &format!("/{peers}")).iter().enumerate() {
                check_peer(peer, &at.child(peers).index(number), errors);
            }
        }
    }
    for (index, kind) in items(object, "/spec/policyTypes").iter().enumerate() {
        let at = path.child("policyTypes").index(index);
        errors.one_of(&at, kind.as_str().unwrap_or_default(), &["Egress", "Ingress"]);
    }
}

fn check_policy_port(port: &Value, path: &Path, errors: &mut Errors) {
    errors.one_of(&path.child("protocol"), string(port, "protocol"), &PROTOCOLS);
    let number = field(port, "port");
    if let Some(number) = number {
        check_port(number, &path.child("port"), errors);
    }
    let Some(end) = integer(port, "/endPort") else { return };
    let at = path.child("endPort");
    match number {
        None => errors.required(&path.child("port"), "must be specified when `endPort` is specified"),
        Some(Value::String(name)) => {
            errors.invalid(&at, name.as_str(), "may not be specified when `port` is non-numeric");
        }
        Some(number) if number.as_i64().is_some_and(|n| end < n) => {
            errors.invalid(&at, end, "must be greater than or equal to `port`");
        }
        Some(_) => number_errors(end, &at, errors),
    }
}

fn check_peer(peer: &Value, path: &Path, errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"];
    for key in selectors {
        if let Some(selector) = field(peer, key) {
            check_selector(selector, &path.child(key), errors);
        }
    }
    let selects = selectors.iter().any(|k| field(peer, k).is_some());
    let Some(block) = field(peer, "ipBlock") else {
        if !selects {
            errors.required(path, "must specify a peer");
        }
        return;
    };
    if selects {
        errors.forbidden(path, "may not specify both ipBlock and another peer");
    }
    let at = path.child("ipBlock");
    let range = string(block, "cidr");
    if range.is_empty() {
        errors.required(&at.child("cidr"), "");
        return;
    }
    errors.all(&at.child("cidr"), range, format::cidr(range));
    for (index, except) in items(block, "/except").iter().enumerate() {
        let except = except.as_str().unwrap_or_default();
        let at = at.child("except").index(index);
        errors.all(&at, except, format::cidr(except));
        let inside = match (range.parse::<ipnet::IpNet>(), except.parse::<ipnet::IpNet>()) {
            (Ok(outer), Ok(inner)) => outer.contains(&inner) && outer.prefix_len() < inner.prefix_len(),
            _ => continue,
        };
        if !inside {
            errors.invalid(&at, except, "must be a strict subset of `cidr`");
        }
    }
}
