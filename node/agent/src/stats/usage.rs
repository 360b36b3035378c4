//! Counters of cgroups, of network namespaces and of the host, read from the kernel's files.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

/// Where the counters' controllers are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trees {
    /// cgroup v2.
    Unified(PathBuf),
    /// cgroup v1, also beside a v2 tree without controllers.
    Split { cpuacct: Option<PathBuf>, memory: Option<PathBuf> },
}

impl Trees {
    /// Reads the host's mounts.
    pub(super) fn detect() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    fn parse(mountinfo: &str) -> Self {
        let (mut unified, mut cpuacct, mut memory) = (None, None, None);
        for line in mountinfo.lines() {
            let Some((head, tail)) = line.split_once(" - ") else { continue };
            let Some(point) = head.split(' ').nth(4).map(PathBuf::from) else { continue };
            let fields: Vec<&str> = tail.split(' ').collect();
            let has = |name: &str| fields.get(2).is_some_and(|o| o.split(',').any(|o| o == name));
            match fields.first() {
                Some(&"cgroup2") => unified = Some(point),
                Some(&"cgroup") if has("cpuacct") && has("memory") => {
                    (cpuacct, memory) = (Some(point.clone()), Some(point));
                }
                Some(&"cgroup") if has("cpuacct") => cpuacct = Some(point),
                Some(&"cgroup") if has("memory") => memory = Some(point),
                _ => {}
            }
        }
        match unified {
            Some(root) if cpuacct.is_none() && memory.is_none() => Self::Unified(root),
            _ => Self::Split { cpuacct, memory },
        }
    }

    /// Counters of a group given with a leading slash. Empty for a group that is gone.
    pub(super) fn usage(&self, group: &str) -> Usage {
        match self {
            Self::Unified(root) => {
                let group = join(root, group);
                let cpu = text(&group.join("cpu.stat"));
                Usage {
                    cpu_ns: value(&cpu, "usage_usec").map(|us| us * 1000),
                    memory: number(&group.join("memory.current"))
                        .map(|usage| memory(usage, &text(&group.join("memory.stat")), "", "anon")),
                }
            }
            Self::Split { cpuacct, memory: tree } => Usage {
                cpu_ns: cpuacct.as_ref().and_then(|t| number(&join(t, group).join("cpuacct.usage"))),
                memory: tree.as_ref().and_then(|t| {
                    let group = join(t, group);
                    let usage = number(&group.join("memory.usage_in_bytes"))?;
                    Some(memory(usage, &text(&group.join("memory.stat")), "total_", "rss"))
                }),
            },
        }
    }

    /// A process of the group.
    pub(super) fn process(&self, group: &str) -> Option<u32> {
        let tree = match self {
            Self::Unified(root) => root,
            Self::Split { cpuacct, memory } => memory.as_ref().or(cpuacct.as_ref())?,
        };
        text(&join(tree, group).join("cgroup.procs")).lines().next()?.parse().ok()
    }
}

fn join(tree: &Path, group: &str) -> PathBuf {
    tree.join(group.trim_start_matches('/'))
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &Path) -> Option<u64> {
    text(path).trim().parse().ok()
}

/// The number after `key` in lines of `key number`.
fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn memory(usage: u64, stat: &str, prefix: &str, rss: &str) -> Memory {
    let of = |key: &str| value(stat, &format!("{prefix}{key}")).unwrap_or(0);
    Memory {
        usage,
        // What the kernel cannot give back without harm: all but the file cache nobody used lately.
        working_set: usage.saturating_sub(of("inactive_file")),
        rss: of(rss),
        faults: of("pgfault"),
        major_faults: of("pgmajfault"),
    }
}

/// Counters of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time since the group exists.
    pub(super) cpu_ns: Option<u64>,
    pub(super) memory: Option<Memory>,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) usage: u64,
    pub(super) working_set: u64,
    pub(super) rss: u64,
    pub(super) faults: u64,
    pub(super) major_faults: u64,
}

/// Counters of one network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) rx_bytes: u64,
    pub(super) rx_errors: u64,
    pub(super) tx_bytes: u64,
    pub(super) tx_errors: u64,
}

/// Interfaces of the network namespace a process is in, without loopback.
pub(super) fn interfaces(process: u32) -> Vec<Interface> {
    parse_interfaces(&text(Path::new(&format!("/proc/{process}/net/dev"))))
}

/// Columns of `/proc/net/dev`: eight of what was received (bytes, packets, errors …), eight of what was sent.
fn parse_interfaces(text: &str) -> Vec<Interface> {
    let parse = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|n| n.parse().ok()).collect();
        Some(Interface {
            name: name.trim().to_owned(),
            rx_bytes: *numbers.first()?,
            rx_errors: *numbers.get(2)?,
            tx_bytes: *numbers.get(8)?,
            tx_errors: *numbers.get(10)?,
        })
    };
    text.lines().filter_map(parse).filter(|i| i.name != "lo").collect()
}

