//! Whoever changes, removes or moves anything is found out.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gantry_audit_api::frame::Frame;
use gantry_audit_api::segment::Segment;
use gantry_audit_api::signed::{Checkpoint, PublicKeys};
use gantry_audit_api::verify::{Report, Witness, verify};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::{check, config, eventually, files, fill, open};

const RECORDS: u64 = 400;

/// A trail of closed segments and an open one, made once.
fn original() -> &'static Path {
    static TRAIL: OnceLock<TempDir> = OnceLock::new();
    TRAIL
        .get_or_init(|| {
            let directory = TempDir::new().expect("a directory");
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let audit = open(config(directory.path()));
                fill(&audit, 0..RECORDS).await;
                eventually("segments are closed", || files(directory.path(), "seal").len() >= 2).await;
                eventually("one is open", || files(directory.path(), "log").len() == 1).await;
                fill(&audit, RECORDS..RECORDS + 20).await;
                audit.close().await;
            });
            let report = check(directory.path());
            assert!(report.intact && report.checkpoints >= 2, "{report:?}");
            directory
        })
        .path()
}

fn copy() -> TempDir {
    let directory = TempDir::new().expect("a directory");
    std::fs::create_dir(directory.path().join("segments")).expect("a folder");
    for from in ["", "segments"] {
        for entry in std::fs::read_dir(original().join(from)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.file_name().expect("a name");
                std::fs::copy(&path, directory.path().join(from).join(name)).expect("copied");
            }
        }
    }
    directory
}

#[expect(clippy::disallowed_methods, reason = "the intruder needs no durability")]
fn put(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("written");
}

fn found(directory: &Path) -> Report {
    let report = check(directory);
    assert!(!report.intact, "not found: {report:?}");
    assert!(report.first_bad.is_some());
    report
}

/// The open segment: its path, its bytes, and where each frame begins and ends.
fn open_segment(directory: &Path) -> (PathBuf, Vec<u8>, Vec<(usize, usize)>) {
    let path = files(directory, "log").pop().expect("an open segment");
    let bytes = std::fs::read(&path).expect("read");
    let mut at = Segment::open(&path).expect("a segment").file_offset(0) as usize;
    let mut frames = Vec::new();
    while let Some(frame) = Frame::decode(&bytes[at..]) {
        frames.push((at, at + frame.len_bytes()));
        at += frame.len_bytes();
    }
    (path, bytes, frames)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_changed_bit_of_the_open_segment_is_found(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let directory = copy();
        let (path, mut bytes, frames) = open_segment(directory.path());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        put(&path, &bytes);
        let report = check(directory.path());
        match &report.first_bad {
            // The last frame is a checkpoint: cut short it is what a crash leaves, and is told as such.
            None => prop_assert!(report.torn_bytes > 0 && at >= frames.last().expect("frames").0),
            Some(bad) => {
                if let Some(index) = frames.iter().position(|(from, to)| (*from..*to).contains(&at)) {
                    let first = report.last_sequence + 1;
                    prop_assert_eq!(bad.sequence, first, "frame {} of the segment", index);
                }
            }
        }
    }

    #[test]
    fn a_changed_bit_of_a_closed_segment_is_found(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let directory = copy();
        let sealed = files(directory.path(), "seal");
        let path = &sealed[which.index(sealed.len())];
        let mut bytes = std::fs::read(path).expect("read");
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        put(path, &bytes);
        let report = check(directory.path());
        // A bit of the compression that changes nothing of what is compressed is no change.
        let whole = check(original());
        prop_assert!(!report.intact || report == whole, "{:?}", report);
    }

    #[test]
    fn a_removed_record_is_found(which in any::<prop::sample::Index>()) {
        let directory = copy();
        let (path, mut bytes, frames) = open_segment(directory.path());
        let index = which.index(frames.len() - 1);
        let (from, to) = frames[index];
        bytes.drain(from..to);
        put(&path, &bytes);
        let report = found(directory.path());
        let first = Segment::open(&path).expect("a segment").header().header.first_sequence;
        prop_assert_eq!(report.first_bad.expect("found").sequence, first + index as u64);
    }

    #[test]
    fn two_records_that_changed_places_are_found(a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let directory = copy();
        let (path, bytes, frames) = open_segment(directory.path());
        let (a, b) = (a.index(frames.len()), b.index(frames.len()));
        prop_assume!(a != b);
        let mut order: Vec<usize> = (0..frames.len()).collect();
        order.swap(a, b);
        let mut swapped = bytes[..frames[0].0].to_vec();
        for index in order {
            swapped.extend_from_slice(&bytes[frames[index].0..frames[index].1]);
        }
        put(&path, &swapped);
        found(directory.path());
    }

    #[test]
    fn a_repeated_record_is_found(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let directory = copy();
        let (path, mut bytes, frames) = open_segment(directory.path());
        let (from, to) = frames[which.index(frames.len())];
        let again = bytes[from..to].to_vec();
        let at = frames[at.index(frames.len())].0;
        bytes.splice(at..at, again);
        put(&path, &bytes);
        found(directory.path());
    }

    /// After the last checkpoint there is nothing; before it every cut is found.
    #[test]
    fn a_cut_off_end_is_found(keep in any::<prop::sample::Index>()) {
        let directory = copy();
        let (path, mut bytes, frames) = open_segment(directory.path());
        let keep = keep.index(frames.len() - 1);
        bytes.truncate(frames[keep].0);
        put(&path, &bytes);
        let report = found(directory.path());
        prop_assert!(report.first_bad.expect("found").what.contains("vouches"));
    }
}

