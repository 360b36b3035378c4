//! Starts that cannot succeed, and a disk that is full: what is said, and that nothing is left behind.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_testkit::{
    Instance, Output, binary, eventually, free_port, leftovers, ownerless_bridges, run, skip, unused_name,
};

use crate::support::{SOON, has_all};

/// An instance that does not come up.
struct Attempt {
    name: String,
    folder: PathBuf,
}

impl Attempt {
    /// Nothing where this test cannot work.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !binary("gantry").is_file() {
            skip("starting a node needs root and the built binary");
            return None;
        }
        let name = unused_name();
        let folder = std::env::temp_dir().join(format!("gt-{name}"));
        std::fs::create_dir_all(folder.join("bin")).expect("a folder");
        Some(Self { name, folder })
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// The words of `gantry up --detach` for it.
    fn words(&self) -> Vec<String> {
        let (data, run_dir) = (self.data().display().to_string(), self.run_dir().display().to_string());
        let listen = format!("127.0.0.1:{}", free_port());
        [
            "up",
            "--detach",
            "--instance",
            &self.name,
            "--data-dir",
            &data,
            "--run-dir",
            &run_dir,
            "--listen",
            &listen,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// `gantry up` that finds this script before the real containerd.
    fn up_with_containerd(&self, script: &str, more: &[&str]) -> Output {
        let program = self.folder.join("bin/containerd");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("our own file");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.folder.join("bin").display());
        run(Command::new(binary("gantry")).args(self.words()).args(more).env("PATH", path))
    }

    /// Exit code 1, one sentence with these words, and a host as it was before.
    #[track_caller]
    fn refused(&self, out: &Output, words: &[&str], bridges_before: &[String]) {
        assert_eq!(out.code, 1, "{out}");
        let sentences: Vec<&str> = out.stderr.lines().filter(|line| line.starts_with("gantry:")).collect();
        assert_eq!(sentences.len(), 1, "{out}");
        has_all(sentences[0], words);
        let (data, run_dir) = (self.data(), self.run_dir());
        let left = leftovers(&self.name, &[&data, &run_dir], None, &[]);
        assert!(left.is_empty(), "left behind: {left:#?}\n{out}");
        let bridges: Vec<String> =
            ownerless_bridges().into_iter().filter(|bridge| !bridges_before.contains(bridge)).collect();
        assert!(bridges.is_empty(), "left behind: {bridges:?}\n{out}");
        let slots = std::fs::read_dir("/run/gantry-addresses").into_iter().flatten().flatten();
        let held =
            slots.filter(|slot| std::fs::read_to_string(slot.path()).is_ok_and(|t| Path::new(&t) == data));
        assert_eq!(held.count(), 0, "the address range was not given back");
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut down = Command::new(binary("gantry"));
        down.args(["down", "--purge", "--instance", &self.name]);
        let out = run(down.arg("--data-dir").arg(self.data()).arg("--run-dir").arg(self.run_dir()));
        let removed = std::fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            out.ok();
            removed.expect("our own folder");
        }
    }
}

#[test]
fn a_start_that_fails_late_leaves_nothing() {
    let Some(attempt) = Attempt::new() else { return };
    let bridges = ownerless_bridges();
    // The network stands by then, and a child has been started.
    let broken = "test \"$1\" = --version && exit 0\necho I am a broken runtime >&2; exit 3";
    let out = attempt.up_with_containerd(broken, &[]);
    attempt.refused(
        &out,
        &["the node agent cannot start", "containerd ended", "I am a broken runtime"],
        &bridges,
    );

    // Everything runs, but the runtime finds no network: the node does not become Ready.
    let lost = "test \"$1\" = --config && sed -i 's|conf_dir = .*|conf_dir = \"/nonexistent\"|' \"$2\"\n\
                exec /usr/bin/containerd \"$@\"";
    let out = attempt.up_with_containerd(lost, &["--timeout", "4"]);
    let words = ["node is not ready after 4 s", "container runtime network not ready", "NetworkReady=false"];
    attempt.refused(&out, &words, &bridges);
}

