//! Discovery, version and custom resources.

use serde_json::{Value, json};

use crate::harness::Api;

#[tokio::test]
async fn discovery_names_what_is_served() {
    let api = Api::new();
    assert_eq!(api.get("/version").await["gitVersion"], "v1.37.0+gantry");
    assert_eq!(api.get("/api").await["versions"], json!(["v1"]));
    let apps = api.get("/apis/apps/v1").await;
    let names: Vec<&str> =
        apps["resources"].as_array().expect("resources").iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["deployments", "deployments/status", "deployments/scale"]);
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = api.send("GET", "/apis", &[("accept", accept)], "").await;
    assert_eq!(answer.body["kind"], "APIGroupDiscoveryList");
    let tag = answer.headers["etag"].to_str().expect("text").to_owned();
    let again = api.send("GET", "/apis", &[("accept", accept), ("if-none-match", &tag)], "").await;
    assert_eq!(again.status, 304);
    api.table(&[
        ("GET", "/apis/nothing", "", 404, "could not find"),
        ("GET", "/apis/apps/v9", "", 404, "could not find"),
    ])
    .await;
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": { "plural": "widgets", "kind": "Widget", "listKind": "WidgetList", "singular": "widget" },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "additionalPrinterColumns": [{ "name": "Size", "type": "integer", "jsonPath": ".spec.size" }],
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": { "type": "object", "properties": {
                        "size": { "type": "integer", "minimum": 1 }, "colour": { "type": "string", "default": "red" } } },
                    "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } } },
            }],
        },
    })
}

#[tokio::test]
async fn custom_resources_are_served_and_end_with_their_definition() {
    let api = Api::new();
    let follower = tokio::spawn(gantry_apiserver::run_custom_resources(api.server.clone()));
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let made = api.post(definitions, &definition()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let one = format!("{definitions}/widgets.example.com");
    eventually(&api, &one, |d| {
        let conditions = d["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
    })
    .await;
    let widgets = "/apis/example.com/v1/namespaces/d/widgets";
    eventually(&api, widgets, |list| list["kind"] == "WidgetList").await;
    let made =
        api.post(widgets, &json!({ "metadata": { "name": "w" }, "spec": { "size": 3, "no": 1 } })).await;
    assert_eq!(made.body["spec"], json!({ "size": 3, "colour": "red" }), "{}", made.body);
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = api.send("GET", widgets, &accept, "").await.body;
    assert_eq!(table["rows"][0]["cells"], json!(["w", 3]));
    let bad = api.post(widgets, &json!({ "metadata": { "name": "x" }, "spec": { "size": 0 } })).await;
    assert_eq!(bad.status, 422, "{}", bad.body);
    api.delete(&one).await;
    eventually(&api, &one, |d| d["code"] == 404).await;
    eventually(&api, widgets, |d| d["code"] == 404).await;
    follower.abort();
}

/// Waits for the server to reach a state; each try gives other tasks their turn.
async fn eventually(api: &Api, path: &str, reached: impl Fn(&Value) -> bool) {
    let wait = async {
        while !reached(&api.get(path).await) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait).await.expect(path);
}
