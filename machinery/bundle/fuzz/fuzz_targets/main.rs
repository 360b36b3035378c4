//! One program for all targets: each is the target of its own name (`gantry_bundle::fuzz`).

#![no_main]

use std::sync::LazyLock;

use gantry_bundle::fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = env!("CARGO_BIN_NAME");
    TARGETS.iter().find(|target| target.name == name).expect("a target of this program's name")
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
