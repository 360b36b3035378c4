//! A bounded run of fuzz targets in ordinary tests: their seeds, cut, changed, repeated and joined with noise.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Of one input of a few kilobytes, on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Gives `run` the seeds, then as many changed ones.
///
/// # Panics
/// When `run` does, or runs on.
pub fn takes_any_bytes(name: &str, seeds: &[impl AsRef<[u8]>], cases: u32, run: impl Fn(&[u8])) {
    seeds.iter().for_each(|seed| run(seed.as_ref()));
    let input = (
        any::<prop::sample::Index>(),
        proptest::collection::vec(any::<(u16, u8)>(), 0..6),
        any::<(u16, u8)>(),
        any::<u16>(),
        proptest::collection::vec(any::<u8>(), 0..3000),
    );
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let ran = runner.run(&input, |(seed, sets, part, cut, noise)| {
        let bytes = changed(seed.get(seeds).as_ref(), &sets, part, cut, &noise);
        let start = Instant::now();
        run(&bytes);
        prop_assert!(start.elapsed() < TIME_MAX, "it runs on");
        Ok(())
    });
    if let Err(error) = ran {
        panic!("{name}: {error}");
    }
}

/// Changes to a seed: noise behind it or not, a part doubled, bytes set, an end cut off.
fn changed(seed: &[u8], sets: &[(u16, u8)], part: (u16, u8), cut: u16, noise: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    bytes.extend(noise);
    let length = bytes.len().max(1);
    let from = usize::from(part.0) % length;
    let piece = bytes.get(from..(from + usize::from(part.1)).min(bytes.len())).unwrap_or_default().to_vec();
    bytes.extend(piece);
    for (at, byte) in sets {
        if let Some(place) = bytes.get_mut(usize::from(*at) % length) {
            *place = *byte;
        }
    }
    if cut.is_multiple_of(4) {
        bytes.truncate(usize::from(cut) % length);
    }
    bytes
}

/// Each target is one of `cargo fuzz` too, by the manifest of its crate.
///
/// # Panics
/// When one is missing.
pub fn are_targets<'a>(names: impl IntoIterator<Item = &'a str>, manifest: &str) {
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
    }
}