#[test]
fn a_missing_feature_of_the_host_is_named_before_anything_is_made() {
    let Some(attempt) = Attempt::new() else { return };
    let bridges = ownerless_bridges();
    let without = |preparation: &str| {
        // Mounts of its own: the host keeps its control groups and programs.
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("{preparation} && exec \"$0\" \"$@\"")).arg(binary("gantry"));
        run(command.args(attempt.words()))
    };
    let out = without("umount -l -R /sys/fs/cgroup");
    attempt.refused(&out, &["no node can run here", "cgroup is missing", "--no-node"], &bridges);
    let out = without("for nft in /usr/sbin/nft /sbin/nft; do mount --bind /dev/null $nft; done");
    attempt.refused(
        &out,
        &["no node can run here", "nft is missing", "install the package nftables"],
        &bridges,
    );
}

/// A small file system for an instance's data, taken away again whatever happens.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Self {
        std::fs::create_dir_all(path).expect("a folder");
        let words = ["-t", "tmpfs", "-o", "size=16m", "tmpfs"];
        run(Command::new("mount").args(words).arg(path)).ok();
        Self(path.to_owned())
    }

    fn grow(&self) {
        run(Command::new("mount").args(["-o", "remount,size=256m"]).arg(&self.0)).ok();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

#[test]
fn a_full_disk_ends_writing_shows_and_loses_nothing_acknowledged() {
    if !nix::unistd::geteuid().is_root() {
        skip("mounting a small disk needs root");
        return;
    }
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    gantry.down(&["--purge"]).ok();
    let disk = SmallDisk::mount(gantry.data_dir());
    gantry.restart();
    for part in ["api", "store", "registry", "front door", "controller/scheduler", "controller/deployment"] {
        assert_eq!(gantry.status()["health"][part]["state"], "ok", "{part} in {}", gantry.status());
    }
    let file = gantry.scratch().join("value");
    std::fs::write(&file, "x".repeat(900_000)).expect("written");
    let from = format!("--from-file=value={}", file.display());
    let mut acknowledged = Vec::new();
    let refused = loop {
        assert!(acknowledged.len() < 40, "the disk is never full");
        let name = format!("fill-{}", acknowledged.len());
        let out = gantry.kubectl(&["create", "configmap", &name, &from]);
        if !out.succeeded() {
            break out.stderr;
        }
        acknowledged.push(name);
    };
    assert!(!acknowledged.is_empty(), "{refused}");
    eventually("the platform says that it is not ready", SOON, || gantry.status()["ready"] == false);
    let store = gantry.status()["health"]["store"].clone();
    assert_eq!(store["state"], "degraded", "{store}");
    has_all(
        store["message"].as_str().unwrap_or_default(),
        &["writes are refused until gantry is started again"],
    );
    gantry.kubectl(&["get", "--raw", "/readyz"]).fails();
    // Reading goes on.
    assert_eq!(names(&gantry), acknowledged);
    disk.grow();
    gantry.down(&[]).ok();
    gantry.restart();
    assert_eq!(names(&gantry), acknowledged, "after a restart with room");
    gantry.kubectl(&["create", "configmap", "again", "--from-literal=a=b"]).ok();
    gantry.down(&[]).ok();
}

/// The filling objects there are, in the order of their numbers.
fn names(gantry: &Instance) -> Vec<String> {
    let listed = gantry.kubectl(&["get", "configmaps", "-o", "name"]).ok();
    let names = listed.lines().filter_map(|line| line.strip_prefix("configmap/"));
    let mut names: Vec<String> = names.filter(|name| name.starts_with("fill-")).map(str::to_owned).collect();
    names.sort_by_key(|name| name["fill-".len()..].parse::<u32>().unwrap_or_default());
    names
}
