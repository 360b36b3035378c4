//! Lists of namespaces and of a component's kind by users who may not list everything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt as _;
use gantry_apiserver::authz::RbacAuthorizer;
use gantry_apiserver::{ApiServer, Config, GIT_VERSION, ViewAuthorizer, Views, kinds};
use gantry_kube_types::{Attributes, Authorizer, RequestInfo, UserInfo, Visibility};
use gantry_store::{Options, Store};
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt as _;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A component's opinion that tests can change.
#[derive(Default)]
struct Shown {
    names: Mutex<Vec<&'static str>>,
    hidden: Mutex<Vec<&'static str>>,
    generation: AtomicU64,
    notify: Notify,
}

impl Shown {
    fn set(&self, names: &[&'static str], hidden: &[&'static str]) {
        *self.names.lock().expect("no panic") = names.to_vec();
        *self.hidden.lock().expect("no panic") = hidden.to_vec();
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.notify.notify_waiters();
    }
}

#[async_trait::async_trait]
impl Visibility for Shown {
    fn resources(&self) -> Vec<(String, String)> {
        vec![("scheduling.k8s.io".to_owned(), "priorityclasses".to_owned())]
    }

    fn visible(&self, user: &UserInfo, group: &str, _resource: &str, name: &str) -> bool {
        group == "scheduling.k8s.io"
            && user.username == "alice"
            && self.names.lock().expect("no panic").contains(&name)
    }

    fn hides(&self, _user: &UserInfo, _group: &str, _resource: &str, name: &str) -> bool {
        self.hidden.lock().expect("no panic").contains(&name)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    async fn changed(&self, seen: u64) {
        loop {
            let notified = self.notify.notified();
            if self.generation() != seen {
                return;
            }
            notified.await;
        }
    }
}

struct World {
    router: axum::Router,
    authorizer: ViewAuthorizer,
    shown: Arc<Shown>,
    views: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.views.abort();
    }
}

impl World {
    async fn new() -> Self {
        let store = Store::memory(Options::default()).expect("a store in memory");
        let rbac = Arc::new(RbacAuthorizer::new(store.clone()));
        let shown = Arc::new(Shown::default());
        let views = Views::new(store.clone(), rbac.clone(), vec![rbac, shown.clone()]);
        let config = Config {
            kinds: kinds::builtin(),
            admission: Vec::new(),
            extensions: Vec::new(),
            beside: Vec::new(),
            nodes: None,
            views: Some(views.clone()),
            git_version: GIT_VERSION.to_owned(),
        };
        let world = Self {
            router: ApiServer::new(store, config).router(),
            authorizer: ViewAuthorizer::new(views.clone()),
            shown,
            views: tokio::spawn(gantry_apiserver::run_views(views)),
        };
        for name in ["a", "b", "c"] {
            world
                .make("/api/v1/namespaces", json!({"metadata": {"name": name, "labels": {"is": name}}}))
                .await;
            let class = json!({"metadata": {"name": format!("class-{name}")}, "value": 1});
            world.make("/apis/scheduling.k8s.io/v1/priorityclasses", class).await;
        }
        world
    }

    /// As the front door does it: 403 where the authoriser says no.
    async fn ask(&self, user: &UserInfo, method: &str, path: &str, body: Value) -> http::Response<Body> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let mut request =
            Request::builder().method(method).uri(path).body(Body::from(text)).expect("a request");
        let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
        if !self.authorizer.authorize(&Attributes::of(user, &info)).is_allowed() {
            return http::Response::builder().status(403).body(Body::empty()).expect("an answer");
        }
        request.extensions_mut().insert(info);
        request.extensions_mut().insert(user.clone());
        self.router.clone().oneshot(request).await.expect("the router never fails")
    }

    async fn send(&self, user: &UserInfo, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (head, body) = self.ask(user, method, path, body).await.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        (head.status.as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn make(&self, path: &str, body: Value) {
        let (code, body) = self.send(&root(), "POST", path, body).await;
        assert_eq!(code, 201, "{body}");
    }

    async fn remove(&self, path: &str) {
        let (code, body) = self.send(&root(), "DELETE", path, Value::Null).await;
        assert_eq!(code, 200, "{body}");
    }

    async fn names(&self, user: &UserInfo, path: &str) -> Vec<String> {
        let (code, list) = self.send(user, "GET", path, Value::Null).await;
        assert_eq!(code, 200, "{path}: {list}");
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().filter_map(|i| i["metadata"]["name"].as_str().map(str::to_owned)).collect()
    }

    async fn bind(&self, namespace: &str, name: &str, kind: &str, who: &str) {
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "nothing"},
            "subjects": [{"kind": kind, "apiGroup": group, "name": who}],
        });
        self.make(&format!("{RBAC}/namespaces/{namespace}/rolebindings"), binding).await;
    }
}

fn root() -> UserInfo {
    UserInfo::authenticated("root", &["system:masters"])
}

/// The events of one watch as `TYPE name`.
struct Events {
    stream: axum::body::BodyDataStream,
    text: String,
}

