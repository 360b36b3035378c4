//! Kernel settings under `/proc/sys/net`.

use std::path::PathBuf;

use crate::error::{Context, Result};

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}

/// Sets e.g. `ipv4/ip_forward` where it differs, so a read-only `/proc/sys` with the right values is
/// good enough.
pub(crate) fn set(name: &str, value: &str) -> Result<()> {
    if get(name).as_deref() == Some(value) {
        return Ok(());
    }
    #[expect(clippy::disallowed_methods, reason = "a kernel setting is no file to be made durable")]
    std::fs::write(path(name), value).context(|| format!("setting net.{} to {value}", name.replace('/', ".")))
}

pub(crate) fn get(name: &str) -> Option<String> {
    Some(std::fs::read_to_string(path(name)).ok()?.trim().to_owned())
}

/// Sets what helps but is not needed; a kernel without it is no error.
pub(crate) fn try_set(name: &str, value: &str) {
    if let Err(error) = set(name, value) {
        tracing::debug!(%error, "optional kernel setting");
    }
}
