//! This instance's nftables table as a value: the fixed part as text, the changing part as a model with
//! a minimal difference, so that one endpoint's change is a few elements in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::config::NetConfig;

/// The chain of what single pods may send.
pub(crate) const LIMITS_CHAIN: &str = "pod-limits";

/// The named maps and sets of the fixed part that the planner fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Set {
    /// address . protocol . port → chain
    Services,
    /// protocol . port → chain, on every address of the host
    NodePorts,
    /// protocol . port → pod address . port
    HostPorts,
    /// host address . protocol . port → pod address . port
    HostPortsAt,
    /// source . destination, equal: who reached itself through a service
    Hairpin,
    /// address . protocol . port of what has nobody behind it
    NoEndpoints,
}

impl Set {
    const ALL: [Self; 6] = [
        Self::Services,
        Self::NodePorts,
        Self::HostPorts,
        Self::HostPortsAt,
        Self::Hairpin,
        Self::NoEndpoints,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::NodePorts => "node-ports",
            Self::HostPorts => "host-ports",
            Self::HostPortsAt => "host-ports-at",
            Self::Hairpin => "hairpin",
            Self::NoEndpoints => "no-endpoints",
        }
    }

    fn declaration(self) -> &'static str {
        match self {
            Self::Services => "map T services { type ipv4_addr . inet_proto . inet_service : verdict; }",
            Self::NodePorts => "map T node-ports { type inet_proto . inet_service : verdict; }",
            Self::HostPorts => {
                "map T host-ports { type inet_proto . inet_service : ipv4_addr . inet_service; }"
            }
            Self::HostPortsAt => {
                "map T host-ports-at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }"
            }
            Self::Hairpin => "set T hairpin { type ipv4_addr . ipv4_addr; }",
            Self::NoEndpoints => "set T no-endpoints { type ipv4_addr . inet_proto . inet_service; }",
        }
    }
}

/// The changing part of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// Chain name → its rules.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Sets of clients that forget after so many seconds.
    pub sets: BTreeMap<String, u32>,
    /// Key → value; the value is empty in sets.
    pub elements: BTreeMap<(Set, String), String>,
    /// Not a rule: whose disappearance makes tracked UDP flows stale.
    pub udp_endpoints: BTreeSet<SocketAddrV4>,
}

impl Table {
    /// The first one wins: what two services claim belongs to the one that comes first.
    pub fn add(&mut self, set: Set, key: String, value: String) {
        self.elements.entry((set, key)).or_insert(value);
    }
}

/// A client that stays with its endpoint: set, address, seconds left.
pub(crate) type Client = (String, Ipv4Addr, u32);

/// The whole table in one transaction: whatever was there of this instance is replaced. `clients` are
/// put back where their set is still wanted.
pub(crate) fn replace(config: &NetConfig, table: &Table, clients: &[Client]) -> String {
    let mut script = Script::new(config);
    script.line("add table T");
    script.line("delete table T");
    script.line("add table T");
    for set in Set::ALL {
        script.line(&format!("add {}", set.declaration()));
    }
    script.base(config);
    script.change(&Table::default(), table);
    for (set, client, left) in clients {
        if let Some(seconds) = table.sets.get(set) {
            let left = (*left).clamp(1, *seconds);
            script.line(&format!("add element T {set} {{ {client} timeout {seconds}s expires {left}s }}"));
        }
    }
    script.text
}

/// The commands from `old` to `new`; empty when nothing changes.
pub(crate) fn difference(config: &NetConfig, old: &Table, new: &Table) -> String {
    let mut script = Script::new(config);
    script.change(old, new);
    script.text
}

struct Script {
    table: String,
    text: String,
}

impl Script {
    fn new(config: &NetConfig) -> Self {
        Self { table: format!("ip {}", config.table()), text: String::new() }
    }

    /// Adds a command in which ` T` stands for the family and table.
    fn line(&mut self, command: &str) {
        let command = command.replacen(" T", &format!(" {}", self.table), 1);
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{command}");
    }

