//! Patches, server-side apply, field validation, collections, over every built-in kind.

use serde_json::{Value, json};

use crate::harness::Api;

const MAPS: &str = "/api/v1/namespaces/d/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/d/deployments";

/// As `kubectl create deployment` sends it.
fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "creationTimestamp": null, "labels": { "app": "web" } },
        "spec": {
            "replicas": 1, "selector": { "matchLabels": { "app": "web" } }, "strategy": {},
            "template": {
                "metadata": { "creationTimestamp": null, "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "nginx", "image": "nginx:1", "resources": {} }] },
            },
        },
        "status": {},
    })
}

#[tokio::test]
async fn what_kubectl_sends_is_created_with_defaults() {
    let api = Api::builtin().await;
    let path = format!("{DEPLOYMENTS}?fieldManager=kubectl-create&fieldValidation=Strict");
    let made = api.post(&path, &deployment()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    assert_eq!(made.body["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    assert_eq!(made.body["metadata"]["managedFields"][0]["manager"], "kubectl-create");
    let service = json!({
        "kind": "Service", "apiVersion": "v1", "metadata": { "name": "web", "creationTimestamp": null },
        "spec": { "ports": [{ "protocol": "TCP", "port": 80, "targetPort": 8080 }], "selector": { "app": "web" } },
        "status": { "loadBalancer": {} },
    });
    let made = api.post("/api/v1/namespaces/d/services?fieldValidation=Strict", &service).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(
        made.body["spec"]["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.96.")),
        "{}",
        made.body
    );
    let pod =
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let made = api.post("/api/v1/namespaces/d/pods?fieldValidation=Strict", &pod).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["spec"]["serviceAccountName"], "default");
    let lost = api.post("/api/v1/namespaces/none/pods", &pod).await;
    assert_eq!((lost.status, &lost.body["message"]), (404, &json!("namespaces \"none\" not found")));
}

#[tokio::test]
async fn each_patch_changes_what_it_names() {
    let api = Api::builtin().await;
    api.post(DEPLOYMENTS, &deployment()).await;
    let one = format!("{DEPLOYMENTS}/web");
    let containers = "/spec/template/spec/containers";
    let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"s:1"}]}}}}"#;
    let answer = api.patch(&one, "application/strategic-merge-patch+json", strategic).await;
    let names: Vec<&str> = answer
        .body
        .pointer(containers)
        .and_then(Value::as_array)
        .expect("containers")
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert!(
        names.len() == 2 && names.contains(&"side") && names.contains(&"nginx"),
        "merged by name: {names:?}"
    );
    assert_eq!(answer.body["metadata"]["generation"], 2);
    let json_patch = r#"[{"op":"test","path":"/spec/replicas","value":1},{"op":"replace","path":"/spec/replicas","value":3}]"#;
    let answer = api.patch(&one, "application/json-patch+json", json_patch).await;
    assert_eq!(answer.body["spec"]["replicas"], 3, "{}", answer.body);
    let again = api.patch(&one, "application/json-patch+json", json_patch).await;
    assert_eq!(again.status, 422, "the test no longer holds: {}", again.body);
    let merge = r#"{"spec":{"template":{"spec":{"containers":[{"name":"only","image":"o:1"}]}}}}"#;
    let answer = api.patch(&one, "application/merge-patch+json", merge).await;
    assert_eq!(answer.body.pointer(containers).and_then(Value::as_array).map(Vec::len), Some(1));
}

