//! Volumes of a pod: made before its containers, kept current while it runs, removed after it.

pub(crate) mod atomic;
pub(crate) mod content;
mod host_path;
pub(crate) mod sources;
pub(crate) mod subpath;
mod token;

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use kube::Client;
use nix::mount::{MsFlags, mount};

use self::content::ContentContext;
use self::sources::Objects;
use self::token::Tokens;
use crate::errors::PodProblem;
use crate::files;
use crate::pods::spec;
use crate::quantity;

/// Volumes of one pod.
pub(crate) struct PodVolumes {
    /// `DATA/pods/UID`.
    root: PathBuf,
    client: Client,
    tokens: Tokens,
    ready: bool,
}

/// What volumes need to know of the node.
pub(crate) struct VolumeContext<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) allocatable: (i64, i64),
    pub(crate) host_ips: &'a [String],
    pub(crate) now: Timestamp,
}

impl PodVolumes {
    pub(crate) fn new(root: PathBuf, client: Client) -> Self {
        Self { root, client, tokens: Tokens::default(), ready: false }
    }

    /// All volumes were made at least once.
    pub(crate) fn ready(&self) -> bool {
        self.ready
    }

    /// When to call [`Self::ensure`] again without any other reason.
    pub(crate) fn renew_at(&self) -> Option<Timestamp> {
        self.tokens.renew_at()
    }

    /// Makes every volume, or brings its content up to date. Safe to repeat.
    pub(crate) async fn ensure(&mut self, pod: &Pod, context: &VolumeContext<'_>) -> Result<(), PodProblem> {
        let failed = |name: &str, message: String| {
            PodProblem::new(
                "FailedMount",
                format!("MountVolume.SetUp failed for volume \"{name}\" : {message}"),
            )
        };
        let group = fs_group(pod);
        for volume in spec::pod_spec(pod).volumes.iter().flatten() {
            let tokens = self.tokens.of(&self.client, pod, volume, context.now).await;
            let tokens = tokens.map_err(|message| failed(&volume.name, message))?;
            let content = ContentContext {
                pod,
                objects: context.objects,
                allocatable: context.allocatable,
                host_ips: context.host_ips,
                tokens: &tokens,
            };
            let payload =
                content::payload(volume, &content).map_err(|message| failed(&volume.name, message))?;
            let path = self.path(volume);
            let made = tokio::task::block_in_place(|| match payload {
                Some(mut payload) => {
                    if !path.exists() {
                        files::create_dir(&path, 0o755)?;
                    }
                    // Only secrets must not reach a disk; a host that cannot mount keeps them in the pod's directory.
                    if holds_secrets(volume) && !is_mount(&path) {
                        mount_tmpfs(&path, "mode=0755").or_else(|e| unprivileged(&e))?;
                    }
                    if group.is_some() {
                        payload.values_mut().for_each(|file| file.mode |= (file.mode & 0o400) >> 3);
                    }
                    atomic::write(&path, &payload, group).map(|_| ())
                }
                None => make(volume, &path, group),
            });
            made.map_err(|error| failed(&volume.name, error.to_string()))?;
        }
        self.ready = true;
        Ok(())
    }

    /// The host path of a named volume.
    pub(crate) fn host_path(&self, pod: &Pod, name: &str) -> Option<PathBuf> {
        let volume = spec::pod_spec(pod).volumes.iter().flatten().find(|v| v.name == name)?;
        Some(match &volume.host_path {
            Some(source) => PathBuf::from(&source.path),
            None => self.path(volume),
        })
    }

    /// Where a sub-path of a container's mount is bound.
    pub(crate) fn sub_path_target(&self, volume: &str, container: &str, index: usize) -> PathBuf {
        self.root.join("volume-subpaths").join(volume).join(container).join(index.to_string())
    }

    fn path(&self, volume: &Volume) -> PathBuf {
        self.root.join("volumes").join(plugin(volume)).join(&volume.name)
    }
}

/// Directory name of a volume's plugin, as the kubelet lays it out.
fn plugin(volume: &Volume) -> &'static str {
    if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.projected.is_some() {
        "kubernetes.io~projected"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else {
        "kubernetes.io~empty-dir"
    }
}

/// The group that owns the pod's volumes.
fn fs_group(pod: &Pod) -> Option<u32> {
    u32::try_from(spec::pod_spec(pod).security_context.as_ref()?.fs_group?).ok()
}

fn holds_secrets(volume: &Volume) -> bool {
    let projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    volume.secret.is_some()
        || projected.into_iter().any(|s| s.secret.is_some() || s.service_account_token.is_some())
}

/// Makes a volume without managed content.
fn make(volume: &Volume, path: &Path, group: Option<u32>) -> io::Result<()> {
    if let Some(source) = &volume.host_path {
        return host_path::check(Path::new(&source.path), source.type_.as_deref().unwrap_or_default());
    }
    match &volume.empty_dir {
        Some(source) => empty_dir(source, path, group),
        // A volume without any source is an emptyDir.
        None if is_bare(volume) => empty_dir(&EmptyDirVolumeSource::default(), path, group),
        None => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this volume type is not supported by the node"))
        }
    }
}

fn is_bare(volume: &Volume) -> bool {
    serde_json::to_value(volume).is_ok_and(|v| v.as_object().is_some_and(|o| o.len() == 1))
}

fn empty_dir(source: &EmptyDirVolumeSource, path: &Path, group: Option<u32>) -> io::Result<()> {
    let fresh = !path.exists();
    if fresh {
        files::create_dir(path, 0o777)?;
    }
    if source.medium.as_deref() == Some("Memory") && !is_mount(path) {
        let limit = source.size_limit.as_ref().map_or(0, quantity::units);
        let options = if limit > 0 { format!("mode=0777,size={limit}") } else { "mode=0777".to_owned() };
        mount_tmpfs(path, &options)?;
    }
    if let Some(group) = group
        && fs::metadata(path)?.gid() != group
    {
        chown(path, None, Some(group))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o2777))?;
    }
    Ok(())
}

fn mount_tmpfs(path: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(io::Error::from)
}

fn unprivileged(error: &io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::PermissionDenied {
        Ok(())
    } else {
        Err(io::Error::new(error.kind(), error.to_string()))
    }
}

/// Another file system begins at `path`.
fn is_mount(path: &Path) -> bool {
    let device = |p: &Path| fs::metadata(p).map(|m| m.dev()).ok();
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

/// Unmounts and removes everything under a pod's directory. Safe to repeat.
pub(crate) fn remove_pod_dir(root: &Path) -> io::Result<()> {
    if !root.exists() {
        return Ok(());
    }
    files::unmount_below(root)?;
    files::remove_tree(root)
}
