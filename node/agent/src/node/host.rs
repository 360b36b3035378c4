//! Facts of the host that do not change while the agent runs.

use std::collections::BTreeMap;
use std::fs;

use crate::config::AgentConfig;

/// What the host is.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostFacts {
    pub(crate) cpu_millis: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) hostname: String,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// A value of `/proc/meminfo` in bytes.
pub(crate) fn meminfo(key: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok().map(|kib| kib * 1024)
}

impl HostFacts {
    pub(crate) fn read() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let uname = nix::sys::utsname::uname().ok();
        let word =
            |s: Option<&std::ffi::OsStr>| s.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Self {
            cpu_millis: i64::try_from(cpus).unwrap_or(1) * 1000,
            memory_bytes: meminfo("MemTotal").unwrap_or(0),
            hostname: word(uname.as_ref().map(|u| u.nodename())),
            kernel: word(uname.as_ref().map(|u| u.release())),
            os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        }
    }

    /// Go's name of the architecture, as image indexes and nodes use it.
    pub(crate) fn arch() -> &'static str {
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }

    /// Labels of the Node object.
    pub(crate) fn labels(&self, config: &AgentConfig) -> BTreeMap<String, String> {
        let mut labels = config.node_labels.clone();
        for prefix in ["kubernetes.io", "beta.kubernetes.io"] {
            labels.insert(format!("{prefix}/os"), "linux".into());
            labels.insert(format!("{prefix}/arch"), Self::arch().into());
        }
        labels.insert("kubernetes.io/hostname".into(), config.node_name.clone());
        labels
    }
}