impl Events {
    async fn next(&mut self) -> String {
        let event = tokio::time::timeout(Duration::from_secs(10), self.read()).await.expect("an event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        format!("{} {name}", event["type"].as_str().unwrap_or_default())
    }

    async fn read(&mut self) -> Value {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let event = serde_json::from_str(line).expect("an event");
                self.text = rest.to_owned();
                return event;
            }
            let more = self.stream.next().await.expect("the watch goes on").expect("bytes");
            self.text.push_str(std::str::from_utf8(&more).expect("text"));
        }
    }
}

impl World {
    async fn watch(&self, user: &UserInfo, path: &str) -> Events {
        let answer = self.ask(user, "GET", path, Value::Null).await;
        assert_eq!(answer.status(), 200, "{path}");
        Events { stream: answer.into_body().into_data_stream(), text: String::new() }
    }
}

#[tokio::test]
async fn a_list_shows_what_is_theirs() {
    let world = World::new().await;
    let alice = UserInfo::authenticated("alice", &["devs"]);
    let all = "/api/v1/namespaces";
    assert_eq!(world.names(&alice, all).await, [""; 0]);
    world.bind("a", "one", "User", "alice").await;
    world.bind("b", "two", "Group", "devs").await;
    world.bind("c", "three", "User", "bob").await;
    assert_eq!(world.names(&alice, all).await, ["a", "b"]);
    assert_eq!(world.names(&alice, &format!("{all}?labelSelector=is%3Db")).await, ["b"]);
    assert_eq!(world.names(&alice, &format!("{all}?fieldSelector=metadata.name%3Dc")).await, [""; 0]);
    assert_eq!(world.names(&root(), all).await, ["a", "b", "c"]);
    let (_, page) = world.send(&alice, "GET", &format!("{all}?limit=1"), Value::Null).await;
    assert_eq!(page["metadata"].get("remainingItemCount"), None, "nothing is said of what is hidden");
    let next = page["metadata"]["continue"].as_str().expect("another page");
    assert_eq!(world.names(&alice, &format!("{all}?limit=1&continue={next}")).await, ["b"]);
    // Beyond reading what is theirs, nothing is opened.
    let anonymous = UserInfo::anonymous();
    for (user, method, path, code) in [
        (&alice, "GET", "/api/v1/namespaces/a", 200),
        (&alice, "GET", "/api/v1/namespaces/c", 403),
        (&alice, "GET", "/api/v1/namespaces/a/status", 403),
        (&alice, "GET", "/api/v1/namespaces/a/secrets", 403),
        (&alice, "GET", "/api/v1/secrets", 403),
        (&alice, "GET", "/api/v1/nodes", 403),
        (&alice, "DELETE", "/api/v1/namespaces/a", 403),
        (&alice, "DELETE", "/api/v1/namespaces", 403),
        (&alice, "PUT", "/api/v1/namespaces/a", 403),
        (&alice, "POST", "/api/v1/namespaces", 403),
        (&anonymous, "GET", "/api/v1/namespaces", 403),
    ] {
        let (found, body) = world.send(user, method, path, Value::Null).await;
        assert_eq!(found, code, "{method} {path}: {body}");
    }
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    world.shown.set(&["class-b"], &[]);
    assert_eq!(world.names(&alice, classes).await, ["class-b"]);
    assert_eq!(world.names(&UserInfo::authenticated("bob", &[]), classes).await, [""; 0]);
    world.shown.set(&["class-b"], &["class-b", "a"]);
    assert_eq!(world.names(&alice, classes).await, [""; 0]);
    assert_eq!(
        world.names(&alice, all).await,
        ["b"],
        "a narrower credential hides what the user is bound in"
    );
}

/// Whoever remembers a decision asks whether it may have changed.
#[tokio::test]
async fn decisions_are_of_another_version_when_rights_or_what_is_shown_change() {
    let world = World::new().await;
    let alice = UserInfo::authenticated("alice", &[]);
    let version = || world.authorizer.decisions_version(&alice).expect("all that is asked has versions");
    let mut versions = vec![version()];
    assert_eq!(versions, [version()]);
    world.bind("a", "one", "User", "alice").await;
    versions.push(version());
    world.shown.set(&["class-b"], &[]);
    versions.push(version());
    world.shown.set(&[], &["class-b"]);
    versions.push(version());
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
}

