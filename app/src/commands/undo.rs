//! What a start that fails has made, taken back: the host is as it was before.

use std::time::Duration;

use anyhow::Context;
use gantry_base::fs as durable;
use gantry_base::settings::{CONFIG_FILE, InstanceDirs};

use super::slots_dir;
use crate::{addresses, clients, platform};

/// The loops of the start that failed may still hold the network's sockets for a moment.
const ATTEMPTS: u32 = 5;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);

/// What there was of the instance before a start.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// Its data, more than the log that `up --detach` has just begun.
    data: bool,
    /// Something of it on the host: `gantry down` and a reboot leave no run directory.
    host: bool,
}

impl Before {
    pub fn look(dirs: &InstanceDirs) -> Self {
        let has = |directory: &std::path::Path, expected: &[&str]| {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            entries.into_iter().any(|entry| !expected.iter().any(|name| entry.file_name() == *name))
        };
        Self { data: has(&dirs.data, &["gantry.log", CONFIG_FILE]), host: has(&dirs.run, &["lock"]) }
    }

    /// Removes what is new. Containers that ran before the start go on, with all they need.
    pub async fn restore(self, instance: &str, dirs: &InstanceDirs) -> anyhow::Result<()> {
        if !self.host {
            if nix::unistd::geteuid().is_root() {
                remove_from_host(instance, dirs).await?;
                clients::remove(&clients::directory(), &dirs.data)?;
            }
            durable::remove_all(&dirs.run).with_context(|| dirs.run.display().to_string())?;
        }
        if !self.data && !self.host {
            remove_made(&dirs.data).with_context(|| dirs.data.display().to_string())?;
            if nix::unistd::geteuid().is_root() {
                addresses::release(&dirs.data, &slots_dir())?;
            }
        }
        Ok(())
    }
}

/// Everything in the data directory but the operator's settings, which were there before.
fn remove_made(data: &std::path::Path) -> std::io::Result<()> {
    if !data.join(CONFIG_FILE).exists() {
        return durable::remove_all(data);
    }
    for entry in std::fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name() != CONFIG_FILE {
            durable::remove_all(&entry.path())?;
        }
    }
    Ok(())
}

async fn remove_from_host(instance: &str, dirs: &InstanceDirs) -> anyhow::Result<()> {
    let mut attempt = 1;
    loop {
        match platform::remove_from_host(instance, dirs).await {
            Err(error) if attempt < ATTEMPTS => tracing::debug!("tried again: {error:#}"),
            done => return done,
        }
        attempt += 1;
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_a_start_made_goes() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let dirs = InstanceDirs::derive(
            "t",
            Some(folder.path().join("d")),
            Some(folder.path().join("r")),
            false,
            None,
        );
        let touch = |path: std::path::PathBuf| {
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::File::create(path).expect("a file");
        };
        touch(dirs.data.join("gantry.log"));
        let nothing = Before::look(&dirs);
        touch(dirs.data.join("store.redb"));
        let stopped = Before::look(&dirs);
        touch(dirs.run.join("instance.json"));
        let killed = Before::look(&dirs);
        // Without addresses nothing of it can be on the host, so this needs no root.
        killed.restore("t", &dirs).await.expect("restored");
        assert!(dirs.run.join("instance.json").exists());
        stopped.restore("t", &dirs).await.expect("restored");
        assert!(!dirs.run.exists() && dirs.data.join("store.redb").exists());
        touch(dirs.config.clone());
        nothing.restore("t", &dirs).await.expect("restored");
        let left: Vec<_> = std::fs::read_dir(&dirs.data).expect("there").flatten().collect();
        assert!(left.len() == 1 && dirs.config.exists(), "the operator's settings stay: {left:?}");
        std::fs::remove_file(&dirs.config).expect("ours");
        nothing.restore("t", &dirs).await.expect("restored");
        assert!(!dirs.data.exists());
    }
}
