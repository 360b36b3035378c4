use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use gantry_base::health::HealthBoard;
use gantry_base::tasks::Tasks;
use gantry_host::Capabilities;
use gantry_registry_api::{RepositorySpec, object_name};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;

const WAIT: Duration = Duration::from_secs(20);

/// An API server that keeps objects, lists them and tells of their deletions.
#[derive(Clone)]
struct Server(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

struct State {
    version: u64,
    /// By plural and name.
    objects: BTreeMap<(String, String), Value>,
    /// What was told of each plural, by version.
    told: Vec<(u64, String, String)>,
    watchers: Vec<(String, UnboundedSender<Result<String, std::io::Error>>)>,
    /// Deletions it does before it fails.
    deletes_left: usize,
    /// What a question about an owner is answered with, in place of the truth.
    owners_answer: Option<(u16, Value)>,
}

impl Server {
    fn with(objects: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let name = |object: &Value| object["metadata"]["name"].as_str().expect("a name").to_owned();
        let objects = objects.into_iter().map(|(kind, object)| ((kind.to_owned(), name(&object)), object));
        let state = State {
            version: 1,
            objects: objects.collect(),
            told: Vec::new(),
            watchers: Vec::new(),
            deletes_left: usize::MAX,
            owners_answer: None,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: watch::Sender::new(0) }))
    }

    /// Another one with the same objects.
    fn copy(&self) -> Self {
        let objects = self.state().objects.clone();
        let copy = Self::with([]);
        copy.state().objects = objects;
        copy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
                let (status, body) = server.answer(head.method.as_str(), &head.uri, &body);
                let response = Response::builder().status(status).header("content-type", "application/json");
                response.body(body).map_err(|error| error.to_string())
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &str, uri: &http::Uri, body: &[u8]) -> (StatusCode, Body) {
        let mut state = self.state();
        let mut parts = uri.path().split('/').skip(4).map(str::to_owned);
        let (plural, name) = (parts.next().expect("a kind"), parts.next());
        let query = uri.query().unwrap_or_default();
        let Some(name) = name else {
            return (
                StatusCode::OK,
                if query.contains("watch=") { state.watch(plural, query) } else { state.list(&plural) },
            );
        };
        let (code, answer) = match method {
            "GET" if state.owners_answer.is_some() => state.owners_answer.clone().expect("an answer"),
            "DELETE" if state.deletes_left == 0 => (500, failure(500, None)),
            _ => match state.objects.get(&(plural.clone(), name.clone())).cloned() {
                None => (404, failure(404, Some(&name))),
                Some(found) if method == "GET" => (200, found),
                Some(found) => {
                    let asked: Value = serde_json::from_slice(body).expect("options");
                    match asked["preconditions"]["uid"] == found["metadata"]["uid"] {
                        true => (200, state.remove(&plural, &name)),
                        false => (409, failure(409, Some(&name))),
                    }
                }
            },
        };
        drop(state);
        self.0.changed.send_modify(|changes| *changes += 1);
        (StatusCode::from_u16(code).expect("a code"), Body::from(answer.to_string()))
    }

    /// As if somebody had deleted it.
    fn lose(&self, plural: &str, name: &str) {
        self.state().remove(plural, name);
        self.0.changed.send_modify(|changes| *changes += 1);
    }

    fn repositories(&self) -> String {
        let state = self.state();
        let names = state.objects.keys().filter(|(plural, _)| plural == "repositories").map(|(_, name)| name);
        names.cloned().collect::<Vec<_>>().join(" ")
    }

    async fn until_repositories_are(&self, wanted: &str) {
        let mut changed = self.0.changed.subscribe();
        let there = changed.wait_for(|_| self.repositories() == wanted);
        let there = tokio::time::timeout(WAIT, there).await.map(|found| found.map(drop));
        assert!(there.is_ok(), "there are {:?}, and not {wanted:?}", self.repositories());
    }

    /// The catalogue and the cascade, as at a start of the registry.
    async fn start(&self) -> Tasks {
        let tasks = tasks();
        let host =
            Host { client: self.client(), tasks: tasks.clone(), capabilities: Capabilities::default() };
        let catalogue = Catalogue::default();
        let followed = catalogue.follow(&host).await;
        start(&host, &catalogue, &followed);
        tasks
    }

    /// A cascade that knows what repositories there are, and no owner.
    async fn cascade(&self, tasks: &Tasks) -> Cascade {
        let repositories = Informer::start(tasks, "repositories", Api::all(self.client()));
        repositories.synced().await;
        Cascade {
            client: self.client(),
            catalogue: Catalogue::default(),
            repositories,
            went: Went::default(),
        }
    }
}

