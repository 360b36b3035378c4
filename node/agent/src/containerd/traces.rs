//! Taking away what a containerd left that cannot be started any more.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Paths, stop};
use crate::config::AgentConfig;
use crate::errors::AgentError;
use crate::files;

/// Ends containerd and its shims, and removes their mounts and network namespaces.
pub(crate) async fn remove_traces(config: &AgentConfig) -> Result<(), AgentError> {
    let paths = Paths::new(config);
    let namespaces = network_namespaces(config);
    stop(&paths).await?;
    kill_shims(&paths.socket);
    remove_namespaces(&namespaces)?;
    for path in [&paths.state, &paths.root] {
        files::unmount_below(path).map_err(AgentError::file("unmount", path))?;
    }
    Ok(())
}

/// A shim names the containerd it belongs to among its arguments.
fn kill_shims(socket: &Path) {
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else { continue };
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|b| *b == 0);
        let program = arguments.next().unwrap_or_default();
        let is_shim = program.windows(15).any(|part| part == b"containerd-shim");
        if is_shim && arguments.any(|argument| argument == socket.as_os_str().as_encoded_bytes()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
    }
}

/// Lets go of network namespaces that nobody is in any more; gone already is fine.
pub(crate) fn remove_namespaces(namespaces: &[PathBuf]) -> Result<(), AgentError> {
    for namespace in namespaces {
        files::unmount_below(namespace).map_err(AgentError::file("unmount", namespace))?;
        // It may be gone already.
        let _ = fs::remove_file(namespace);
    }
    Ok(())
}

/// The network namespaces that the specifications of running containers name.
pub(crate) fn network_namespaces(config: &AgentConfig) -> Vec<PathBuf> {
    let bundles = Paths::new(config).state.join("io.containerd.runtime.v2.task/k8s.io");
    let mut found: Vec<PathBuf> = Vec::new();
    for bundle in fs::read_dir(bundles).into_iter().flatten().flatten() {
        let text = fs::read(bundle.path().join("config.json")).unwrap_or_default();
        let spec: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let namespaces = spec["linux"]["namespaces"].as_array().into_iter().flatten();
        let network = namespaces.filter(|n| n["type"] == "network").filter_map(|n| n["path"].as_str());
        // Sharing another process's namespace is not having one.
        found.extend(network.filter(|path| !path.starts_with("/proc/")).map(PathBuf::from));
    }
    found.sort();
    found.dedup();
    found
}
