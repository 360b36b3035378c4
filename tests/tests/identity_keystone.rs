//! OpenStack's own clients and services against the identity API: every identity command of
//! python-openstackclient, and keystonemiddleware in front of a service.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gantry_testkit::{Instance, Output, skip, spawn};

use crate::support::has_all;

const COMMANDS: &str = include_str!("identity_keystone.py");
const MIDDLEWARE: &str = include_str!("identity_keystone_middleware.py");

/// Some 270 commands, each with a sign-in of its own, on two busy cores.
const PATIENCE: Duration = Duration::from_secs(280);

/// The Python that has OpenStack's clients: `GANTRY_TEST_OPENSTACK` names its virtual environment.
fn openstack() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/openstack");
    let chosen = std::env::var("GANTRY_TEST_OPENSTACK").ok().filter(|value| !value.is_empty());
    let python = chosen.map_or(default, PathBuf::from).join("bin/python");
    if !python.is_file() {
        skip(format!("{} is not there: run `cargo xtask setup`", python.display()));
        return None;
    }
    Some(python)
}

/// Runs a program of OpenStack's Python as the first administrator.
fn program(gantry: &Instance, python: &Path, name: &str, text: &str) -> Output {
    let script = gantry.scratch().join(name);
    std::fs::write(&script, text).expect("written");
    let password = std::fs::read_to_string(gantry.data_dir().join("identity/admin-password"))
        .expect("the first administrator's password");
    let mut command = Command::new(python);
    command
        .arg(script)
        .env("OS_AUTH_URL", format!("https://{}/identity/v3", gantry.registry()))
        .env("OS_PASSWORD", password.trim())
        .env("OS_CACERT", gantry.data_dir().join("pki/ca.crt"))
        .env("TMPDIR", gantry.scratch())
        .env("HOME", gantry.scratch());
    spawn(&mut command).wait(PATIENCE)
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