impl State {
    fn list(&self, plural: &str) -> Body {
        let items = self.objects.iter().filter(|((of, _), _)| of == plural);
        let items: Vec<&Value> = items.map(|(_, object)| object).collect();
        let metadata = json!({ "resourceVersion": self.version.to_string() });
        Body::from(json!({ "kind": "List", "metadata": metadata, "items": items }).to_string())
    }

    fn watch(&mut self, plural: String, query: &str) -> Body {
        let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        let since: u64 = since.and_then(|text| text.parse().ok()).expect("a version");
        let (sender, receiver) = unbounded();
        for (_, _, line) in self.told.iter().filter(|(version, of, _)| *version > since && *of == plural) {
            sender.unbounded_send(Ok(line.clone())).expect("the receiver is here");
        }
        self.watchers.push((plural, sender));
        Body::from_stream(receiver)
    }

    fn remove(&mut self, plural: &str, name: &str) -> Value {
        let mut gone = self.objects.remove(&(plural.to_owned(), name.to_owned())).expect("an object");
        self.version += 1;
        self.deletes_left -= usize::from(plural == "repositories");
        gone["metadata"]["resourceVersion"] = self.version.to_string().into();
        let line = json!({ "type": "DELETED", "object": gone }).to_string() + "\n";
        self.told.push((self.version, plural.to_owned(), line.clone()));
        // Those of a process that ended do not listen any more.
        self.watchers.retain(|(of, sender)| of != plural || sender.unbounded_send(Ok(line.clone())).is_ok());
        gone
    }
}

fn tasks() -> Tasks {
    Tasks::new(Default::default(), HealthBoard::default())
}

