//! The session of a browser: when its cookie counts, and who gets to see it.

use gantry_frontdoor::Limits;
use http::Method;
use serde_json::{Value, json};

use crate::harness::{Harness, request};

const PODS: &str = "/api/v1/namespaces/demo/pods";
const COOKIE: (&str, &str) = ("cookie", "__Host-gantry-session=carols; theme=dark");
const OWN: (&str, &str) = ("origin", "https://gantry");
const FOREIGN: (&str, &str) = ("origin", "https://evil.test");
const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");

#[tokio::test]
async fn a_session_counts_on_every_service_when_a_page_of_ours_asks() {
    let harness = Harness::start(Limits::default()).await;
    let upgrade = ("upgrade", "websocket");
    for (method, path, more, want) in [
        (Method::GET, PODS, &[][..], 200),
        (Method::GET, PODS, &[CROSS], 401),
        (Method::GET, PODS, &[("sec-fetch-site", "same-site")], 401),
        (Method::GET, PODS, &[FOREIGN], 401),
        (Method::POST, PODS, &[OWN], 200),
        (Method::POST, PODS, &[("sec-fetch-site", "same-origin")], 200),
        (Method::POST, PODS, &[], 401),
        (Method::POST, PODS, &[FOREIGN], 401),
        (Method::POST, PODS, &[("origin", "null")], 401),
        (Method::DELETE, PODS, &[], 401),
        (Method::GET, PODS, &[upgrade], 401),
        (Method::GET, PODS, &[upgrade, FOREIGN], 401),
        (Method::GET, PODS, &[upgrade, OWN], 200),
        (Method::GET, "/members/list", &[], 200),
        (Method::GET, "/members/list", &[CROSS], 401),
        (Method::POST, "/members/list", &[], 401),
        // Known, and not allowed: that is another answer.
        (Method::GET, "/api/v1/nodes", &[], 403),
        (Method::GET, "/api/v1/nodes", &[CROSS], 401),
        // Open to everybody, and so to whose cookie does not count.
        (Method::GET, "/healthz", &[CROSS], 200),
    ] {
        let mut asked = request(path, &[&[COOKIE], more].concat());
        *asked.method_mut() = method.clone();
        let (head, body) = harness.send(false, asked).await;
        assert_eq!(head.status.as_u16(), want, "{method} {path} {more:?}: {body}");
        let ours = path != "/healthz" && want == 200;
        assert!(!ours || body["user"] == "carol", "{method} {path} {more:?}: {body}");
    }
    for (path, want) in [(CROSS, "system:anonymous"), (("sec-fetch-site", "same-origin"), "carol")] {
        let (status, body) = harness.get(false, "/open/x", &[COOKIE, path]).await;
        assert_eq!((status, &body["user"]), (200, &json!(want)), "an open service is told who it is");
    }
    harness.stop().await;
}

#[tokio::test]
async fn no_pod_and_no_service_gets_the_session() {
    let harness = Harness::start(Limits::default()).await;
    // What a handler sees, which may hand it on.
    let (_, body) = harness.get(false, PODS, &[COOKIE]).await;
    assert_eq!((&body["user"], &body["cookie"]), (&json!("carol"), &json!("theme=dark")));
    let bearer = [("authorization", "Bearer bob-token"), ("x-auth-token", "other"), COOKIE];
    let (_, body) = harness.get(false, "/api/v1/nodes", &bearer).await;
    assert_eq!((&body["authorization"], &body["token"]), (&json!(false), &json!(false)), "{body}");
    assert_eq!(body["cookie"], "theme=dark");
    // The pages of a pod are none of ours, though they come from here.
    for path in ["/api/v1/namespaces/demo/pods/p/proxy/x", "/api/v1/namespaces/demo/pods/p/proxy"] {
        let (status, body) = harness.get(false, path, &[COOKIE]).await;
        assert_eq!(status, 401, "{path}: {body}");
        let (status, body) = harness.get(true, path, &[COOKIE]).await;
        assert_eq!((status, &body["cookie"]), (200, &json!("theme=dark")), "{path}");
    }
    harness.stop().await;
}

#[tokio::test]
async fn two_sessions_at_once_are_none() {
    let harness = Harness::start(Limits::default()).await;
    for lines in [
        &[("cookie", "__Host-gantry-session=carols; __Host-gantry-session=carols")][..],
        &[("cookie", "__Host-gantry-session=carols"), ("cookie", "__Host-gantry-session=x")],
        &[("cookie", "__Host-gantry-session=x")],
        &[("cookie", "__Host-gantry-session=")],
    ] {
        let (status, body) = harness.get(false, PODS, lines).await;
        assert_eq!((status, &body["code"]), (401, &json!(401)), "{lines:?}");
    }
    harness.stop().await;
}

#[tokio::test]
async fn what_a_session_opens_runs_no_script() {
    let harness = Harness::start(Limits::default()).await;
    let policy = |head: &http::response::Parts| -> Value {
        head.headers.get("content-security-policy").map_or(Value::Null, |v| json!(v.to_str().expect("text")))
    };
    let (head, _) = harness.send(false, request(PODS, &[COOKIE])).await;
    assert_eq!(policy(&head), "default-src 'none'; frame-ancestors 'none'; sandbox");
    assert_eq!(head.headers["x-content-type-options"], "nosniff");
    let (head, _) = harness.send(true, request(PODS, &[])).await;
    assert_eq!(policy(&head), Value::Null);
    harness.stop().await;
}
