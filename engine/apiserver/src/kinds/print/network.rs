//! Rows of services, endpoints and what routes to them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, columns, labels_text, or_none, selector_text};
use crate::kind::Column;
use crate::kinds::value::{at, field, integer, items, string, text};

pub(crate) fn service_columns() -> Vec<Column> {
    columns(&["Type", "Cluster-IP", "External-IP", "Port(s)", "Age"], &["Selector"])
}

pub(crate) fn service_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let kind = text(o, "/spec/type");
    let ports: Vec<String> = items(o, "/spec/ports").iter().map(port_text).collect();
    vec![
        json!(kind),
        json!(or_none(text(o, "/spec/clusterIP"))),
        json!(external_address(o, kind)),
        json!(or_none(&ports.join(","))),
        age(o, now),
        json!(labels_text(o, "/spec/selector")),
    ]
}

fn port_text(port: &Value) -> String {
    let number = integer(port, "/port").unwrap_or(0);
    let protocol = string(port, "protocol");
    match integer(port, "/nodePort").filter(|n| *n > 0) {
        Some(node) => format!("{number}:{node}/{protocol}"),
        None => format!("{number}/{protocol}"),
    }
}

fn external_address(o: &Value, kind: &str) -> String {
    let given: Vec<&str> = items(o, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match kind {
        "ExternalName" => text(o, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let mut all = ingress_points(o);
            all.extend(given.iter().map(|s| (*s).to_owned()));
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ => or_none(&given.join(",")),
    }
}

/// Addresses or names a load balancer was given.
fn ingress_points(o: &Value) -> Vec<String> {
    items(o, "/status/loadBalancer/ingress")
        .iter()
        .map(|i| if string(i, "ip").is_empty() { string(i, "hostname") } else { string(i, "ip") }.to_owned())
        .collect()
}

pub(crate) fn endpoints_columns() -> Vec<Column> {
    columns(&["Endpoints", "Age"], &[])
}

pub(crate) fn endpoints_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in items(o, "/subsets") {
        for address in items(subset, "/addresses") {
            let ip = string(address, "ip");
            let ports = items(subset, "/ports");
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|p| join_port(ip, integer(p, "/port").unwrap_or(0))));
        }
    }
    vec![json!(shorten(&all)), age(o, now)]
}

fn join_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// The first three, then how many more.
fn shorten(all: &[String]) -> String {
    match all.len() {
        0 => "<none>".to_owned(),
        1..=3 => all.join(","),
        n => format!("{} + {} more...", all[..3].join(","), n - 3),
    }
}

pub(crate) fn slice_columns() -> Vec<Column> {
    columns(&["AddressType", "Ports", "Endpoints", "Age"], &[])
}

pub(crate) fn slice_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = items(o, "/ports")
        .iter()
        .map(|p| integer(p, "/port").map_or("*".to_owned(), |n| n.to_string()))
        .collect();
    let addresses: Vec<String> = items(o, "/endpoints")
        .iter()
        .flat_map(|e| items(e, "/addresses"))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let none = |text: String| if text == "<none>" { "<unset>".to_owned() } else { text };
    vec![
        json!(string(o, "addressType")),
        json!(none(shorten(&ports))),
        json!(none(shorten(&addresses))),
        age(o, now),
    ]
}

pub(crate) fn ingress_columns() -> Vec<Column> {
    columns(&["Class", "Hosts", "Address", "Ports", "Age"], &[])
}

pub(crate) fn ingress_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let hosts: Vec<String> = items(o, "/spec/rules")
        .iter()
        .map(|r| string(r, "host").to_owned())
        .filter(|h| !h.is_empty())
        .collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { shorten(&hosts) };
    let ports = if items(o, "/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        json!(or_none(text(o, "/spec/ingressClassName"))),
        json!(hosts),
        json!(ingress_points(o).join(",")),
        json!(ports),
        age(o, now),
    ]
}

pub(crate) fn ingress_class_columns() -> Vec<Column> {
    columns(&["Controller", "Parameters", "Age"], &[])
}

pub(crate) fn ingress_class_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = at(o, "/spec/parameters").map_or("<none>".to_owned(), |p| {
        let group = string(p, "apiGroup");
        let dot = if group.is_empty() { String::new() } else { format!(".{group}") };
        format!("{}{dot}/{}", string(p, "kind"), string(p, "name"))
    });
    vec![json!(text(o, "/spec/controller")), json!(parameters), age(o, now)]
}

pub(crate) fn policy_columns() -> Vec<Column> {
    columns(&["Pod-Selector", "Age"], &[])
}

pub(crate) fn policy_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(selector_text(field(&o["spec"], "podSelector"))), age(o, now)]
}
