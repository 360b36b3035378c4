//! Recorded terminal sessions.

use std::path::Path;

use gantry_audit::{Audit, Config, RecordSessions, SessionPolicy};
use gantry_audit_api::cast::{CastEvent, CastHeader};
use gantry_kube_types::{AuditEvent, AuditObject, AuditStatus, SessionStart, UserInfo};
use http_body_util::BodyExt;
use tempfile::TempDir;

use crate::api::{ask, request};
use crate::support::{check, config, eventually, open};

fn start() -> SessionStart {
    SessionStart {
        audit_id: "exec-1".to_owned(),
        namespace: "acme-dev".to_owned(),
        pod: "web".to_owned(),
        container: "main".to_owned(),
        command: vec!["sh".to_owned()],
        tty: true,
    }
}

fn exec_record() -> AuditEvent {
    let object = AuditObject { subresource: "exec".to_owned(), ..AuditObject::new("", "pods", "web") };
    AuditEvent {
        id: "exec-1".to_owned(),
        user: UserInfo::authenticated("acme/alice", &[]),
        verb: "create".to_owned(),
        object: object.in_namespace("acme-dev"),
        status: AuditStatus { code: 101, ..AuditStatus::default() },
        ..AuditEvent::default()
    }
}

fn recording(directory: &TempDir) -> Config {
    let sessions =
        SessionPolicy { default: RecordSessions::Terminals, bytes_max: 4096, ..SessionPolicy::default() };
    Config { sessions, ..config(directory.path()) }
}

#[tokio::test]
async fn a_session_is_recorded_linked_and_replayed() {
    let directory = TempDir::new().expect("a directory");
    let audit = open(recording(&directory));
    let recorder = audit.recorder();
    let plain = SessionStart { tty: false, ..start() };
    // Terminals are recorded in any case; nothing tells yet whether in this namespace all is.
    assert!(recorder.begin(&plain).is_err_and(|why| why.contains("not known yet")));
    let mut tape = recorder.begin(&start()).expect("allowed").expect("recorded");
    tape.resize(120, 40).expect("room");
    tape.input(b"ls\r").expect("room");
    tape.output("gr\u{fc}n\r\n".as_bytes()).expect("room");
    audit.sink().record(exec_record()).await.expect("recorded");
    audit.flush().await.expect("durable");
    drop(tape);
    let finished = || {
        let files = std::fs::read_dir(directory.path().join("sessions")).expect("a folder");
        files.filter_map(Result::ok).any(|f| f.file_name().to_string_lossy().ends_with(".cast.zst"))
    };
    eventually("the recording is closed", finished).await;
    let mut page = serde_json::Value::Null;
    for _ in 0..200 {
        audit.flush().await.expect("durable");
        page = ask(&audit, "acme/alice", "records?event=session-recorded").await.1;
        if page["items"][0].is_object() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let closed = &page["items"][0];
    let id = closed["annotations"]["audit.gantry.dev/session"].as_str().expect("a session").to_owned();
    assert_eq!(closed["user"]["username"], "acme/alice", "whose it is");
    assert_eq!(closed["objectRef"]["namespace"], "acme-dev");
    let (_, page) = ask(&audit, "auditor", "records?event=exec-opened").await;
    assert_eq!(page["items"][0]["annotations"]["audit.gantry.dev/session"], id.as_str(), "linked");

    let answer = request(&audit, "acme/alice", &format!("sessions/{id}")).await;
    assert_eq!(answer.headers()["content-type"], "application/x-asciicast");
    let text = answer.into_body().collect().await.expect("a body").to_bytes();
    let text = String::from_utf8(text.to_vec()).expect("text");
    let mut lines = text.lines();
    let header: CastHeader = serde_json::from_str(lines.next().expect("a header")).expect("a header");
    assert_eq!((header.version, header.title.as_str()), (2, "acme-dev/web/main"));
    let events: Vec<(char, String)> =
        lines.map(|line| CastEvent::parse(line).expect("an event")).map(|e| (e.code, e.data)).collect();
    assert_eq!(events, [('r', "120x40".into()), ('i', "ls\r".into()), ('o', "gr\u{fc}n\r\n".into())]);
    assert_eq!(request(&audit, "acme/bob", &format!("sessions/{id}")).await.status(), 404, "not his");

    let path = directory.path().join(format!("sessions/{id}.cast.zst"));
    let hash = ring::digest::digest(&ring::digest::SHA256, &std::fs::read(path).expect("read"));
    assert_eq!(closed["annotations"]["audit.gantry.dev/session-sha256"], hex::encode(hash.as_ref()));
    audit.flush().await.expect("durable");
    is_whole_until_somebody_changes_it(&audit, directory.path(), &id).await;
    audit.close().await;
}

#[expect(clippy::disallowed_methods, reason = "the intruder needs no durability")]
async fn is_whole_until_somebody_changes_it(audit: &Audit, directory: &Path, id: &str) {
    let path = directory.join(format!("sessions/{id}.cast.zst"));
    let report = check(directory);
    assert!(report.intact && report.recordings == 1, "{report:?}");
    let whole = std::fs::read(&path).expect("read");
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    std::fs::write(&path, &changed).expect("written");
    let (status, said) = ask(audit, "acme/alice", &format!("sessions/{id}")).await;
    assert_eq!(status, 500);
    assert!(said["message"].as_str().is_some_and(|text| text.contains("was changed")), "{said}");
    let bad = check(directory).first_bad.expect("found");
    assert!(bad.what.contains(&format!("sessions/{id}.cast.zst")), "{bad:?}");
    assert_eq!(bad.audit_id, "exec-1");
    // What has expired is no damage.
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(ask(audit, "acme/alice", &format!("sessions/{id}")).await.0, 404);
    let report = check(directory);
    assert!(report.intact && report.recordings == 0, "{report:?}");
    std::fs::write(&path, &whole).expect("written");
    assert_eq!(request(audit, "acme/alice", &format!("sessions/{id}")).await.status(), 200);
}

#[tokio::test]
async fn a_recording_has_a_bound_and_the_session_ends_with_it() {
    let directory = TempDir::new().expect("a directory");
    let audit = open(recording(&directory));
    let mut tape = audit.recorder().begin(&start()).expect("allowed").expect("recorded");
    let ended = (0..100).find_map(|_| tape.output(&[b'x'; 100]).err()).expect("a bound");
    assert!(ended.starts_with("This session ends: it is recorded"), "{ended}");
    drop(tape);
    audit.close().await;
}

#[tokio::test]
async fn a_recording_that_a_crash_cut_off_is_kept() {
    let directory = TempDir::new().expect("a directory");
    let audit = open(recording(&directory));
    let tape = audit.recorder().begin(&start()).expect("allowed").expect("recorded");
    // As after a kill: nobody closes it.
    std::mem::forget(tape);
    audit.close().await;
    let audit = open(recording(&directory));
    audit.flush().await.expect("durable");
    let (_, page) = ask(&audit, "auditor", "records?event=session-recorded").await;
    let id =
        page["items"][0]["annotations"]["audit.gantry.dev/session"].as_str().expect("a session").to_owned();
    let answer = request(&audit, "auditor", &format!("sessions/{id}")).await;
    let text = answer.into_body().collect().await.expect("a body").to_bytes();
    assert!(text.starts_with(b"{\"version\":2"), "{text:?}");
    audit.close().await;
}
