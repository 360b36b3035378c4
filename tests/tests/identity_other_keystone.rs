//! People of another Keystone (OpenStack's own) sign in with the passwords and tokens they have there, and keep their
//! roles for as long as they have them there.

use gantry_testkit::{Instance, Keystone, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::closed::Door;
use crate::people::Person;
use crate::support::{SOON, has_all, identity_object};

/// The organisation here whose people are those of the domain `acme` there.
fn organisation(url: &str) -> String {
    let provider = json!({
        "name": "other",
        "type": "keystone",
        "domain": "acme",
        "syncIntervalSeconds": 1,
        "secret": "default/other",
        "config": {
            "url": url,
            "account": { "user": "gantry" },
            "http": { "insecureHttp": true },
            "limits": { "cacheSecondsMax": 1 },
            "sync": { "keepRoles": true },
        },
    });
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "other", "namespace": "default" },
        "stringData": { "password": Keystone::SERVICE_PASSWORD },
    });
    let all = [
        secret,
        identity_object("Domain", "acme", json!({ "name": "acme" })),
        identity_object(
            "Project",
            "web",
            json!({ "name": "web", "domain": "acme", "environments": [{ "name": "dev" }] }),
        ),
        identity_object(
            "Project",
            "lab",
            json!({ "name": "lab", "domain": "acme", "environments": [{ "name": "dev" }] }),
        ),
        identity_object("IdentityProvider", "other", provider),
    ];
    all.map(|object| object.to_string()).join("\n")
}

#[test]
fn people_of_another_keystone_keep_their_passwords_tokens_and_roles() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let Some(keystone) = runtime.block_on(Keystone::start()) else { return };
    let (user, grant) = runtime.block_on(async {
        let domain = keystone.domain("acme").await;
        let user = keystone.user("alice", &domain, "pw of alice").await;
        let project = keystone.project("web", &domain).await;
        let grant = format!("/projects/{project}/users/{user}/roles/{}", keystone.role("member"));
        keystone.call("PUT", &grant, Value::Null).await;
        (user, grant)
    });
    gantry.apply(&organisation(&keystone.url));
    Person::known(&gantry, "acme/alice", "not hers").login(&gantry, &[]).fails();
    let alice = Person::known(&gantry, "acme/alice", "pw of alice");
    eventually("alice signs in with her password there", SOON, || alice.login(&gantry, &[]).succeeded());
    let works = |namespace: &str| alice.kubectl(&["get", "pods", "-n", namespace]).succeeded();
    eventually("her role came along", SOON, || works("web-dev"));
    assert!(!works("lab-dev"), "she has no role there");
    has_all(&alice.gantry(&["whoami"]).ok(), &["member in project acme/web"]);

    // A token from there is one from here, and a bad one is none.
    let door = Door::of(&gantry);
    let exchanged = |token: String| {
        let path = "/identity/v3/OS-FEDERATION/identity_providers/other/protocols/keystone/auth";
        let request = door.client.post(format!("{}{path}", door.base)).bearer_auth(token);
        runtime.block_on(async { request.send().await.expect("an answer") })
    };
    let scope = json!({ "project": { "name": "web", "domain": { "name": "acme" } } });
    let theirs = runtime.block_on(keystone.token("alice", "acme", "pw of alice", scope));
    let answer = exchanged(theirs.clone());
    assert_eq!(answer.status(), StatusCode::CREATED);
    let ours = format!("Bearer {}", answer.headers()["x-subject-token"].to_str().expect("text"));
    let pods = |token: &str| {
        let shown = Some(("authorization", token));
        runtime.block_on(door.ask(Method::GET, "/api/v1/namespaces/web-dev/pods", shown))
    };
    assert_eq!(pods(&ours), StatusCode::OK);
    assert_eq!(pods(&format!("Bearer {theirs}")), StatusCode::UNAUTHORIZED, "it has to be exchanged");
    assert_eq!(exchanged(format!("{theirs}x")).status(), StatusCode::UNAUTHORIZED);
    let admins = keystone.admin().to_owned();
    assert_eq!(exchanged(admins).status(), StatusCode::UNAUTHORIZED, "of a domain that is not acme");

    // What is taken away there is gone here within the interval.
    runtime.block_on(keystone.call("DELETE", &grant, Value::Null));
    eventually("the role is gone", SOON, || pods(&ours) == StatusCode::FORBIDDEN && !works("web-dev"));
    runtime.block_on(keystone.call("PUT", &grant, Value::Null));
    eventually("the role is back", SOON, || pods(&ours) == StatusCode::OK);
    let disabled = json!({ "user": { "enabled": false } });
    runtime.block_on(keystone.call("PATCH", &format!("/users/{user}"), disabled));
    eventually("alice is out", SOON, || pods(&ours) == StatusCode::UNAUTHORIZED);
    alice.login(&gantry, &[]).fails();
}
