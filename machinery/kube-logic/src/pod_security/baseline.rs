//! What `baseline` forbids: known ways from a container to its host.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Check, Subject, Violation, named, plural, quoted, setters};

/// In the order their violations are told.
pub(super) const CHECKS: &[Check] = &[
    app_armor,
    capabilities,
    host_namespaces,
    host_paths,
    host_ports,
    host_probes,
    privileged,
    proc_mount,
    se_linux,
    seccomp,
    sysctls,
    windows_host_process,
];

/// `restricted` has stricter ones in place of the others.
pub(super) const KEPT_BY_RESTRICTED: &[Check] = &[
    app_armor,
    host_namespaces,
    host_ports,
    host_probes,
    privileged,
    proc_mount,
    se_linux,
    sysctls,
    windows_host_process,
];

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Sysctls and the minor version that allowed them.
const SYSCTLS: [(&str, u32); 10] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
];
const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn app_armor(pod: &Subject<'_>) -> Option<Violation> {
    let bad = |holder: &Value| {
        !matches!(text(holder, "/securityContext/appArmorProfile/type"), "" | "RuntimeDefault" | "Localhost")
    };
    let mut values: BTreeSet<&str> = BTreeSet::new();
    for holder in std::iter::once(pod.spec).chain(pod.containers()).filter(|holder| bad(holder)) {
        values.insert(text(holder, "/securityContext/appArmorProfile/type"));
    }
    let mut parts = Vec::new();
    if let Some(who) = setters(bad(pod.spec), &pod.containers_that(bad)) {
        let values: Vec<&str> = values.iter().copied().collect();
        parts.push(format!("{who} must not set AppArmor profile type to {}", quoted(&values)));
    }
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    let mut annotated: Vec<String> = annotations
        .filter(|(key, _)| key.starts_with(APP_ARMOR_ANNOTATION))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| !matches!(*value, "" | "runtime/default") && !value.starts_with("localhost/"))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotated.sort();
    let count = values.len() + annotated.len();
    parts.extend(annotated);
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", count);
    (!parts.is_empty()).then(|| Violation::new(reason, parts.join(", ")))
}

fn capabilities(pod: &Subject<'_>) -> Option<Violation> {
    added_beyond(pod, &CAPABILITIES).map(|detail| Violation::new("non-default capabilities", detail))
}

/// `container "a" must not include "X" in securityContext.capabilities.add`.
pub(super) fn added_beyond(pod: &Subject<'_>, allowed: &[&str]) -> Option<String> {
    let added = |container: &Value| -> BTreeSet<String> {
        list(container, "/securityContext/capabilities/add")
            .filter_map(Value::as_str)
            .filter(|capability| !allowed.contains(capability))
            .map(str::to_owned)
            .collect()
    };
    let containers = pod.containers_that(|container| !added(container).is_empty());
    let all: Vec<String> = pod.containers().flat_map(added).collect::<BTreeSet<_>>().into_iter().collect();
    (!containers.is_empty()).then(|| {
        let (who, what) = (named(&containers), quoted(&all));
        format!("{who} must not include {what} in securityContext.capabilities.add")
    })
}

fn host_namespaces(pod: &Subject<'_>) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec[*field] == true);
    let shared: Vec<String> = shared.map(|field| format!("{field}=true")).collect();
    (!shared.is_empty()).then(|| Violation::new("host namespaces", shared.join(", ")))
}

fn host_paths(pod: &Subject<'_>) -> Option<Violation> {
    let volumes: Vec<&str> = list(pod.spec, "/volumes")
        .filter(|volume| volume["hostPath"].is_object())
        .map(|volume| text(volume, "/name"))
        .collect();
    let detail = || format!("{} {}", plural("volume", "volumes", volumes.len()), quoted(&volumes));
    (!volumes.is_empty()).then(|| Violation::new("hostPath volumes", detail()))
}

fn host_ports(pod: &Subject<'_>) -> Option<Violation> {
    let taken = |container: &Value| -> Vec<i64> {
        let ports = list(container, "/ports").filter_map(|port| port["hostPort"].as_i64());
        ports.filter(|port| *port != 0).collect()
    };
    let containers = pod.containers_that(|container| !taken(container).is_empty());
    let ports: BTreeSet<i64> = pod.containers().flat_map(taken).collect();
    let shown: Vec<String> = ports.iter().map(i64::to_string).collect();
    (!containers.is_empty()).then(|| {
        let verb = plural("uses", "use", containers.len());
        let word = plural("hostPort", "hostPorts", ports.len());
        Violation::new("hostPort", format!("{} {verb} {word} {}", named(&containers), shown.join(", ")))
    })
}

