//! Security contexts: from the pod's and container's wishes to CRI's terms. Defaults are the safe ones: the
//! runtime's seccomp profile, masked `/proc` paths, no added capability.

use std::path::Path;

use gantry_cri::{
    Capability, Image, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, ProfileType, SecurityProfile,
};
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};

use super::spec;
use crate::errors::PodProblem;

/// Paths of `/proc` and `/sys` that a container does not see.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Paths of `/proc` that a container can only read.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Kernel settings that belong to a pod's own namespaces.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// `profiles` is where the node keeps the profiles that `type: Localhost` names.
fn seccomp(profile: Option<&SeccompProfile>, profiles: &Path) -> SecurityProfile {
    let kind =
        |kind: ProfileType, path: String| SecurityProfile { profile_type: kind.into(), localhost_ref: path };
    match profile.map(|p| p.type_.as_str()) {
        Some("Unconfined") => kind(ProfileType::Unconfined, String::new()),
        Some("Localhost") => {
            let name = profile.and_then(|p| p.localhost_profile.clone()).unwrap_or_default();
            kind(ProfileType::Localhost, profiles.join(name).display().to_string())
        }
        _ => kind(ProfileType::RuntimeDefault, String::new()),
    }
}

/// Which namespaces the pod's sandbox and containers share with whom.
fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = spec::pod_spec(pod);
    let node_or = |host: Option<bool>, own: NamespaceMode| {
        i32::from(if host.unwrap_or(false) { NamespaceMode::Node } else { own })
    };
    let shared = spec.share_process_namespace.unwrap_or(false);
    NamespaceOption {
        network: node_or(spec.host_network, NamespaceMode::Pod),
        ipc: node_or(spec.host_ipc, NamespaceMode::Pod),
        pid: node_or(spec.host_pid, if shared { NamespaceMode::Pod } else { NamespaceMode::Container }),
        ..Default::default()
    }
}

fn int(value: Option<i64>) -> Option<Int64Value> {
    value.map(|value| Int64Value { value })
}

fn supplemental_groups(pod: &Pod) -> Vec<i64> {
    let context = spec::pod_spec(pod).security_context.as_ref();
    let mut groups = context.and_then(|c| c.supplemental_groups.clone()).unwrap_or_default();
    groups.extend(context.and_then(|c| c.fs_group));
    groups.dedup();
    groups
}

/// The sandbox's security context.
pub(crate) fn sandbox(pod: &Pod) -> LinuxSandboxSecurityContext {
    let context = spec::pod_spec(pod).security_context.as_ref();
    let privileged = spec::members(pod)
        .any(|m| m.container.security_context.as_ref().and_then(|c| c.privileged).unwrap_or(false));
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: int(context.and_then(|c| c.run_as_user)),
        // CRI refuses a group without a user.
        run_as_group: int(context.filter(|c| c.run_as_user.is_some()).and_then(|c| c.run_as_group)),
        supplemental_groups: supplemental_groups(pod),
        privileged,
        seccomp: Some(seccomp(None, Path::new(""))),
        ..Default::default()
    }
}

/// Kernel settings of the pod; the unsafe ones are refused at admission.
pub(crate) fn sysctls(pod: &Pod) -> std::collections::BTreeMap<String, String> {
    let context = spec::pod_spec(pod).security_context.as_ref();
    let list = context.and_then(|c| c.sysctls.as_ref());
    list.into_iter().flatten().map(|s| (s.name.replace('/', "."), s.value.clone())).collect()
}

/// The first kernel setting that a pod must not change.
pub(crate) fn unsafe_sysctl(pod: &Pod) -> Option<String> {
    sysctls(pod).into_keys().find(|name| !SAFE_SYSCTLS.contains(&name.as_str()))
}