#[tokio::test]
async fn apply_knows_whose_fields_are_whose() {
    let api = Api::builtin().await;
    let apply = "application/apply-patch+yaml";
    let one = format!("{MAPS}/a");
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n";
    let unnamed = api.patch(&one, apply, body).await;
    assert_eq!(unnamed.status, 422, "{}", unnamed.body);
    let made = api.patch(&format!("{one}?fieldManager=me"), apply, body).await;
    assert_eq!((made.status, &made.body["data"]["k"]), (201, &json!("v")), "{}", made.body);
    let again = api.patch(&format!("{one}?fieldManager=me"), apply, body).await;
    assert_eq!(again.body["metadata"]["resourceVersion"], made.body["metadata"]["resourceVersion"]);
    let other = body.replace("k: v", "k: w");
    let refused = api.patch(&format!("{one}?fieldManager=you"), apply, &other).await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let forced = api.patch(&format!("{one}?fieldManager=you&force=true"), apply, &other).await;
    assert_eq!((forced.status, &forced.body["data"]["k"]), (200, &json!("w")));
}

#[tokio::test]
async fn unknown_fields_are_told() {
    let api = Api::builtin().await;
    let odd = r#"{"metadata":{"name":"a"},"dada":{},"data":{"k":"1","k":"2"}}"#;
    let strict = api.send("POST", &format!("{MAPS}?fieldValidation=Strict"), &[], odd).await;
    assert_eq!(strict.status, 400, "{}", strict.body);
    let message = strict.body["message"].as_str().expect("a message");
    assert!(
        message.contains("unknown field \"dada\"") && message.contains("duplicate field \"data.k\""),
        "{message}"
    );
    let warned = api.send("POST", MAPS, &[], odd).await;
    assert_eq!(warned.status, 201);
    let warnings: Vec<_> = warned.headers.get_all("warning").iter().filter_map(|w| w.to_str().ok()).collect();
    assert!(warnings.contains(&r#"299 - "unknown field \"dada\"""#), "{warnings:?}");
    assert_eq!(
        api.send("PUT", &format!("{MAPS}/a?fieldValidation=Ignore"), &[], odd).await.headers.get("warning"),
        None
    );
}

#[tokio::test]
async fn a_collection_goes_by_its_selector() {
    let api = Api::builtin().await;
    for (name, keep) in [("a", "no"), ("b", "yes"), ("c", "no")] {
        api.post(MAPS, &json!({ "metadata": { "name": name, "labels": { "keep": keep } } })).await;
    }
    let gone = api.delete(&format!("{MAPS}?labelSelector=keep%3Dno")).await;
    assert_eq!((gone.status, gone.body["items"].as_array().map(Vec::len)), (200, Some(2)), "{}", gone.body);
    let left = api.get(MAPS).await;
    assert_eq!((&left["items"][0]["metadata"]["name"], &left["items"][1]), (&json!("b"), &Value::Null));
}

#[tokio::test]
async fn one_object_shows_in_each_version() {
    let api = Api::builtin().await;
    let event = json!({
        "metadata": { "name": "e" }, "eventTime": "2026-01-02T03:04:05.000000Z", "reportingController": "c",
        "reportingInstance": "i", "action": "Pulling", "reason": "Pulled", "type": "Normal", "note": "it came",
        "regarding": { "kind": "Pod", "namespace": "d", "name": "p" },
    });
    let made = api.post("/apis/events.k8s.io/v1/namespaces/d/events", &event).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let core = api.get("/api/v1/namespaces/d/events/e").await;
    assert_eq!(
        (&core["message"], &core["involvedObject"]["name"]),
        (&json!("it came"), &json!("p")),
        "{core}"
    );
    let v1 = json!({
        "metadata": { "name": "h" },
        "spec": { "maxReplicas": 3, "targetCPUUtilizationPercentage": 70,
            "scaleTargetRef": { "kind": "Deployment", "name": "web", "apiVersion": "apps/v1" } },
    });
    let path = "namespaces/d/horizontalpodautoscalers";
    let made = api.post(&format!("/apis/autoscaling/v1/{path}"), &v1).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let v2 = api.get(&format!("/apis/autoscaling/v2/{path}/h")).await;
    assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70, "{v2}");
    let back = api.get(&format!("/apis/autoscaling/v1/{path}/h")).await;
    assert_eq!(back["spec"]["targetCPUUtilizationPercentage"], 70, "{back}");
}
