//! Whoever changes, removes or moves anything is found out.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gantry_audit::Config;
use gantry_audit_api::frame::{Frame, Kind};
use gantry_audit_api::segment::Segment;
use gantry_audit_api::signed::{Checkpoint, PublicKeys};
use gantry_audit_api::verify::{Report, Witness, verify};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use crate::api::{ask, request};
use crate::support::{check, config, eventually, files, fill, open};

const RECORDS: u64 = 400;
/// Of a trail without a signature: enough for some pages, and one segment.
const UNSIGNED: u64 = 40;

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
    copy_of(original())
}

fn copy_of(trail: &Path) -> TempDir {
    let directory = TempDir::new().expect("a directory");
    std::fs::create_dir(directory.path().join("segments")).expect("a folder");
    for from in ["", "segments"] {
        for entry in std::fs::read_dir(trail.join(from)).expect("a folder") {
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

/// Who has the disk and not the key can make the chain again, and no signature.
#[test]
fn a_chain_that_was_made_again_is_found_by_the_next_checkpoint() {
    let directory = copy();
    let (path, bytes, frames) = open_segment(directory.path());
    let header = Segment::open(&path).expect("a segment").header().clone();
    let kind = |(from, to): &(usize, usize)| Frame::decode(&bytes[*from..*to]).map(|frame| frame.kind);
    let records = frames.iter().map(kind).take(frames.len() / 2 + 1);
    let changed = records.enumerate().rfind(|(_, kind)| *kind == Some(Kind::Record));
    let (changed, _) = changed.expect("a record");
    let mut forged = bytes[..frames[0].0].to_vec();
    let (mut last, mut signed) = (header.start(), Vec::new());
    for (index, (from, to)) in frames.iter().enumerate() {
        let frame = Frame::decode(&bytes[*from..*to]).expect("a frame");
        let mut payload = frame.payload.to_vec();
        if index == changed {
            payload[30] ^= 1;
        }
        let sequence = header.header.first_sequence + index as u64;
        if frame.kind == Kind::Checkpoint {
            signed.push((index, sequence));
        }
        last = Frame::append(&mut forged, &last, sequence, frame.kind, &payload);
    }
    put(&path, &forged);
    let bad = found(directory.path()).first_bad.expect("found");
    let (_, next) = *signed.iter().find(|(index, _)| *index > changed).expect("a checkpoint");
    let before = signed.iter().rev().find(|(index, _)| *index < changed).map(|(_, sequence)| sequence - 1);
    // The newest one stands beside the chain, too, and is looked at with the record that it names.
    let is_newest = signed.last().is_some_and(|(_, sequence)| *sequence == next);
    assert_eq!(bad.sequence, next - u64::from(is_newest), "{bad:?}");
    // Between which signatures the change is.
    assert!(bad.what.contains(&format!("to {} was changed", next - 1)), "{bad:?}");
    if let Some(before) = before {
        assert!(bad.what.contains(&format!("one of {} to", before + 1)), "{bad:?}");
    }

    // Without that checkpoint, the newest one beside the chain still vouches.
    let (index, _) = *signed.last().expect("a checkpoint");
    assert_eq!(index, frames.len() - 1, "what the close signed for is the last frame");
    let cut = forged.len() - (frames[index].1 - frames[index].0);
    put(&path, &forged[..cut]);
    let bad = found(directory.path()).first_bad.expect("found");
    assert!(bad.what.contains("vouches for"), "{bad:?}");
}

/// A trail as a kill leaves it: nothing of its newest segment is signed for.
fn unsigned() -> TempDir {
    let directory = TempDir::new().expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let hour = std::time::Duration::from_secs(3600);
        let audit = open(Config { checkpoint_interval: hour, ..config(directory.path()) });
        fill(&audit, 0..UNSIGNED).await;
        let killed = copy_of(directory.path());
        audit.close().await;
        killed
    })
}

/// Opens the trail again, and gives what its newest records say of itself.
fn reopened(directory: &Path) -> Vec<Value> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let audit = open(config(directory));
        fill(&audit, 900..905).await;
        let (_, page) = ask(&audit, "auditor", "records?event=trail-changed").await;
        let after = request(&audit, "auditor", "export?since=2026-01-01T00:15:00Z").await.into_body();
        let after = after.collect().await.expect("a body").to_bytes();
        let after = String::from_utf8_lossy(&after).lines().filter(|line| line.contains("\"id-90")).count();
        assert_eq!(after, 5, "what came afterwards is all there");
        audit.close().await;
        page["items"].as_array().cloned().unwrap_or_default()
    })
}

