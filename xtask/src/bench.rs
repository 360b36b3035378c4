//! The measurements behind docs/benchmarks.md, each a release build that prints its own table.

use anyhow::bail;

use crate::{run, setup};

/// Name, and what cargo runs for it.
const BENCHES: &[(&str, &[&str])] = &[
    ("platform", &["bench", "--package", "gantry-tests", "--bench", "platform"]),
    ("store", &["run", "--release", "--package", "gantry-store", "--example", "bench"]),
    ("apiserver", &["bench", "--package", "gantry-apiserver", "--bench", "requests"]),
];

pub fn run(arguments: &[&str]) -> anyhow::Result<()> {
    setup::run()?;
    let chosen: Vec<_> =
        BENCHES.iter().filter(|(name, _)| arguments.is_empty() || arguments.contains(name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        bail!("there is no bench {:?}; there are: {}", arguments, names.join(", "));
    }
    run::cargo(&["build", "--release", "--package", "gantry", "--package", "hello"])?;
    for (_, command) in chosen {
        run::cargo(command)?;
    }
    Ok(())
}