#[tokio::test]
async fn a_right_to_get_or_list_shows_too() {
    let world = World::new().await;
    let group = "rbac.authorization.k8s.io";
    let role = |name: &str, verb: &str, names: Value| {
        json!({"metadata": {"name": name}, "rules": [{"verbs": [verb], "apiGroups": [""],
            "resources": ["namespaces"], "resourceNames": names}]})
    };
    let bind = |name: &str, who: &str| {
        json!({
            "metadata": {"name": name}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "apiGroup": group, "name": who}],
        })
    };
    for (role, binding) in [
        (role("one", "get", json!(["c"])), bind("one", "carol")),
        (role("every", "list", json!([])), bind("every", "auditor")),
    ] {
        world.make(&format!("{RBAC}/clusterroles"), role).await;
        world.make(&format!("{RBAC}/clusterrolebindings"), binding).await;
    }
    let (carol, auditor) = (UserInfo::authenticated("carol", &[]), UserInfo::authenticated("auditor", &[]));
    assert_eq!(world.names(&carol, "/api/v1/namespaces").await, ["c"]);
    assert_eq!(world.names(&auditor, "/api/v1/namespaces").await, ["a", "b", "c"]);
    // A watch that was whole becomes a part when the right goes, and whole again.
    let mut events = world.watch(&auditor, "/api/v1/namespaces?watch=1").await;
    // The verb `watch` is not granted: nothing is visible but by `get`.
    world.bind("b", "b", "User", "auditor").await;
    assert_eq!(events.next().await, "ADDED b");
}

#[tokio::test]
async fn a_watch_follows_rights() {
    let world = World::new().await;
    let alice = UserInfo::authenticated("alice", &["devs"]);
    world.bind("a", "one", "User", "alice").await;
    let mut events = world.watch(&alice, "/api/v1/namespaces?watch=1").await;
    assert_eq!(events.next().await, "ADDED a");
    world.bind("b", "two", "Group", "devs").await;
    assert_eq!(events.next().await, "ADDED b");
    let patch = json!({"metadata": {"name": "b", "labels": {"is": "changed"}}});
    for name in ["c", "b"] {
        let mut object = patch.clone();
        object["metadata"]["name"] = name.into();
        assert_eq!(world.send(&root(), "PUT", &format!("/api/v1/namespaces/{name}"), object).await.0, 200);
    }
    assert_eq!(events.next().await, "MODIFIED b", "nothing is heard of c");
    world.remove(&format!("{RBAC}/namespaces/a/rolebindings/one")).await;
    assert_eq!(events.next().await, "DELETED a");
    world.bind("a", "again", "User", "alice").await;
    assert_eq!(events.next().await, "ADDED a");
    world.shown.set(&[], &["b"]);
    assert_eq!(events.next().await, "DELETED b");
    world.shown.set(&[], &[]);
    assert_eq!(events.next().await, "ADDED b");
}

#[tokio::test]
async fn a_watch_goes_on_only_where_the_list_is_still_true() {
    let world = World::new().await;
    let alice = UserInfo::authenticated("alice", &[]);
    world.bind("a", "one", "User", "alice").await;
    let (_, list) = world.send(&alice, "GET", "/api/v1/namespaces", Value::Null).await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let path = format!("/api/v1/namespaces?watch=1&resourceVersion={version}");
    let mut events = world.watch(&alice, &path).await;
    let object = json!({"metadata": {"name": "a", "labels": {"is": "changed"}}});
    assert_eq!(world.send(&root(), "PUT", "/api/v1/namespaces/a", object).await.0, 200);
    assert_eq!(events.next().await, "MODIFIED a", "what the list showed is known");
    world.bind("b", "two", "User", "alice").await;
    assert_eq!(events.next().await, "ADDED b");
    let mut late = world.watch(&alice, &path).await;
    let error = late.read().await;
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(410)), "{error}");
}

#[tokio::test]
async fn a_watch_of_everything_becomes_one_of_a_part_and_whole_again() {
    let world = World::new().await;
    let group = "rbac.authorization.k8s.io";
    let auditor = UserInfo::authenticated("auditor", &[]);
    let role = json!({"metadata": {"name": "every"}, "rules": [
        {"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["namespaces"]}]});
    let every = json!({
        "metadata": {"name": "every"}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "every"},
        "subjects": [{"kind": "User", "apiGroup": group, "name": "auditor"}],
    });
    world.make(&format!("{RBAC}/clusterroles"), role).await;
    world.make(&format!("{RBAC}/clusterrolebindings"), every.clone()).await;
    world.bind("b", "one", "User", "auditor").await;
    let change = async |name: &str, what: &str| {
        let object = json!({"metadata": {"name": name, "labels": {"is": what}}});
        assert_eq!(world.send(&root(), "PUT", &format!("/api/v1/namespaces/{name}"), object).await.0, 200);
    };
    let mut events = world.watch(&auditor, "/api/v1/namespaces?watch=1").await;
    for shown in ["ADDED a", "ADDED b", "ADDED c"] {
        assert_eq!(events.next().await, shown);
    }
    change("c", "seen").await;
    assert_eq!(events.next().await, "MODIFIED c");
    world.remove(&format!("{RBAC}/clusterrolebindings/every")).await;
    assert_eq!(events.next().await, "DELETED a");
    assert_eq!(events.next().await, "DELETED c", "b is bound");
    change("c", "hidden").await;
    change("b", "seen").await;
    assert_eq!(events.next().await, "MODIFIED b");
    world.make(&format!("{RBAC}/clusterrolebindings"), every).await;
    assert_eq!(events.next().await, "ADDED a");
    assert_eq!(events.next().await, "ADDED c");
    change("c", "shown").await;
    assert_eq!(events.next().await, "MODIFIED c");
}