#[test]
fn what_no_crash_leaves_is_evidence() {
    let killed = unsigned();
    assert!(check(killed.path()).intact && check(killed.path()).checkpoints == 0);
    let change = |at: usize, value: u8| {
        let directory = copy_of(killed.path());
        let (path, mut bytes, frames) = open_segment(directory.path());
        bytes[frames[9].0 + at] = value;
        put(&path, &bytes);
        (directory, path, bytes)
    };
    // A byte of the tenth record; its length, so that it swallows all that follow; its kind.
    for (at, value) in [(20, b'!'), (2, 7), (4, 9)] {
        let (directory, path, bytes) = change(at, value);
        let told = reopened(directory.path());
        let message = told[0]["responseStatus"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("the chain breaks at record 10"), "{at}: {told:?}");
        assert_eq!(std::fs::read(&path).expect("still there"), bytes, "evidence stays as it is");
        assert_eq!(found(directory.path()).first_bad.expect("found").sequence, 10);
    }
}

#[test]
fn what_a_crash_leaves_goes() {
    let killed = unsigned();
    let (_, _, frames) = open_segment(killed.path());
    for cut in [1, 4, 5, 40] {
        let directory = copy_of(killed.path());
        let (path, bytes, _) = open_segment(directory.path());
        put(&path, &bytes[..frames[9].0 + cut]);
        assert!(reopened(directory.path()).is_empty(), "one record that was cut off: {cut}");
        assert!(check(directory.path()).intact);
    }
    // A loss of power: a page is missing, those behind it are there.
    let directory = copy_of(killed.path());
    let (path, mut bytes, _) = open_segment(directory.path());
    assert!(bytes.len() > 3 * 4096);
    bytes[4096..8192].fill(0);
    put(&path, &bytes);
    let told = reopened(directory.path());
    let lost = told[0]["annotations"]["audit.gantry.dev/lost-bytes"].as_str();
    assert!(lost.and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n > 4096), "{told:?}");
    assert!(check(directory.path()).intact);
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

/// Makes a search for what only one record has look at another record.
fn blind(index: &Path) {
    let mut bytes = std::fs::read(index).expect("an index");
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let (rows, terms, fences) = (u32_at(40), u32_at(44), u32_at(48));
    let table = 64 + fences * 8;
    for entry in bytes[table..table + terms * 16].chunks_exact_mut(16) {
        let (at, count) = entry[8..].split_at_mut(4);
        if *count == 1_u32.to_le_bytes() {
            let row = u32::from_le_bytes((*at).try_into().expect("four bytes")) as usize;
            at.copy_from_slice(&((row + 1) as u32 % rows as u32).to_le_bytes());
        }
    }
    put(index, &bytes);
}

#[test]
fn an_index_that_somebody_changed_hides_no_record() {
    let directory = copy();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(somebody_changed_hides_no_record(directory.path()));
}

