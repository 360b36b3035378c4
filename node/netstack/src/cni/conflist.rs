//! The files by which the container runtime finds the plugin.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use super::{PLUGIN_NAME, loopback};
use crate::config::NetConfig;
use crate::error::{Context, Result};

/// Writes the network configuration list and links the running binary as the plugin.
pub(crate) fn install(config: &NetConfig) -> Result<()> {
    let list = json!({
        "cniVersion": "1.0.0",
        "name": config.table(),
        "plugins": [{
            "type": PLUGIN_NAME,
            "capabilities": { "portMappings": true, "bandwidth": true },
            "gantry": { "socket": config.cni_socket() },
        }],
    });
    for directory in [config.cni_conf_dir(), config.cni_bin_dir()] {
        gantry_base::fs::create_directory(&directory, 0o755)
            .context(|| format!("making {}", directory.display()))?;
    }
    let program = std::env::current_exe().context(|| "finding the running program".to_owned())?;
    for name in [PLUGIN_NAME, loopback::NAME] {
        link_program(&config.cni_bin_dir(), name, &program)?;
    }
    let path = config.cni_conf_dir().join("10-gantry.conflist");
    gantry_base::fs::write_atomic(&path, list.to_string().as_bytes(), 0o644)
        .context(|| format!("writing {}", path.display()))
}

/// Makes `directory/name` a link to `program`, replacing another one without a moment of absence.
fn link_program(directory: &Path, name: &str, program: &Path) -> Result<()> {
    let link = directory.join(name);
    if std::fs::read_link(&link).ok().as_deref() == Some(program) {
        return Ok(());
    }
    let fresh = directory.join(format!(".{name}.new"));
    gantry_base::fs::remove_all(&fresh).context(|| format!("removing {}", fresh.display()))?;
    symlink(program, &fresh).context(|| format!("linking {}", fresh.display()))?;
    std::fs::rename(&fresh, &link).context(|| format!("linking {}", link.display()))
}
