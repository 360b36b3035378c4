//! OpenStack's own clients and services against the identity API: every identity command of
//! python-openstackclient, and keystonemiddleware in front of a service.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gantry_testkit::{Instance, Output, eventually_some, run, skip, spawn};
use reqwest::Method;
use serde_json::{Value, json};

use crate::closed::{Door, administrator, runtime};
use crate::people::Person;
use crate::support::{SOON, has_all};

const COMMANDS: &str = include_str!("identity_keystone.py");
const MIDDLEWARE: &str = include_str!("identity_keystone_middleware.py");

/// Some 270 commands, each with a sign-in of its own, on two busy cores.
const PATIENCE: Duration = Duration::from_secs(280);

/// The Python that has OpenStack's clients: `GANTRY_TEST_OPENSTACK` names its virtual environment.
pub fn openstack() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/openstack");
    let chosen = std::env::var("GANTRY_TEST_OPENSTACK").ok().filter(|value| !value.is_empty());
    let python = chosen.map_or(default, PathBuf::from).join("bin/python");
    if !python.is_file() {
        skip(format!("{} is not there: run `cargo xtask setup`", python.display()));
        return None;
    }
    Some(python)
}

/// A program that signs in as the first administrator, whose name it knows.
fn as_administrator(gantry: &Instance, program: &Path) -> Command {
    let password = std::fs::read_to_string(gantry.data_dir().join("identity/admin-password"))
        .expect("the first administrator's password");
    let mut command = Command::new(program);
    command
        .env("OS_AUTH_URL", format!("https://{}/identity/v3", gantry.registry()))
        .env("OS_PASSWORD", password.trim())
        .env("OS_CACERT", gantry.data_dir().join("pki/ca.crt"))
        .env("TMPDIR", gantry.scratch())
        .env("HOME", gantry.scratch());
    command
}

/// Runs a program of OpenStack's Python as the first administrator.
fn program(gantry: &Instance, python: &Path, name: &str, text: &str) -> Output {
    let script = gantry.scratch().join(name);
    std::fs::write(&script, text).expect("written");
    spawn(as_administrator(gantry, python).arg(script)).wait(PATIENCE)
}

/// `openstack` of the first administrator, who asks for a token of the project `Default/admin`, as most do.
pub fn command_line(gantry: &Instance, python: &Path) -> Command {
    let mut command = as_administrator(gantry, &python.with_file_name("openstack"));
    command.env("OS_IDENTITY_API_VERSION", "3").env("OS_USERNAME", "admin").env("OS_PROJECT_NAME", "admin");
    command.env("OS_USER_DOMAIN_NAME", "Default").env("OS_PROJECT_DOMAIN_NAME", "Default");
    command
}

#[test]
fn every_identity_command_of_openstack_works() {
    let Some(python) = openstack() else { return };
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let out = program(&gantry, &python, "commands.py", COMMANDS);
    assert_eq!(out.code, 0, "{out}\n{}", gantry.log_tail());
    has_all(&out.stdout, &["commands passed; 0 commands have no line"]);
}

#[test]
fn what_openstack_gives_is_a_right_of_kubectl_until_it_takes_it() {
    let Some(python) = openstack() else { return };
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    gantry.gantry(&["domain", "create", "acme"]).ok();
    for project in ["acme/web", "acme/ops"] {
        gantry.gantry(&["project", "create", project, "--environment", "dev"]).ok();
    }
    let alice = Person::signed_in(&gantry, "acme/alice");
    let look = |resource: &str, namespace: &str| alice.kubectl(&["get", resource, "-n", namespace]);
    let refused = |resource: &str, namespace: &str| {
        let said = look(resource, namespace).fails();
        has_all(&said, &[&format!("{resource} is forbidden: User \"acme/alice\" cannot list")]);
    };
    let role = |what: &str| {
        let mut command = command_line(&gantry, &python);
        command.args(["role", what, "--user", "alice", "--user-domain", "acme"]);
        command.args(["--project", "web", "--project-domain", "acme", "reader"]);
        run(&mut command).ok();
    };
    refused("pods", "web-dev");
    role("add");
    eventually_some("alice reads what the project has", SOON, || {
        let out = look("pods", "web-dev");
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });
    refused("secrets", "web-dev");
    refused("pods", "ops-dev");
    role("remove");
    // With the next request, whatever has become of the binding by then.
    refused("pods", "web-dev");
}

/// Administrators of `Default/admin` are the platform's, and so is a token of that project, at every door.
#[test]
fn a_token_of_the_platforms_own_project_opens_the_platform() {
    let Some(python) = openstack() else { return };
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let token = run(command_line(&gantry, &python).args(["token", "issue", "-f", "value", "-c", "id"])).ok();
    let ca = gantry.data_dir().join("pki/ca.crt");
    let status = |path: &str, token: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]);
        command.arg(&ca).args(["-H", &format!("Authorization: Bearer {token}")]);
        run(command.arg(format!("https://{}{path}", gantry.registry()))).ok()
    };
    for path in ["/api/v1/nodes", "/api/v1/secrets", "/apis/identity.gantry.dev/v1alpha1/users"] {
        assert_eq!(status(path, token.trim()), "200", "{path}");
        assert_eq!(status(path, "none"), "401", "{path}");
    }
}

/// As with a Keystone, whatever has to be taken away first.
#[test]
fn what_is_deleted_is_gone_when_the_answer_comes() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let (runtime, door) = (runtime(), Door::of(&gantry));
    let token = administrator(&gantry, &runtime, &door);
    let ask = |method: Method, path: &str, body: Value| {
        let request = door.client.request(method, format!("{}/identity/v3/{path}", door.base));
        let request = request.header("x-auth-token", &token);
        let request = if body.is_null() { request } else { request.json(&body) };
        runtime.block_on(async {
            let answer = request.send().await.expect("an answer");
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
        })
    };
    for number in 0..30 {
        for (plural, member) in
            [("users", "user"), ("projects", "project"), ("groups", "group"), ("roles", "role")]
        {
            let (status, made) = ask(Method::POST, plural, json!({ member: { "name": "brief" } }));
            assert_eq!(status, 201, "the name is free again: {plural} {number}: {made}");
            let one = format!("{plural}/{}", made[member]["id"].as_str().expect("an id"));
            assert_eq!(ask(Method::DELETE, &one, Value::Null).0, 204);
            assert_eq!(ask(Method::GET, &one, Value::Null).0, 404, "{plural} {number}");
        }
    }
}

#[test]
fn a_service_behind_keystonemiddleware_knows_its_callers() {
    let Some(python) = openstack() else { return };
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let out = program(&gantry, &python, "middleware.py", MIDDLEWARE);
    assert_eq!(out.code, 0, "{out}\n{}", gantry.log_tail());
    has_all(
        &out.stdout,
        &[
            "the caller is known",
            "access rules are kept to",
            "refused at once",
            "two factors sign in",
            "all done",
        ],
    );
}