async fn somebody_changed_hides_no_record(path: &Path) {
    let index = files(path, "idx").remove(0);
    let whole = check(path).indexes;
    assert!(whole >= 2, "{whole}");
    let name = crate::support::event(3).object.name;
    let finds = async |audit: &gantry_audit::Audit| {
        let page = ask(audit, "auditor", &format!("records?name={name}")).await.1;
        assert!(crate::api::items(&page).contains(&"id-3".into()), "{page}");
    };
    let is_made_again = || {
        let report = check(path);
        report.intact && report.indexes >= whole
    };

    // Whoever verifies is told which file it is, and what to do about it.
    blind(&index);
    let bad = found(path).first_bad.expect("named");
    assert_eq!((bad.file.as_str(), bad.segment), ("segments/000000000001.idx", 1));
    assert!(bad.what.contains("delete the file"), "{bad:?}");
    std::fs::remove_file(&index).expect("removed");
    assert!(check(path).intact);
    let audit = open(config(path));
    finds(&audit).await;
    eventually("what was deleted is made at the start", is_made_again).await;

    // A search is not taken in meanwhile: by a file that is changed, gone, or of another segment.
    let another = std::fs::read(files(path, "idx").remove(1)).expect("an index");
    let changes: [&dyn Fn(); 3] =
        [&|| blind(&index), &|| std::fs::remove_file(&index).expect("removed"), &|| put(&index, &another)];
    for (number, change) in changes.into_iter().enumerate() {
        change();
        finds(&audit).await;
        eventually("what was changed is made again", is_made_again).await;
        audit.flush().await.expect("durable");
        let told = ask(&audit, "auditor", "records?event=trail-changed&q=index").await.1;
        assert!(crate::api::items(&told).len() > number, "{told}");
    }
    audit.close().await;

    // Nor by one that was changed while nobody ran.
    blind(&index);
    let audit = open(config(path));
    finds(&audit).await;
    eventually("what was changed is made again", is_made_again).await;
    audit.close().await;
}

#[test]
fn an_index_that_another_key_signed_is_none() {
    let directory = copy();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(another_key_signed_is_none(directory.path()));
}

async fn another_key_signed_is_none(path: &Path) {
    let index = files(path, "idx").remove(0);
    blind(&index);
    let bytes = std::fs::read(&index).expect("an index");
    let file = std::fs::File::open(&index).expect("an index");
    let content =
        gantry_audit_api::index::Wrapped::read(&file).expect("read").expect("of this version").content_bytes;
    let (key, _) = gantry_audit_api::signed::SigningKey::generate().expect("a key");
    let last = last_of(&files(path, "seal").remove(0));
    let forged =
        gantry_audit_api::index::wrap(bytes[..content as usize].to_vec(), &key, 1, &last).expect("wrapped");
    put(&index, &forged);
    assert_eq!(found(path).first_bad.expect("named").file, "segments/000000000001.idx");
    // A key that the intruder lists is as good as theirs to who keeps no list elsewhere; the server knows its own.
    let keys = path.join("keys.json");
    let mut listed: PublicKeys = serde_json::from_slice(&std::fs::read(&keys).expect("read")).expect("keys");
    let kept = Witness { keys: Some(listed.clone()), ..Witness::default() };
    listed.ed25519.extend(key.public().ed25519);
    put(&keys, &serde_json::to_vec(&listed).expect("JSON"));
    assert!(!verify(path, &kept).expect("readable").intact);
    let audit = open(config(path));
    let name = crate::support::event(3).object.name;
    let page = ask(&audit, "auditor", &format!("records?name={name}")).await.1;
    assert!(crate::api::items(&page).contains(&"id-3".into()), "{page}");
    eventually("it is made again", || verify(path, &kept).is_ok_and(|report| report.intact)).await;
    audit.close().await;
}

/// The hash of a segment's last frame.
fn last_of(segment: &Path) -> [u8; 32] {
    let mut segment = Segment::open(segment).expect("a segment");
    let (mut last, mut place) = (segment.header().start(), 0);
    let mut sequence = segment.header().header.first_sequence;
    while let Some(frame) = segment.frame_at(place).expect("readable") {
        last = frame.check(&last, sequence).expect("chained");
        place += frame.len_bytes() as u64;
        sequence += 1;
    }
    last
}
