//! The query API: who sees what, in which form.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use gantry_audit::Audit;
use gantry_kube_types::{Attributes, AuditEvent, AuditObject, Authorizer, Decision, SecurityEvent, UserInfo};
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

use crate::support::{config, event, fill, open};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn request(audit: &Audit, user: &str, path: &str) -> Response<Body> {
    request_as(audit, UserInfo::authenticated(user, &[]), path).await
}

async fn request_as(audit: &Audit, user: UserInfo, path: &str) -> Response<Body> {
    accepting(audit, user, path, "application/json").await
}

async fn accepting(audit: &Audit, user: UserInfo, path: &str, accept: &str) -> Response<Body> {
    let request = Request::get(format!("/apis/audit.gantry.dev/v1alpha1/{path}"))
        .header("accept", accept)
        .extension(user)
        .body(Body::empty())
        .expect("a request");
    audit.router().oneshot(request).await.expect("never fails")
}

pub(crate) async fn ask(audit: &Audit, user: &str, path: &str) -> (u16, Value) {
    let answer = request(audit, user, path).await;
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

pub(crate) fn items(page: &Value) -> Vec<Value> {
    page["items"].as_array().into_iter().flatten().map(|item| item["auditID"].clone()).collect()
}

#[tokio::test]
async fn users_see_their_own_deeds_and_auditors_all() {
    let directory = TempDir::new().expect("a directory");
    let audit = open(config(directory.path()));
    fill(&audit, 0..50).await;
    let (status, all) = ask(&audit, "auditor", "records").await;
    assert_eq!((status, items(&all).len()), (200, 50));
    assert_eq!(
        (&all["kind"], &all["apiVersion"]),
        (&"RecordList".into(), &"audit.gantry.dev/v1alpha1".into())
    );
    assert_eq!(all["items"][0]["sequence"], 50);
    let (_, own) = ask(&audit, "acme/user3", "records").await;
    assert_eq!(items(&own), ["id-47", "id-36", "id-25", "id-14", "id-3"]);
    let (_, others) = ask(&audit, "acme/user3", "records?user=acme/user4").await;
    assert!(items(&others).is_empty());
    let (_, nothing) = ask(&audit, "acme/user30", "records").await;
    assert!(items(&nothing).is_empty());
    assert_eq!(ask(&audit, "acme/user3", "records/id-3").await.0, 200);
    let (status, refused) = ask(&audit, "acme/user3", "records/id-4").await;
    assert_eq!((status, &refused["reason"]), (404, &"NotFound".into()), "nor that it exists");
    for path in ["checkpoints", "verify"] {
        assert_eq!(ask(&audit, "acme/user3", path).await.0, 403, "{path}");
        assert_eq!(ask(&audit, "auditor", path).await.0, 200, "{path}");
    }
    let (_, report) = ask(&audit, "auditor", "verify").await;
    assert_eq!((&report["intact"], &report["records"]), (&true.into(), &50.into()));
    let exported = request(&audit, "acme/user3", "export").await.into_body().collect().await.expect("a body");
    let exported = String::from_utf8(exported.to_bytes().to_vec()).expect("text");
    let ids: Vec<String> = exported
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line")["auditID"].to_string())
        .collect();
    assert_eq!(ids, [3, 14, 25, 36, 47].map(|n| format!("\"id-{n}\"")), "the oldest first");
    audit.close().await;
}

#[tokio::test]
async fn who_has_the_name_of_somebody_who_is_gone_sees_none_of_their_deeds() {
    let directory = TempDir::new().expect("a directory");
    let audit = open(config(directory.path()));
    let user = |uid: &str, name: &str| {
        let mut user = UserInfo::authenticated(name, &[]);
        user.uid = uid.to_owned();
        user
    };
    let (first, second) = (user("u1", "acme/alice"), user("u2", "acme/alice"));
    let deed = |id: &str, user: &UserInfo| AuditEvent {
        id: id.to_owned(),
        verb: "get".to_owned(),
        user: user.clone(),
        ..AuditEvent::default()
    };
    let sink = audit.sink();
    let mut as_second = deed("as-the-second", &user("u9", "root"));
    as_second.impersonated = Some(Box::new(second.clone()));
    let mut events =
        vec![deed("firsts", &first), deed("seconds", &second), deed("nobodys", &user("", "acme/alice"))];
    // Whoever is called differently meanwhile is the same.
    events.extend([deed("before-the-change-of-name", &user("u2", "acme/alicia")), as_second]);
    for event in events {
        sink.record(event).await.expect("recorded");
    }
    // From the index in memory, and from that of a closed segment.
    for filled in [0..0, 0..300] {
        fill(&audit, filled.clone()).await;
        if !filled.is_empty() {
            let closed = || !crate::support::files(directory.path(), "idx").is_empty();
            crate::support::eventually("the first segment is closed", closed).await;
        }
        for (who, sees) in [
            (&first, "firsts nobodys"),
            (&second, "as-the-second before-the-change-of-name nobodys seconds"),
            (&user("", "acme/alice"), "nobodys"),
            (&user("u3", "acme/alicia"), ""),
        ] {
            let answer = request_as(&audit, who.clone(), "records").await;
            let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
            let mut found: Vec<String> = items(&serde_json::from_slice(&bytes).expect("JSON"))
                .iter()
                .map(|id| id.as_str().expect("an id").to_owned())
                .collect();
            found.sort();
            assert_eq!(found.join(" "), sees, "{who:?}");
        }
    }
    audit.close().await;
}

#[tokio::test]
async fn bad_queries_are_refused_with_a_status() {
    let directory = TempDir::new().expect("a directory");
    let audit = open(config(directory.path()));
    for path in [
        "records?limit=0",
        "records?outcome=x",
        "records?since=noon",
        "records?colour=red",
        "export?q=-",
        "records?fieldSelector=user",
        "records?fieldSelector=user!%3Dacme/a",
        "records?fieldSelector=colour%3Dred",
        "records?fieldSelector=verb%3Dget&verb=list",
        "records?watch=true&resourceVersion=x",
    ] {
        let (status, body) = ask(&audit, "auditor", path).await;
        assert_eq!(
            (status, &body["kind"], &body["reason"]),
            (400, &"Status".into(), &"BadRequest".into()),
            "{path}"
        );
    }
    for path in ["nothing", "records/none", "sessions/none", "sessions/..%2f..%2fhead"] {
        assert_eq!(ask(&audit, "auditor", path).await.0, 404, "{path}");
    }
    audit.close().await;
}

#[tokio::test]
async fn followers_get_what_comes() {
    let directory = TempDir::new().expect("a directory");
    let audit = open(config(directory.path()));
    fill(&audit, 0..30).await;
    let mut body = request(&audit, "auditor", "records?follow=true&user=acme/user3").await.into_body();
    fill(&audit, 30..40).await;
    let mut from_then =
        request(&audit, "auditor", "records?follow=true&user=acme/user3&continue=20").await.into_body();
    for (body, want) in [(&mut body, vec!["id-36"]), (&mut from_then, vec!["id-25", "id-36"])] {
        let ids: Vec<Value> =
            some_lines(body, want.len()).await.iter().map(|line| line["auditID"].clone()).collect();
        assert_eq!(ids, want);
    }
    audit.close().await;
    let ended = tokio::time::timeout(PATIENCE, body.frame()).await.expect("the end");
    assert!(ended.is_none());
}

/// The next lines of an answer that goes on.
async fn some_lines(body: &mut Body, count: usize) -> Vec<Value> {
    let mut text = String::new();
    while text.lines().count() < count {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time");
        let data = frame.expect("it goes on").expect("no error").into_data().expect("data");
        text.push_str(std::str::from_utf8(&data).expect("text"));
    }
    text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
}

/// What `kubectl get` and `kubectl get -w` ask.
#[tokio::test]
async fn kubernetes_clients_get_tables_selectors_and_watches() {
    let directory = TempDir::new().expect("a directory");
    let audit = open(config(directory.path()));
    fill(&audit, 0..50).await;
    let auditor = || UserInfo::authenticated("auditor", &[]);
    let cells = |table: &Value| -> Vec<String> {
        let rows = table["rows"].as_array().expect("rows");
        rows.iter().map(|row| format!("{} {}", row["cells"][1], row["object"]["metadata"]["name"])).collect()
    };
    let selected = "records?limit=2&fieldSelector=user%3Dacme/user3,user.username%3D%3Dacme/user3";
    let answer = accepting(&audit, auditor(), selected, TABLE).await;
    let warning = answer.headers()["warning"].to_str().expect("text").to_owned();
    assert!(warning.starts_with("299 - \"these are the newest of more records"), "{warning}");
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    let table: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!((&table["kind"], &table["metadata"]["continue"]), (&"Table".into(), &Value::Null));
    assert_eq!(cells(&table), ["\"acme/user3\" \"id-47\"", "\"acme/user3\" \"id-36\""]);
    let columns = table["columnDefinitions"].as_array().expect("columns");
    assert_eq!(columns.len(), table["rows"][0]["cells"].as_array().expect("cells").len());
    let whole = accepting(&audit, auditor(), "records?limit=50", TABLE).await;
    assert_eq!(whole.headers().get("warning"), None, "there are no more");

    let one = accepting(&audit, auditor(), "records/id-3", TABLE).await;
    let bytes = one.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(cells(&serde_json::from_slice(&bytes).expect("JSON")), ["\"acme/user3\" \"id-3\""]);

    let (_, list) = ask(&audit, "auditor", "records?limit=2&fieldSelector=user%3Dacme/user3").await;
    assert_eq!((items(&list).len(), list["metadata"]["continue"] != ""), (2, true));
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    fill(&audit, 50..60).await;
    let watch = format!("records?watch=true&resourceVersion={version}&fieldSelector=user%3Dacme/user3");
    let mut events = request(&audit, "auditor", &watch).await.into_body();
    let added = &some_lines(&mut events, 1).await[0];
    assert_eq!((&added["type"], &added["object"]["auditID"]), (&"ADDED".into(), &"id-58".into()));
    assert_eq!((&added["object"]["kind"], &added["object"]["sequence"]), (&"Record".into(), &59.into()));
    let mut rows = accepting(&audit, auditor(), &watch, TABLE).await.into_body();
    let added = &some_lines(&mut rows, 1).await[0];
    assert_eq!(
        (&added["type"], cells(&added["object"])),
        (&"ADDED".into(), vec!["\"acme/user3\" \"id-58\"".to_owned()])
    );
    // From now on, as of any version.
    let mut from_now = request(&audit, "auditor", "records?watch=true&resourceVersion=0").await.into_body();
    fill(&audit, 60..61).await;
    assert_eq!(some_lines(&mut from_now, 1).await[0]["object"]["auditID"], "id-60");
    audit.close().await;
}

/// Everybody may see everything, until it is switched off.
#[derive(Default)]
struct Switch(AtomicU64);

impl Authorizer for Switch {
    fn authorize(&self, _: &Attributes) -> Decision {
        match self.0.load(Ordering::SeqCst) {
            0 => Decision::Allow(String::new()),
            _ => Decision::NoOpinion(String::new()),
        }
    }

    fn decisions_version(&self, _: &UserInfo) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn who_loses_the_right_follows_no_more() {
    let directory = TempDir::new().expect("a directory");
    let rules = Arc::new(Switch::default());
    let audit = gantry_audit::build(config(directory.path()), rules.clone()).expect("a trail");
    let mut body = request(&audit, "auditor", "records?follow=true").await.into_body();
    fill(&audit, 0..1).await;
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time");
    let data = frame.expect("it goes on").expect("no error").into_data().expect("data");
    assert!(data.starts_with(b"{") && String::from_utf8_lossy(&data).contains("\"id-0\""), "{data:?}");
    rules.0.store(1, Ordering::SeqCst);
    fill(&audit, 1..2).await;
    let ended = tokio::time::timeout(PATIENCE, body.frame()).await.expect("the end");
    assert!(ended.is_none(), "{ended:?}");
    audit.close().await;
}

#[tokio::test]
async fn security_events_are_records_too() {
    let directory = TempDir::new().expect("a directory");
    let audit = open(config(directory.path()));
    let sink = audit.sink();
    let login = AuditEvent::security(SecurityEvent::LoginFailed, UserInfo::authenticated("acme/alice", &[]))
        .about(AuditObject::new("identity.gantry.dev", "users", "5f0c"))
        .from_address("192.0.2.7".parse().ok())
        .failed(401, "Unauthorized", "wrong password")
        .with("audit.gantry.dev/domain", "acme");
    sink.record(login).await.expect("recorded");
    let exec = AuditEvent {
        object: AuditObject { subresource: "exec".to_owned(), ..AuditObject::new("", "pods", "web") },
        ..event(5)
    };
    sink.record(exec).await.expect("recorded");
    audit.flush().await.expect("durable");
    let (_, page) = ask(&audit, "auditor", "records?event=login-failed&outcome=denied&q=192.0.2.7").await;
    let record = &page["items"][0];
    assert_eq!(
        (&record["verb"], &record["user"]["username"]),
        (&"login-failed".into(), &"acme/alice".into())
    );
    assert_eq!(record["responseStatus"]["message"], "wrong password");
    assert!(!record["auditID"].as_str().unwrap_or_default().is_empty());
    let (_, page) = ask(&audit, "auditor", "records?event=exec-opened&resource=pods/exec").await;
    assert_eq!(items(&page), ["id-5"]);
    audit.close().await;
}
