//! Quotas, limit ranges and pod security levels before a real server, as users meet them.

use std::sync::Arc;

use axum::body::Body;
use gantry_kube_types::{AuditNotes, RequestInfo, UserInfo};
use http::Request;
use serde_json::{Value, json};

use super::tests::{Api, ordinary};

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn make(api: &Api, path: &str, body: Value) {
    let (code, answer) = api.post(path, body).await;
    assert_eq!(code, 201, "{path}: {answer}");
}

async fn quota(api: &Api, name: &str, hard: Value, scopes: Value) {
    let body = json!({"metadata": {"name": name}, "spec": {"hard": hard, "scopes": scopes}});
    make(api, "/api/v1/namespaces/default/resourcequotas", body).await;
}

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

async fn refused(api: &Api, path: &str, body: Value) -> String {
    let (code, answer) = api.post(path, body).await;
    assert_eq!(code, 403, "{answer}");
    answer["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_quota_holds_and_gives_back() {
    let api = ordinary().await;
    quota(
        &api,
        "q",
        json!({"pods": "2", "requests.cpu": "1", "configmaps": "1", "count/secrets": "1"}),
        Value::Null,
    )
    .await;
    let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
    assert_eq!(
        refused(&api, PODS, pod("a", json!({}))).await,
        "pods \"a\" is forbidden: failed quota: q: must specify requests.cpu for: c"
    );
    make(&api, PODS, pod("a", cpu("600m"))).await;
    assert_eq!(
        refused(&api, PODS, pod("b", cpu("500m"))).await,
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, \
         limited: requests.cpu=1"
    );
    make(&api, PODS, pod("b", cpu("100m"))).await;
    assert_eq!(
        refused(&api, PODS, pod("c", cpu("1m"))).await,
        "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
    );
    let (code, twin) = api.post(PODS, pod("b", cpu("1m"))).await;
    assert_eq!(
        (code, &twin["reason"]),
        (409, &json!("AlreadyExists")),
        "who is there already uses nothing more"
    );
    // An ended pod holds nothing; nor does a deleted one.
    let over = json!({"status": {"phase": "Succeeded"}});
    assert_eq!(api.send("PATCH", &format!("{PODS}/a/status"), over).await.0, 200);
    make(&api, PODS, pod("c", cpu("900m"))).await;
    let grown = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": cpu("950m")}]}});
    let (code, answer) = api.send("PATCH", &format!("{PODS}/c/resize"), grown).await;
    assert_eq!(code, 403, "{answer}");
    assert_eq!(api.send("DELETE", &format!("{PODS}/b"), Value::Null).await.0, 200);
    make(&api, PODS, pod("d", cpu("100m"))).await;

    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str| json!({"metadata": {"name": name}});
    assert_eq!(api.post(&format!("{maps}?dryRun=All"), map("x")).await.0, 201, "a dry run counts nothing");
    make(&api, maps, map("x")).await;
    let message = refused(&api, maps, map("y")).await;
    assert!(
        message.ends_with("requested: configmaps=1, used: configmaps=1, limited: configmaps=1"),
        "{message}"
    );
    let secrets = "/api/v1/namespaces/default/secrets";
    make(&api, secrets, map("x")).await;
    let message = refused(&api, secrets, map("y")).await;
    assert!(message.contains("exceeded quota: q, requested: count/secrets=1"), "{message}");
}

#[tokio::test]
async fn services_and_claims_are_measured_on_every_change() {
    let api = ordinary().await;
    let hard = json!({"services.nodeports": "1", "services.loadbalancers": "0", "requests.storage": "3Gi"});
    quota(&api, "q", hard, Value::Null).await;
    let services = "/api/v1/namespaces/default/services";
    let service =
        |kind: &str| json!({"metadata": {"name": "s"}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    make(&api, services, service("NodePort")).await;
    let two = json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}});
    assert_eq!(api.send("PATCH", &format!("{services}/s"), two).await.0, 403);
    let balancer = json!({"spec": {"type": "LoadBalancer"}});
    let (code, answer) = api.send("PATCH", &format!("{services}/s"), balancer).await;
    assert_eq!(code, 403, "{answer}");
    assert_eq!(
        api.send("PATCH", &format!("{services}/s"), json!({"spec": {"type": "ClusterIP"}})).await.0,
        200
    );
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |name: &str, size: &str| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
    };
    make(&api, claims, claim("one", "2Gi")).await;
    assert_eq!(
        refused(&api, claims, claim("two", "2Gi")).await,
        "persistentvolumeclaims \"two\" is forbidden: exceeded quota: q, requested: requests.storage=2Gi, used: \
         requests.storage=2Gi, limited: requests.storage=3Gi"
    );
}

#[tokio::test]
async fn a_scope_counts_its_own_pods() {
    let api = ordinary().await;
    quota(&api, "batch", json!({"pods": "0"}), json!(["Terminating"])).await;
    make(&api, PODS, pod("server", json!({}))).await;
    let mut job = pod("job", json!({}));
    job["spec"]["activeDeadlineSeconds"] = json!(60);
    assert!(refused(&api, PODS, job).await.contains("exceeded quota: batch"));
}

