//! A real registry of another make: the distribution project's, with its content in a directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::instance::free_port;
use crate::skip::skip;
use crate::wait::eventually;

const START_MAX: Duration = Duration::from_secs(30);

/// A running `docker-registry` over plain HTTP. Ended when dropped.
pub struct DockerRegistry {
    port: u16,
    child: Option<Child>,
    directory: tempfile::TempDir,
}

impl DockerRegistry {
    /// `None`, with the reason printed, where it is not installed.
    pub fn start() -> Option<Self> {
        Self::configured(|_, _| {})
    }

    /// With another configuration than that of the tests; what it names can be put into the directory.
    pub fn configured(change: impl FnOnce(&mut serde_json::Value, &Path)) -> Option<Self> {
        if Command::new("docker-registry").arg("--version").output().is_err() {
            skip("no docker-registry (cargo xtask setup installs it)");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let mut registry = Self { port: free_port(), child: None, directory };
        let root = registry.root().display().to_string();
        let mut configuration = serde_json::json!({
            "version": 0.1,
            "log": { "level": "info", "accesslog": { "disabled": false } },
            "storage": { "filesystem": { "rootdirectory": root }, "delete": { "enabled": true } },
            "http": { "addr": registry.address() },
        });
        change(&mut configuration, registry.directory.path());
        let mut file = File::create(registry.path("config.yml")).expect("a file");
        std::io::Write::write_all(&mut file, configuration.to_string().as_bytes()).expect("written");
        registry.resume();
        Some(registry)
    }

    /// A file of its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Below it is everything that it keeps.
    pub fn root(&self) -> PathBuf {
        self.path("content")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<i32> {
        // Numbers of processes are positive and small.
        self.child.as_ref().map(|child| child.id() as i32)
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The file with the bytes of a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.root().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// What it said of the requests it had.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, at the same address with the same content.
    pub fn resume(&mut self) {
        let log = |path: &Path| File::options().create(true).append(true).open(path).expect("a log");
        let file = log(&self.path("log"));
        let errors = file.try_clone().expect("a log");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(self.path("config.yml"));
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        self.child = Some(command.spawn().expect("docker-registry starts"));
        eventually("docker-registry listens", START_MAX, || {
            std::net::TcpStream::connect(self.address()).is_ok()
        });
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}
