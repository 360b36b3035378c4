//! Watches.

use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::harness::Api;

const MAPS: &str = "/api/v1/namespaces/d/configmaps";

struct Lines(BodyDataStream);

impl Lines {
    async fn open(api: &Api, query: &str) -> Self {
        let response = api.raw("GET", &format!("{MAPS}?watch=true&{query}"), &[], Body::empty()).await;
        assert_eq!(response.status(), 200);
        Self(response.into_body().into_data_stream())
    }

    async fn next(&mut self) -> Value {
        let wait = tokio::time::timeout(std::time::Duration::from_secs(10), self.0.next());
        let chunk = wait.await.expect("an event in time").expect("one more event").expect("no failure");
        serde_json::from_slice(&chunk).expect("one event in one chunk")
    }

    /// `ADDED a`.
    async fn short(&mut self) -> String {
        let event = self.next().await;
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        format!("{} {}", text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

fn map(name: &str, label: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "l": label } } })
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let api = Api::new();
    api.post(MAPS, &map("a", "x")).await;
    let mut lines = Lines::open(&api, "labelSelector=l%3Dx").await;
    assert_eq!(lines.short().await, "ADDED a");
    api.post(MAPS, &map("b", "y")).await;
    api.put(&format!("{MAPS}/b"), &map("b", "x")).await;
    assert_eq!(lines.short().await, "ADDED b");
    let left = api.put(&format!("{MAPS}/b"), &map("b", "y")).await.body;
    let event = lines.next().await;
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["l"], "x", "the last state that matched");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    api.delete(&format!("{MAPS}/a")).await;
    assert_eq!(lines.short().await, "DELETED a");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let api = Api::new();
    api.post(MAPS, &map("a", "x")).await;
    let query =
        "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1";
    let mut lines = Lines::open(&api, query).await;
    assert_eq!(lines.short().await, "ADDED a");
    let mark = lines.next().await;
    assert_eq!(
        (&mark["type"], &mark["object"]["metadata"]["resourceVersion"]),
        (&json!("BOOKMARK"), &json!("1"))
    );
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert!(lines.0.next().await.is_none(), "timeoutSeconds ends the watch");
    api.table(&[(
        "GET",
        &format!("{MAPS}?watch=true&sendInitialEvents=true"),
        "",
        422,
        "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    )])
    .await;
}

#[tokio::test]
async fn a_watch_from_a_version_misses_nothing() {
    let api = Api::new();
    let first = api.post(MAPS, &map("a", "x")).await.body;
    api.post(MAPS, &map("b", "x")).await;
    let from = first["metadata"]["resourceVersion"].as_str().expect("a version");
    let mut lines = Lines::open(&api, &format!("resourceVersion={from}")).await;
    assert_eq!(lines.short().await, "ADDED b");
}

#[tokio::test]
async fn a_version_that_is_too_old_is_told_as_an_event() {
    let options = gantry_store::Options { events_max: 4, ..gantry_store::Options::default() };
    let api = Api::over(gantry_store::Store::memory(options).expect("a store in memory"));
    for index in 0..12 {
        api.post(MAPS, &map(&format!("m{index}"), "x")).await;
    }
    let mut lines = Lines::open(&api, "resourceVersion=1").await;
    let event = lines.next().await;
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)), "{event}");
    assert_eq!(event["object"]["reason"], "Expired");
    assert!(lines.0.next().await.is_none(), "the error ends the watch");
    let list = api.get(&format!("{MAPS}?resourceVersion=1&resourceVersionMatch=Exact")).await;
    assert_eq!((&list["code"], &list["reason"]), (&json!(410), &json!("Expired")));
}

/// The last one comes two seconds before the watch ends.
#[tokio::test]
async fn bookmarks_come_while_nothing_happens() {
    let api = Api::new();
    let made = api.post(MAPS, &map("a", "x")).await.body;
    let version = made["metadata"]["resourceVersion"].as_str().expect("a version");
    let mut lines =
        Lines::open(&api, &format!("resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=3"))
            .await;
    let chunk = lines.0.next().await.expect("a line").expect("no failure");
    let event: Value = serde_json::from_slice(&chunk).expect("one event");
    assert_eq!(
        (&event["type"], &event["object"]["metadata"]["resourceVersion"]),
        (&json!("BOOKMARK"), &json!(version))
    );
}
