//! Licences, bans and sources, by cargo-deny.

use crate::run;

const VERSION: &str = "0.20.2";

pub fn run() -> anyhow::Result<()> {
    if !run::has_program("cargo-deny") {
        println!("== installing cargo-deny");
        // Unoptimised: it builds in a third of the time and runs for two seconds. Without its
        // advisory database, which no package registry carries.
        run::cargo(&[
            "install",
            "cargo-deny",
            "--version",
            VERSION,
            "--locked",
            "--debug",
            "--no-default-features",
        ])?;
    }
    run::cargo(&["deny", "--all-features", "check", "licenses", "bans", "sources"])
}
