//! Container log files: links, rotation, removal.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_cri::ReopenContainerLogRequest;
use k8s_openapi::api::core::v1::Pod;

use crate::pods::spec;
use crate::shared::Shared;

/// A log file that grew beyond this is rotated.
const BYTES_MAX: u64 = 10 << 20;
/// Files kept per container, the current one among them.
const FILES_MAX: usize = 5;
/// How often sizes are looked at; there is no event for a file that grows.
const PERIOD: Duration = Duration::from_secs(10);

impl Shared {
    /// The link under the flat log directory that points to a run's log.
    fn log_link(&self, pod: &Pod, container: &str, id: &str) -> PathBuf {
        let file = format!("{}_{}_{container}-{id}.log", spec::name(pod), spec::namespace(pod));
        self.config.dirs.container_logs.join(file)
    }

    /// Makes the link for a run that starts.
    pub(crate) fn link_log(&self, pod: &Pod, container: &str, attempt: u32, id: &str) {
        let directory = self.config.dirs.pod_logs(spec::namespace(pod), spec::name(pod), spec::uid(pod));
        let target = directory.join(container).join(format!("{attempt}.log"));
        let link = self.log_link(pod, container, id);
        let _ = fs::remove_file(&link);
        if let Err(error) = symlink(&target, &link) {
            tracing::warn!(link = %link.display(), %error, "log link not made");
        }
    }

    /// Removes the links that point to a log file.
    pub(crate) fn remove_log_link(&self, log: &Path) {
        self.remove_links(|target| target == log);
    }

    /// Removes a pod's log files and links.
    pub(crate) fn remove_logs(&self, pod: &Pod) {
        self.remove_log_dir(&self.config.dirs.pod_logs(
            spec::namespace(pod),
            spec::name(pod),
            spec::uid(pod),
        ));
    }

    /// Removes a pod's log directory and the links into it.
    pub(crate) fn remove_log_dir(&self, directory: &Path) {
        self.remove_links(|target| target.starts_with(directory));
        if let Err(error) = crate::files::remove_tree(directory) {
            tracing::warn!(directory = %directory.display(), %error, "logs not removed");
        }
    }

    fn remove_links(&self, matches: impl Fn(&Path) -> bool) {
        for entry in fs::read_dir(&self.config.dirs.container_logs).into_iter().flatten().flatten() {
            if fs::read_link(entry.path()).is_ok_and(|target| matches(&target)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The log file and what rotation made of it.
pub(crate) fn files_of(log: &Path) -> Vec<PathBuf> {
    let mut found = vec![log.to_owned()];
    found.extend(rotated(log));
    found
}

/// Rotated files of a log, oldest first: their names end with their time.
fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else { return Vec::new() };
    let prefix = format!("{}.", name.to_string_lossy());
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
    let own = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix));
    let mut found: Vec<PathBuf> = entries.filter(own).collect();
    found.sort();
    found
}

/// Rotates logs that grew too large, until the agent stops.
pub(crate) async fn rotate_forever(shared: std::sync::Arc<Shared>) {
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.config.shutdown.cancelled() => return,
            _ = timer.tick() => {}
        }
        for container in shared.table.list().iter().flat_map(|r| r.containers.clone()).filter(|c| c.running) {
            if fs::metadata(&container.log_path).is_ok_and(|m| m.len() > BYTES_MAX)
                && let Err(error) = rotate(&shared, &container.id, &container.log_path).await
            {
                tracing::warn!(log = %container.log_path.display(), error, "log not rotated");
            }
        }
    }
}

async fn rotate(shared: &Shared, id: &str, log: &Path) -> Result<(), String> {
    let log = log.to_owned();
    let compressed = log.clone();
    let run = tokio::task::spawn_blocking(move || compress_old(&compressed)).await;
    run.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let aside = PathBuf::from(format!("{}.{stamp}", log.display()));
    fs::rename(&log, &aside).map_err(|e| e.to_string())?;
    let reopened =
        shared.runtime.reopen_container_log(ReopenContainerLogRequest { container_id: id.to_owned() });
    if let Err(error) = reopened.await {
        // The runtime still writes into the old file: put it back under its name.
        let _ = fs::rename(&aside, &log);
        return Err(error.to_string());
    }
    Ok(())
}

/// Compresses rotated files and removes those that are too many, leaving room for one more. The newest rotated
/// file stays as it is until the next rotation, for readers that are still in it.
fn compress_old(log: &Path) -> io::Result<()> {
    let mut files = rotated(log);
    files.retain(|path| {
        let partial = path.extension().is_some_and(|e| e == "tmp");
        if partial {
            let _ = fs::remove_file(path);
        }
        !partial
    });
    // The current file and the one that is about to be set aside are not among them.
    while files.len() > FILES_MAX - 2 {
        fs::remove_file(files.remove(0))?;
    }
    for path in files.iter().filter(|p| p.extension().is_none_or(|e| e != "gz")) {
        let partial = PathBuf::from(format!("{}.tmp", path.display()));
        let mut encoder = GzEncoder::new(File::create(&partial)?, Compression::default());
        io::copy(&mut File::open(path)?, &mut encoder)?;
        encoder.finish()?;
        fs::rename(&partial, format!("{}.gz", path.display()))?;
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_are_compressed_and_bounded() {
        let dir = tempfile::tempdir().expect("temp dir");
        let log = dir.path().join("0.log");
        for stamp in ["20260101-000001", "20260101-000002", "20260101-000003", "20260101-000004"] {
            crate::files::write_atomic(&dir.path().join(format!("0.log.{stamp}")), b"x", 0o644)
                .expect("written");
        }
        compress_old(&log).expect("compressed");
        let names: Vec<String> = rotated(&log)
            .iter()
            .filter_map(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
            .collect();
        let want = ["0.log.20260101-000002.gz", "0.log.20260101-000003.gz", "0.log.20260101-000004.gz"];
        assert_eq!(names, want);
    }
}
