//! create, update, patch, delete.

use gantry_store::{Options, Store};
use serde_json::json;

use crate::harness::Api;

const MAPS: &str = "/api/v1/namespaces/d/configmaps";
const PODS: &str = "/api/v1/namespaces/d/pods";

#[tokio::test]
async fn writes_are_refused_with_the_words_users_know() {
    let api = Api::new();
    let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"v"}}"#;
    let one = format!("{MAPS}/a");
    api.table(&[
        ("POST", MAPS, map, 201, "\"uid\""),
        ("POST", MAPS, map, 409, "configmaps \"a\" already exists"),
        (
            "POST",
            MAPS,
            r#"{"metadata":{}}"#,
            422,
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            "POST",
            MAPS,
            r#"{"metadata":{"name":"A_b"}}"#,
            422,
            "a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            "POST",
            MAPS,
            r#"{"metadata":{"name":"b","namespace":"x"}}"#,
            400,
            "the namespace of the provided object does not match",
        ),
        ("POST", MAPS, r#"{"kind":"Pod","metadata":{"name":"b"}}"#, 400, "does not match the expected kind"),
        (
            "POST",
            MAPS,
            r#"{"metadata":{"name":"b","resourceVersion":"1"}}"#,
            400,
            "resourceVersion should not be set",
        ),
        ("POST", MAPS, "{", 400, ""),
        ("GET", &format!("{MAPS}/zz"), "", 404, "configmaps \"zz\" not found"),
        ("PUT", &one, r#"{"metadata":{"name":"b"}}"#, 400, "does not match the name on the URL"),
        (
            "PUT",
            &one,
            r#"{"metadata":{"name":"a","resourceVersion":"9999"}}"#,
            409,
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        (
            "PUT",
            &one,
            r#"{"metadata":{"name":"a","uid":"other"}}"#,
            409,
            "Precondition failed: UID in precondition",
        ),
        ("PATCH", &one, r#"{"metadata":{"labels":{"bad key":"x"}}}"#, 422, "metadata.labels"),
        ("PATCH", &one, r#"{"data":{"k":"w"}}"#, 200, "\"w\""),
        ("DELETE", &format!("{MAPS}/zz"), "", 404, "not found"),
        ("DELETE", &one, r#"{"preconditions":{"uid":"other"}}"#, 409, "Precondition failed"),
        ("DELETE", &one, r#"{"propagationPolicy":"Sometimes"}"#, 422, "Unsupported value"),
        ("DELETE", &one, "", 200, "\"Success\""),
        ("GET", &one, "", 404, "not found"),
        (
            "POST",
            "/api/v1/namespaces/d/nothings",
            "{}",
            404,
            "the server could not find the requested resource",
        ),
        ("POST", "/api/v1/configmaps", map, 404, "the server could not find"),
    ])
    .await;
}

#[tokio::test]
async fn media_types_and_sizes_are_checked() {
    let api = Api::new();
    let yaml = "metadata:\n  name: yam\ndata:\n  a: b\n";
    for (kind, body, status) in [
        ("application/yaml", yaml.to_owned(), 201),
        ("application/vnd.kubernetes.protobuf", "k8s".to_owned(), 415),
        ("application/json", format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(4 << 20)), 413),
    ] {
        let answer = api.send("POST", MAPS, &[("content-type", kind)], body).await;
        assert_eq!(answer.status, status, "{kind}: {}", answer.body);
    }
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    assert_eq!(api.send("GET", MAPS, &accept, "").await.status, 406);
    let kind = "application/strategic-merge-patch";
    assert_eq!(api.patch(&format!("{MAPS}/yam"), kind, "{}").await.status, 415);
}

#[tokio::test]
async fn a_write_that_changes_nothing_keeps_the_version() {
    let api = Api::new();
    let made = api.post(MAPS, &json!({ "metadata": { "name": "a" }, "data": { "k": "v" } })).await.body;
    let again = api.put(&format!("{MAPS}/a"), &made).await.body;
    assert_eq!(made["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);
    let dry = api.post(&format!("{MAPS}?dryRun=All"), &json!({ "metadata": { "name": "dry" } })).await;
    assert_eq!(dry.status, 201);
    assert_eq!(api.get(&format!("{MAPS}/dry")).await["code"], 404);
    let generated = api.post(MAPS, &json!({ "metadata": { "generateName": "g-" } })).await.body;
    let name = generated["metadata"]["name"].as_str().expect("a name");
    assert!(name.len() == 7 && name.starts_with("g-"), "{name}");
}

#[tokio::test]
async fn status_and_generation_are_apart() {
    let api = Api::new();
    let all = "/apis/apps/v1/namespaces/d/deployments";
    let one = format!("{all}/w");
    let template = json!({ "metadata": { "labels": { "a": "b" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let spec = json!({ "replicas": 1, "selector": { "matchLabels": { "a": "b" } }, "template": template });
    let made = api
        .post(all, &json!({ "metadata": { "name": "w" }, "spec": spec, "status": { "replicas": 9 } }))
        .await
        .body;
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made.get("status").is_none_or(|s| s["replicas"].is_null()), "{made}");
    let merge = "application/merge-patch+json";
    let status = api
        .patch(&format!("{one}/status"), merge, r#"{"spec":{"replicas":7},"status":{"replicas":1}}"#)
        .await;
    assert_eq!(
        (&status.body["spec"]["replicas"], &status.body["status"]["replicas"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(status.body["metadata"]["generation"], 1);
    let scale = api.patch(&format!("{one}/scale"), merge, r#"{"spec":{"replicas":4}}"#).await.body;
    assert_eq!((&scale["kind"], &scale["status"]["selector"]), (&json!("Scale"), &json!("a=b")));
    let now = api.get(&one).await;
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(4), &json!(2)));
    assert_eq!(now["status"]["replicas"], 1);
}

#[tokio::test]
async fn deletes_wait_for_grace_and_finalizers() {
    let api = Api::new();
    let spec = json!({ "containers": [{ "name": "c", "image": "i" }] });
    api.post(PODS, &json!({ "metadata": { "name": "p" }, "spec": spec })).await;
    let one = format!("{PODS}/p");
    let first = api.delete(&one).await.body;
    assert_eq!(first["metadata"]["deletionGracePeriodSeconds"], 30);
    let second = api.delete(&one).await.body;
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(api.delete(&format!("{one}?gracePeriodSeconds=0")).await.status, 200);
    assert_eq!(api.get(&one).await["code"], 404);

    let held = json!({ "metadata": { "name": "m", "finalizers": ["example.com/hold"] } });
    api.post(MAPS, &held).await;
    let one = format!("{MAPS}/m");
    let waiting = api.delete(&one).await.body;
    assert!(waiting["metadata"]["deletionTimestamp"].is_string(), "{waiting}");
    let merge = "application/merge-patch+json";
    let more =
        api.patch(&one, merge, r#"{"metadata":{"finalizers":["example.com/hold","example.com/b"]}}"#).await;
    assert_eq!(more.status, 422, "{}", more.body);
    assert_eq!(api.patch(&one, merge, r#"{"metadata":{"finalizers":null}}"#).await.status, 200);
    assert_eq!(api.get(&one).await["code"], 404);

    let orphan = api.post(MAPS, &json!({ "metadata": { "name": "o" } })).await;
    assert_eq!(orphan.status, 201);
    let left = api.delete(&format!("{MAPS}/o?propagationPolicy=Orphan")).await.body;
    assert_eq!(left["metadata"]["finalizers"], json!(["orphan"]));
}

#[tokio::test]
async fn a_namespace_waits_for_its_finalize() {
    let api = Api::new();
    let body = json!({ "metadata": { "name": "n" }, "spec": { "finalizers": ["kubernetes"] } });
    api.post("/api/v1/namespaces", &body).await;
    let gone = api.delete("/api/v1/namespaces/n").await.body;
    assert_eq!(gone["status"]["phase"], "Terminating");
    let mut last = gone.clone();
    last["spec"]["finalizers"] = json!([]);
    assert_eq!(api.put("/api/v1/namespaces/n/finalize", &last).await.status, 200);
    assert_eq!(api.get("/api/v1/namespaces/n").await["code"], 404);
}

#[tokio::test]
async fn the_disk_keeps_what_was_acknowledged() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let store = Store::open(&path, Options::default()).expect("a new store");
    let api = Api::over(store.clone());
    let made = api.post(MAPS, &json!({ "metadata": { "name": "a" }, "data": { "k": "v" } })).await.body;
    store.close().await;
    drop((api, store));
    let api = Api::over(Store::open(&path, Options::default()).expect("the same store"));
    assert_eq!(api.get(&format!("{MAPS}/a")).await, made);
}
