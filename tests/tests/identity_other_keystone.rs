//! People of another Keystone (OpenStack's own) sign in with the passwords and tokens they have there, and keep their
//! roles for as long as they have them there.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gantry_testkit::{Instance, eventually, free_port, run, skip};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::closed::Door;
use crate::people::Person;
use crate::support::{SOON, has_all, identity_object};

const ADMIN_PASSWORD: &str = "admin-secret-3317";
const SERVICE_PASSWORD: &str = "service-secret-7781";

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
make_server("127.0.0.1", port, initialize_public_application(), Server).serve_forever()
"#;

/// Ended when dropped.
struct Keystone {
    child: Child,
    url: String,
    client: reqwest::Client,
    admin: String,
    folder: PathBuf,
}

impl Drop for Keystone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Keystone {
    /// `None`, with the reason printed, where Keystone is not installed.
    async fn start(root: &Path) -> Option<Self> {
        let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/keystone");
        let chosen = std::env::var("GANTRY_TEST_KEYSTONE").ok().filter(|value| !value.is_empty());
        let programs = chosen.map_or(default, PathBuf::from).join("bin");
        if !programs.join("keystone-manage").is_file() {
            skip(format!("no Keystone in {} (cargo xtask setup installs it)", programs.display()));
            return None;
        }
        for folder in ["fernet", "receipts", "credential"] {
            std::fs::create_dir_all(root.join(folder)).expect("a folder");
            let private = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(root.join(folder), private).expect("our own folder");
        }
        let (settings, port) = (root.join("keystone.conf"), free_port());
        let url = format!("http://127.0.0.1:{port}/v3");
        std::fs::write(&settings, configuration(root)).expect("written");
        std::fs::write(root.join("serve.py"), SERVE).expect("written");
        let manage = |arguments: &[&str]| {
            let mut command = Command::new(programs.join("keystone-manage"));
            run(command.arg("--config-file").arg(&settings).args(arguments).current_dir(root)).ok();
        };
        manage(&["db_sync"]);
        manage(&["fernet_setup", "--keystone-user", "root", "--keystone-group", "root"]);
        manage(&["bootstrap", "--bootstrap-password", ADMIN_PASSWORD, "--bootstrap-public-url", &url]);
        let mut command = Command::new(programs.join("python"));
        command.arg(root.join("serve.py")).arg(port.to_string()).current_dir(root);
        command.env("OS_KEYSTONE_CONFIG_DIR", root).env("OS_KEYSTONE_CONFIG_FILES", &settings);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("Python starts");
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Python's server closes each connection.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        let client = client.build().expect("a client");
        let mut keystone = Self { child, url, client, admin: String::new(), folder: root.to_owned() };
        eventually("Keystone listens", SOON, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let all = json!({ "system": { "all": true } });
        keystone.admin = keystone.token("admin", "Default", ADMIN_PASSWORD, all).await;
        Some(keystone)
    }

    /// Calls the API as the administrator.
    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        request = request.header("x-auth-token", &self.admin);
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("a body"));
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Makes a thing and returns its id.
    async fn make(&self, kind: &str, spec: Value) -> String {
        let made = self.call(Method::POST, &format!("/{kind}s"), json!({ kind: spec })).await;
        made[kind]["id"].as_str().expect("an id").to_owned()
    }

    async fn role(&self, name: &str) -> String {
        let found = self.call(Method::GET, &format!("/roles?name={name}"), Value::Null).await;
        found["roles"][0]["id"].as_str().expect("one of the default roles").to_owned()
    }

    /// A token of a person, from Keystone itself.
    async fn token(&self, user: &str, domain: &str, password: &str, scope: Value) -> String {
        let person = json!({ "name": user, "domain": { "name": domain }, "password": password });
        let identity = json!({ "methods": ["password"], "password": { "user": person } });
        let body = json!({ "auth": { "identity": identity, "scope": scope } });
        let answer = self.client.post(format!("{}/auth/tokens", self.url)).json(&body).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED, "{user} signs in there");
        answer.headers()["x-subject-token"].to_str().expect("text").to_owned()
    }

    /// The organisation here whose people are those of the domain `acme` there.
    fn organisation(&self) -> String {
        let provider = json!({
            "name": "other",
            "type": "keystone",
            "domain": "acme",
            "syncIntervalSeconds": 1,
            "secret": "default/other",
            "config": {
                "url": self.url,
                "account": { "user": "gantry" },
                "http": { "insecureHttp": true },
                "limits": { "cacheSecondsMax": 1 },
                "sync": { "keepRoles": true },
            },
        });
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": "other", "namespace": "default" },
            "stringData": { "password": SERVICE_PASSWORD },
        });
        let all = [
            secret,
            identity_object("Domain", "acme", json!({ "name": "acme" })),
            identity_object(
                "Project",
                "web",
                json!({ "name": "web", "domain": "acme", "environments": [{ "name": "dev" }] }),
            ),
            identity_object(
                "Project",
                "lab",
                json!({ "name": "lab", "domain": "acme", "environments": [{ "name": "dev" }] }),
            ),
            identity_object("IdentityProvider", "other", provider),
        ];
        all.map(|object| object.to_string()).join("\n")
    }
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

