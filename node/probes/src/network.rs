//! What the kernel's network can do, tried in a network namespace that ends with the probe.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::{Found, note, programs};

/// Name, the shell words tried, and what it is for.
const LINKS: &[(&str, &[&str], &str)] = &[
    ("veth", &["link", "add", "p0", "type", "veth", "peer", "name", "p1"], "pod interfaces"),
    ("bridge", &["link", "add", "p2", "type", "bridge"], "pod networks"),
    (
        "vxlan",
        &["link", "add", "p3", "type", "vxlan", "id", "42", "dstport", "4789", "nolearning"],
        "overlay networks",
    ),
    ("vlan_8021q", &["link", "add", "link", "p2", "name", "p4", "type", "vlan", "id", "5"], "VLAN networks"),
    (
        "bridge_vlan_filtering",
        &["link", "set", "p2", "type", "bridge", "vlan_filtering", "1"],
        "VLANs on a bridge",
    ),
    ("macvlan", &["link", "add", "link", "p2", "name", "p5", "type", "macvlan"], "flat networks"),
    ("ipvlan", &["link", "add", "link", "p2", "name", "p6", "type", "ipvlan"], "flat networks"),
    ("wireguard", &["link", "add", "p7", "type", "wireguard"], "encrypted networks"),
    ("ifb", &["link", "add", "p8", "type", "ifb"], "ingress QoS"),
];

const QDISCS: &[(&str, &[&str])] = &[
    ("tc_tbf", &["tbf", "rate", "1mbit", "burst", "32kbit", "latency", "400ms"]),
    ("tc_htb", &["htb", "default", "1"]),
    ("tc_netem", &["netem", "delay", "1ms"]),
    ("tc_fq_codel", &["fq_codel"]),
];

pub fn probe(found: &mut Found) {
    if !nix::unistd::geteuid().is_root() || programs::find("ip").is_none() {
        for (name, ..) in LINKS {
            note(found, name, false, "not tried: needs root and the package iproute2");
        }
        return;
    }
    let Some(script) = run_in_namespace() else {
        note(found, "veth", false, "a network namespace cannot be made here");
        return;
    };
    for (name, _, use_of) in LINKS {
        let there = script.lines().any(|line| line == *name);
        note(
            found,
            name,
            there,
            if there { format!("for {use_of}") } else { "the kernel refuses it".to_owned() },
        );
    }
    for (name, _) in QDISCS {
        let there = script.lines().any(|line| line == *name);
        note(found, name, there, if there { "for QoS" } else { "the kernel refuses it" });
    }
    for (name, detail) in [
        ("nft_maps", "verdict maps and numgen, for Services"),
        ("nft_bridge_conntrack", "connection tracking in the bridge family"),
    ] {
        let there = script.lines().any(|line| line == name);
        note(
            found,
            name,
            there,
            if there { detail.to_owned() } else { format!("the kernel refuses {detail}") },
        );
    }
    let br_netfilter = std::path::Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists();
    note(
        found,
        "br_netfilter",
        br_netfilter,
        if br_netfilter { "bridged packets pass nftables" } else { "bridged packets bypass nftables" },
    );
}

/// One shell in one new namespace tries everything and prints the names of what worked.
fn run_in_namespace() -> Option<String> {
    let mut script = String::from("exec 2>/dev/null\n");
    for (name, words, _) in LINKS {
        script += &format!("ip {} && echo {name}\n", words.join(" "));
    }
    for (name, words) in QDISCS {
        script += &format!("tc qdisc replace dev p0 root {} && echo {name}\n", words.join(" "));
    }
    // On one line nft wants a semicolon behind every block, too.
    script += "nft 'table ip p { map m { type inet_service : verdict ; } ; \
               chain c { tcp dport vmap @m ; numgen random mod 2 vmap { 0 : drop , 1 : accept } ; } ; }' \
               && echo nft_maps\n";
    script += "nft 'table bridge p { chain c { type filter hook forward priority 0 ; ct state new accept ; } ; }' \
               && echo nft_bridge_conntrack\n";
    let mut child = Command::new("unshare")
        .args(["--net", "sh"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(script.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_required_feature_is_probed() {
        let all = crate::probe();
        for name in crate::REQUIRED {
            assert!(all.0.contains_key(*name), "{name} is required and never probed");
        }
    }
}
