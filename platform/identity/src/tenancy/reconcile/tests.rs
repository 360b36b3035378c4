//! The reconciler of a namespace over an API that keeps what it is given: what it writes, and when.

use std::convert::Infallible;
use std::sync::Mutex;

use axum::body::Body;
use bytes::Bytes;
use gantry_base::health::HealthBoard;
use gantry_base::tasks::Tasks;
use gantry_host::{Capabilities, Host};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;
use crate::pull::period_begin;
use crate::tenancy::start::{Callbacks, reconcilers};
use crate::tenancy::tests::{change, organisations, world};
use crate::vault::SecretKey;

const SECRETS: &str = "/api/v1/namespaces/web-dev/secrets";
const SECRET: &str = "/api/v1/namespaces/web-dev/secrets/gantry-registry";
const ACCOUNT: &str = "/api/v1/namespaces/web-dev/serviceaccounts/default";

/// Objects by their paths, and the writes of secrets and service accounts.
#[derive(Default)]
struct Stored {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
}

impl Stored {
    fn write(&mut self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let refused = |code: u16| {
            let status =
                json!({"kind": "Status", "status": "Failure", "code": code, "message": "", "reason": ""});
            (StatusCode::from_u16(code).expect("a code"), status)
        };
        if path.contains("/secrets") || path.contains("/serviceaccounts") {
            self.writes.push(format!("{method} {path}"));
        }
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        match method {
            "POST" if self.objects.contains_key(&format!("{path}/{name}")) => refused(409),
            "POST" => {
                self.objects.insert(format!("{path}/{name}"), body.clone());
                (StatusCode::CREATED, body.clone())
            }
            // What the server does with a type that is another, and with what is immutable.
            "PUT" if self.objects[path]["type"] != body["type"] => refused(422),
            "PUT" if self.objects[path]["immutable"] == true => refused(422),
            "PUT" => {
                self.objects.insert(path.to_owned(), body.clone());
                (StatusCode::OK, body.clone())
            }
            "PATCH" => {
                let object = self.objects.get_mut(path).expect("an object to patch");
                object["imagePullSecrets"] = body["imagePullSecrets"].clone();
                (StatusCode::OK, object.clone())
            }
            "DELETE" => {
                self.objects.remove(path);
                (StatusCode::OK, json!({"kind": "Status", "status": "Success"}))
            }
            other => unreachable!("{other} {path}"),
        }
    }
}

/// A server's objects, which outlive the component that reconciles them.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Stored>>);

impl Server {
    fn client(&self) -> Client {
        let stored = self.0.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let stored = stored.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
                let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
                let answer = |status: StatusCode, body: Body| {
                    let response = Response::builder().status(status);
                    response.header("content-type", "application/json").body(body).map_err(|e| e.to_string())
                };
                if query.contains("watch=true") {
                    // Nothing comes: what the component knows is what it listed.
                    let nothing = futures::stream::pending::<std::result::Result<Bytes, Infallible>>();
                    return answer(StatusCode::OK, Body::from_stream(nothing));
                }
                let mut stored = stored.lock().expect("no panic");
                let (status, object) = match head.method.as_str() {
                    "GET" => match stored.objects.get(path) {
                        Some(found) => (StatusCode::OK, found.clone()),
                        None => (StatusCode::OK, list(&stored.objects, path)),
                    },
                    method => {
                        let body = serde_json::from_slice(&body).unwrap_or_default();
                        stored.write(method, path, &body)
                    }
                };
                answer(status, Body::from(object.to_string()))
            }
        });
        Client::new(service, "default")
    }

    fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        edit(self.0.lock().expect("no panic").objects.get_mut(path).expect("an object"));
    }

    fn object(&self, path: &str) -> Option<Value> {
        self.0.lock().expect("no panic").objects.get(path).cloned()
    }

    /// A component that has just started reconciles `web-dev` at this time; what it wrote of secrets and accounts.
    async fn reconciled(
        &self,
        world: &Arc<World>,
        pull: &Arc<PullCredentials>,
        now: fn() -> Timestamp,
    ) -> Vec<String> {
        let tasks = Tasks::new(Default::default(), HealthBoard::default());
        let host =
            Host { client: self.client(), tasks: tasks.clone(), capabilities: Capabilities::default() };
        let callbacks = Callbacks { secrets: Arc::new(Nowhere), pull: pull.clone(), now };
        let reconcilers = reconcilers(world.clone(), &host, callbacks);
        reconcilers.bindings.synced().await;
        reconcilers.quotas.synced().await;
        reconcilers.limits.synced().await;
        reconcilers.pull_secrets.synced().await;
        reconcilers.accounts.synced().await;
        reconcilers.namespace("web-dev").await.expect("reconciled");
        tasks.shutdown().cancel();
        std::mem::take(&mut self.0.lock().expect("no panic").writes)
    }
}

