//! One running instance: started, driven, killed and removed as a user would.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::command::{Output, Running, run, run_with_input, spawn};
use crate::host;
use crate::skip::skip;
use crate::wait::eventually;

/// Lines of the instance's log shown when a test fails.
const LOG_LINES_SHOWN: usize = 80;
/// Somebody else may take a free port between our look and the start.
const START_ATTEMPTS: usize = 3;

/// How an instance is to be started.
#[derive(Clone, Debug)]
pub struct Builder {
    node: bool,
    files: Vec<(String, String)>,
}

impl Builder {
    /// The control plane alone: needs no root and no containerd.
    #[must_use]
    pub fn no_node(mut self) -> Self {
        self.node = false;
        self
    }

    /// A file in the data directory, `config.toml` for one. `@DATA@` in it is that directory.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Starts it and waits until it is ready; says why and returns nothing where this machine cannot.
    ///
    /// # Panics
    /// When the start fails.
    #[must_use]
    pub fn start(self) -> Option<Instance> {
        if let Some(reason) = missing(self.node) {
            skip(reason);
            return None;
        }
        let directory = tempfile::Builder::new().prefix("gt-").tempdir().expect("a temporary directory");
        let mut instance = Instance {
            name: unused_name(),
            data: directory.path().join("data"),
            run: directory.path().join("run"),
            directory,
            port: free_port(),
            node: self.node,
            purged: false,
        };
        self.put_files(&instance.data);
        for attempt in 1..=START_ATTEMPTS {
            let out = instance.up();
            if out.succeeded() {
                return Some(instance);
            }
            let port_lost = out.stderr.contains("in use");
            assert!(port_lost && attempt < START_ATTEMPTS, "{out}\n{}", instance.log_tail());
            instance.port = free_port();
        }
        unreachable!("the last attempt either returned or panicked")
    }
}

impl Builder {
    #[expect(clippy::disallowed_methods, reason = "a test's own files need not be durable")]
    fn put_files(&self, data: &Path) {
        for (name, text) in &self.files {
            fs::create_dir_all(data).expect("a folder in our own temporary directory");
            let text = text.replace("@DATA@", &data.display().to_string());
            fs::write(data.join(name), text).expect("written");
        }
    }
}

/// A running instance. Dropping it is `gantry down --purge` and a look at what is left.
pub struct Instance {
    name: String,
    data: PathBuf,
    run: PathBuf,
    directory: TempDir,
    port: u16,
    node: bool,
    purged: bool,
}

