//! The sandbox a pod asks for: names, DNS, ports, namespaces.

use gantry_cri::{
    DnsConfig, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol,
};
use k8s_openapi::api::core::v1::Pod;

use super::{security, spec};
use crate::config::AgentConfig;

/// Longest host name Linux takes.
const HOSTNAME_BYTES_MAX: usize = 63;
/// Most search domains and name servers a resolver file may name.
const SEARCHES_MAX: usize = 32;
const SERVERS_MAX: usize = 3;

/// The configuration of the pod's sandbox.
pub(crate) fn config(
    agent: &AgentConfig,
    pod: &Pod,
    attempt: u32,
    cgroup: String,
    host: &DnsConfig,
) -> PodSandboxConfig {
    let (namespace, name, uid) = (spec::namespace(pod), spec::name(pod), spec::uid(pod));
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            attempt,
        }),
        // The host's own name stands in its network.
        hostname: if spec::host_network(pod) { String::new() } else { hostname(pod, &agent.cluster_domain) },
        log_directory: agent.dirs.pod_logs(namespace, name, uid).to_string_lossy().into_owned(),
        dns_config: Some(dns(agent, pod, host)),
        port_mappings: port_mappings(pod),
        labels: spec::sandbox_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup,
            security_context: Some(security::sandbox(pod)),
            sysctls: security::sysctls(pod),
            ..Default::default()
        }),
    }
}

/// The pod's fully qualified name, when it has a subdomain.
pub(crate) fn fqdn(pod: &Pod, domain: &str) -> Option<String> {
    let subdomain = spec::pod_spec(pod).subdomain.as_deref().filter(|s| !s.is_empty())?;
    Some(format!("{}.{subdomain}.{}.svc.{domain}", short_name(pod), spec::namespace(pod)))
}

/// `spec.hostname`, or the pod's name cut to what a host name can hold.
pub(crate) fn short_name(pod: &Pod) -> String {
    let own = spec::pod_spec(pod).hostname.as_deref().filter(|h| !h.is_empty());
    let name = own.unwrap_or_else(|| spec::name(pod));
    let cut: String = name.chars().take(HOSTNAME_BYTES_MAX).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// What `hostname` prints in the pod.
pub(crate) fn hostname(pod: &Pod, domain: &str) -> String {
    if let Some(name) = spec::pod_spec(pod).hostname_override.as_deref().filter(|h| !h.is_empty()) {
        return name.to_owned();
    }
    let qualified = spec::pod_spec(pod).set_hostname_as_fqdn.unwrap_or(false);
    qualified.then(|| fqdn(pod, domain)).flatten().unwrap_or_else(|| short_name(pod))
}

/// A resolver file's content.
pub(crate) fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => config.searches = words.map(str::to_owned).collect(),
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

fn dns(agent: &AgentConfig, pod: &Pod, host: &DnsConfig) -> DnsConfig {
    let pod_spec = spec::pod_spec(pod);
    let policy = pod_spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !spec::host_network(pod),
        _ => false,
    };
    let mut config = if policy == "None" {
        DnsConfig::default()
    } else if cluster && !agent.cluster_dns.is_empty() {
        let (domain, namespace) = (&agent.cluster_domain, spec::namespace(pod));
        let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        searches.extend(host.searches.clone());
        DnsConfig {
            servers: agent.cluster_dns.iter().map(ToString::to_string).collect(),
            searches,
            options: vec!["ndots:5".into()],
        }
    } else {
        host.clone()
    };
    if let Some(own) = &pod_spec.dns_config {
        extend(&mut config.servers, own.nameservers.as_deref().unwrap_or_default());
        extend(&mut config.searches, own.searches.as_deref().unwrap_or_default());
        for option in own.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            // A pod's option replaces one of the same name.
            config.options.retain(|o| o.split(':').next() != Some(name));
            config.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.to_owned(),
            });
        }
    }
    config.servers.truncate(SERVERS_MAX);
    config.searches.truncate(SEARCHES_MAX);
    config
}

fn extend(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// Ports of the host that lead to the pod.
fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let ports = spec::members(pod).flat_map(|m| m.container.ports.clone().unwrap_or_default());
    ports
        .filter_map(|port| {
            let host_port = port.host_port.filter(|p| *p > 0 && !spec::host_network(pod))?;
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            Some(PortMapping {
                protocol: protocol.into(),
                container_port: port.container_port,
                host_port,
                host_ip: port.host_ip.unwrap_or_default(),
            })
        })
        .collect()
}

/// `/etc/hosts` of the pod's containers, which the agent manages.
pub(crate) fn hosts_file(pod: &Pod, ips: &[String], domain: &str, host_file: &str) -> String {
    let mut text = if spec::host_network(pod) {
        format!("# Managed by the node from its own hosts file.\n{host_file}")
    } else {
        let mut text = String::from(
            "# Managed by the node.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let names = match fqdn(pod, domain) {
            Some(fqdn) => format!("{fqdn}\t{}", short_name(pod)),
            None => hostname(pod, domain),
        };
        for ip in ips {
            text.push_str(&format!("{ip}\t{names}\n"));
        }
        text
    };
    let aliases = spec::pod_spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# From hostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn host_names() {
        let pod = |spec: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "n"}, "spec": spec}))
                .expect("a pod")
        };
        let plain = json!({"containers": []});
        let sub = json!({"containers": [], "hostname": "h", "subdomain": "s"});
        let full = json!({"containers": [], "subdomain": "s", "setHostnameAsFQDN": true});
        for (spec, want) in [(plain, "web-0"), (sub.clone(), "h"), (full, "web-0.s.n.svc.c.l")] {
            assert_eq!(hostname(&pod(spec), "c.l"), want);
        }
        let hosts = hosts_file(&pod(sub), &["10.0.0.5".into()], "c.l", "");
        assert!(hosts.contains("10.0.0.5\th.s.n.svc.c.l\th\n"), "{hosts}");
    }

    #[test]
    fn resolver_files_are_read() {
        let config =
            parse_resolv_conf("# x\nnameserver 1.1.1.1\nsearch a b\noptions ndots:2\nnameserver ::1\n");
        assert_eq!(config.servers, ["1.1.1.1", "::1"]);
        assert_eq!((config.searches.len(), config.options.len()), (2, 1));
    }
}
