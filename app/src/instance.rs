//! One instance on this host: its lock (one process per instance) and the record of what runs, which
//! `status`, `down` and the client commands read.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use gantry_base::fs as durable;
use gantry_base::settings::InstanceDirs;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// What a running instance tells about itself, in `RUN/instance.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceRecord {
    pub instance: String,
    pub pid: i32,
    /// `https://127.0.0.1:6443`.
    pub api: String,
    pub kubeconfig: PathBuf,
    /// `127.0.0.1:6443`: what stands before a repository in an image's name.
    pub registry: String,
    pub console: Option<String>,
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub log_dir: PathBuf,
    pub node: bool,
    pub pod_cidr: Option<String>,
    pub service_cidr: String,
    /// RFC 3339.
    pub started: String,
}

fn record_path(run: &Path) -> PathBuf {
    run.join("instance.json")
}

impl InstanceRecord {
    pub fn write(&self) -> anyhow::Result<()> {
        let path = record_path(&self.run_dir);
        let json = serde_json::to_vec_pretty(self)?;
        durable::write_atomic(&path, &json, 0o644).with_context(|| path.display().to_string())
    }

    pub fn read(dirs: &InstanceDirs) -> anyhow::Result<Option<Self>> {
        let path = record_path(&dirs.run);
        let Some(bytes) = durable::read_optional(&path).with_context(|| path.display().to_string())? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).with_context(|| path.display().to_string())
    }

    pub fn remove(dirs: &InstanceDirs) -> std::io::Result<()> {
        durable::remove_all(&record_path(&dirs.run))
    }
}

/// Held while the instance runs; the kernel releases it however the process ends.
pub struct InstanceLock(#[expect(dead_code, reason = "held for its lock, never read")] Flock<File>);

impl InstanceLock {
    /// Takes the lock, or names the process that has it.
    pub fn take(dirs: &InstanceDirs, instance: &str) -> anyhow::Result<Self> {
        let (mut file, path) = open(dirs)?;
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut locked) => {
                locked.set_len(0)?;
                locked.rewind()?;
                write!(*locked, "{}", std::process::id())?;
                Ok(Self(locked))
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                bail!("the instance {instance} runs already (pid {holder}); `gantry down` stops it")
            }
            Err((_, error)) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Is some process running this instance? Its pid.
    pub fn holder(dirs: &InstanceDirs) -> anyhow::Result<Option<i32>> {
        if !dirs.run.join("lock").exists() {
            return Ok(None);
        }
        let (mut file, _) = open(dirs)?;
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(None),
            Err(_) => Ok(holder.trim().parse().ok()),
        }
    }
}

fn open(dirs: &InstanceDirs) -> anyhow::Result<(File, PathBuf)> {
    durable::create_directory(&dirs.run, 0o755).with_context(|| dirs.run.display().to_string())?;
    let path = dirs.run.join("lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    Ok((opened.with_context(|| path.display().to_string())?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_holds_the_instance() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let dirs = InstanceDirs::derive(
            "t",
            Some(directory.path().join("d")),
            Some(directory.path().join("r")),
            true,
            None,
        );
        assert_eq!(InstanceLock::holder(&dirs).expect("asked"), None);
        let held = InstanceLock::take(&dirs, "t").expect("free");
        let refused = InstanceLock::take(&dirs, "t").err().expect("held").to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(held);
        assert_eq!(InstanceLock::holder(&dirs).expect("asked"), None);
    }
}
