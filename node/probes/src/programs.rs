//! The programs a node runs, and who we are.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Found, note};

/// Program, the argument that prints its version, and the Debian package that brings it.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("containerd", "--version", "containerd"),
    ("runc", "--version", "runc"),
    ("nft", "--version", "nftables"),
    ("ip", "-V", "iproute2"),
    ("tc", "-V", "iproute2"),
];

pub fn probe(found: &mut Found) {
    let root = nix::unistd::geteuid().is_root();
    note(found, "root", root, if root { "running as root" } else { "run as root, or use --no-node" });
    for (program, version, package) in PROGRAMS {
        match find(program) {
            Some(path) => {
                let printed = Command::new(&path).arg(version).output();
                let text =
                    printed.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
                let first = text.lines().next().unwrap_or("found").trim().to_owned();
                note(found, program, true, first);
            }
            None => note(found, program, false, format!("install the package {package}")),
        }
    }
}

/// Looks where a daemon's PATH may not reach, too.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from))
        .map(|directory: PathBuf| Path::new(&directory).join(program))
        .find(|candidate| candidate.is_file())
}
