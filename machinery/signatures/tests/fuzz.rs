//! A bounded run of every fuzz target.

use gantry_signatures::fuzz::TARGETS;
use gantry_testkit::fuzz::{are_targets, takes_any_bytes};

const CASES: u32 = 300;

#[test]
fn every_parser_takes_any_bytes() {
    for target in TARGETS {
        takes_any_bytes(target.name, target.seeds, CASES, target.run);
    }
}

#[test]
fn each_has_a_target_of_cargo_fuzz() {
    are_targets(TARGETS.iter().map(|target| target.name), include_str!("../fuzz/Cargo.toml"));
}
