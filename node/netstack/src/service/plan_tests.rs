use super::*;
use crate::service::Endpoint;
use crate::table::{difference, replace};
use std::sync::Arc;

const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn node() -> Node {
    let api_server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6443);
    Node { name: "here".to_owned(), dns_ip: DNS, api_server }
}

fn config() -> NetConfig {
    let path = std::path::PathBuf::from("/nowhere");
    let dirs = gantry_base::settings::InstanceDirs {
        data: path.clone(),
        run: path.clone(),
        logs: path.clone(),
        config: path,
    };
    NetConfig {
        instance: "x".to_owned(),
        dirs,
        bridge: "gt-x".to_owned(),
        pod_cidr: "10.1.0.0/16".parse().expect("a range"),
        service_cidr: "10.96.0.0/16".parse().expect("a range"),
        dns_ip: DNS,
        cluster_domain: "cluster.local".to_owned(),
        node_name: "here".to_owned(),
        node_ip: Ipv4Addr::new(192, 0, 2, 9),
        api_server: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 6443),
    }
}

fn service(ip: [u8; 4]) -> ServiceView {
    ServiceView {
        kind: Kind::ClusterIp(ip.into()),
        ports: vec![ServicePort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
    }
}

/// `r` ready, `t` terminating and serving, `n` not ready; upper case: on this node.
fn slice(states: &str) -> SliceView {
    let endpoints = states.chars().zip(1..).map(|(state, n)| Endpoint {
        address: Ipv4Addr::new(10, 1, 0, n),
        hostname: None,
        node: Some(if state.is_uppercase() { "here" } else { "there" }.to_owned()),
        ready: state.eq_ignore_ascii_case(&'r'),
        serving: !state.eq_ignore_ascii_case(&'n'),
        terminating: state.eq_ignore_ascii_case(&'t'),
    });
    SliceView {
        service: "web".to_owned(),
        endpoints: endpoints.collect(),
        ports: vec![("http".to_owned(), Protocol::Tcp, 8080), ("other".to_owned(), Protocol::Tcp, 9)],
    }
}

fn world(service: ServiceView, states: &str) -> World {
    let mut world = World::default();
    world.services.insert(("ns".to_owned(), "web".to_owned()), Arc::new(service));
    world.slices.insert(("ns".to_owned(), "web-1".to_owned()), Arc::new(slice(states)));
    world
}

/// The last octets of the endpoints that the chain behind a key uses, or "refused", or "".
fn behind(table: &Table, set: Set, key: &str) -> String {
    if table.elements.contains_key(&(Set::NoEndpoints, key.to_owned())) {
        return "refused".to_owned();
    }
    let Some(verdict) = table.elements.get(&(set, key.to_owned())) else { return String::new() };
    let chain = verdict.trim_start_matches("goto ");
    let rules = table.chains[chain].join("\n");
    (1..10).filter(|n| rules.contains(&format!("10.1.0.{n}"))).map(|n| n.to_string()).collect()
}

#[test]
fn endpoints_are_chosen_as_the_api_says() {
    for (states, local, expected) in [
        ("rr", false, "12"),
        ("rn", false, "1"),
        ("rt", false, "1"),
        ("nt", false, "2"),
        ("nn", false, "refused"),
        ("", false, "refused"),
        ("rR", true, "2"),
        ("rN", true, "refused"),
        ("rT", true, "2"),
        ("rTR", true, "3"),
    ] {
        let wanted = ServiceView { internal_local: local, ..service([10, 96, 0, 20]) };
        let table = plan(&world(wanted, states), &[], &node());
        assert_eq!(behind(&table, Set::Services, "10.96.0.20 . tcp . 80"), expected, "{states} {local}");
    }
}

#[test]
fn outside_addresses_follow_the_external_policy() {
    let mut wanted = service([10, 96, 0, 20]);
    wanted.ports[0].node_port = Some(30_080);
    wanted.external_ips = vec![Ipv4Addr::new(203, 0, 113, 1)];
    wanted.load_balancer_ips = vec![Ipv4Addr::new(203, 0, 113, 2)];
    wanted.external_local = true;
    wanted.source_ranges = vec!["198.51.100.0/24".to_owned()];
    let table = plan(&world(wanted.clone(), "rR"), &[], &node());
    assert_eq!(behind(&table, Set::Services, "10.96.0.20 . tcp . 80"), "12");
    assert_eq!(behind(&table, Set::NodePorts, "tcp . 30080"), "2");
    assert_eq!(behind(&table, Set::Services, "203.0.113.1 . tcp . 80"), "2");
    let fence = table.elements[&(Set::Services, "203.0.113.2 . tcp . 80".to_owned())].clone();
    let rules = &table.chains[fence.trim_start_matches("goto ")];
    assert!(rules[0].starts_with("ip saddr 198.51.100.0/24 goto loc-"), "{rules:?}");
    assert_eq!(rules[1], "drop");
    let table = plan(&world(wanted, "r"), &[], &node());
    assert_eq!(behind(&table, Set::Services, "203.0.113.1 . tcp . 80"), "refused");
    assert_eq!(behind(&table, Set::NodePorts, "tcp . 30080"), "", "nothing listens there: refused anyway");
}

#[test]
fn what_needs_no_rules_gets_none() {
    for kind in [Kind::Headless, Kind::ExternalName("example.org".to_owned()), Kind::ClusterIp(DNS)] {
        let table = plan(&world(ServiceView { kind, ..service([0; 4]) }, "rr"), &[], &node());
        assert!(table.elements.is_empty(), "{table:?}");
    }
}

#[test]
fn the_api_server_s_service_needs_no_slices() {
    let mut world = World::default();
    let key = ("default".to_owned(), "kubernetes".to_owned());
    world.services.insert(key, Arc::new(service([10, 96, 0, 1])));
    let table = plan(&world, &[], &node());
    assert!(table.chains.values().flatten().any(|rule| rule == "meta l4proto tcp dnat to 127.0.0.1:6443"));
    assert_eq!(
        *Node::of(&config()).api_server.ip(),
        Ipv4Addr::new(192, 0, 2, 9),
        "0.0.0.0 is no place to go"
    );
}

#[test]
fn one_endpoint_s_change_touches_its_service_only() {
    let mut before = world(service([10, 96, 0, 20]), "rr");
    before.services.insert(("ns".to_owned(), "idle".to_owned()), Arc::new(service([10, 96, 0, 21])));
    let mut after = before.clone();
    after.slices.insert(("ns".to_owned(), "web-1".to_owned()), Arc::new(slice("rrr")));
    let (old, new) = (plan(&before, &[], &node()), plan(&after, &[], &node()));
    let script = difference(&config(), &old, &new);
    let lines: Vec<_> = script.lines().collect();
    let [flush, rule, hairpin] = &lines[..] else { panic!("three commands, not {lines:#?}") };
    assert!(flush.starts_with("flush chain ip gantry-x svc-"), "{flush}");
    assert!(rule.ends_with("2 : 10.1.0.3 . 8080 }"), "{rule}");
    assert_eq!(*hairpin, "add element ip gantry-x hairpin { 10.1.0.3 . 10.1.0.3 }");
    assert_eq!(difference(&config(), &new, &new), "", "nothing changed, nothing is run");
    let back = difference(&config(), &new, &plan(&World::default(), &[], &node()));
    assert!(back.contains("delete chain ip gantry-x svc-"));
    assert!(back.find("delete element") < back.find("delete chain"), "{back}");
}

#[test]
fn affinity_keeps_the_clients_of_endpoints_that_stay() {
    let sticky = ServiceView { affinity_seconds: Some(600), ..service([10, 96, 0, 20]) };
    let old = plan(&world(sticky.clone(), "rr"), &[], &node());
    let new = plan(&world(sticky.clone(), "rrr"), &[], &node());
    assert_eq!((old.sets.len(), new.sets.len()), (2, 3));
    let script = difference(&config(), &old, &new);
    assert_eq!(script.matches("add set").count(), 1, "{script}");
    assert!(!script.contains("delete set") && !script.contains("flush chain ip gantry-x ep-"), "{script}");
    let longer = ServiceView { affinity_seconds: Some(900), ..sticky };
    let script = difference(&config(), &old, &plan(&world(longer, "rr"), &[], &node()));
    assert_eq!(script.matches("timeout 900s").count(), 2, "a new time needs new sets: {script}");
}

#[test]
fn two_services_with_one_claim_make_no_broken_transaction() {
    let mut first = service([10, 96, 0, 20]);
    first.external_ips = vec![Ipv4Addr::new(203, 0, 113, 1)];
    let mut both = world(first.clone(), "r");
    first.kind = Kind::ClusterIp(Ipv4Addr::new(10, 96, 0, 21));
    both.services.insert(("ns".to_owned(), "a-first".to_owned()), Arc::new(first));
    let script = replace(&config(), &plan(&both, &[], &node()), &[]);
    assert_eq!(script.matches("203.0.113.1 . tcp . 80 :").count(), 1);
}