#[test]
fn people_of_another_keystone_keep_their_passwords_tokens_and_roles() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    // In memory where there is such a place: SQLite syncs every one of Keystone's many small changes.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.join(gantry.name()) } else { gantry.scratch().join("keystone") };
    let Some(keystone) = runtime.block_on(Keystone::start(&folder)) else {
        return;
    };
    let (user, grant) = runtime.block_on(async {
        let domain = keystone.make("domain", json!({ "name": "acme" })).await;
        let user = json!({ "name": "alice", "domain_id": domain, "password": "pw of alice" });
        let user = keystone.make("user", user).await;
        let project = keystone.make("project", json!({ "name": "web", "domain_id": domain })).await;
        let grant = format!("/projects/{project}/users/{user}/roles/{}", keystone.role("member").await);
        keystone.call(Method::PUT, &grant, Value::Null).await;
        let service = json!({ "name": "gantry", "domain_id": "default", "password": SERVICE_PASSWORD });
        let service = keystone.make("user", service).await;
        let reader = format!("/system/users/{service}/roles/{}", keystone.role("reader").await);
        keystone.call(Method::PUT, &reader, Value::Null).await;
        (user, grant)
    });
    gantry.apply(&keystone.organisation());
    Person::known(&gantry, "acme/alice", "not hers").login(&gantry, &[]).fails();
    let alice = Person::known(&gantry, "acme/alice", "pw of alice");
    eventually("alice signs in with her password there", SOON, || alice.login(&gantry, &[]).succeeded());
    let works = |namespace: &str| alice.kubectl(&["get", "pods", "-n", namespace]).succeeded();
    eventually("her role came along", SOON, || works("web-dev"));
    assert!(!works("lab-dev"), "she has no role there");
    has_all(&alice.gantry(&["whoami"]).ok(), &["member in project acme/web"]);

    // A token from there is one from here, and a bad one is none.
    let door = Door::of(&gantry);
    let exchanged = |token: String| {
        let path = "/identity/v3/OS-FEDERATION/identity_providers/other/protocols/keystone/auth";
        let request = door.client.post(format!("{}{path}", door.base)).bearer_auth(token);
        runtime.block_on(async { request.send().await.expect("an answer") })
    };
    let scope = json!({ "project": { "name": "web", "domain": { "name": "acme" } } });
    let theirs = runtime.block_on(keystone.token("alice", "acme", "pw of alice", scope));
    let answer = exchanged(theirs.clone());
    assert_eq!(answer.status(), StatusCode::CREATED);
    let ours = format!("Bearer {}", answer.headers()["x-subject-token"].to_str().expect("text"));
    let pods = |token: &str| {
        let shown = Some(("authorization", token));
        runtime.block_on(door.ask(Method::GET, "/api/v1/namespaces/web-dev/pods", shown))
    };
    // What she may is what her token there shows, from this sign-in on.
    eventually("her roles are those of the token", SOON, || pods(&ours) == StatusCode::OK);
    assert_eq!(pods(&format!("Bearer {theirs}")), StatusCode::UNAUTHORIZED, "it has to be exchanged");
    assert_eq!(exchanged(format!("{theirs}x")).status(), StatusCode::UNAUTHORIZED);
    let admins = keystone.admin.clone();
    assert_eq!(exchanged(admins).status(), StatusCode::UNAUTHORIZED, "of a domain that is not acme");

    // What is taken away there is gone here within the interval.
    runtime.block_on(keystone.call(Method::DELETE, &grant, Value::Null));
    eventually("the role is gone", SOON, || pods(&ours) == StatusCode::FORBIDDEN && !works("web-dev"));
    runtime.block_on(keystone.call(Method::PUT, &grant, Value::Null));
    eventually("the role is back", SOON, || pods(&ours) == StatusCode::OK);
    let disabled = json!({ "user": { "enabled": false } });
    runtime.block_on(keystone.call(Method::PATCH, &format!("/users/{user}"), disabled));
    eventually("alice is out", SOON, || pods(&ours) == StatusCode::UNAUTHORIZED);
    alice.login(&gantry, &[]).fails();
}
