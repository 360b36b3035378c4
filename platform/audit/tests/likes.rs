//! Records that are like one before: short in the file, whole for everybody who reads them.

use std::collections::HashMap;
use std::time::Duration;

use gantry_audit::Audit;
use gantry_audit_api::frame::Kind;
use gantry_audit_api::segment::{self, Segment};
use gantry_kube_types::{AuditEvent, AuditLike, AuditOwn, AuditPlace, UserInfo};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::{ask, items};
use crate::support::{check, config, event, eventually, files, open};

const RECORDS: u64 = 4000;
const CALLERS: usize = 5;

/// Each caller asks the same again and again; now and then one asks something else.
fn asked(callers: &[UserInfo], number: u64) -> AuditEvent {
    let caller = (number % CALLERS as u64) as usize;
    let about = if number % 50 == 7 { number } else { caller as u64 };
    let now = event(number);
    AuditEvent {
        user: callers[caller].clone(),
        id: now.id,
        received: now.received,
        latency: Duration::from_micros(1 + number * 13),
        ..event(about)
    }
}

/// As the front door does it: once the trail keeps the like of what somebody asks, no more is told than what is new.
/// Gives how often that was.
async fn poll(audit: &Audit, callers: &[UserInfo], numbers: std::ops::Range<u64>) -> usize {
    let (sink, mut again) = (audit.sink(), 0);
    let mut lately: HashMap<String, AuditLike> = HashMap::new();
    for number in numbers {
        let event = asked(callers, number);
        let mut place = Some(AuditPlace::take(&sink).await.expect("a place"));
        let before = lately.get(&format!("{}{}", event.user.username, event.uri));
        if let Some(like) = before
            && let Some(free) = place.take()
        {
            let own = AuditOwn { id: &event.id, received: event.received, latency: event.latency };
            place = free.put_again(like, own).err();
            again += usize::from(place.is_none());
        }
        if let Some(like) = place.and_then(|place| place.put(Box::new(event))) {
            lately.insert(format!("{}{}", like.event.user.username, like.event.uri), like);
        }
        // The writer has to see what comes again, as it does where people wait for their answers.
        if number % 40 == 0 {
            audit.flush().await.expect("durable");
        }
    }
    audit.flush().await.expect("durable");
    again
}

/// A trail, and callers who are all the same.
fn one_who_polls() -> (TempDir, Vec<UserInfo>, Audit) {
    let directory = TempDir::new().expect("a directory");
    let audit = open(config(directory.path()));
    (directory, vec![UserInfo::authenticated("acme/user0", &["acme/devs"]); CALLERS], audit)
}

/// Records as they are read, and how many are short in the file.
fn read(directory: &std::path::Path) -> (Vec<Value>, usize) {
    let (mut records, mut short) = (Vec::new(), 0);
    for file in segment::list(&directory.join("segments")).expect("a folder") {
        let mut segment = Segment::open(&file.path).expect("a segment");
        let mut place = 0;
        while let Some(frame) = segment.frame_at(place).expect("readable") {
            short += usize::from(frame.kind == Kind::Like);
            let entry = segment.entry_at(place).expect("readable").expect("it is there");
            if entry.kind == Kind::Record {
                records.push(serde_json::from_slice(entry.payload).expect("JSON"));
            }
            place += entry.len_bytes;
        }
    }
    (records, short)
}

fn micros(record: &Value, field: &str) -> i64 {
    let time: jiff::Timestamp = record[field].as_str().expect("a time").parse().expect("a time");
    time.as_microsecond()
}

