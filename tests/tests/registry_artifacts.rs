//! Artifacts of no image, and what refers to them, with the ORAS project's client for Python.

use std::process::Command;

use gantry_testkit::{Instance, python_program, run, skip};

use crate::registry_upstream::robot_token;
use crate::support::has_all;

#[test]
fn oras_pushes_attaches_discovers_and_pulls() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    if !run(Command::new(python_program()).args(["-c", "import oras"])).succeeded() {
        skip(format!("{} has no oras: run `cargo xtask setup`", python_program().display()));
        return;
    }
    let script = gantry.scratch().join("artifacts.py");
    std::fs::write(&script, include_str!("registry_artifacts.py")).expect("written");
    let out = run(Command::new(python_program())
        .arg(script)
        .args([
            gantry.registry(),
            gantry.data_dir().join("pki/ca.crt").display().to_string(),
            robot_token(&gantry),
        ])
        .current_dir(gantry.scratch())
        // No other credentials than those it is given.
        .env("HOME", gantry.scratch()));
    assert_eq!(out.code, 0, "{out}\n{}", gantry.log_tail());
    has_all(&out.stdout, &["pushed sha256:", "attached sha256:", "all done"]);
    has_all(&gantry.gantry(&["registry", "fsck"]).ok(), &["repositories"]);
}