/// A container's security context. `image` is what it will run, for its user.
pub(crate) fn container(
    pod: &Pod,
    container: &Container,
    image: &Image,
    profiles: &Path,
) -> Result<LinuxContainerSecurityContext, PodProblem> {
    let pod_context = spec::pod_spec(pod).security_context.as_ref();
    let own = container.security_context.as_ref();
    let privileged = own.and_then(|c| c.privileged).unwrap_or(false);
    let user = own.and_then(|c| c.run_as_user).or(pod_context.and_then(|c| c.run_as_user));
    let group = own.and_then(|c| c.run_as_group).or(pod_context.and_then(|c| c.run_as_group));
    let non_root = own.and_then(|c| c.run_as_non_root).or(pod_context.and_then(|c| c.run_as_non_root));
    verify_non_root(pod, container, non_root.unwrap_or(false), user, image)?;
    let image_user = image.uid.as_ref().map(|u| u.value);
    let run_as_user = user.or(image_user);
    // The image's user counts like the spec's; a name is resolved by the runtime inside the image.
    let run_as_username = if run_as_user.is_none() { image.username.clone() } else { String::new() };
    let has_user = run_as_user.is_some() || !run_as_username.is_empty();
    if group.is_some() && !has_user {
        let text = "runAsGroup is specified without a runAsUser.";
        return Err(PodProblem::new("CreateContainerConfigError", text));
    }
    let (masked, read_only): (&[&str], &[&str]) = match own.and_then(|c| c.proc_mount.as_deref()) {
        Some("Unmasked") => (&[], &[]),
        _ if privileged => (&[], &[]),
        _ => (&MASKED, &READ_ONLY),
    };
    let escalation = own.and_then(|c| c.allow_privilege_escalation);
    let profile = own.and_then(|c| c.seccomp_profile.as_ref());
    let profile = profile.or(pod_context.and_then(|c| c.seccomp_profile.as_ref()));
    let capabilities = own.and_then(|c| c.capabilities.as_ref()).map(|c| Capability {
        add_capabilities: c.add.clone().unwrap_or_default(),
        drop_capabilities: c.drop.clone().unwrap_or_default(),
        ..Default::default()
    });
    Ok(LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(namespaces(pod)),
        run_as_user: int(run_as_user),
        run_as_group: int(group),
        run_as_username,
        readonly_rootfs: own.and_then(|c| c.read_only_root_filesystem).unwrap_or(false),
        supplemental_groups: supplemental_groups(pod),
        no_new_privs: escalation == Some(false),
        masked_paths: masked.iter().map(|p| (*p).to_owned()).collect(),
        readonly_paths: read_only.iter().map(|p| (*p).to_owned()).collect(),
        seccomp: (!privileged).then(|| seccomp(profile, profiles)),
        ..Default::default()
    })
}

/// `runAsNonRoot` holds only when the user is known by number and is not 0.
fn verify_non_root(
    pod: &Pod,
    container: &Container,
    wanted: bool,
    user: Option<i64>,
    image: &Image,
) -> Result<(), PodProblem> {
    if !wanted {
        return Ok(());
    }
    let which = format!("(pod: \"{}\", container: {})", spec::display(pod), container.name);
    let text = match (user, image.uid.as_ref().map(|u| u.value), image.username.as_str()) {
        (Some(0), ..) => format!("container's runAsUser breaks non-root policy {which}"),
        (Some(_), ..) => return Ok(()),
        (None, Some(0), _) | (None, None, "") => {
            format!("container has runAsNonRoot and image will run as root {which}")
        }
        (None, Some(_), _) => return Ok(()),
        (None, None, name) => format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {which}"
        ),
    };
    Err(PodProblem::new("CreateContainerConfigError", text))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(
        pod_context: Value,
        own: Value,
        uid: Option<i64>,
        name: &str,
    ) -> Result<LinuxContainerSecurityContext, String> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod_context, "containers": [{"name": "c", "securityContext": own}]}}))
            .expect("a pod");
        let image = Image { uid: int(uid), username: name.into(), ..Default::default() };
        container(&pod, &spec::pod_spec(&pod).containers[0], &image, Path::new("/d/seccomp"))
            .map_err(|e| e.message)
    }

    #[test]
    fn non_root_is_verified() {
        let non_root = json!({"runAsNonRoot": true});
        for (pod, own, uid, name, refused) in [
            (json!({}), json!({}), Some(0), "", None),
            (non_root.clone(), json!({}), Some(0), "", Some("image will run as root")),
            (non_root.clone(), json!({}), None, "", Some("image will run as root")),
            (non_root.clone(), json!({}), Some(1000), "", None),
            (non_root.clone(), json!({}), None, "web", Some("non-numeric user (web)")),
            (non_root.clone(), json!({"runAsUser": 0}), Some(1000), "", Some("breaks non-root policy")),
            (non_root, json!({"runAsNonRoot": false}), Some(0), "", None),
        ] {
            let result = check(pod, own, uid, name);
            match refused {
                None => assert!(result.is_ok(), "{result:?}"),
                Some(text) => assert!(result.as_ref().is_err_and(|e| e.contains(text)), "{result:?}"),
            }
        }
    }

    #[test]
    fn defaults_are_safe_and_the_container_overrides_the_pod() {
        let plain = check(json!({"runAsUser": 5, "fsGroup": 7}), json!({}), Some(0), "").expect("valid");
        assert_eq!(plain.run_as_user, int(Some(5)));
        assert_eq!(plain.supplemental_groups, [7]);
        assert_eq!(plain.seccomp.map(|s| s.profile_type()), Some(ProfileType::RuntimeDefault));
        assert!(plain.masked_paths.contains(&"/proc/kcore".to_owned()) && !plain.no_new_privs);
        let local = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "audit.json"}});
        let local = check(local, json!({}), Some(0), "").expect("valid").seccomp.expect("a profile");
        assert_eq!(local.localhost_ref, "/d/seccomp/audit.json", "below the instance's own directory");
        let own = json!({"runAsUser": 6, "privileged": true, "readOnlyRootFilesystem": true});
        let own = check(json!({"runAsUser": 5}), own, None, "").expect("valid");
        assert_eq!((own.run_as_user, own.privileged, own.readonly_rootfs), (int(Some(6)), true, true));
        assert!(own.masked_paths.is_empty() && own.seccomp.is_none());
    }
}
