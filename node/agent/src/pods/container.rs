//! The container a pod asks for, in CRI's terms: command, environment, mounts, limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_cri::{
    ContainerConfig, ContainerMetadata, Image, ImageSpec, KeyValue, LinuxContainerConfig, Mount,
    MountPropagation,
};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::env::expand;
use super::{security, spec};
use crate::errors::PodProblem;
use crate::files;
use crate::resources;
use crate::volumes::{PodVolumes, subpath};

const MESSAGE_PATH_DEFAULT: &str = "/dev/termination-log";

/// What a container's configuration depends on beside its spec.
pub(crate) struct ContainerContext<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    /// The image as the runtime knows it; its id is what runs.
    pub(crate) image: &'a Image,
    pub(crate) env: Vec<KeyValue>,
    pub(crate) volumes: &'a PodVolumes,
    /// `DATA/pods/UID`.
    pub(crate) pod_dir: &'a Path,
    /// The managed hosts file, when there is one.
    pub(crate) hosts_file: Option<&'a Path>,
    pub(crate) memory_capacity: i64,
    /// Directory of the profiles that `seccompProfile.localhostProfile` names.
    pub(crate) seccomp_profiles: &'a Path,
}

/// The configuration; makes the host files that its mounts need.
pub(crate) fn config(context: &ContainerContext<'_>) -> Result<ContainerConfig, PodProblem> {
    let container = context.container;
    let lookup = |name: &str| context.env.iter().rev().find(|v| v.key == name).map(|v| v.value.clone());
    let expanded = |list: Option<&Vec<String>>| -> Vec<String> {
        list.into_iter().flatten().map(|text| expand(text, &lookup)).collect()
    };
    let security = security::container(context.pod, container, context.image, context.seccomp_profiles)?;
    let message_path = container.termination_message_path.as_deref().filter(|p| !p.is_empty());
    let message_path = message_path.unwrap_or(MESSAGE_PATH_DEFAULT);
    let mut mounts = Vec::new();
    for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        mounts.push(mount(context, index, wanted, &lookup)?);
    }
    let mounted = |path: &str, mounts: &[Mount]| mounts.iter().any(|m| m.container_path == path);
    if let Some(hosts) = context.hosts_file
        && !mounted("/etc/hosts", &mounts)
    {
        mounts.push(plain_mount("/etc/hosts", hosts));
    }
    if !mounted(message_path, &mounts) {
        let file =
            message_file(context).map_err(|e| config_error(format!("termination message file: {e}")))?;
        mounts.push(plain_mount(message_path, &file));
    }
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let mut labels = spec::identity_labels(context.pod);
    labels.insert(spec::LABEL_CONTAINER_NAME.into(), container.name.clone());
    let annotations = BTreeMap::from([
        (spec::ANNOTATION_HASH.to_owned(), spec::hash(container)),
        (spec::ANNOTATION_RESTARTS.to_owned(), context.attempt.to_string()),
        (spec::ANNOTATION_MESSAGE_PATH.to_owned(), message_path.to_owned()),
        (spec::ANNOTATION_MESSAGE_POLICY.to_owned(), policy.to_owned()),
        (spec::ANNOTATION_GRACE.to_owned(), spec::grace(context.pod).as_secs().to_string()),
    ]);
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: context.attempt }),
        image: Some(ImageSpec { image: context.image.id.clone(), ..Default::default() }),
        command: expanded(container.command.as_ref()),
        args: expanded(container.args.as_ref()),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: context.env.clone(),
        mounts,
        labels,
        annotations,
        log_path: format!("{}/{}.log", container.name, context.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::container_resources(context.pod, container, context.memory_capacity)),
            security_context: Some(security),
        }),
        ..Default::default()
    })
}

fn config_error(message: String) -> PodProblem {
    PodProblem::new("CreateContainerConfigError", message)
}

fn plain_mount(inside: &str, host: &Path) -> Mount {
    Mount {
        container_path: inside.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

fn mount(
    context: &ContainerContext<'_>,
    index: usize,
    wanted: &VolumeMount,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Mount, PodProblem> {
    let volume = context.volumes.host_path(context.pod, &wanted.name).ok_or_else(|| {
        config_error(format!("cannot find volume \"{}\" to mount into container", wanted.name))
    })?;
    let sub_path = match (&wanted.sub_path_expr, &wanted.sub_path) {
        (Some(expr), _) if !expr.is_empty() => expand(expr, lookup),
        (_, Some(path)) => path.clone(),
        _ => String::new(),
    };
    let host_path = if sub_path.is_empty() {
        // A path of the host that is missing becomes a directory, as every runtime for containers does it.
        if !volume.exists() {
            files::create_dir(&volume, 0o755)
                .map_err(|e| config_error(format!("{}: {e}", volume.display())))?;
        }
        volume
    } else {
        let target = context.volumes.sub_path_target(&wanted.name, &context.container.name, index);
        subpath::bind(&volume, &sub_path, &target).map_err(|error| {
            config_error(format!("failed to prepare subPath for volumeMount \"{}\": {error}", wanted.name))
        })?
    };
    let propagation = match wanted.mount_propagation.as_deref() {
        Some("HostToContainer") => MountPropagation::HostToContainer,
        Some("Bidirectional") => MountPropagation::Bidirectional,
        _ => MountPropagation::Private,
    };
    let inside = &wanted.mount_path;
    let inside = if inside.starts_with('/') { inside.clone() } else { format!("/{inside}") };
    Ok(Mount {
        container_path: inside,
        host_path: host_path.to_string_lossy().into_owned(),
        readonly: wanted.read_only.unwrap_or(false),
        propagation: propagation.into(),
        ..Default::default()
    })
}

/// An empty file for the run's termination message, writable by whatever user the container has.
fn message_file(context: &ContainerContext<'_>) -> std::io::Result<PathBuf> {
    let directory = context.pod_dir.join("containers").join(&context.container.name);
    files::create_dir(&directory, 0o755)?;
    let path = directory.join(format!("{}.message", context.attempt));
    files::write_atomic(&path, b"", 0o666)?;
    Ok(path)
}
