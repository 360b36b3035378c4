//! Running other programs, with errors that name them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where built programs and installed tools go.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs a command with its output shown; fails when it does.
pub fn shown(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", words(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", words(command));
    }
    Ok(())
}

/// Runs a command quietly and returns what it printed.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let out =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", words(command)))?;
    if !out.status.success() {
        bail!(
            "{} ended with {}: {}",
            words(command),
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

pub fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    println!("== cargo {}", arguments.join(" "));
    shown(cargo_command().args(arguments).current_dir(root()))
}

/// cargo, without what the cargo that runs us says about this crate: build scripts look at some of it (ring's does),
/// and half of the dependencies would be built again whenever people take turns between `cargo xtask` and `cargo`.
pub fn cargo_command() -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || ABOUT_US.iter().any(|ours| name == *ours) {
            command.env_remove(name);
        }
    }
    command
}

const ABOUT_US: [&str; 5] =
    ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_MANIFEST_LINKS", "CARGO_CRATE_NAME", "OUT_DIR"];

/// Is a program of this name on the PATH?
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .any(|directory| directory.join(name).is_file())
}

fn words(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Waits between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "xtask has no runtime whose threads this could block")]
pub fn pause(time: std::time::Duration) {
    std::thread::sleep(time);
}
