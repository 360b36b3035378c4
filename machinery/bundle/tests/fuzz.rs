//! A bounded run of every fuzz target: its seeds, changed and cut.

use gantry_bundle::fuzz::TARGETS;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const CASES: u32 = 300;

#[test]
fn every_parser_takes_any_bytes() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        for seed in &seeds {
            (target.run)(seed);
        }
        let input = (
            any::<usize>(),
            proptest::collection::vec(any::<(u16, u8)>(), 0..6),
            any::<u16>(),
            any::<Vec<u8>>(),
        );
        let mut runner =
            TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
        let run = runner.run(&input, |(seed, sets, cut, noise)| {
            let mut bytes = seeds[seed % seeds.len()].clone();
            for (at, byte) in sets {
                let length = bytes.len();
                bytes[usize::from(at) % length] = byte;
            }
            if cut.is_multiple_of(4) {
                bytes.truncate(usize::from(cut) % bytes.len());
            }
            bytes.extend(noise);
            (target.run)(&bytes);
            Ok(())
        });
        if let Err(error) = run {
            panic!("{}: {error}", target.name);
        }
    }
}

#[test]
fn each_has_a_target_of_cargo_fuzz() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"\n", target.name)), "{}", target.name);
    }
}