/// All objects of a kind: `/api/v1/secrets` has those of all namespaces.
fn list(objects: &BTreeMap<String, Value>, path: &str) -> Value {
    let (api, plural) = path.rsplit_once('/').expect("a path");
    let of_kind = |found: &&String| {
        found.starts_with(api) && found.rsplit('/').nth(1).is_some_and(|collection| collection == plural)
    };
    let items: Vec<&Value> = objects.keys().filter(of_kind).map(|found| &objects[found]).collect();
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
}

struct Nowhere;

#[async_trait::async_trait]
impl Secrets for Nowhere {
    async fn forget_user(&self, _: &str) -> std::result::Result<(), String> {
        Ok(())
    }

    async fn forget_application_credential(&self, _: &str) -> std::result::Result<(), String> {
        Ok(())
    }

    async fn forget(&self, _: &SecretKey) -> std::result::Result<(), String> {
        Ok(())
    }

    async fn forget_project(&self, _: &str) -> std::result::Result<(), String> {
        Ok(())
    }

    async fn forget_domain(&self, _: &str) -> std::result::Result<(), String> {
        Ok(())
    }
}

const NOW: i64 = 1_800_000_000;

fn begin() -> Timestamp {
    at(period_begin("web-dev", at(NOW)))
}

fn later(hours: i64) -> Timestamp {
    at(begin().as_second() + hours * 3600)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

#[tokio::test]
async fn a_pull_secret_is_made_repaired_renewed_and_otherwise_left_alone() {
    let files = tempfile::tempdir().expect("a temporary directory");
    let pull = PullCredentials::open(&files.path().join("key"), vec!["registry.test:6443".to_owned()]);
    let (pull, world) = (Arc::new(pull.expect("a key")), world(organisations(&[])));
    let server = Server::default();
    let account = json!({
        "metadata": {"name": "default", "namespace": "web-dev", "resourceVersion": "1"},
        "imagePullSecrets": [{"name": "quay"}],
    });
    server.0.lock().expect("no panic").objects.insert(ACCOUNT.to_owned(), account);
    let (post, put, delete) =
        (format!("POST {SECRETS}"), format!("PUT {SECRET}"), format!("DELETE {SECRET}"));
    let patch = format!("PATCH {ACCOUNT}");

    assert_eq!(server.reconciled(&world, &pull, begin).await, [post.clone(), patch.clone()]);
    let made = server.object(SECRET).expect("a secret");
    let names = &server.object(ACCOUNT).expect("an account")["imagePullSecrets"];
    assert_eq!(*names, json!([{"name": "quay"}, {"name": "gantry-registry"}]));
    assert!(server.reconciled(&world, &pull, || later(11)).await.is_empty(), "a restart writes nothing");

    type Edit = fn(&mut Value);
    let edits: [(Edit, &[String]); 4] = [
        (|secret| secret["data"] = json!({".dockerconfigjson": "e30="}), std::slice::from_ref(&put)),
        (|secret| drop(secret["metadata"]["labels"].take()), std::slice::from_ref(&put)),
        (|secret| secret["type"] = "Opaque".into(), &[put.clone(), delete.clone(), post.clone()]),
        (|secret| secret["immutable"] = true.into(), &[put.clone(), delete.clone(), post.clone()]),
    ];
    for (edit, writes) in edits {
        server.edit(SECRET, edit);
        let edited = server.object(SECRET);
        assert_eq!(server.reconciled(&world, &pull, || later(11)).await, writes, "{edited:?}");
        let repaired = server.object(SECRET).expect("a secret");
        assert_eq!((&repaired["data"], &repaired["type"]), (&made["data"], &made["type"]), "{edited:?}");
    }
    server.0.lock().expect("no panic").objects.remove(SECRET);
    assert_eq!(server.reconciled(&world, &pull, || later(11)).await, std::slice::from_ref(&post), "deleted");
    server.edit(ACCOUNT, |account| drop(account["imagePullSecrets"].take()));
    assert_eq!(server.reconciled(&world, &pull, || later(11)).await, [patch]);

    // Twelve hours before the first one ends.
    assert_eq!(server.reconciled(&world, &pull, || later(12)).await, std::slice::from_ref(&put), "renewed");
    let renewed = server.object(SECRET).expect("a secret");
    assert_ne!(renewed["data"], made["data"]);
    assert!(server.reconciled(&world, &pull, || later(13)).await.is_empty(), "once");

    // No environment of the project any more: whoever has a copy has nothing, and nobody gets another.
    let mut state = organisations(&[]);
    change::<Project>(&mut state, "web", |project| project.spec.environments.clear());
    let namespaces = world.namespaces.clone();
    let world = crate::tenancy::tests::world_of(state, namespaces);
    assert_eq!(server.reconciled(&world, &pull, || later(13)).await, [delete]);
}