fn failure(code: u16, name: Option<&str>) -> Value {
    let mut status =
        json!({ "kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "NotFound" });
    if let Some(name) = name {
        status["details"] = json!({ "name": name });
    }
    status
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let group = if kind == "Repository" { gantry_registry_api::GROUP } else { gantry_identity_api::GROUP };
    json!({
        "apiVersion": format!("{group}/v1alpha1"), "kind": kind, "spec": spec,
        "metadata": { "name": name, "uid": format!("uid-of-{name}"), "resourceVersion": "1" },
    })
}

fn repository(name: &str, owner: Owner) -> (&'static str, Value) {
    let spec = RepositorySpec { name: name.to_owned(), owner, ..RepositorySpec::default() };
    ("repositories", object("Repository", &object_name(name), &serde_json::to_value(spec).expect("JSON")))
}

/// Two projects of a domain, and a repository of everybody; two of `web`.
fn organisation() -> Server {
    Server::with([
        ("domains", object("Domain", "d1", &json!({ "name": "acme" }))),
        ("projects", object("Project", "web", &json!({ "domain": "d1" }))),
        ("projects", object("Project", "ops", &json!({ "domain": "d1" }))),
        repository("acme/base", Owner::of_domain("d1")),
        repository("acme/ops/tool", Owner::of_project("ops")),
        repository("acme/web/api", Owner::of_project("web")),
        // Also one whose name says something else: the owner decides.
        repository("demo/front", Owner::of_project("web")),
        repository("demo/hello", Owner::default()),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_go_with_their_project_and_domain_and_no_others() {
    let server = organisation();
    let _tasks = server.start().await;
    server.lose("projects", "web");
    server.until_repositories_are("acme.base acme.ops.tool demo.hello").await;
    server.lose("projects", "ops");
    server.until_repositories_are("acme.base demo.hello").await;
    server.lose("domains", "d1");
    server.until_repositories_are("demo.hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_in_the_middle_goes_at_the_next_start() {
    let server = organisation();
    server.state().deletes_left = 1;
    let tasks = server.start().await;
    server.lose("projects", "web");
    // One of the two went, and the process ends.
    let mut changed = server.0.changed.subscribe();
    let one = changed.wait_for(|_| server.state().deletes_left == 0);
    assert!(tokio::time::timeout(WAIT, one).await.is_ok(), "none went");
    tasks.shutdown().cancel();
    assert_eq!(server.repositories().split(' ').count(), 4, "{}", server.repositories());
    // Of its own, so that nothing of the process before has a hand in it.
    let server = server.copy();
    let _tasks = server.start().await;
    server.until_repositories_are("acme.base acme.ops.tool demo.hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_whose_owner_is_not_known_to_be_gone() {
    let all = organisation().repositories();
    let web = Owner::of_project("web");
    for (what, owner, answer, wanted) in [
        ("it is there, and only not seen yet", &web, None, Ok(Again::After(LOOK_AGAIN))),
        ("a domain that is there", &Owner::of_domain("d1"), None, Ok(Again::After(LOOK_AGAIN))),
        ("the kind is not served", &web, Some((404, failure(404, None))), Err(404)),
        ("another is not there", &web, Some((404, failure(404, Some("ops")))), Err(404)),
        ("it may not be asked", &web, Some((403, failure(403, Some("web")))), Err(403)),
        ("the server is out of order", &web, Some((500, failure(500, Some("web")))), Err(500)),
        ("the platform", &Owner::default(), None, Ok(Again::OnChange)),
    ] {
        let (server, tasks) = (organisation(), tasks());
        let cascade = server.cascade(&tasks).await;
        server.state().owners_answer = answer;
        let done = cascade.reconcile(owner).await.map_err(|error| match error {
            kube::Error::Api(status) => status.code,
            other => panic!("{what}: {other}"),
        });
        assert_eq!((done, server.repositories()), (wanted, all.clone()), "{what}");
    }
}

/// Also by somebody else, in another domain: ids can be chosen.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_id_of_one_who_went_gets_none_of_its_repositories() {
    let (server, tasks) = (organisation(), tasks());
    {
        let mut state = server.state();
        let made = [
            ("projects", "web", 10),
            ("repositories", "acme.web.api", 9),
            ("repositories", "demo.front", 11),
        ];
        for (kind, name, second) in made {
            let key = (kind.to_owned(), name.to_owned());
            state.objects.get_mut(&key).expect("an object")["metadata"]["creationTimestamp"] =
                format!("2026-01-01T00:00:{second:02}Z").into();
        }
    }
    let (cascade, web) = (server.cascade(&tasks).await, Owner::of_project("web"));
    // Nobody was seen to go: what is there is taken for what it says.
    cascade.reconcile(&web).await.expect("looked up");
    assert_eq!(server.repositories().split(' ').count(), 5);
    cascade.went.all().insert(web.clone());
    cascade.reconcile(&web).await.expect("deleted");
    assert_eq!(server.repositories(), "acme.base acme.ops.tool demo.front demo.hello");
    assert!(cascade.went.all().is_empty());
    let is_end = |old: Option<&str>, new: Option<&str>| {
        let of = |uid: Option<&str>| {
            let mut project = Project::new("web", gantry_identity_api::ProjectSpec::default());
            project.metadata.uid = Some(uid?.to_owned());
            Some(Arc::new(project))
        };
        Went::is_end(&Change { old: of(old), new: of(new) })
    };
    let seen = [(None, Some("a")), (Some("a"), Some("a")), (Some("a"), None), (Some("a"), Some("b"))];
    assert_eq!(seen.map(|(old, new)| is_end(old, new)), [false, false, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn again_changes_nothing() {
    let (server, tasks) = (organisation(), tasks());
    server.lose("projects", "web");
    let stale = server.cascade(&tasks).await;
    let key = ("repositories".to_owned(), "demo.front".to_owned());
    // Somebody made another one of the name: it is not the one that was seen.
    server.state().objects.get_mut(&key).expect("a repository")["metadata"]["uid"] = "another".into();
    for _ in 0..2 {
        let done = stale.reconcile(&Owner::of_project("web")).await;
        assert_eq!(done.expect("done"), Again::OnChange);
        assert_eq!(server.repositories(), "acme.base acme.ops.tool demo.front demo.hello");
    }
    // One that is on its way is left to its finalizer.
    server.state().objects.get_mut(&key).expect("a repository")["metadata"]["deletionTimestamp"] =
        "2026-01-01T00:00:00Z".into();
    server.state().deletes_left = 0;
    let seen = server.cascade(&tasks).await;
    assert_eq!(seen.reconcile(&Owner::of_project("web")).await.expect("nothing to do"), Again::OnChange);
}
