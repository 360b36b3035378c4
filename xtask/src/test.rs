//! Every test, unit to end-to-end, against the binary as it is built now.

use crate::{run, setup};

pub fn run(arguments: &[&str]) -> anyhow::Result<()> {
    setup::for_tests()?;
    // The end-to-end suite runs the platform's own binaries; nextest alone would not build them.
    run::cargo(&["build", "--workspace", "--bins"])?;
    let mut nextest = run::cargo_command();
    nextest.args(["nextest", "run", "--workspace"]).args(arguments).current_dir(run::root());
    setup::tell_tests(&mut nextest);
    println!("== cargo nextest run --workspace {}", arguments.join(" "));
    run::shown(&mut nextest)
}