    fn base(&mut self, config: &NetConfig) {
        let (bridge, pods, services, dns) =
            (&config.bridge, config.pod_cidr, config.service_cidr, config.dns_ip);
        for chain in [
            "guard { type filter hook prerouting priority raw; }",
            "prerouting { type nat hook prerouting priority dstnat; }",
            "output { type nat hook output priority -100; }",
            "postrouting { type nat hook postrouting priority srcnat; }",
            "forward { type filter hook forward priority filter; }",
            "local { type filter hook output priority filter; }",
            "dispatch",
            "refuse",
            LIMITS_CHAIN,
        ] {
            self.line(&format!("add chain T {chain}"));
        }
        let ported = "meta l4proto { tcp, udp, sctp }";
        for (chain, rule) in [
            // route_localnet is on for the bridge; nobody may use it to reach the host's loopback.
            ("guard", format!("iifname {bridge:?} ip daddr 127.0.0.0/8 counter drop")),
            ("guard", format!("jump {LIMITS_CHAIN}")),
            ("prerouting", "jump dispatch".to_owned()),
            ("output", "jump dispatch".to_owned()),
            ("dispatch", format!("ip daddr {dns} return")),
            ("dispatch", "ip daddr . meta l4proto . th dport vmap @services".to_owned()),
            ("dispatch", "fib daddr type != local return".to_owned()),
            ("dispatch", "meta l4proto . th dport vmap @node-ports".to_owned()),
            (
                "dispatch",
                format!("{ported} dnat ip to ip daddr . meta l4proto . th dport map @host-ports-at"),
            ),
            ("dispatch", format!("{ported} dnat ip to meta l4proto . th dport map @host-ports")),
            // Only what came through a service: its endpoint may be the host, or its loopback, and what those
            // say to themselves is nobody's to translate. Connections that are older than this table broke.
            ("postrouting", "ct status dnat ip saddr . ip daddr @hairpin masquerade".to_owned()),
            ("postrouting", format!("oifname {bridge:?} ip saddr 127.0.0.0/8 masquerade")),
            ("postrouting", format!("oifname {bridge:?} return")),
            ("postrouting", format!("ip saddr {pods} ip daddr != {pods} masquerade")),
            // From the host to a cluster address whose endpoint is elsewhere: the source was chosen
            // for the bridge.
            ("postrouting", format!("ip saddr {} oifname != \"lo\" masquerade", config.gateway())),
            // From outside to an endpoint elsewhere: its reply must come back through here.
            ("postrouting", "ct status dnat fib saddr type != local oifname != \"lo\" masquerade".to_owned()),
            ("forward", format!("ip daddr {services} goto refuse")),
            ("forward", "ip daddr . meta l4proto . th dport @no-endpoints goto refuse".to_owned()),
            // Pods must not learn a shortcut past these rules.
            ("local", format!("oifname {bridge:?} icmp type redirect drop")),
            ("local", format!("ip daddr {services} ip daddr != {dns} goto refuse")),
            ("local", "ip daddr . meta l4proto . th dport @no-endpoints goto refuse".to_owned()),
            ("refuse", "meta l4proto tcp reject with tcp reset".to_owned()),
            ("refuse", "reject with icmp type port-unreachable".to_owned()),
        ] {
            self.line(&format!("add rule T {chain} {rule}"));
        }
    }

    /// Order matters inside the transaction: what is named must exist, what is removed must not be
    /// named any more.
    fn change(&mut self, old: &Table, new: &Table) {
        for (name, seconds) in &new.sets {
            if !old.sets.contains_key(name) {
                self.line(&format!(
                    "add set T {name} {{ type ipv4_addr; flags dynamic,timeout; timeout {seconds}s; }}"
                ));
            }
        }
        for name in new.chains.keys().filter(|name| !old.chains.contains_key(*name)) {
            self.line(&format!("add chain T {name}"));
        }
        for (name, rules) in &new.chains {
            match old.chains.get(name) {
                Some(before) if before == rules => continue,
                Some(_) => self.line(&format!("flush chain T {name}")),
                None => {}
            }
            for rule in rules {
                self.line(&format!("add rule T {name} {rule}"));
            }
        }
        self.change_elements(old, new);
        let gone: Vec<_> = old.chains.keys().filter(|name| !new.chains.contains_key(*name)).collect();
        for name in &gone {
            self.line(&format!("flush chain T {name}"));
        }
        for name in &gone {
            self.line(&format!("delete chain T {name}"));
        }
        for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
            self.line(&format!("delete set T {name}"));
        }
    }

    fn change_elements(&mut self, old: &Table, new: &Table) {
        for ((set, key), value) in &old.elements {
            if new.elements.get(&(*set, key.clone())) != Some(value) {
                self.line(&format!("delete element T {} {{ {key} }}", set.name()));
            }
        }
        for ((set, key), value) in &new.elements {
            if old.elements.get(&(*set, key.clone())) == Some(value) {
                continue;
            }
            let element = if value.is_empty() { key.clone() } else { format!("{key} : {value}") };
            self.line(&format!("add element T {} {{ {element} }}", set.name()));
        }
    }
}
