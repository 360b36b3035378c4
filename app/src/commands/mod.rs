//! The commands that run, stop and look at an instance on this machine. Commands for users of a server
//! are in the crate `gantry-cli`.

pub mod doctor;
pub mod down;
pub mod status;
mod undo;
pub mod up;

use std::path::PathBuf;

use anyhow::bail;
use gantry_base::settings::{DEFAULT_INSTANCE, InstanceDirs, environment, is_instance_name};

/// Which instance is meant.
#[derive(clap::Args, Clone, Debug)]
pub struct InstanceArgs {
    /// Name of the instance; several can run on one machine
    #[arg(long, value_name = "NAME", default_value = DEFAULT_INSTANCE)]
    pub instance: String,
    /// Where the instance keeps its data (default: /var/lib/gantry, or /var/lib/gantry-NAME)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the instance keeps its sockets (default: /run/gantry, or /run/gantry-NAME)
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
}

impl InstanceArgs {
    pub fn dirs(&self) -> anyhow::Result<InstanceDirs> {
        if !is_instance_name(&self.instance) {
            bail!(
                "{:?} cannot name an instance: use up to 30 lower-case letters, digits and '-', beginning with a letter",
                self.instance
            );
        }
        let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
        let home = environment("HOME").map(PathBuf::from);
        let root = nix::unistd::geteuid().is_root();
        let (data, run) = (absolute(&self.data_dir)?, absolute(&self.run_dir)?);
        Ok(InstanceDirs::derive(&self.instance, data, run, root, home.as_deref()))
    }
}

/// Where the host keeps track of which instance has which address range. One place for all instances,
/// whatever their directories are.
pub fn slots_dir() -> PathBuf {
    PathBuf::from("/run/gantry-addresses")
}
