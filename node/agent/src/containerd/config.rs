//! containerd's configuration files.

use std::path::Path;

use super::Paths;
use crate::config::{AgentConfig, RegistryHost};
use crate::errors::AgentError;
use crate::files;

/// Writes `config.toml` and the registries' `hosts.toml`.
pub(super) fn write(config: &AgentConfig, paths: &Paths) -> Result<(), AgentError> {
    for directory in [&paths.root, &paths.state, &paths.certs, &config.cni.conf] {
        files::create_dir(directory, 0o711).map_err(AgentError::file("create", directory))?;
    }
    put(&paths.config, &main(config, paths))?;
    if let Some(registry) = &config.registry {
        let ours = hosts(&format!("https://{}", registry.host), registry);
        put_hosts(&paths.certs.join(&registry.host), &ours)?;
        put_hosts(&paths.certs.join("docker.io"), &hosts("https://registry-1.docker.io", registry))?;
    }
    Ok(())
}

fn put_hosts(directory: &Path, text: &str) -> Result<(), AgentError> {
    files::create_dir(directory, 0o711).map_err(AgentError::file("create", directory))?;
    put(&directory.join("hosts.toml"), text)
}

fn put(path: &Path, text: &str) -> Result<(), AgentError> {
    files::write_atomic(path, text.as_bytes(), 0o600).map_err(AgentError::file("write", path))
}

/// A TOML basic string; JSON's escapes are a subset of TOML's.
fn quote(text: impl AsRef<Path>) -> String {
    serde_json::Value::from(text.as_ref().to_string_lossy()).to_string()
}

fn main(config: &AgentConfig, paths: &Paths) -> String {
    format!(
        r#"version = 2
root = {root}
state = {state}
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
  address = {socket}

[ttrpc]
  address = {ttrpc}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {pause}
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  disable_apparmor = {no_apparmor}
  max_container_log_line_size = 16384

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {cni_bin}
    conf_dir = {cni_conf}
    max_conf_num = 1

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = {runc}
        Root = {runc_root}
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {certs}
"#,
        root = quote(&paths.root),
        state = quote(&paths.state),
        socket = quote(&paths.socket),
        ttrpc = quote(paths.socket.with_extension("sock.ttrpc")),
        pause = quote(&config.pause_image),
        no_apparmor = !Path::new("/sys/kernel/security/apparmor").exists(),
        cni_bin = quote(&config.cni.bin),
        cni_conf = quote(&config.cni.conf),
        runc = quote(&config.programs.runc),
        runc_root = quote(paths.state.join("runc")),
        certs = quote(&paths.certs),
    )
}

/// `hosts.toml` that asks our registry first, as the node, and `server` after it.
fn hosts(server: &str, registry: &RegistryHost) -> String {
    format!(
        "server = {server}\n\n[host.{host}]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = {ca}\n  client = [[{cert}, {key}]]\n",
        server = quote(server),
        host = quote(format!("https://{}", registry.host)),
        ca = quote(&registry.ca_file),
        cert = quote(&registry.cert_file),
        key = quote(&registry.key_file),
    )
}
