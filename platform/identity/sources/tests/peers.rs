//! What the tests of all peers need.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where `cargo xtask setup` puts programs of this repository alone, unless the variable says otherwise.
pub fn tool(variable: &str, folder: &str) -> PathBuf {
    let target = || {
        let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target"));
        std::env::var_os("CARGO_TARGET_DIR").map_or(own, PathBuf::from)
    };
    std::env::var_os(variable).map_or_else(|| target().join("tools").join(folder), PathBuf::from)
}

/// A port of the loopback address that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Polls until `ready` holds.
pub async fn eventually(what: &str, ready: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !ready().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A child process that ends with the test, and its output.
pub struct Child {
    child: std::process::Child,
    pub log: PathBuf,
}

impl Child {
    /// Starts `command` with its output in `log`.
    pub fn start(mut command: std::process::Command, log: PathBuf) -> Self {
        let file = std::fs::File::create(&log).expect("the log can be made");
        let copy = file.try_clone().expect("a second handle");
        command.stdout(file).stderr(copy);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, log }
    }

    /// Its standard input, if the command was told to pipe it.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(8000);
            eprintln!("-- {}:\n{}", self.log.display(), log.get(tail..).unwrap_or(&log));
        }
    }
}
