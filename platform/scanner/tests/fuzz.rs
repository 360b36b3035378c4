//! A bounded run of every fuzz target: its seeds, cut, changed, repeated and joined with noise.

use std::time::{Duration, Instant};

use gantry_scanner::fuzz::{Target, targets};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const CASES: u32 = 150;
/// Of one input of a few kilobytes, on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Changes to a seed: bytes set, a part doubled, an end cut off, noise behind it.
fn changed(
    target: &Target,
    seed: usize,
    sets: &[(u16, u8)],
    part: (u16, u8),
    cut: u16,
    noise: &[u8],
) -> Vec<u8> {
    let mut bytes = target.seeds[seed % target.seeds.len()].to_vec();
    bytes.extend(noise);
    let length = bytes.len().max(1);
    let from = usize::from(part.0) % length;
    let piece = bytes.get(from..(from + usize::from(part.1)).min(bytes.len())).unwrap_or_default().to_vec();
    bytes.extend(piece);
    for (at, byte) in sets {
        let at = usize::from(*at) % length;
        if let Some(place) = bytes.get_mut(at) {
            *place = *byte;
        }
    }
    if cut.is_multiple_of(4) {
        bytes.truncate(usize::from(cut) % length);
    }
    bytes
}

#[test]
fn every_parser_takes_any_bytes() {
    for target in targets() {
        for seed in target.seeds {
            (target.run)(seed);
        }
        let input = (
            any::<usize>(),
            proptest::collection::vec(any::<(u16, u8)>(), 0..6),
            any::<(u16, u8)>(),
            any::<u16>(),
            proptest::collection::vec(any::<u8>(), 0..3000),
        );
        let mut runner =
            TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
        let run = runner.run(&input, |(seed, sets, part, cut, noise)| {
            let bytes = changed(target, seed, &sets, part, cut, &noise);
            let start = Instant::now();
            (target.run)(&bytes);
            prop_assert!(start.elapsed() < TIME_MAX, "it runs on");
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
    for target in targets() {
        assert!(manifest.contains(&format!("name = \"{}\"\n", target.name)), "{}", target.name);
    }
}