#[tokio::test]
async fn they_are_short_and_whole() {
    let directory = TempDir::new().expect("a directory");
    let callers: Vec<UserInfo> =
        (0..CALLERS).map(|n| UserInfo::authenticated(format!("acme/user{n}"), &["acme/devs"])).collect();
    let audit = open(config(directory.path()));
    let again = poll(&audit, &callers, 0..RECORDS / 2).await;
    assert!(again as u64 > RECORDS / 2 * 8 / 10, "{again} were told in short");
    audit.close().await;
    // What was kept is gone, and the newest segment goes on.
    let audit = open(config(directory.path()));
    poll(&audit, &callers, RECORDS / 2..RECORDS).await;
    eventually("most is closed", || files(directory.path(), "idx").len() >= 4).await;

    // In searches, by their own terms and by those of all of them; open segments and closed ones alike.
    for number in [0, 1, 777, 1999, 2001, RECORDS - 1] {
        let wanted = asked(&callers, number);
        let (status, found) = ask(&audit, "auditor", &format!("records/{}", wanted.id)).await;
        assert_eq!(status, 200, "{number}: {found}");
        assert!(found.to_string().contains(&format!("\"{}\"", wanted.id)), "{number}: {found}");
    }
    let mut found = 0;
    let mut token = String::new();
    loop {
        let page = ask(&audit, "auditor", &format!("records?limit=500&user=acme/user3{token}")).await.1;
        found += items(&page).len();
        let Some(next) = page["metadata"]["continue"].as_str().filter(|next| !next.is_empty()) else { break };
        token = format!("&continue={next}");
    }
    assert_eq!(found as u64, RECORDS / CALLERS as u64);
    audit.close().await;
    let (records, short) = read(directory.path());
    let own: Vec<&Value> =
        records.iter().filter(|r| r["auditID"].as_str().is_some_and(|id| id.starts_with("id-"))).collect();
    assert_eq!(own.len() as u64, RECORDS);
    assert!(short as u64 > RECORDS * 8 / 10, "{short} are short");
    for (number, record) in own.iter().enumerate() {
        let wanted = asked(&callers, number as u64);
        assert_eq!(record["auditID"], wanted.id.as_str());
        assert_eq!(record["user"]["username"], wanted.user.username.as_str());
        assert_eq!(record["requestURI"], wanted.uri.to_string());
        assert_eq!(micros(record, "requestReceivedTimestamp"), wanted.received.as_microsecond());
        let took = micros(record, "stageTimestamp") - micros(record, "requestReceivedTimestamp");
        assert_eq!(u128::try_from(took), Ok(wanted.latency.as_micros()));
    }
    let report = check(directory.path());
    assert!(report.intact, "{report:?}");
    assert!(report.records >= RECORDS, "{report:?}");
}

/// What many records have in common is in the chain once, before all of them.
#[tokio::test]
async fn a_changed_record_that_others_are_like_is_the_first_bad_one() {
    let (directory, callers, audit) = one_who_polls();
    poll(&audit, &callers, 0..200).await;
    audit.close().await;
    let log = files(directory.path(), "log").pop().expect("the open segment");
    let mut segment = Segment::open(&log).expect("a segment");
    let (mut place, mut base) = (0, None);
    while let Some(frame) = segment.frame_at(place).expect("readable") {
        let (kind, length) = (frame.kind, frame.len_bytes() as u64);
        if kind == Kind::Like {
            let like = gantry_audit_api::like::Like::decode(frame.payload).expect("one of ours");
            base = Some(place - u64::from(like.back));
            break;
        }
        place += length;
    }
    let at = segment.file_offset(base.expect("some are like others")) as usize + 20;
    let mut bytes = std::fs::read(&log).expect("read");
    bytes[at] ^= 1;
    gantry_base::fs::write_atomic(&log, &bytes, 0o600).expect("written");
    let report = check(directory.path());
    let bad = report.first_bad.expect("it is found");
    assert!(bad.what.contains("does not continue the chain"), "{bad:?}");
}

/// A trail of the version before goes on in this one, and is verified by either name.
#[tokio::test]
async fn a_trail_of_the_first_format_goes_on() {
    let (directory, callers, audit) = one_who_polls();
    poll(&audit, &callers, 0..10).await;
    audit.close().await;
    let format = directory.path().join("FORMAT");
    gantry_base::fs::write_atomic(&format, b"1\n", 0o600).expect("written");
    assert!(check(directory.path()).intact);
    let audit = open(config(directory.path()));
    assert_eq!(std::fs::read(&format).expect("read"), gantry_audit_api::FORMAT.as_bytes());
    poll(&audit, &callers, 10..20).await;
    audit.close().await;
    let report = check(directory.path());
    assert!(report.intact && report.records >= 20, "{report:?}");
}
