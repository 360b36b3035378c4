//! A real Keystone: OpenStack's own, with SQLite and Fernet tokens in a temporary directory.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::command::run;
use crate::instance::{environment, free_port};
use crate::skip::skip;
use crate::wait::eventually;

const ADMIN_PASSWORD: &str = "admin-secret-3317";
/// Keystone takes half a minute to start on an idle machine's two cores.
const START_MAX: Duration = Duration::from_secs(150);
const LOG_BYTES_SHOWN: usize = 8000;

/// Serves the application with Python's own server: Keystone brings none.
const SERVE: &str = r#"
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import make_server, WSGIServer
port = int(sys.argv[1])
sys.argv = ["keystone"]
from keystone.server.wsgi import initialize_public_application
class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64
make_server("127.0.0.1", port, initialize_public_application(), Server).serve_forever()
"#;

/// A running Keystone, with OpenStack's default roles. Ended when dropped.
pub struct Keystone {
    /// `http://127.0.0.1:PORT/v3`
    pub url: String,
    client: reqwest::Client,
    admin: String,
    roles: Value,
    child: Option<Child>,
    directory: tempfile::TempDir,
}

impl Keystone {
    /// The password of the user that [`Self::start`] makes for whoever asks about people: `gantry` of the domain
    /// `Default`, reader of the system.
    pub const SERVICE_PASSWORD: &str = "service-secret-7781";

    /// `None`, with the reason printed, where Keystone is not installed.
    pub async fn start() -> Option<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let target = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target"));
        let own = || environment("CARGO_TARGET_DIR").unwrap_or_else(target).join("tools/keystone");
        let programs = environment("GANTRY_TEST_KEYSTONE").unwrap_or_else(own).join("bin");
        if !programs.join("keystone-manage").is_file() {
            skip(format!("no Keystone in {} (cargo xtask setup installs it)", programs.display()));
            return None;
        }
        let directory = directory();
        let root = directory.path();
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}/v3");
        write(&root.join("keystone.conf"), &configuration(root));
        write(&root.join("serve.py"), SERVE);
        for folder in ["fernet", "receipts", "credential"] {
            std::fs::DirBuilder::new().mode(0o700).create(root.join(folder)).expect("a folder");
        }
        manage(&programs, root, &["db_sync"]);
        let user = run(Command::new("id").arg("-un")).ok();
        let group = run(Command::new("id").arg("-gn")).ok();
        let owner = ["--keystone-user", user.trim(), "--keystone-group", group.trim()];
        manage(&programs, root, &[&["fernet_setup"], owner.as_slice()].concat());
        let bootstrap = ["bootstrap", "--bootstrap-password", ADMIN_PASSWORD, "--bootstrap-public-url", &url];
        manage(&programs, root, &bootstrap);
        let mut command = Command::new(programs.join("python"));
        command.arg(root.join("serve.py")).arg(port.to_string()).current_dir(root).stdin(Stdio::null());
        command
            .env("OS_KEYSTONE_CONFIG_DIR", root)
            .env("OS_KEYSTONE_CONFIG_FILES", root.join("keystone.conf"));
        let log = std::fs::File::create(root.join("keystone.log")).expect("the log can be made");
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = command.spawn().expect("Python starts");
        // Python's server closes each connection.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        let client = client.build().expect("a client");
        let mut keystone =
            Self { url, client, admin: String::new(), roles: json!({}), child: Some(child), directory };
        eventually("Keystone listens", START_MAX, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        keystone.admin =
            keystone.token("admin", "Default", ADMIN_PASSWORD, json!({"system": {"all": true}})).await;
        let roles = keystone.call("GET", "/roles", Value::Null).await;
        for role in roles["roles"].as_array().expect("a list") {
            keystone.roles[role["name"].as_str().expect("a name")] = role["id"].clone();
        }
        let service = keystone.user("gantry", "default", Self::SERVICE_PASSWORD).await;
        keystone
            .call("PUT", &format!("/system/users/{service}/roles/{}", keystone.role("reader")), Value::Null)
            .await;
        Some(keystone)
    }

    /// Ends it, as a crash would.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The administrator's token.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The id of a default role.
    pub fn role(&self, name: &str) -> &str {
        self.roles[name].as_str().expect("one of the default roles")
    }

    /// Calls the API as the administrator.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        request = request.header("x-auth-token", &self.admin);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.expect("an answer");
        let (status, text) = (response.status(), response.text().await.expect("a body"));
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Makes a thing and returns its id.
    async fn made(&self, path: &str, kind: &str, body: Value) -> String {
        let made = self.call("POST", path, json!({kind: body})).await;
        made[kind]["id"].as_str().expect("an id").to_owned()
    }

    pub async fn domain(&self, name: &str) -> String {
        self.made("/domains", "domain", json!({"name": name})).await
    }

    pub async fn project(&self, name: &str, domain: &str) -> String {
        self.made("/projects", "project", json!({"name": name, "domain_id": domain})).await
    }

    pub async fn group(&self, name: &str, domain: &str) -> String {
        self.made("/groups", "group", json!({"name": name, "domain_id": domain})).await
    }

    pub async fn user(&self, name: &str, domain: &str, password: &str) -> String {
        self.made("/users", "user", json!({"name": name, "domain_id": domain, "password": password})).await
    }

    /// A token of a person, from Keystone itself.
    pub async fn token(&self, user: &str, domain: &str, password: &str, scope: Value) -> String {
        let person = json!({"name": user, "domain": {"name": domain}, "password": password});
        let identity = json!({"methods": ["password"], "password": {"user": person}});
        let body = json!({"auth": {"identity": identity, "scope": scope}});
        let response = self.client.post(format!("{}/auth/tokens", self.url)).json(&body).send().await;
        let response = response.expect("an answer");
        assert_eq!(response.status(), 201, "{user} signs in");
        response.headers()["x-subject-token"].to_str().expect("text").to_owned()
    }

    pub async fn revoke(&self, token: &str) {
        let request = self.client.delete(format!("{}/auth/tokens", self.url));
        let response =
            request.header("x-auth-token", &self.admin).header("x-subject-token", token).send().await;
        assert_eq!(response.expect("an answer").status(), 204);
    }
}

impl Drop for Keystone {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = std::fs::read(self.directory.path().join("keystone.log")).unwrap_or_default();
            let tail = &log[log.len().saturating_sub(LOG_BYTES_SHOWN)..];
            eprintln!("-- Keystone's log:\n{}", String::from_utf8_lossy(tail));
        }
    }
}

/// In memory where there is such a place: SQLite syncs every one of Keystone's many small changes.
fn directory() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).expect("a directory")
}

#[expect(clippy::disallowed_methods, reason = "a test's own files need not be durable")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn manage(programs: &Path, root: &Path, arguments: &[&str]) {
    let mut command = Command::new(programs.join("keystone-manage"));
    command.arg("--config-file").arg(root.join("keystone.conf")).args(arguments).current_dir(root);
    run(&mut command).ok();
}

fn configuration(root: &Path) -> String {
    let root = root.display();
    format!(
        "[database]
connection = sqlite:///{root}/keystone.db
[token]
provider = fernet
[fernet_tokens]
key_repository = {root}/fernet
[fernet_receipts]
key_repository = {root}/receipts
[credential]
key_repository = {root}/credential
[cache]
enabled = false
[identity]
password_hash_rounds = 4
"
    )
}
