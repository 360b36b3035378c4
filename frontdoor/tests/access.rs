//! Who gets in, and what the others are told.

use gantry_frontdoor::Limits;
use rustls::CipherSuite;
use serde_json::json;

use crate::harness::Harness;

const PODS: &str = "/api/v1/namespaces/demo/pods";

#[tokio::test]
async fn certificates_and_tokens_name_the_caller() {
    let harness = Harness::start(Limits::default()).await;
    let (status, body) = harness.get(true, PODS, &[]).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["user"], "alice");
    assert_eq!(body["groups"], json!(["dev", "system:authenticated"]));
    let bearer = [("authorization", "Bearer bob-token")];
    let (status, body) = harness.get(false, "/api/v1/nodes", &bearer).await;
    assert_eq!((status, &body["user"]), (200, &json!("bob")));
    assert_eq!(body["authorization"], false, "handlers do not see credentials");
    harness.stop().await;
}

#[tokio::test]
async fn http2_serves_many_requests_at_once() {
    let harness = Harness::start(Limits::default()).await;
    let paths = [PODS, "/api/v1/nodes", "/healthz", PODS];
    let answers = harness.get_h2(true, &paths).await;
    assert_eq!(answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 403, 200, 200]);
    harness.stop().await;
}

#[tokio::test]
async fn the_server_chooses_the_cipher_suite() {
    let harness = Harness::start(Limits::default()).await;
    let clients = &rustls::crypto::ring::default_provider().cipher_suites[0];
    assert_eq!(clients.suite(), CipherSuite::TLS13_AES_256_GCM_SHA384, "what the client names first");
    let stream = harness.connect(true, b"http/1.1").await;
    let agreed = stream.get_ref().1.negotiated_cipher_suite().expect("a handshake");
    assert_eq!(agreed.suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
    drop(stream);
    harness.stop().await;
}

#[tokio::test]
async fn refusals_say_what_upstream_says() {
    let harness = Harness::start(Limits::default()).await;
    let stale = [("authorization", "Bearer stale")];
    let unknown = [("authorization", "Bearer nobody")];
    for (certified, path, headers, code, reason, message) in [
        (false, PODS, &stale[..], 401, "Unauthorized", "Unauthorized"),
        (false, PODS, &unknown[..], 401, "Unauthorized", "Unauthorized"),
        (false, "/members/x", &[][..], 401, "Unauthorized", "Unauthorized"),
        (
            false,
            PODS,
            &[][..],
            403,
            "Forbidden",
            "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"demo\"",
        ),
        (
            true,
            "/api/v1/namespaces/demo/secrets/key",
            &[][..],
            403,
            "Forbidden",
            "secrets \"key\" is forbidden: User \"alice\" cannot get resource \"secrets\" in API group \"\" in the namespace \"demo\": not for you",
        ),
        (
            true,
            "/metrics",
            &[][..],
            403,
            "Forbidden",
            "forbidden: User \"alice\" cannot get path \"/metrics\"",
        ),
    ] {
        let (status, body) = harness.get(certified, path, headers).await;
        assert_eq!((status, body["code"].as_u64()), (code, Some(u64::from(code))), "{path}: {body}");
        assert_eq!((&body["reason"], &body["message"]), (&json!(reason), &json!(message)), "{path}");
        assert_eq!((&body["kind"], &body["status"]), (&json!("Status"), &json!("Failure")), "{path}");
    }
    assert_eq!(harness.handled(), 0, "no handler saw any of it");
    harness.stop().await;
}

#[tokio::test]
async fn a_stale_token_does_not_hide_a_good_certificate() {
    let harness = Harness::start(Limits::default()).await;
    let (status, body) = harness.get(true, PODS, &[("authorization", "Bearer stale")]).await;
    assert_eq!((status, &body["user"]), (200, &json!("alice")));
    harness.stop().await;
}

#[tokio::test]
async fn the_policies_of_routes_hold() {
    let harness = Harness::start(Limits::default()).await;
    let stale = [("authorization", "Bearer stale")];
    let (status, body) = harness.get(true, "/members/list", &[]).await;
    assert_eq!((status, &body["user"]), (200, &json!("alice")));
    let (status, body) = harness.get(false, "/open/v2", &stale).await;
    assert_eq!((status, &body["user"]), (200, &json!("system:anonymous")));
    assert_eq!(body["authorization"], true, "a delegated route judges the credential itself");
    let (status, _) = harness.get(false, "/openly", &[]).await;
    assert_eq!(status, 403, "a prefix ends at a slash");
    harness.stop().await;
}

#[tokio::test]
async fn a_path_is_read_as_it_is_written() {
    let harness = Harness::start(Limits::default()).await;
    // What chooses the service and what is asked of the authoriser are the same bytes: no service hears of a path that
    // another's rules let through. The open service answers strangers, and is told the whole path.
    for (path, status, handled) in [
        ("/members/x", 401, false),
        ("/members/", 401, false),
        ("/members//x", 401, false),
        ("/members/../open/x", 401, false),
        ("/members;x", 403, false),
        ("//members/x", 403, false),
        ("/./members/x", 403, false),
        ("/%6dembers/x", 403, false),
        ("/members%2fx", 403, false),
        ("/Members/x", 403, false),
        ("/MEMBERS", 403, false),
        ("/membersx", 403, false),
        ("/open/../members/x", 200, true),
        ("/open/%2e%2e/members/x", 200, true),
        ("//open", 403, false),
        ("/open%2fx", 403, false),
        ("/Open", 403, false),
        ("/healthz/../api/v1/secrets", 404, false),
        ("/healthz/%2e%2e/api/v1/secrets", 404, false),
        ("/livez/%2e%2e/api", 403, false),
        ("/readyz/../members/x", 403, false),
        ("//", 403, false),
        ("/.", 403, false),
    ] {
        let before = harness.handled();
        let (seen, body) = harness.get(false, path, &[]).await;
        assert_eq!((seen, harness.handled() > before), (status, handled), "{path}: {body}");
        if handled {
            assert_eq!((&body["path"], &body["user"]), (&json!(path), &json!("system:anonymous")));
        }
    }
    harness.stop().await;
}

#[tokio::test]
async fn health_is_for_everybody() {
    let harness = Harness::start(Limits::default()).await;
    assert_eq!(harness.get(false, "/healthz", &[]).await, (200, json!("ok")));
    let (status, body) = harness.get(false, "/healthz?verbose", &[]).await;
    assert_eq!(status, 200);
    assert!(body.as_str().is_some_and(|text| text.contains("[+]store ok")), "{body}");
    assert_eq!(harness.get(false, "/readyz", &[]).await.0, 403, "as the rules of this test say");
    harness.stop().await;
}

#[tokio::test]
async fn impersonation_needs_the_right_to_it() {
    let harness = Harness::start(Limits::default()).await;
    let as_bob = [("impersonate-user", "bob")];
    let (status, body) = harness.get(true, "/api/v1/nodes", &as_bob).await;
    assert_eq!((status, &body["user"], &body["behind"]), (200, &json!("bob"), &json!("alice")), "{body}");
    let (status, _) = harness.get(true, PODS, &as_bob).await;
    assert_eq!(status, 403, "alice has bob's rights now, not her own");
    for headers in [
        vec![("impersonate-user", "root")],
        vec![("impersonate-user", "bob"), ("impersonate-group", "system:masters")],
        vec![("impersonate-user", "bob"), ("impersonate-extra-scopes", "all")],
        vec![("impersonate-user", "bob"), ("impersonate-uid", "1")],
    ] {
        let (status, body) = harness.get(true, "/api/v1/nodes", &headers).await;
        assert_eq!(status, 403, "{headers:?}");
        let message = body["message"].as_str().unwrap_or("");
        assert!(message.contains("User \"alice\" cannot impersonate resource"), "{message}");
    }
    let (status, _) = harness.get(true, "/api/v1/nodes", &[("impersonate-group", "dev")]).await;
    assert_eq!(status, 400, "a group without a user");
    let (status, _) = harness.get(false, "/api/v1/nodes", &as_bob).await;
    assert_eq!(status, 403, "anonymous is nobody's proxy");
    harness.stop().await;
}
