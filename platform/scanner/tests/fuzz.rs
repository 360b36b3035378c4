//! A bounded run of every fuzz target.

use gantry_scanner::fuzz::targets;
use gantry_testkit::fuzz::{are_targets, takes_any_bytes};

const CASES: u32 = 150;

#[test]
fn every_parser_takes_any_bytes() {
    for target in targets() {
        takes_any_bytes(target.name, target.seeds, CASES, target.run);
    }
}

#[test]
fn each_has_a_target_of_cargo_fuzz() {
    are_targets(targets().map(|target| target.name), include_str!("../fuzz/Cargo.toml"));
}
