//! Calls through the real handlers, over an API that stores what it is given and shows it in the directory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use gantry_identity_api::{
    ApplicationCredential, Domain, Group, IdentityProvider, KeystoneRecord, Project, Role, RoleAssignment,
    RoleAssignmentSpec, Trust, User,
};
use gantry_kube_types::{
    Admission, AdmissionAttributes, AdmissionOperation, AdmissionOutcome, AdmissionPhase, OutcomeListener,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::router;
use crate::admission::DisabledTokens;
use crate::core::{Config, Core, Settings};
use crate::directory::tests::{fill, forget, show};
use crate::directory::{Directory, State, Stored};
use crate::password::{HashCost, HasherSettings};
use crate::token::{NewToken, TokenScope};

/// A component with these objects, and nobody else in the world.
pub(crate) struct Platform {
    pub(crate) core: Arc<Core>,
    router: axum::Router,
    _files: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// Null where it is no JSON.
    pub(crate) body: Value,
}

impl Said {
    pub(crate) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

impl Platform {
    pub(crate) fn of(state: State) -> Self {
        Self::with(state, |_| {})
    }

    /// With other settings.
    pub(crate) fn with(state: State, set: impl FnOnce(&mut Settings)) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let cost = HashCost { memory_kib: 64, iterations: 1, parallelism: 1 };
        let hashing = HasherSettings { cost, workers: Some(1), ..HasherSettings::default() };
        let mut settings = Settings { hashing, ..Settings::default() };
        set(&mut settings);
        let config = Config {
            data: files.path().join("data"),
            keys: files.path().join("keys"),
            external_url: "https://gantry.test".to_owned(),
            registry_hosts: vec!["gantry.test".to_owned()],
            settings,
        };
        let core = Arc::new(Core::open(config).expect("a component"));
        fill(&core.directory, state.clone());
        core.objects.connect(stored(&core, &state));
        let router = router(core.clone());
        Self { core, router, _files: files }
    }

    /// A token that the user got by a password.
    pub(crate) fn token(&self, user: &str, scope: TokenScope) -> String {
        self.made(NewToken { scope, ..self.new_token(user) })
    }

    pub(crate) fn made(&self, new: NewToken) -> String {
        self.core.tokens.issue(new, Timestamp::now()).expect("issued").token
    }

    pub(crate) fn new_token(&self, user: &str) -> NewToken {
        let domain = self.core.directory.read().users.get(user).expect("a user").spec.domain.clone();
        NewToken {
            user: user.to_owned(),
            user_domain: domain,
            authenticated_at: Timestamp::now(),
            methods: vec!["password".to_owned()],
            ..NewToken::default()
        }
    }

    /// `what` is `METHOD /path below /identity/v3`.
    pub(crate) async fn call(&self, token: &str, what: &str, body: Value) -> Said {
        self.call_with(token, what, body, &[]).await
    }

    pub(crate) async fn call_with(
        &self,
        token: &str,
        what: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Said {
        let (method, path) = what.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(format!("/identity/v3{path}"));
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = request.body(body).expect("a request");
        self.send(request).await
    }

    /// The answer as it goes out.
    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.expect("an answer")
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Said {
        let response = self.answer(request).await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Said {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }
}

type Objects = Arc<Mutex<(u64, BTreeMap<String, Value>)>>;

/// A client of an API that keeps objects by their paths.
fn stored(core: &Arc<Core>, state: &State) -> kube::Client {
    let mut all = BTreeMap::new();
    let path =
        |plural: &str, id: &str| format!("/apis/{}/v1alpha1/{plural}/{id}", gantry_identity_api::GROUP);
    macro_rules! keep {
        ($($plural:literal: $table:ident),*) => {$(
            for object in state.$table.iter() {
                let id = object.metadata.name.clone().unwrap_or_default();
                all.insert(path($plural, &id), serde_json::to_value(&**object).expect("JSON"));
            }
        )*};
    }
    keep!(
        "domains": domains, "projects": projects, "users": users, "groups": groups, "roles": roles,
        "applicationcredentials": application_credentials, "identityproviders": providers, "trusts": trusts,
        "keystonerecords": records
    );
    for assignment in state.assignments.iter() {
        // Only deleted: the directory has what it says.
        let object = RoleAssignment::new(&assignment.id, RoleAssignmentSpec::default());
        all.insert(path("roleassignments", &assignment.id), serde_json::to_value(object).expect("JSON"));
    }
    // The core holds the client.
    let (objects, core): (Objects, _) = (Arc::new(Mutex::new((1, all))), Arc::downgrade(core));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (objects, core) = (objects.clone(), core.upgrade());
        async move {
            let core = core.ok_or("the platform is gone")?;
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
            let path = head.uri.path();
            let admitted = admit(&core, &objects, head.method.as_str(), path, &body).await;
            let (status, object) = answer(&objects, &core.directory, head.method.as_str(), path, &body);
            let written =
                if status.is_success() { AdmissionOutcome::Written } else { AdmissionOutcome::Abandoned };
            admitted.into_iter().for_each(|listener| listener(written));
            let response = Response::builder().status(status).header("content-type", "application/json");
            response.body(Body::from(object.to_string())).map_err(|e| e.to_string())
        }
    });
    kube::Client::new(service, "default")
}

/// What a replacement is admitted by that is more than a refusal.
async fn admit(
    core: &Arc<Core>,
    objects: &Objects,
    method: &str,
    path: &str,
    body: &[u8],
) -> Vec<OutcomeListener> {
    let old = objects.lock().expect("no panic").1.get(path).cloned();
    let (Some(old), "PUT") = (old, method) else { return Vec::new() };
    let user = crate::component::own_user();
    let mut words = path.split('/').skip(4);
    let mut attributes = AdmissionAttributes {
        phase: AdmissionPhase::Validate,
        user: &user,
        operation: AdmissionOperation::Update,
        group: gantry_identity_api::GROUP,
        version: "v1alpha1",
        resource: words.next().unwrap_or_default(),
        kind: "",
        subresource: "",
        namespace: "",
        name: words.next().unwrap_or_default(),
        object: Cow::Owned(serde_json::from_slice(body).expect("an object")),
        old_object: Some(&old),
        dry_run: false,
        warnings: Vec::new(),
        audit_annotations: Vec::new(),
        outcome_listeners: Vec::new(),
    };
    DisabledTokens::new(core.clone()).review(&mut attributes).await.expect("admitted");
    attributes.outcome_listeners
}

fn answer(
    objects: &Objects,
    directory: &Directory,
    method: &str,
    path: &str,
    body: &[u8],
) -> (StatusCode, Value) {
    let mut objects = objects.lock().expect("no panic");
    let refused = |code: u16| {
        let status =
            json!({"kind": "Status", "status": "Failure", "code": code, "message": "", "reason": ""});
        (StatusCode::from_u16(code).expect("a code"), status)
    };
    let plural = path.split('/').nth(4).unwrap_or_default().to_owned();
    let key = path.trim_end_matches("/status").to_owned();
    match method {
        "GET" => objects.1.get(&key).map_or_else(|| refused(404), |found| (StatusCode::OK, found.clone())),
        "DELETE" => match objects.1.remove(&key) {
            None => refused(404),
            Some(gone) => {
                let id = gone["metadata"]["name"].as_str().unwrap_or_default();
                each(&plural, directory, id, None);
                (StatusCode::OK, gone.clone())
            }
        },
        _ => {
            let given: Value = serde_json::from_slice(body).expect("an object");
            let id =
                given["metadata"]["name"].as_str().or(key.rsplit('/').next()).unwrap_or_default().to_owned();
            let key = if method == "POST" { format!("{key}/{id}") } else { key };
            let mut object = match (method, objects.1.get(&key)) {
                ("POST", Some(_)) => return refused(409),
                ("POST", None) => given,
                (_, None) => return refused(404),
                (_, Some(found)) => merged(path, method, found.clone(), given),
            };
            objects.0 += 1;
            object["metadata"]["resourceVersion"] = json!(objects.0.to_string());
            objects.1.insert(key, object.clone());
            each(&plural, directory, &id, Some(&object));
            (StatusCode::OK, object)
        }
    }
}

/// A replacement is the new object, a patch of a status its members.
fn merged(path: &str, method: &str, mut found: Value, given: Value) -> Value {
    if method == "PUT" && !path.ends_with("/status") {
        return given;
    }
    let Some(Value::Object(status)) = given.get("status").cloned() else { return found };
    if !found["status"].is_object() {
        found["status"] = json!({});
    }
    for (name, value) in status {
        found["status"][name] = value;
    }
    found
}

fn each(plural: &str, directory: &Directory, id: &str, object: Option<&Value>) {
    fn of<K: Stored>(directory: &Directory, id: &str, object: Option<&Value>) {
        match object {
            Some(object) => show(directory, serde_json::from_value::<K>(object.clone()).expect("a kind")),
            None => forget::<K>(directory, id),
        }
    }
    match plural {
        "domains" => of::<Domain>(directory, id, object),
        "projects" => of::<Project>(directory, id, object),
        "users" => of::<User>(directory, id, object),
        "groups" => of::<Group>(directory, id, object),
        "roles" => of::<Role>(directory, id, object),
        "roleassignments" => of::<RoleAssignment>(directory, id, object),
        "applicationcredentials" => of::<ApplicationCredential>(directory, id, object),
        "identityproviders" => of::<IdentityProvider>(directory, id, object),
        "trusts" => of::<Trust>(directory, id, object),
        "keystonerecords" => of::<KeystoneRecord>(directory, id, object),
        other => panic!("no kind {other}"),
    }
}
