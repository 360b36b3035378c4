//! Control groups, file systems, memory, devices.

use std::fs;
use std::path::Path;

use nix::sys::statfs;

use crate::{Found, note};

pub fn probe(found: &mut Found) {
    cgroups(found);
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = |name: &str| filesystems.lines().any(|line| line.split_whitespace().last() == Some(name));
    for (name, filesystem, use_of) in [
        ("overlayfs", "overlay", "image layers"),
        ("btrfs", "btrfs", "volume pools"),
        ("xfs", "xfs", "volume pools with reflink"),
        ("nfs_client", "nfs4", "NFS volumes"),
        ("fuse", "fuse", "FUSE volumes"),
    ] {
        let detail =
            if has(filesystem) { format!("for {use_of}") } else { format!("the kernel has no {filesystem}") };
        note(found, name, has(filesystem), detail);
    }
    for (name, device, use_of) in [
        ("device_mapper", "/dev/mapper/control", "LVM thin volumes"),
        ("loop_devices", "/dev/loop-control", "file-backed volumes"),
        ("tun", "/dev/net/tun", "tunnels"),
        ("kvm", "/dev/kvm", "virtual machines"),
    ] {
        let there = Path::new(device).exists();
        note(found, name, there, if there { format!("for {use_of}") } else { format!("{device} is absent") });
    }
    let bpf = Path::new("/sys/fs/bpf").is_dir();
    note(found, "ebpf", bpf, if bpf { "/sys/fs/bpf is there" } else { "the kernel has no BPF file system" });
    let seccomp = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").is_ok();
    note(found, "seccomp", seccomp, if seccomp { "filters can be set" } else { "the kernel has no seccomp" });
    let resource = has_capability(CAP_SYS_RESOURCE);
    let detail = "negative OOM scores and raised limits";
    note(
        found,
        "sys_resource",
        resource,
        if resource { detail.to_owned() } else { format!("no CAP_SYS_RESOURCE: no {detail}") },
    );
}

/// Linux capability numbers, from `linux/capability.h`.
const CAP_SYS_RESOURCE: u64 = 24;

fn has_capability(number: u64) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|bits| bits >> number & 1 == 1)
}

fn cgroups(found: &mut Found) {
    let of = |path: &str| statfs::statfs(path).map(|s| s.filesystem_type());
    let version = if of("/sys/fs/cgroup") == Ok(statfs::CGROUP2_SUPER_MAGIC) {
        Some("version 2")
    } else if of("/sys/fs/cgroup/unified") == Ok(statfs::CGROUP2_SUPER_MAGIC) {
        Some("version 1 with a unified hierarchy (hybrid)")
    } else if Path::new("/sys/fs/cgroup/memory").is_dir() {
        Some("version 1")
    } else {
        None
    };
    note(
        found,
        "cgroup",
        version.is_some(),
        version.unwrap_or("mount a cgroup file system at /sys/fs/cgroup"),
    );
}
