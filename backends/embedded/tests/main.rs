//! The engine behind a front door, with a component at its seams: what controllers, quotas, filtered
//! lists and reviews do together.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_base::health::HealthBoard;
use gantry_base::tasks::Tasks;
use gantry_embedded::{Embedded, EmbeddedConfig, Seams};
use gantry_frontdoor::FrontDoor;
use gantry_kube_types::{
    Admission, AdmissionAttributes, AdmissionPhase, Attributes, Authenticator, Authorizer, ConnectionInfo,
    Decision, StatusError, UserInfo, groups,
};
use http::HeaderMap;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ResourceQuota};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Status;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const WITHIN: Duration = Duration::from_secs(30);

/// Labels ConfigMaps and refuses one name.
struct Component;

#[async_trait::async_trait]
impl Admission for Component {
    fn name(&self) -> &'static str {
        "Component"
    }

    async fn review(&self, request: &mut AdmissionAttributes<'_>) -> Result<(), StatusError> {
        if !request.is("", "configmaps") || request.object.is_null() {
            return Ok(());
        }
        match request.phase {
            AdmissionPhase::Mutate => {
                request.object_mut()["metadata"]["labels"]["seen"] = "yes".into();
                Ok(())
            }
            AdmissionPhase::Validate if request.name == "bad" => Err(request.forbidden("not this name")),
            AdmissionPhase::Validate => Ok(()),
        }
    }
}

/// Knows one token, whose user is narrowed to one namespace.
struct OneToken;

#[async_trait::async_trait]
impl Authenticator for OneToken {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        _connection: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let given = headers.get("authorization").and_then(|value| value.to_str().ok());
        Ok((given == Some("Bearer narrow")).then(narrow))
    }
}

fn narrow() -> UserInfo {
    let mut user = UserInfo::authenticated("acme/alice", &[]);
    user.extra.insert("only".to_owned(), vec!["one".to_owned()]);
    user
}

struct Narrowed(Arc<dyn Authorizer>);

impl Authorizer for Narrowed {
    fn authorize(&self, asked: &Attributes) -> Decision {
        match asked.user.extra.get("only").and_then(|only| only.first()) {
            Some(only) if asked.is_resource_request && *only != asked.namespace => {
                Decision::NoOpinion("the token is for another namespace".to_owned())
            }
            _ => self.0.authorize(asked),
        }
    }
}

struct Engine {
    embedded: Embedded,
    door: FrontDoor,
    tasks: Tasks,
}

impl Engine {
    async fn start(directory: &Path) -> Self {
        let tasks = Tasks::new(CancellationToken::new(), HealthBoard::default());
        // The composition root makes its directories.
        std::fs::create_dir_all(directory.join("keys")).expect("a directory");
        let config = EmbeddedConfig {
            data: directory.to_owned(),
            keys: directory.join("keys"),
            service_cidr: "10.96.0.0/16".parse().expect("a range"),
            cluster_domain: "cluster.local".to_owned(),
            external_url: "https://127.0.0.1:6443".to_owned(),
            root_ca_pem: "-".to_owned(),
            tasks: tasks.clone(),
        };
        let seams = Seams {
            admission: vec![Arc::new(Component)],
            authenticators: vec![Arc::new(OneToken)],
            wrap_authorizer: Some(Box::new(|inner| Arc::new(Narrowed(inner)))),
            ..Seams::default()
        };
        let embedded = Embedded::open_with(config, seams).await.expect("opens");
        let door = FrontDoor::builder().authorizer(embedded.authorizer()).fallback(embedded.router()).build();
        embedded.start_loops(&door, [10, 96, 0, 1].into(), None).await.expect("starts");
        Self { embedded, door, tasks }
    }

    fn client(&self, user: UserInfo) -> kube::Client {
        kube::Client::new(self.door.connect_as(user), "default")
    }

    fn root(&self) -> kube::Client {
        self.client(UserInfo::authenticated("root", &[groups::MASTERS]))
    }

    async fn stop(self) {
        assert!(self.tasks.drain(WITHIN).await, "every loop ends");
        self.embedded.close().await;
    }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of this kind")
}

async fn eventually<T, F: Future<Output = Result<T, String>>>(check: impl Fn() -> F) -> T {
    let ends = Instant::now() + WITHIN;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < ends, "not within {WITHIN:?}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn used(quotas: &Api<ResourceQuota>, wanted: Value) {
    eventually(|| async {
        let quota = quotas.get("q").await.map_err(|error| error.to_string())?;
        let used = serde_json::to_value(quota.status.and_then(|status| status.used)).unwrap_or_default();
        if used == wanted { Ok(()) } else { Err(format!("{used} is not {wanted}")) }
    })
    .await;
}

fn refusal<T: std::fmt::Debug>(result: kube::Result<T>) -> Box<Status> {
    match result {
        Err(kube::Error::Api(status)) => status,
        other => panic!("not refused: {other:?}"),
    }
}