fn host_probes(pod: &Subject<'_>) -> Option<Violation> {
    if pod.minor < 34 {
        return None;
    }
    let hosts = |container: &Value| -> Vec<String> {
        let probes = ["/livenessProbe", "/readinessProbe", "/startupProbe"];
        let hooks = ["/lifecycle/postStart", "/lifecycle/preStop"];
        let handlers = probes.iter().chain(&hooks).flat_map(|place| {
            ["httpGet", "tcpSocket"].map(|kind| text(container, &format!("{place}/{kind}/host")).to_owned())
        });
        handlers.filter(|host| !host.is_empty()).collect()
    };
    let containers: BTreeSet<&str> = pod.containers_that(|c| !hosts(c).is_empty()).into_iter().collect();
    let containers: Vec<&str> = containers.into_iter().collect();
    let all: Vec<String> = pod.containers().flat_map(hosts).collect::<BTreeSet<_>>().into_iter().collect();
    (!containers.is_empty()).then(|| {
        let verb = plural("uses", "use", containers.len());
        let word = plural("probe or lifecycle host", "probe or lifecycle hosts", all.len());
        let detail = format!("{} {verb} {word} {}", named(&containers), quoted(&all));
        Violation::new("probe or lifecycle host", detail)
    })
}

fn privileged(pod: &Subject<'_>) -> Option<Violation> {
    let bad = pod.containers_that(|c| c.pointer("/securityContext/privileged") == Some(&Value::Bool(true)));
    let detail = || format!("{} must not set securityContext.privileged=true", named(&bad));
    (!bad.is_empty()).then(|| Violation::new("privileged", detail()))
}

fn proc_mount(pod: &Subject<'_>) -> Option<Violation> {
    let mount = |container: &Value| text(container, "/securityContext/procMount").to_owned();
    let bad = |container: &Value| !matches!(mount(container).as_str(), "" | "Default");
    let containers = pod.containers_that(bad);
    let values: BTreeSet<String> = pod.containers().filter(|c| bad(c)).map(mount).collect();
    let values: Vec<String> = values.into_iter().collect();
    (!containers.is_empty()).then(|| {
        let (who, what) = (named(&containers), quoted(&values));
        Violation::new("procMount", format!("{who} must not set securityContext.procMount to {what}"))
    })
}

fn se_linux(pod: &Subject<'_>) -> Option<Violation> {
    let field = |holder: &Value, name: &str| {
        text(holder, &format!("/securityContext/seLinuxOptions/{name}")).to_owned()
    };
    let engine = pod.minor >= 31;
    let bad_type = |holder: &Value| match field(holder, "type").as_str() {
        "" | "container_t" | "container_init_t" | "container_kvm_t" => false,
        "container_engine_t" => !engine,
        _ => true,
    };
    let bad = |holder: &Value| {
        bad_type(holder) || ["user", "role"].iter().any(|name| !field(holder, name).is_empty())
    };
    let who = setters(bad(pod.spec), &pod.containers_that(bad))?;
    let holders: Vec<&Value> = std::iter::once(pod.spec).chain(pod.containers()).collect();
    let types: BTreeSet<String> =
        holders.iter().filter(|holder| bad_type(holder)).map(|holder| field(holder, "type")).collect();
    let types: Vec<String> = types.into_iter().collect();
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    for name in ["user", "role"] {
        if holders.iter().any(|holder| !field(holder, name).is_empty()) {
            what.push(format!("{name} may not be set"));
        }
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    Some(Violation::new("seLinuxOptions", detail))
}

fn seccomp(pod: &Subject<'_>) -> Option<Violation> {
    unconfined(pod).map(|detail| Violation::new("seccompProfile", detail))
}

/// `pod must not set securityContext.seccompProfile.type to "Unconfined"`.
pub(super) fn unconfined(pod: &Subject<'_>) -> Option<String> {
    let profile = |holder: &Value| text(holder, "/securityContext/seccompProfile/type").to_owned();
    let bad = |holder: &Value| !matches!(profile(holder).as_str(), "" | "RuntimeDefault" | "Localhost");
    let who = setters(bad(pod.spec), &pod.containers_that(bad))?;
    let holders = std::iter::once(pod.spec).chain(pod.containers());
    let values: BTreeSet<String> = holders.filter(|holder| bad(holder)).map(profile).collect();
    let values: Vec<String> = values.into_iter().collect();
    Some(format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&values)))
}

fn sysctls(pod: &Subject<'_>) -> Option<Violation> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && *since <= pod.minor);
    let bad: Vec<&str> = list(pod.spec, "/securityContext/sysctls")
        .map(|sysctl| text(sysctl, "/name"))
        .filter(|name| !allowed(name))
        .collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

fn windows_host_process(pod: &Subject<'_>) -> Option<Violation> {
    let bad = |holder: &Value| {
        holder.pointer("/securityContext/windowsOptions/hostProcess") == Some(&Value::Bool(true))
    };
    let who = setters(bad(pod.spec), &pod.containers_that(bad))?;
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation::new("hostProcess", detail))
}
