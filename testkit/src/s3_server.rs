//! A real server of S3: s3s-fs, which checks signatures and keeps objects as files of a directory.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::instance::{environment, free_port};
use crate::wait::eventually;

const START_MAX: Duration = Duration::from_secs(30);

/// A running server with one empty bucket. Ended when dropped.
pub struct S3Server {
    port: u16,
    child: Option<Child>,
    directory: tempfile::TempDir,
}

impl S3Server {
    pub const BUCKET: &str = "images";
    pub const KEY_ID: &str = "gantry-test";
    pub const SECRET_KEY: &str = "secret-of-the-tests-4711";

    /// # Panics
    /// Where it is not installed.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Self { port: free_port(), child: None, directory };
        std::fs::create_dir_all(server.bucket()).expect("a bucket");
        server.resume();
        server
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn bucket(&self) -> PathBuf {
        self.root().join(Self::BUCKET)
    }

    /// `[registry.s3]` of an operator, with a file of credentials that is good.
    pub fn settings(&self) -> String {
        self.write_credentials(Self::SECRET_KEY, 0o600);
        format!(
            "[registry.s3]\nbucket = \"{}\"\nregionendpoint = \"{}\"\nrootdirectory = \"gantry\"\n\
             credentials = \"{}\"\n",
            Self::BUCKET,
            self.endpoint(),
            self.credentials().display()
        )
    }

    fn credentials(&self) -> PathBuf {
        self.directory.path().join("credentials")
    }

    /// Overwrites the file of credentials.
    #[expect(clippy::disallowed_methods, reason = "a test's own files need not be durable")]
    pub fn write_credentials(&self, secret: &str, mode: u32) {
        let path = self.credentials();
        let (id, name) = ("aws_access_key_id", "aws_secret_access_key");
        std::fs::write(&path, format!("[default]\n{id} = {}\n{name} = {secret}\n", Self::KEY_ID))
            .expect("written");
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
    }

    /// The file with an object's bytes.
    pub fn object(&self, name: &str) -> PathBuf {
        self.bucket().join(name)
    }

    /// The names of all objects.
    pub fn objects(&self) -> Vec<String> {
        let mut found = Vec::new();
        names(&self.bucket(), "", &mut found);
        found.sort();
        found
    }

    /// How many parts there are of objects that are not whole yet.
    pub fn parts(&self) -> usize {
        let entries = std::fs::read_dir(self.root()).expect("a directory").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().contains(".part-")).count()
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Lets it do nothing, with its connections open, until [`Self::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running server");
        // Numbers of processes are positive and small.
        kill(Pid::from_raw(child.id() as i32), signal).expect("a process of ours");
    }

    /// Starts it again, at the same address with the same objects.
    pub fn resume(&mut self) {
        let log = self.directory.path().join("log");
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let errors = log.try_clone().expect("a log");
        let port = self.port.to_string();
        let mut command = Command::new(program());
        command.args(["--host", "127.0.0.1", "--port", &port]);
        command.args(["--access-key", Self::KEY_ID, "--secret-key", Self::SECRET_KEY]);
        command.arg(self.root());
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.child = Some(command.spawn().expect("s3s-fs, which cargo xtask setup installs"));
        eventually("s3s-fs listens", START_MAX, || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn program() -> PathBuf {
    let target = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target"));
    let own = || environment("CARGO_TARGET_DIR").unwrap_or_else(target).join("tools/s3");
    environment("GANTRY_TEST_S3").unwrap_or_else(own).join("bin/s3s-fs")
}

fn names(directory: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            names(&entry.path(), &format!("{name}/"), found);
        } else {
            found.push(name);
        }
    }
}
