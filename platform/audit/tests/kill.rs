//! `kill -9` in the middle of writing.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use gantry_audit_api::frame::Kind;
use gantry_audit_api::record::Record;
use gantry_audit_api::segment::{self, Segment};

use crate::support::{check, config, event, open};

/// Where the child writes; only the parent of the test sets it.
const DIRECTORY: &str = "GANTRY_AUDIT_TEST_DIRECTORY";
const ROUNDS: usize = 6;

#[test]
fn what_was_said_to_be_durable_is_there_after_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut durable = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "kill::child_that_writes", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut told = 0;
        for line in lines {
            let line = line.expect("a line");
            let Some(number) = line.strip_prefix("durable ").and_then(|n| n.parse().ok()) else { continue };
            durable = number;
            told += 1;
            // At another point of the child's work in every round.
            if told > round * 3 {
                break;
            }
        }
        assert!(told > 0, "the child wrote nothing in round {round}");
        child.kill().expect("killed");
        child.wait().expect("gone");

        let report = check(directory.path());
        assert!(report.intact, "{report:?}");
        let names = written(directory.path());
        assert!(names.len() as u64 >= durable, "{} records, {durable} were durable", names.len());
        for (number, name) in names.iter().enumerate() {
            assert_eq!(*name, format!("id-{number}"), "no record is lost in between");
        }
        durable = names.len() as u64;
    }
    assert!(check(directory.path()).checkpoints > 0);
}

/// Ids of all records, in their order.
fn written(directory: &std::path::Path) -> Vec<String> {
    let mut ids = Vec::new();
    for file in segment::list(&directory.join("segments")).expect("a folder") {
        let mut segment = Segment::open(&file.path).expect("a segment");
        let mut place = 0;
        while let Some(entry) = segment.entry_at(place).expect("readable") {
            if entry.kind == Kind::Record {
                ids.push(Record::parse(entry.payload).expect("a record").audit_id.into_owned());
            }
            place += entry.len_bytes;
        }
    }
    ids
}

#[test]
#[ignore = "it is the child of the test above, and never ends by itself"]
fn child_that_writes() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = std::path::PathBuf::from(directory);
    let first = if directory.join("segments").is_dir() { written(&directory).len() as u64 } else { 0 };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let audit = open(config(&directory));
        let sink = audit.sink();
        for number in first.. {
            sink.record(event(number)).await.expect("recorded");
            if number % 97 == 0 {
                audit.flush().await.expect("durable");
                println!("durable {number}");
            }
        }
    });
}