impl Instance {
    /// Everything on this machine, ready; nothing (and a line that says why) where it cannot run.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::builder().start()
    }

    pub fn builder() -> Builder {
        Builder { node: true, files: Vec::new() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// A folder for the test's own files; goes with the instance.
    pub fn scratch(&self) -> PathBuf {
        let path = self.directory.path().join("scratch");
        fs::create_dir_all(&path).expect("a folder in our own temporary directory");
        path
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`: what stands before a repository in an image's name.
    pub fn registry(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    /// The flags that mean this instance.
    pub fn flags(&self) -> Vec<String> {
        let (data, run) = (self.data.display().to_string(), self.run.display().to_string());
        ["--instance", &self.name, "--data-dir", &data, "--run-dir", &run].map(str::to_owned).to_vec()
    }

    /// `gantry up --detach` with this instance's name, directories and port.
    #[track_caller]
    pub fn up(&self) -> Output {
        let mut command = Command::new(binary("gantry"));
        command.args(["up", "--detach"]).args(self.flags()).args(["--listen", &self.registry()]);
        if !self.node {
            command.arg("--no-node");
        }
        run(&mut command)
    }

    /// `gantry down`, with `arguments` such as `--purge`.
    #[track_caller]
    pub fn down(&self, arguments: &[&str]) -> Output {
        run(Command::new(binary("gantry")).arg("down").args(self.flags()).args(arguments))
    }

    /// `gantry status -o json`.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let out = run(Command::new(binary("gantry")).args(["status", "-o", "json"]).args(self.flags()));
        serde_json::from_str(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Process id of the platform.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.run.join("lock")).expect("a running instance has a lock");
        text.trim().parse().expect("the lock names its holder")
    }

    /// Kills the platform as a crash or the memory killer would, and waits until it is gone.
    #[track_caller]
    pub fn kill9(&self) {
        self.kill_process(self.pid());
    }

    /// Kills any process of this instance and waits until it is gone.
    #[track_caller]
    pub fn kill_process(&self, pid: i32) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the process is ours and runs");
        eventually("a killed process is gone", Duration::from_secs(5), || !is_running(pid));
    }

    /// Starts it again on its data, after [`Instance::kill9`] or [`Instance::down`].
    #[track_caller]
    pub fn restart(&self) {
        let out = self.up();
        assert!(out.succeeded(), "{out}\n{}", self.log_tail());
    }

    /// kubectl as this instance's administrator.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(kubectl_program());
        // A cache of its own: discovery of another instance on the same port must not be believed.
        command.arg("--cache-dir").arg(self.scratch().join("kubectl-cache"));
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.scratch());
        command
    }

    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        run(&mut self.kubectl_command(arguments))
    }

    #[track_caller]
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        run_with_input(&mut self.kubectl_command(arguments), input)
    }

    /// kubectl that goes on: `logs -f`, `get -w`, `port-forward`.
    #[track_caller]
    pub fn kubectl_spawn(&self, arguments: &[&str]) -> Running {
        spawn(&mut self.kubectl_command(arguments))
    }

    /// `kubectl apply -f -`.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        self.kubectl_with_input(&["apply", "-f", "-"], manifest.as_bytes()).ok()
    }

    /// `kubectl get … -o jsonpath=…`, or what kubectl said where that failed.
    #[track_caller]
    pub fn jsonpath(&self, what: &[&str], path: &str) -> String {
        let path = format!("jsonpath={path}");
        let out = self.kubectl(&[&["get"], what, &["-o", &path]].concat());
        if out.succeeded() { out.stdout } else { out.stderr }
    }

    /// A user command of gantry, as this instance's administrator.
    #[track_caller]
    pub fn gantry(&self, arguments: &[&str]) -> Output {
        run(&mut self.gantry_command(arguments))
    }

    /// A `gantry` command for users, as this instance's administrator.
    pub fn gantry_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("gantry"));
        command.args(arguments).env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// The last lines of the instance's log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.data.join("gantry.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// The instance's bridge, as it wrote it down.
    fn bridge(&self) -> Option<String> {
        let text = fs::read_to_string(self.data.join("addresses.json")).ok()?;
        let addresses: serde_json::Value = serde_json::from_str(&text).ok()?;
        addresses["bridge"].as_str().map(str::to_owned)
    }

    /// Removes the instance as its user would and returns what is left of it on the host.
    pub fn purge(&mut self) -> Vec<String> {
        self.purged = true;
        let (bridge, namespaces) = (self.bridge(), network_namespaces(&self.run));
        let out = self.down(&["--purge"]);
        let directories = [self.data.as_path(), self.run.as_path()];
        let mut left = host::leftovers(&self.name, &directories, bridge.as_deref(), &namespaces);
        if !out.succeeded() {
            left.push(out.to_string());
        }
        left
    }

    /// What is on the host of an instance that is down but keeps its data.
    pub fn leftovers_beside_data(&self, namespaces: &[String]) -> Vec<String> {
        let mut left = host::leftovers(&self.name, &[&self.run], self.bridge().as_deref(), namespaces);
        let with_data = host::leftovers(&self.name, &[&self.data], None, &[]);
        left.extend(with_data.into_iter().filter(|line| !line.starts_with("directory ")));
        left.dedup();
        left
    }

    /// Network namespaces of the pods that run now.
    pub fn network_namespaces(&self) -> Vec<String> {
        network_namespaces(&self.run)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of the log of instance {}\n{}", self.name, self.log_tail());
        }
        if self.purged {
            return;
        }
        let removed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.purge()));
        let left = removed.unwrap_or_else(|_| vec!["gantry down --purge could not be run".to_owned()]);
        if std::thread::panicking() {
            // The first failure is the one to read; a second panic would abort and hide it.
            eprintln!("--- left on the host: {left:?}");
        } else {
            assert!(left.is_empty(), "left on the host after `gantry down --purge`: {left:#?}");
        }
    }
}

/// The network namespaces in the specifications of the containers below `run`.
fn network_namespaces(run: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![(run.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            // A container's own file tree is large and none of our business.
            if is_folder && depth < 8 && entry.file_name() != "rootfs" {
                folders.push((entry.path(), depth + 1));
            } else if entry.file_name() == "config.json" {
                found.extend(network_namespace(&entry.path()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn network_namespace(config: &Path) -> Option<String> {
    let text = fs::read_to_string(config).ok()?;
    let config: serde_json::Value = serde_json::from_str(&text).ok()?;
    let namespaces = config["linux"]["namespaces"].as_array()?;
    let path = namespaces.iter().find(|n| n["type"] == "network")?["path"].as_str()?;
    // Sharing another process's namespace is not having one.
    (!path.starts_with("/proc/")).then(|| path.to_owned())
}

fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; that its parent has not looked yet does not matter. Until the last of its threads has,
    // it holds its files and their locks.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !stat.is_empty() && (!stat.contains(") Z ") || threads > 1)
}

/// Why an instance cannot run here.
fn missing(node: bool) -> Option<String> {
    if !binary("gantry").is_file() {
        return Some(format!(
            "{} is not built: run `cargo build --workspace --bins`",
            binary("gantry").display()
        ));
    }
    if !node {
        return None;
    }
    if !nix::unistd::geteuid().is_root() {
        return Some("containers need root".to_owned());
    }
    let found = |name: &str| {
        ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().any(|d| Path::new(d).join(name).is_file())
    };
    let absent: Vec<&str> = ["containerd", "runc", "nft"].into_iter().filter(|name| !found(name)).collect();
    (!absent.is_empty()).then(|| format!("{} missing: run `cargo xtask setup`", absent.join(", ")))
}

/// A program of this workspace, built beside the test that runs.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in PROFILE/deps");
    folder.join(name)
}

/// kubectl: what `cargo xtask test` chose, else the machine's.
pub fn kubectl_program() -> PathBuf {
    environment("GANTRY_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into())
}

/// A kubectl that speaks SPDY alone, where `cargo xtask test` found one for this machine.
pub fn spdy_kubectl_program() -> Option<PathBuf> {
    environment("GANTRY_TEST_KUBECTL_SPDY").filter(|path| path.is_file())
}

/// Helm, where `cargo xtask test` found one for this machine.
pub fn helm_program() -> Option<PathBuf> {
    environment("GANTRY_TEST_HELM").filter(|path| path.is_file())
}

/// The Python that has the `kubernetes` client.
pub fn python_program() -> PathBuf {
    environment("GANTRY_TEST_PYTHON").unwrap_or_else(|| "python3".into())
}

#[expect(clippy::disallowed_methods, reason = "tests are told their client programs by xtask")]
pub(crate) fn environment(name: &str) -> Option<PathBuf> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A name no other instance has.
pub fn unused_name() -> String {
    format!("t-{:08x}", rand::random::<u32>())
}

/// A port of 127.0.0.1 that is free now.
///
/// # Panics
/// When the machine has no free port.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// A node port for one test. All instances of a host share the host's ports, so it is chosen at random.
pub fn free_node_port() -> u16 {
    // The demo's own 30080 is left to a person's instance.
    30_100 + rand::random::<u16>() % 2_600
}
