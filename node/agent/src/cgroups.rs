//! The cgroup tree above containers: `/gantry-INSTANCE/kubepods[/burstable|/besteffort]/podUID`, on cgroup v1,
//! hybrid and v2 hosts. The runtime makes the containers' own groups below it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::files;
use crate::pods::spec;
use crate::resources::{self, Qos};

/// How long processes of a killed pod may take to vanish from its cgroup.
const EMPTY_WAIT: Duration = Duration::from_secs(10);

/// How this host mounts cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    /// One tree.
    Unified(PathBuf),
    /// One tree per controller (`cpu`, `memory` …), with or without a v2 tree beside them.
    Split(Vec<(Vec<String>, PathBuf)>),
}

/// The cgroups of this instance.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    layout: Layout,
    root: String,
}

impl Cgroups {
    /// Reads the host's layout. Creates nothing.
    pub(crate) fn detect(instance: &str) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self { layout: parse(&mounts), root: format!("gantry-{instance}") })
    }

    /// `gantry-INSTANCE`.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// The pod's cgroup, with a leading slash, as CRI takes it.
    pub(crate) fn pod(&self, pod: &Pod) -> String {
        let class = match resources::qos(pod) {
            Qos::Guaranteed => "",
            Qos::Burstable => "/burstable",
            Qos::BestEffort => "/besteffort",
        };
        format!("/{}/kubepods{class}/pod{}", self.root, spec::uid(pod))
    }

    /// Creates the groups above all pods. `cpu_millis` and `memory_bytes` are what all pods may use together.
    pub(crate) fn create_base(&self, cpu_millis: i64) -> io::Result<()> {
        let base = format!("/{}/kubepods", self.root);
        for group in [base.clone(), format!("{base}/burstable"), format!("{base}/besteffort")] {
            self.create(&group)?;
        }
        self.set_cpu(&base, resources::cpu_shares(cpu_millis), 0);
        self.set_cpu(&format!("{base}/besteffort"), 2, 0);
        Ok(())
    }

    /// Creates the pod's group with its sums. Safe to repeat.
    pub(crate) fn create_pod(&self, pod: &Pod) -> io::Result<()> {
        let group = self.pod(pod);
        self.create(&group)?;
        let sums = resources::pod_resources(pod);
        let quota = sums.cpu_limit_millis.map_or(0, resources::cpu_quota);
        self.set_cpu(&group, resources::cpu_shares(sums.cpu_request_millis), quota);
        if let Some(bytes) = sums.memory_limit_bytes {
            self.set("memory", &group, "memory.limit_in_bytes", "memory.max", &bytes.to_string());
        }
        Ok(())
    }

    /// The burstable class together weighs what its pods request.
    pub(crate) fn weigh_burstable(&self, cpu_millis: i64) {
        let group = format!("/{}/kubepods/burstable", self.root);
        self.set_cpu(&group, resources::cpu_shares(cpu_millis), 0);
    }

    /// Removes the group and all below it, after killing what still runs there. Safe to repeat.
    pub(crate) async fn remove(&self, group: &str) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + EMPTY_WAIT;
        let mut pause = Duration::from_millis(2);
        loop {
            let mut last = Ok(());
            for tree in self.trees() {
                let path = join(tree, group);
                if path.exists() {
                    last = remove_group(&path).and(last);
                }
            }
            match last {
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                    if tokio::time::Instant::now() >= deadline {
                        return Err(error);
                    }
                    // The kernel says nothing when the last process of a v1 group is gone.
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(200));
                }
                other => return other,
            }
        }
    }

    /// Removes everything of this instance.
    pub(crate) async fn remove_all(&self) -> io::Result<()> {
        self.remove(&format!("/{}", self.root)).await
    }

    /// Uids of pods that have a group.
    pub(crate) fn pod_uids(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let Some(tree) = self.trees().next() else { return found };
        for class in ["", "/burstable", "/besteffort"] {
            let group = format!("/{}/kubepods{class}", self.root);
            for entry in fs::read_dir(join(tree, &group)).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if let Some(uid) = name.strip_prefix("pod") {
                    found.push((uid.to_owned(), format!("{group}/{name}")));
                }
            }
        }
        found
    }

    fn trees(&self) -> impl Iterator<Item = &Path> {
        let list: Vec<&Path> = match &self.layout {
            Layout::Unified(path) => vec![path],
            Layout::Split(trees) => trees.iter().map(|(_, path)| path.as_path()).collect(),
        };
        list.into_iter()
    }

    fn create(&self, group: &str) -> io::Result<()> {
        match &self.layout {
            Layout::Unified(root) => {
                let mut path = root.clone();
                for part in group.split('/').filter(|p| !p.is_empty()) {
                    // A controller the kernel lacks must not keep the others away, so each is its own write.
                    for controller in ["+cpu", "+memory", "+pids", "+cpuset", "+io"] {
                        let _ = files::write_in_place(&path.join("cgroup.subtree_control"), controller);
                    }
                    path.push(part);
                    create_one(&path)?;
                }
            }
            Layout::Split(trees) => {
                for (controllers, root) in trees {
                    let wanted = controllers
                        .iter()
                        .any(|c| matches!(c.as_str(), "cpu" | "cpuacct" | "memory" | "pids" | "cpuset"));
                    let mut path = root.clone();
                    for part in group.split('/').filter(|p| wanted && !p.is_empty()) {
                        let parent = path.clone();
                        path.push(part);
                        create_one(&path)?;
                        if controllers.iter().any(|c| c == "cpuset") {
                            inherit_cpuset(&parent, &path);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn set_cpu(&self, group: &str, shares: i64, quota: i64) {
        // cgroup v2's weight runs from 1 to 10000 where v1's shares run from 2 to 262144.
        let weight = 1 + (shares - 2) * 9999 / 262_142;
        match &self.layout {
            Layout::Unified(root) => {
                let path = join(root, group);
                write_value(&path.join("cpu.weight"), &weight.to_string());
                let max = if quota > 0 { format!("{quota} 100000") } else { "max 100000".to_owned() };
                write_value(&path.join("cpu.max"), &max);
            }
            Layout::Split(_) => {
                self.set("cpu", group, "cpu.shares", "", &shares.to_string());
                let quota = if quota > 0 { quota } else { -1 };
                self.set("cpu", group, "cpu.cfs_quota_us", "", &quota.to_string());
            }
        }
    }

    fn set(&self, controller: &str, group: &str, file_v1: &str, file_v2: &str, value: &str) {
        match &self.layout {
            Layout::Unified(root) => write_value(&join(root, group).join(file_v2), value),
            Layout::Split(trees) => {
                if let Some((_, root)) = trees.iter().find(|(c, _)| c.iter().any(|c| c == controller)) {
                    write_value(&join(root, group).join(file_v1), value);
                }
            }
        }
    }
}

fn join(tree: &Path, group: &str) -> PathBuf {
    tree.join(group.trim_start_matches('/'))
}

fn create_one(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// A v1 cpuset takes no process before it names CPUs and memory nodes.
fn inherit_cpuset(parent: &Path, child: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let empty = fs::read_to_string(child.join(file)).is_ok_and(|text| text.trim().is_empty());
        if let Ok(text) = fs::read_to_string(parent.join(file))
            && empty
        {
            write_value(&child.join(file), text.trim());
        }
    }
}

/// Limits on groups are best effort: a kernel without the controller still runs the pod.
fn write_value(path: &Path, value: &str) {
    if path.exists()
        && let Err(error) = files::write_in_place(path, value)
    {
        tracing::debug!(path = %path.display(), value, %error, "cgroup value not set");
    }
}

/// Removes a group depth first, killing its processes.
fn remove_group(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_group(&entry.path())?;
        }
    }
    for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse::<i32>()
            && pid > 1
        {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn parse(mountinfo: &str) -> Layout {
    let mut split = Vec::new();
    let mut unified = None;
    for line in mountinfo.lines() {
        let Some((head, tail)) = line.split_once(" - ") else { continue };
        let Some(point) = head.split(' ').nth(4) else { continue };
        let mut fields = tail.split(' ');
        match fields.next() {
            Some("cgroup2") => unified = Some(PathBuf::from(point)),
            Some("cgroup") => {
                let options = fields.nth(1).unwrap_or_default();
                split.push((options.split(',').map(str::to_owned).collect(), PathBuf::from(point)));
            }
            _ => {}
        }
    }
    match (split.is_empty(), unified) {
        (true, Some(path)) => Layout::Unified(path),
        (true, None) => Layout::Unified("/sys/fs/cgroup".into()),
        (false, unified) => {
            split.extend(unified.map(|path| (Vec::new(), path)));
            Layout::Split(split)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let v2 = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(parse(v2), Layout::Unified("/sys/fs/cgroup".into()));
        let hybrid = "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
                      32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let Layout::Split(trees) = parse(hybrid) else { panic!("hybrid hosts have split trees") };
        assert_eq!(trees.len(), 2);
        assert!(trees[0].0.contains(&"cpuacct".to_owned()));
        assert_eq!(trees[1].1, Path::new("/sys/fs/cgroup/unified"));
    }
}
