use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// Fixtures need no durability.
fn put(path: &Path, bytes: &[u8]) {
    File::create(path).and_then(|mut f| f.write_all(bytes)).expect("written");
}

fn entries(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("2026-01-01T00:00:00.{n:09}Z stdout F line {n}\n")).collect()
}

fn all(reader: &mut LogReader) -> String {
    let mut text = Vec::new();
    loop {
        match reader.read().expect("readable") {
            Batch::Some(bytes) => text.extend(bytes),
            Batch::Limit(bytes) => {
                text.extend(bytes);
                break;
            }
            Batch::End => break,
        }
    }
    String::from_utf8(text).expect("text")
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("line {n}\n")).collect()
}

#[test]
fn files_are_read_in_order_and_tails_reach_into_older_ones() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = dir.path().join("0.log");
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(entries(0..3000).as_bytes()).expect("compressed");
    put(&dir.path().join("0.log.20260101-000001.gz"), &gz.finish().expect("compressed"));
    put(&dir.path().join("0.log.20260101-000002"), entries(3000..7000).as_bytes());
    put(&dir.path().join("0.log.20260101-000002.tmp"), b"half");
    put(&log, entries(7000..7010).as_bytes());
    for (tail, first) in [
        (None, 0),
        (Some(0), 7010),
        (Some(1), 7009),
        (Some(10), 7000),
        (Some(11), 6999),
        (Some(4500), 2510),
        (Some(9999), 0),
    ] {
        let mut reader = LogReader::open(&log, Filter::default(), tail, None).expect("opened");
        assert!(all(&mut reader) == lines(first..7010), "tail {tail:?}");
    }
    let mut reader = LogReader::open(&log, Filter::default(), Some(10), Some(12)).expect("opened");
    assert_eq!(all(&mut reader), "line 7000\nli");
}

#[test]
fn a_tail_counts_lines_not_their_parts() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = dir.path().join("0.log");
    let part = "x".repeat(16 << 10);
    let mut text = String::from("t stdout F first\n");
    for _ in 0..9 {
        text.push_str(&format!("t stdout P {part}\n"));
    }
    text.push_str("t stdout F end\nt stderr F err\nt stdout F half");
    put(&log, text.as_bytes());
    let read = |tail, only| {
        let filter = Filter { only, ..Filter::default() };
        all(&mut LogReader::open(&log, filter, Some(tail), None).expect("opened"))
    };
    assert_eq!(read(1, None), "err\n");
    let long = format!("{}end\n", part.repeat(9));
    assert!(read(2, None) == format!("{long}err\n"));
    assert!(read(3, None) == format!("first\n{long}err\n"));
    assert!(read(1, Some(Source::Stdout)) == long);
}

#[test]
fn a_reader_goes_on_over_rotations() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = dir.path().join("0.log");
    put(&log, entries(0..2).as_bytes());
    let mut reader = LogReader::open(&log, Filter::default(), None, None).expect("opened");
    assert_eq!(all(&mut reader), lines(0..2));
    let mut writer = File::options().append(true).open(&log).expect("open");
    std::fs::rename(&log, dir.path().join("0.log.20260101-000001")).expect("renamed");
    assert_eq!(all(&mut reader), "", "no new file yet");
    writer.write_all(entries(2..3).as_bytes()).expect("late entry");
    put(&log, entries(3..5).as_bytes());
    std::fs::rename(&log, dir.path().join("0.log.20260101-000002")).expect("renamed");
    put(&log, entries(5..6).as_bytes());
    assert_eq!(all(&mut reader), lines(2..6), "two rotations behind");
    File::options()
        .append(true)
        .open(&log)
        .and_then(|mut f| f.write_all(b"2026-01-01T00:00:00Z stdout F sp"))
        .expect("half an entry");
    assert_eq!(all(&mut reader), "");
    File::options().append(true).open(&log).and_then(|mut f| f.write_all(b"lit\n")).expect("the rest");
    assert_eq!(all(&mut reader), "split\n");
}
