//! Real kubectl against the node, through a few routes of an API server that only rename paths.

use std::process::Stdio;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use gantry_testkit::kubectl_program;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use super::client::Node;

/// Runs sessions and forwards a port with kubectl, over WebSocket and over SPDY.
pub async fn drive(node: &Node, pod: &Pod) {
    if Command::new(kubectl_program()).arg("version").arg("--client").output().await.is_err() {
        gantry_testkit::skip("no kubectl here: run `cargo xtask setup`");
        return;
    }
    let api = serve_api(node, pod).await;
    for websockets in ["true", "false"] {
        let mut child = kubectl(&api, websockets)
            .args(["exec", "-i", "target", "--", "sh", "-c", "cat; echo e >&2; exit 5"])
            .spawn()
            .expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"through kubectl").await.expect("written");
        drop(stdin);
        let output = child.wait_with_output().await.expect("kubectl ends");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "through kubectl", "{stderr}");
        assert!(stderr.contains("e\n") && stderr.contains("exit code 5"), "{stderr}");
        assert_eq!(output.status.code(), Some(5), "websockets={websockets}");
        forward(&api, websockets).await;
    }
}

fn kubectl(api: &str, websockets: &str) -> Command {
    let mut command = Command::new(kubectl_program());
    command
        .args(["--server", api, "--namespace", "test", "--kubeconfig", "/dev/null"])
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn forward(api: &str, websockets: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let mut child = kubectl(api, websockets)
        .args(["port-forward", "target", &format!(":{port}")])
        .spawn()
        .expect("kubectl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("readable").expect("kubectl says where it listens");
    let local = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
    let mut client = TcpStream::connect(format!("127.0.0.1:{local}")).await.expect("kubectl listens");
    let (mut server, _) = listener.accept().await.expect("the connection arrives");
    let sent: Vec<u8> = (0..500_000_u32).map(|n| (n % 249) as u8).collect();
    let (there, back) = tokio::join!(
        async {
            client.write_all(&sent).await.expect("sent");
            let mut answer = [0; 6];
            client.read_exact(&mut answer).await.expect("answered");
            answer
        },
        async {
            let mut got = vec![0; sent.len()];
            server.read_exact(&mut got).await.expect("all arrives");
            server.write_all(b"thanks").await.expect("sent");
            got
        }
    );
    assert!(&there == b"thanks" && back == sent, "websockets={websockets}");
    child.kill().await.expect("ended");
}

/// The routes kubectl needs; those with streams go to the node as an API server sends them.
async fn serve_api(node: &Node, pod: &Pod) -> String {
    let mut object = serde_json::to_value(pod).expect("JSON");
    object["kind"] = json!("Pod");
    object["apiVersion"] = json!("v1");
    let api = json!({"kind": "APIVersions", "versions": ["v1"]});
    let resources = json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
        {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "shortNames": ["po"], "verbs": ["get", "list"]}]});
    let pods = "/api/v1/namespaces/test/pods/target";
    let json_of = |value: serde_json::Value| get(async move || axum::Json(value));
    let router = Router::new()
        .route("/api", json_of(api))
        .route("/api/v1", json_of(resources))
        .route("/apis", json_of(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})))
        .route(pods, json_of(object))
        .route(
            &format!("{pods}/exec"),
            any(pass).with_state((node.address.to_string(), "/exec/test/target/c")),
        )
        .route(
            &format!("{pods}/portforward"),
            any(pass).with_state((node.address.to_string(), "/portForward/test/target")),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn pass(State((address, path)): State<(String, &'static str)>, mut request: Request) -> Response {
    let socket = TcpStream::connect(&address).await.expect("the node listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(socket)).await.expect("HTTP");
    tokio::spawn(connection.with_upgrades());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let mut onward = http::Request::builder().method(request.method()).uri(format!("{path}?{query}"));
    for (name, value) in request.headers() {
        onward = onward.header(name, value);
    }
    let onward = onward.body(Body::empty()).expect("a request");
    let mut answer = sender.send_request(onward).await.expect("an answer");
    if answer.status() != 101 {
        return answer.map(Body::new).into_response();
    }
    let (near, far) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    tokio::spawn(async move {
        if let (Ok(near), Ok(far)) = tokio::join!(near, far) {
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await;
        }
    });
    answer.map(|_| Body::empty()).into_response()
}