/// Counters of the whole host, and its memory.
pub(super) fn host() -> (Usage, u64) {
    let meminfo = text(Path::new("/proc/meminfo"));
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let cpu_ns = host_cpu_ns(&text(Path::new("/proc/stat")), u64::try_from(ticks).unwrap_or(100));
    let (memory, total) = host_memory(&meminfo, &text(Path::new("/proc/vmstat")));
    (Usage { cpu_ns, memory: Some(memory) }, total)
}

/// Sums what CPUs did beside idling and waiting; guests' time is part of `user` and `nice` already.
fn host_cpu_ns(stat: &str, ticks_per_second: u64) -> Option<u64> {
    let line = stat.lines().find_map(|l| l.strip_prefix("cpu "))?;
    let numbers: Vec<u64> = line.split_whitespace().map_while(|n| n.parse().ok()).collect();
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| numbers.get(*at)).sum();
    Some(busy * (1_000_000_000 / ticks_per_second.max(1)))
}

fn host_memory(meminfo: &str, vmstat: &str) -> (Memory, u64) {
    let of = |key: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    let total = of("MemTotal");
    let usage = total.saturating_sub(of("MemFree"));
    let memory = Memory {
        usage,
        working_set: usage.saturating_sub(of("Inactive(file)")),
        rss: of("AnonPages"),
        faults: value(vmstat, "pgfault").unwrap_or(0),
        major_faults: value(vmstat, "pgmajfault").unwrap_or(0),
    };
    (memory, total)
}

/// A file system's size and use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub(super) capacity: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    pub(super) inodes: u64,
    pub(super) inodes_free: u64,
}

/// The file system that holds a directory.
pub(super) fn file_system(path: &Path) -> Option<FileSystem> {
    let stat = statvfs(path).ok()?;
    let size = stat.fragment_size();
    Some(FileSystem {
        capacity: stat.blocks() * size,
        available: stat.blocks_available() * size,
        used: stat.blocks().saturating_sub(stat.blocks_free()) * size,
        inodes: stat.files(),
        inodes_free: stat.files_free(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_every_kind_are_understood() {
        let v2 = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(Trees::parse(v2), Trees::Unified("/sys/fs/cgroup".into()));
        let hybrid = "31 30 0:27 / /cg/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
                      32 30 0:29 / /cg/memory rw - cgroup cgroup rw,memory\n\
                      33 30 0:28 / /cg/unified rw - cgroup2 cgroup2 rw";
        let want =
            Trees::Split { cpuacct: Some("/cg/cpu,cpuacct".into()), memory: Some("/cg/memory".into()) };
        assert_eq!(Trees::parse(hybrid), want);
        assert_eq!(Trees::parse(""), Trees::Split { cpuacct: None, memory: None });
    }

    #[allow(clippy::disallowed_methods, reason = "fixtures need no durability")]
    fn put(dir: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(dir.join(name), text).expect("written");
        }
    }

    #[test]
    fn both_versions_count_the_same() {
        let dir = tempfile::tempdir().expect("temp dir");
        let want = Usage {
            cpu_ns: Some(5000),
            memory: Some(Memory { usage: 100, working_set: 70, rss: 20, faults: 7, major_faults: 1 }),
        };
        put(
            dir.path(),
            &[
                ("cpu.stat", "usage_usec 5\nuser_usec 3\n"),
                ("memory.current", "100\n"),
                ("memory.stat", "anon 20\nfile 80\ninactive_file 30\npgfault 7\npgmajfault 1\n"),
            ],
        );
        let root = PathBuf::from(dir.path());
        assert_eq!(Trees::Unified(root.clone()).usage("/"), want);
        put(
            dir.path(),
            &[
                ("cpuacct.usage", "5000\n"),
                ("memory.usage_in_bytes", "100\n"),
                (
                    "memory.stat",
                    "rss 1\ninactive_file 2\ntotal_rss 20\ntotal_inactive_file 30\ntotal_pgfault 7\ntotal_pgmajfault 1\n",
                ),
            ],
        );
        let split = Trees::Split { cpuacct: Some(root.clone()), memory: Some(root) };
        assert_eq!(split.usage("/"), want);
        assert_eq!(split.usage("/gone"), Usage::default());
    }

    #[test]
    fn host_files_are_read() {
        assert_eq!(host_cpu_ns("cpu  1 2 3 1000 50 4 5 6 7 8\ncpu0 1\n", 100), Some(210_000_000));
        let meminfo = "MemTotal: 100 kB\nMemFree: 40 kB\nInactive(file): 10 kB\nAnonPages: 30 kB\n";
        let (memory, total) = host_memory(meminfo, "pgfault 3\npgmajfault 2\n");
        assert_eq!((memory.usage, memory.working_set, memory.rss), (60 << 10, 50 << 10, 30 << 10));
        assert_eq!((memory.faults, memory.major_faults, total), (3, 2, 100 << 10));
        let dev = "Inter-| Receive | Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                   eth0: 10 2 3 0 0 0 0 0 20 4 5 0 0 0 0 0\n";
        let want = Interface { name: "eth0".into(), rx_bytes: 10, rx_errors: 3, tx_bytes: 20, tx_errors: 5 };
        assert_eq!(parse_interfaces(dev), [want]);
    }
}