#[test]
fn segments_that_are_gone_or_changed_places_are_found() {
    let sealed = files(original(), "seal");
    for gone in &sealed {
        let directory = copy();
        let path = directory.path().join("segments").join(gone.file_name().expect("a name"));
        std::fs::remove_file(path).expect("removed");
        found(directory.path());
    }
    let directory = copy();
    std::fs::remove_file(files(directory.path(), "log").pop().expect("an open one")).expect("removed");
    found(directory.path());

    let directory = copy();
    let all = files(directory.path(), "seal");
    let aside = directory.path().join("aside");
    std::fs::rename(&all[0], &aside).expect("moved");
    std::fs::rename(&all[1], &all[0]).expect("moved");
    std::fs::rename(&aside, &all[1]).expect("moved");
    let bad = found(directory.path()).first_bad.expect("found");
    assert!(bad.what.contains("renamed"), "{bad:?}");
}

#[test]
fn an_end_cut_off_together_with_the_head_is_found_by_who_kept_a_checkpoint() {
    let kept: Checkpoint =
        serde_json::from_slice(&std::fs::read(original().join("head.json")).expect("read"))
            .expect("a checkpoint");
    let keys: PublicKeys =
        serde_json::from_slice(&std::fs::read(original().join("keys.json")).expect("read")).expect("keys");
    let directory = copy();
    std::fs::remove_file(directory.path().join("head.json")).expect("removed");
    let report = found(directory.path());
    assert!(report.first_bad.expect("found").what.contains("head.json is missing"));

    // All but the first segment goes, and with it every checkpoint that could tell.
    for file in files(directory.path(), "seal").iter().skip(1).chain(&files(directory.path(), "log")) {
        std::fs::remove_file(file).expect("removed");
    }
    let witness = Witness { keys: Some(keys.clone()), checkpoints: vec![kept.clone()] };
    let report = verify(directory.path(), &witness).expect("readable");
    assert!(!report.intact, "{report:?}");
    let whole = verify(original(), &witness).expect("readable");
    assert!(whole.intact && whole.signed_through >= kept.sequence, "{whole:?}");

    let forged = Checkpoint { sequence: kept.sequence - 1, ..kept };
    let report =
        verify(original(), &Witness { keys: Some(keys), checkpoints: vec![forged] }).expect("readable");
    assert!(report.first_bad.expect("found").what.contains("not signed"));
}

#[test]
fn a_damaged_trail_goes_on_and_says_so() {
    let directory = copy();
    let (path, mut bytes, frames) = open_segment(directory.path());
    let middle = frames[frames.len() / 2].0 + 20;
    bytes[middle] ^= 1;
    put(&path, &bytes);
    let before = found(directory.path()).first_bad;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let audit = open(config(directory.path()));
        let sealed = files(directory.path(), "seal").len();
        fill(&audit, 0..RECORDS).await;
        // Segments are tended in their order: by now it was the damaged one's turn.
        eventually("a later segment is closed", || files(directory.path(), "seal").len() > sealed).await;
        audit.close().await;
    });
    assert_eq!(std::fs::read(&path).expect("still there"), bytes, "evidence stays as it is");
    assert_eq!(found(directory.path()).first_bad, before, "and is found as before");
}