#[tokio::test]
async fn parallel_creates_never_exceed_a_quota() {
    let api = Arc::new(ordinary().await);
    quota(&api, "q", json!({"pods": "7", "requests.memory": "1Gi", "count/configmaps": "5"}), Value::Null)
        .await;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..40 {
        let api = api.clone();
        tasks.spawn(async move {
            let made =
                api.post(PODS, pod(&format!("p{index}"), json!({"requests": {"memory": "100Mi"}}))).await;
            let map = json!({"metadata": {"generateName": "m-"}});
            let (code, _) = api.post("/api/v1/namespaces/default/configmaps", map).await;
            // Some of what was given comes back and is given again.
            if made.0 == 201 && index % 3 == 0 {
                assert_eq!(api.send("DELETE", &format!("{PODS}/p{index}"), Value::Null).await.0, 200);
            }
            (made.0, code)
        });
    }
    let mut maps = 0;
    while let Some(done) = tasks.join_next().await {
        let (pod, map) = done.expect("no panic");
        assert!(pod == 201 || pod == 403, "{pod}");
        maps += usize::from(map == 201);
    }
    assert_eq!(maps, 5, "exactly as many as allowed");
    let (_, list) = api.send("GET", PODS, Value::Null).await;
    let left = list["items"].as_array().map_or(0, Vec::len);
    assert!(left <= 7, "{left} pods");
    for index in left..7 {
        make(&api, PODS, pod(&format!("fill{index}"), json!({"requests": {"memory": "1Mi"}}))).await;
    }
    assert!(
        refused(&api, PODS, pod("more", json!({"requests": {"memory": "1Mi"}}))).await.contains("pods=7")
    );
}

#[tokio::test]
async fn a_limit_range_gives_and_bounds() {
    let api = ordinary().await;
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "2"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]}});
    make(&api, "/api/v1/namespaces/default/limitranges", range).await;
    let (code, made) = api.post(PODS, pod("a", json!({}))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}})
    );
    assert_eq!(made["status"]["qosClass"], "Burstable", "the class follows from what was given");
    assert_eq!(
        refused(&api, PODS, pod("b", json!({"limits": {"cpu": "3"}}))).await,
        "pods \"b\" is forbidden: [maximum cpu usage per Container is 2, but limit is 3]"
            .replace(['[', ']'], "")
    );
    let claim = json!({"metadata": {"name": "big"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}}}});
    let message = refused(&api, "/api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    assert!(message.ends_with("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"));
}

/// The warnings and audit notes of one POST.
async fn told(api: &Api, path: &str, body: Value) -> (u16, Vec<String>, AuditNotes) {
    let mut request = Request::builder()
        .method("POST")
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .expect("a request");
    let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
    request.extensions_mut().insert(info);
    request.extensions_mut().insert(UserInfo::authenticated("tester", &[]));
    let answer = api.answer(request).await;
    let warnings = answer.headers().get_all("warning").iter();
    let warnings = warnings.map(|value| value.to_str().expect("text").to_owned()).collect();
    let notes = answer.extensions().get::<AuditNotes>().cloned().unwrap_or_default();
    (answer.status().as_u16(), warnings, notes)
}

#[tokio::test]
async fn a_namespaces_level_holds() {
    let api = ordinary().await;
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted"});
    let namespace = json!({"metadata": {"name": "tenant", "labels": labels}});
    make(&api, "/api/v1/namespaces", namespace).await;
    make(&api, "/api/v1/namespaces/tenant/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/tenant/pods";
    let mut bad = pod("x", json!({}));
    bad["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    assert_eq!(
        refused(&api, pods, bad.clone()).await,
        "pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not \
         set securityContext.privileged=true)"
    );
    let (_, _, notes) = told(&api, pods, bad.clone()).await;
    let noted: Vec<&str> = notes.annotations.iter().map(|(key, _)| key.as_ref()).collect();
    assert!(noted.contains(&"pod-security.kubernetes.io/audit-violations"), "{noted:?}");
    // The host's files are out of reach by every other list of the pod, too.
    for (field, value) in [
        ("volumes", json!([{"name": "v", "hostPath": {"path": "/"}}])),
        ("hostNetwork", json!(true)),
        ("initContainers", json!([{"name": "i", "image": "i", "securityContext": {"privileged": true}}])),
    ] {
        let mut other = pod("x", json!({}));
        other["spec"][field] = value;
        assert!(refused(&api, pods, other).await.contains("violates PodSecurity"), "{field}");
    }
    make(&api, pods, pod("fine", json!({}))).await;
    let debug = json!({"spec": {"ephemeralContainers": [
        {"name": "d", "image": "i", "securityContext": {"privileged": true}}]}});
    assert_eq!(api.send("PATCH", &format!("{pods}/fine/ephemeralcontainers"), debug).await.0, 403);
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": bad["spec"]},
    }});
    let (code, warnings, _) = told(&api, "/apis/apps/v1/namespaces/tenant/deployments", deployment).await;
    assert_eq!(code, 201, "a workload is only warned of");
    assert!(warnings.iter().any(|w| w.contains("would violate PodSecurity")), "{warnings:?}");
    make(&api, PODS, pod("free", json!({}))).await;
    let unreadable =
        json!({"metadata": {"name": "n", "labels": {"pod-security.kubernetes.io/enforce": "high"}}});
    let (code, answer) = api.post("/api/v1/namespaces", unreadable).await;
    assert_eq!(code, 422);
    assert!(
        answer["message"].as_str().is_some_and(|m| m.contains(
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"high\": must be one of privileged, \
             baseline, restricted"
        )),
        "{answer}"
    );
}
