//! Who asks in the benches: users with passwords, roles in one project, and tokens for it.

use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// The project everybody works in, and its namespace.
pub const PROJECT: &str = "bench";
pub const NAMESPACE: &str = "bench-prod";
/// What is asked for.
pub const OBJECT: &str = "/api/v1/namespaces/bench-prod/configmaps/small";
/// Sign-ins at once while people are made: each waits for a hash.
const AT_ONCE: usize = 8;

/// Somebody with a password and a token for [`PROJECT`].
pub struct Person {
    pub name: String,
    pub password: String,
    pub token: String,
}

impl Person {
    fn login(&self) -> Value {
        login(&self.name, &self.password, json!({ "project": { "id": PROJECT } }))
    }

    /// The sign-in as a body.
    pub fn login_body(&self) -> String {
        self.login().to_string()
    }
}

fn login(name: &str, password: &str, scope: Value) -> Value {
    json!({ "auth": {
        "identity": {
            "methods": ["password"],
            "password": { "user": { "name": name, "domain": { "id": "default" }, "password": password } },
        },
        "scope": scope,
    }})
}

/// A server, asked as its first administrator.
pub struct Server {
    client: Client,
    base: String,
    pub port: u16,
    pub authority: PathBuf,
    pub token: String,
}

impl Server {
    /// Signs in with the password the server wrote down.
    pub async fn sign_in(port: u16, data: &Path) -> Self {
        let authority = data.join("pki/ca.crt");
        let pem = std::fs::read(&authority).expect("the server's authority");
        let pem = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        let client = Client::builder().tls_certs_only([pem]).build().expect("a client");
        let password = std::fs::read_to_string(data.join("identity/admin-password"));
        let password = password.expect("the first administrator's password");
        let base = format!("https://127.0.0.1:{port}");
        let mut server = Self { client, base, port, authority, token: String::new() };
        let scope = json!({ "system": { "all": true } });
        server.token = server.token_for(&login("admin", password.trim(), scope)).await;
        server
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = self.client.request(method.clone(), format!("{}{path}", self.base));
        let answer = request.header("x-auth-token", &self.token).json(body).send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn status(&self, path: &str, token: &str) -> StatusCode {
        let request = self.client.get(format!("{}{path}", self.base)).header("x-auth-token", token);
        request.send().await.expect("an answer").status()
    }

    async fn token_for(&self, login: &Value) -> String {
        let request = self.client.post(format!("{}/identity/v3/auth/tokens", self.base)).json(login);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED);
        answer.headers()["x-subject-token"].to_str().expect("text").to_owned()
    }

    /// Makes the project with a small object in its namespace, and `count` members of it. Everybody may read the
    /// object when it returns.
    pub async fn people(&self, count: usize) -> Vec<Person> {
        let project = json!({
            "apiVersion": "identity.gantry.dev/v1alpha1", "kind": "Project", "metadata": { "name": PROJECT },
            "spec": { "domain": "default", "environments": [{ "name": "prod" }] },
        });
        self.ask(Method::POST, "/apis/identity.gantry.dev/v1alpha1/projects", &project).await;
        let people: Vec<Person> = futures::stream::iter(0..count)
            .map(|number| self.person(number))
            .buffered(AT_ONCE)
            .collect()
            .await;
        self.make_object().await;
        futures::stream::iter(people.iter().map(Ok::<_, ()>))
            .try_for_each_concurrent(AT_ONCE, |person| async {
                while self.status(OBJECT, &person.token).await != StatusCode::OK {
                    tokio::task::yield_now().await;
                }
                Ok(())
            })
            .await
            .expect("it does not end");
        people
    }

    async fn person(&self, number: usize) -> Person {
        let (name, password) = (format!("person-{number}"), format!("a long secret of {number}"));
        let user = json!({ "user": { "name": name, "domain_id": "default", "password": password } });
        let user = self.ask(Method::POST, "/identity/v3/users", &user).await;
        let id = user["user"]["id"].as_str().expect("users have an id");
        let role = format!("/identity/v3/projects/{PROJECT}/users/{id}/roles/member");
        self.ask(Method::PUT, &role, &Value::Null).await;
        let mut person = Person { name, password, token: String::new() };
        person.token = self.token_for(&person.login()).await;
        person
    }

    /// The namespace is made by a loop: there when the object can be made in it.
    async fn make_object(&self) {
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "small" },
            "data": { "colour": "green", "size": "12" },
        });
        let path = format!("{}/api/v1/namespaces/{NAMESPACE}/configmaps", self.base);
        loop {
            let request = self.client.post(&path).header("x-auth-token", &self.token).json(&body);
            match request.send().await.expect("an answer").status() {
                StatusCode::CREATED => return,
                StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => tokio::task::yield_now().await,
                other => panic!("{path}: {other}"),
            }
        }
    }
}