fn pod(name: &str) -> Pod {
    object(json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]}}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quotas_status_is_true_after_deletions_ends_and_restarts() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = Engine::start(directory.path()).await;
    let post = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(engine.root());
    namespaces.create(&post, &object(json!({"metadata": {"name": "team"}}))).await.expect("made");
    let hard = json!({"pods": "2", "requests.cpu": "1", "configmaps": "5", "count/deployments.apps": "3"});
    let quotas: Api<ResourceQuota> = Api::namespaced(engine.root(), "team");
    let quota = object(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}));
    quotas.create(&post, &quota).await.expect("made");
    // The namespace has its kube-root-ca.crt.
    used(
        &quotas,
        json!({"pods": "0", "requests.cpu": "0", "configmaps": "1", "count/deployments.apps": "0"}),
    )
    .await;
    let pods: Api<Pod> = Api::namespaced(engine.root(), "team");
    eventually(|| async { pods.create(&post, &pod("a")).await.map_err(|error| error.to_string()) }).await;
    pods.create(&post, &pod("b")).await.expect("made");
    used(
        &quotas,
        json!({"pods": "2", "requests.cpu": "200m", "configmaps": "1", "count/deployments.apps": "0"}),
    )
    .await;
    let full = refusal(pods.create(&post, &pod("c")).await);
    assert_eq!(
        full.message,
        "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
    );
    let ended = Patch::Merge(json!({"status": {"phase": "Failed"}}));
    pods.patch_status("a", &PatchParams::default(), &ended).await.expect("patched");
    pods.delete("b", &DeleteParams::default()).await.expect("deleted");
    let maps: Api<ConfigMap> = Api::namespaced(engine.root(), "team");
    maps.create(&post, &object(json!({"metadata": {"name": "m"}}))).await.expect("made");
    used(
        &quotas,
        json!({"pods": "0", "requests.cpu": "0", "configmaps": "2", "count/deployments.apps": "0"}),
    )
    .await;
    engine.stop().await;

    // What nobody writes while the controller is away is found when it comes back.
    let engine = Engine::start(directory.path()).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(engine.root(), "team");
    let wrong = Patch::Merge(json!({"status": {"used": {"pods": "7", "configmaps": "0"}}}));
    quotas.patch_status("q", &PatchParams::default(), &wrong).await.expect("patched");
    used(
        &quotas,
        json!({"pods": "0", "requests.cpu": "0", "configmaps": "2", "count/deployments.apps": "0"}),
    )
    .await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_admit_authenticate_and_narrow() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = Engine::start(directory.path()).await;
    let post = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(engine.root());
    for name in ["one", "two", "three"] {
        namespaces.create(&post, &object(json!({"metadata": {"name": name}}))).await.expect("made");
    }
    let maps: Api<ConfigMap> = Api::namespaced(engine.root(), "one");
    let made = maps.create(&post, &object(json!({"metadata": {"name": "good"}}))).await.expect("made");
    assert_eq!(made.metadata.labels.and_then(|labels| labels.get("seen").cloned()).as_deref(), Some("yes"));
    let bad = refusal(maps.create(&post, &object(json!({"metadata": {"name": "bad"}}))).await);
    assert_eq!(bad.message, "configmaps \"bad\" is forbidden: not this name");

    let group = "rbac.authorization.k8s.io";
    for namespace in ["one", "two"] {
        let path = format!("/apis/{group}/v1/namespaces/{namespace}/rolebindings");
        let binding = json!({
            "metadata": {"name": "alice"}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "admin"},
            "subjects": [{"kind": "User", "apiGroup": group, "name": "acme/alice"}],
        });
        let request = http::Request::post(path).body(binding.to_string().into_bytes()).expect("a request");
        engine.root().request::<Value>(request).await.expect("bound");
    }
    let names = async |user: UserInfo| {
        let list =
            Api::<Namespace>::all(engine.client(user)).list(&ListParams::default()).await.expect("a list");
        list.items.into_iter().filter_map(|namespace| namespace.metadata.name).collect::<Vec<_>>()
    };
    assert_eq!(names(UserInfo::authenticated("acme/alice", &[])).await, ["one", "two"]);
    let secret =
        |namespace: &str| json!({"verb": "get", "resource": "secrets", "namespace": namespace, "name": "s"});
    let may = async |user: UserInfo, namespace: &str| {
        let review = json!({"spec": {"resourceAttributes": secret(namespace)}});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let request = http::Request::post(path).body(review.to_string().into_bytes()).expect("a request");
        let answer: Value = engine.client(user).request(request).await.expect("answered");
        answer["status"]["allowed"] == true
    };
    let whole = || UserInfo::authenticated("acme/alice", &[]);
    assert!(may(whole(), "one").await && may(whole(), "two").await && !may(whole(), "three").await);
    // The token asks about itself, so it must be let to the review: reviews are outside of namespaces.
    let review = json!({"spec": {"token": "narrow"}});
    let request = http::Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
        .body(review.to_string().into_bytes())
        .expect("a request");
    let answer: Value = engine.root().request(request).await.expect("answered");
    assert_eq!(answer["status"]["user"]["username"], "acme/alice", "{answer}");
    let narrowed = Api::<ConfigMap>::namespaced(engine.client(narrow()), "two");
    assert_eq!(refusal(narrowed.list(&ListParams::default()).await).code, 403);
    let inside = Api::<ConfigMap>::namespaced(engine.client(narrow()), "one");
    assert!(inside.list(&ListParams::default()).await.is_ok());
    engine.stop().await;
}
