//! The measurements behind docs/benchmarks.md, each a release build that prints its own table.

use std::path::Path;

use anyhow::{Context, bail};

use crate::{run, setup};

/// A bench: its name, what cargo runs for it, and whether that wants a directory as its last argument.
struct Bench {
    name: &'static str,
    cargo: &'static [&'static str],
    wants_directory: bool,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "platform",
        cargo: &["bench", "--package", "gantry-tests", "--bench", "platform"],
        wants_directory: false,
    },
    Bench {
        name: "access",
        cargo: &["bench", "--package", "gantry-tests", "--bench", "access"],
        wants_directory: false,
    },
    Bench {
        name: "registry",
        cargo: &["bench", "--package", "gantry-tests", "--bench", "registry"],
        wants_directory: false,
    },
    Bench {
        name: "store",
        cargo: &["run", "--release", "--package", "gantry-store", "--example", "store", "--"],
        wants_directory: true,
    },
    Bench {
        name: "apiserver",
        cargo: &["bench", "--package", "gantry-apiserver", "--bench", "requests"],
        wants_directory: false,
    },
    Bench {
        name: "rbac",
        cargo: &["run", "--release", "--package", "gantry-kube-logic", "--example", "rbac"],
        wants_directory: false,
    },
    Bench {
        name: "identity",
        cargo: &["run", "--release", "--package", "gantry-identity", "--example", "identity"],
        wants_directory: false,
    },
    Bench {
        name: "audit",
        cargo: &["run", "--release", "--package", "gantry-audit", "--example", "audit"],
        wants_directory: false,
    },
    Bench {
        name: "scanner",
        cargo: &["run", "--release", "--package", "gantry-scanner", "--example", "bench", "--"],
        wants_directory: true,
    },
];

/// Runs the named benches, or all. One that misses its bar fails, but does not keep the others from running.
pub fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let chosen: Vec<&Bench> =
        BENCHES.iter().filter(|bench| arguments.is_empty() || arguments.contains(&bench.name)).collect();
    let known = |name: &&&str| BENCHES.iter().any(|bench| bench.name == **name);
    if let Some(unknown) = arguments.iter().find(|name| !known(name)) {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!("there is no bench {unknown:?}; there are: {}", names.join(", "));
    }
    setup::for_tests()?;
    if chosen.iter().any(|bench| bench.name == "scanner") {
        setup::for_scanner_bench()?;
    }
    run::cargo(&["build", "--release", "--package", "gantry", "--package", "hello"])?;
    let failed: Vec<&str> = chosen
        .into_iter()
        .filter_map(|bench| match measure(bench) {
            Ok(()) => None,
            Err(error) => {
                eprintln!("xtask: bench {}: {error:#}", bench.name);
                Some(bench.name)
            }
        })
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not measured, or below its bar: {}", failed.join(", "))
}

fn measure(bench: &Bench) -> anyhow::Result<()> {
    let mut command = run::cargo_command();
    command.args(bench.cargo).current_dir(run::root());
    setup::tell_tests(&mut command);
    // On the disk the target directory is on: a file system in memory would make every fsync free.
    let directory = run::target().join("bench").join(bench.name);
    if bench.wants_directory {
        empty(&directory)?;
        command.arg(&directory);
    }
    println!("== cargo {} ({})", bench.cargo.join(" "), bench.name);
    let measured = run::shown(&mut command);
    if bench.wants_directory {
        std::fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
    }
    measured
}

fn empty(directory: &Path) -> anyhow::Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())
}
