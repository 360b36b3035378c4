//! `cargo xtask`: what one does with this repository besides `cargo build`.

mod bench;
mod deny;
mod run;
mod setup;
mod test;
mod tidy;
mod up;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  setup          install what is missing to build, run and test (apt, pip, cargo; needs root)
  up             install what running needs, build --release, start Gantry, deploy examples/hello, say where everything is
  down           stop what `up` started; --purge removes its data too
  test [ARGS]    setup, then every test, unit to end-to-end; ARGS go to `cargo nextest run`
  bench [NAME…]  the measurements of docs/benchmarks.md; fails below a bar
  tidy [--bless] layers and sizes against the committed golden files; --bless accepts them
  deny           licences, bans and sources of all dependencies
  ci             what .ci/run does: fmt, clippy, tidy, deny, test
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("setup") => setup::for_tests(),
        Some("up") => up::up(&rest),
        Some("down") => up::down(&rest),
        Some("test") => test::run(&rest),
        Some("bench") => bench::run(&rest),
        Some("tidy") => tidy::run(rest.contains(&"--bless")),
        Some("deny") => deny::run(),
        Some("ci") => ci(),
        _ => {
            print!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ci() -> anyhow::Result<()> {
    setup::for_tests()?;
    run::cargo(&["fmt", "--all", "--check"])?;
    tidy::run(false)?;
    deny::run()?;
    run::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    test::run(&[])
}
