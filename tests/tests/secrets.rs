//! Passwords, secrets and tokens, right or wrong: after people have signed in every way there is, neither the log at its
//! most talkative nor the audit trail has any of them.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gantry_testkit::{Instance, Output, binary, eventually, run, run_with_input};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::closed::Door;
use crate::people::Person;
use crate::support::SOON;

/// The test guesses more often than a person may.
const CONFIG: &str = "[identity.lockout]\n\
    user = { free = 100, wait_ms_min = 500, wait_ms_max = 30000 }\n\
    address = { free = 100, wait_ms_min = 500, wait_ms_max = 60000 }\n";
/// All that our own parts can say.
const LOG: &str = "info,gantry=trace";
/// In the last request's record: what is written before it has been written.
const LAST: &str = "the-last-of-the-secrets-test";
const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
/// Failed sign-ins of [`Story::by_keystone`], [`Story::by_basic`], [`Story::by_login`] and the rest.
const FAILED_MIN: usize = 5;

/// What happens, and everything that was said in confidence meanwhile.
struct Story {
    gantry: Instance,
    runtime: Runtime,
    door: Door,
    bob: Person,
    /// Ids of bob and of the project `web`.
    user: String,
    project: String,
    admin: String,
    said: Vec<(String, String)>,
}

impl Story {
    fn begin() -> Option<Self> {
        let gantry = Instance::builder().no_node().file("config.toml", CONFIG).start()?;
        gantry.down(&[]).ok();
        let mut up = Command::new(binary("gantry"));
        up.args(["up", "--detach", "--no-node", "--listen", &gantry.registry()]).args(gantry.flags());
        run(up.env("GANTRY_LOG", LOG)).ok();
        gantry.gantry(&["domain", "create", "acme"]).ok();
        gantry.gantry(&["project", "create", "acme/web", "--environment", "dev"]).ok();
        let bob = Person::create(&gantry, "acme/bob");
        gantry.gantry(&["assign", "member", "--user", "acme/bob", "--project", "acme/web"]).ok();
        let id = |kind: &str, name: &str| {
            let path = format!("{{.items[?(@.spec.name==\"{name}\")].metadata.name}}");
            gantry.jsonpath(&[&format!("{kind}.identity.gantry.dev")], &path)
        };
        let (user, project) = (id("users", "bob"), id("projects", "web"));
        let (runtime, door) = (crate::closed::runtime(), Door::of(&gantry));
        let admin = crate::closed::administrator(&gantry, &runtime, &door);
        let admins = std::fs::read_to_string(gantry.data_dir().join("identity/admin-password"));
        let mut story = Self { gantry, runtime, door, bob, user, project, admin, said: Vec::new() };
        story.confide("the administrator's password", admins.expect("a password").trim());
        story.confide("bob's first password", &story.bob.password.clone());
        story.confide_token("the administrator's token", &story.admin.clone());
        Some(story)
    }

    fn confide(&mut self, what: &str, secret: &str) -> String {
        assert!(secret.len() > 5, "{what} is too short to be searched for");
        self.said.push((what.to_owned(), secret.to_owned()));
        secret.to_owned()
    }

    /// A signature is what a token's other parts are worth nothing without.
    fn confide_token(&mut self, what: &str, token: &str) {
        let signature = token.rsplit('.').next().unwrap_or(token);
        self.confide(what, signature);
    }

    fn send(&self, request: RequestBuilder) -> (StatusCode, Value, Option<String>) {
        self.runtime.block_on(async {
            let answer = request.send().await.expect("an answer");
            let (status, headers) = (answer.status(), answer.headers().clone());
            let token = headers.get("x-subject-token").map(|token| token.to_str().expect("text").to_owned());
            let body = answer.bytes().await.expect("a body");
            (status, serde_json::from_slice(&body).unwrap_or_default(), token)
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.door.client.request(method, format!("{}{path}", self.door.base))
    }

    /// A call of the Keystone API as `token`; gives the body.
    #[track_caller]
    fn keystone(&self, token: &str, method: Method, path: &str, body: &Value, wanted: StatusCode) -> Value {
        let request = self.request(method, &format!("/identity/v3{path}")).json(body);
        let (status, answer, _) = self.send(request.header("x-auth-token", token));
        assert_eq!(status, wanted, "{path}: {answer}");
        answer
    }

    /// Signs in by one method of the Keystone API; gives the token.
    fn sign_in(&self, name: &str, method: Value) -> Option<String> {
        let mut identity = json!({ "methods": [name] });
        identity[name] = method;
        let body = json!({ "auth": { "identity": identity } });
        let (status, answer, token) =
            self.send(self.request(Method::POST, "/identity/v3/auth/tokens").json(&body));
        assert!([StatusCode::CREATED, StatusCode::UNAUTHORIZED].contains(&status), "{status} {answer}");
        token.filter(|_| status == StatusCode::CREATED)
    }

    fn by_password(&self, password: &str) -> Option<String> {
        let user = json!({ "id": self.user, "password": password });
        self.sign_in("password", json!({ "user": user }))
    }

    fn by_login(&mut self) {
        let wrong = self.confide("wrong, by gantry login", "Wrong-by-login-1");
        Person::known(&self.gantry, "acme/bob", &wrong).login(&self.gantry, &[]).fails();
        self.bob.login(&self.gantry, &[]).ok();
        let token = self.bob.gantry(&["token", "--raw"]).ok();
        self.confide_token("bob's token of gantry login", token.trim());
    }

    fn by_keystone(&mut self) {
        let wrong = self.confide("wrong, by the Keystone API", "Wrong-by-keystone-2");
        assert_eq!(self.by_password(&wrong), None);
        let token = self.by_password(&self.bob.password).expect("a token");
        self.confide_token("bob's token of the Keystone API", &token);
        // A token that is none, where a token is expected.
        let forged = self.confide("a forged token", &format!("{token}forged"));
        let shown = self.request(Method::GET, "/identity/v3/auth/tokens").header("x-auth-token", &forged);
        assert_eq!(self.send(shown.header("x-subject-token", &forged)).0, StatusCode::UNAUTHORIZED);
        let shown = self.request(Method::GET, "/api/v1/namespaces").bearer_auth(&forged);
        assert_eq!(self.send(shown).0, StatusCode::UNAUTHORIZED);
        self.keystone(&token, Method::GET, "/auth/projects", &Value::Null, StatusCode::OK);
    }

    /// As registry clients sign in: with every request, and for a token.
    fn by_basic(&mut self) {
        let wrong = self.confide("wrong, by Basic", "Wrong-by-basic-3");
        let right = self.bob.password.clone();
        for (password, wanted) in [(&wrong, StatusCode::UNAUTHORIZED), (&right, StatusCode::OK)] {
            for path in ["/v2/", "/v2/_catalog", "/api"] {
                let shown = self.request(Method::GET, path).basic_auth("acme/bob", Some(password));
                assert_eq!(self.send(shown).0, wanted, "{path}");
            }
            let form = format!("grant_type=password&service=gantry&username=acme%2Fbob&password={password}");
            let posted = self.request(Method::POST, "/token").body(form);
            let posted = posted.header("content-type", "application/x-www-form-urlencoded");
            let (status, answer, _) = self.send(posted);
            assert_eq!(status, wanted, "{answer}");
            if let Some(token) = answer["token"].as_str() {
                self.confide_token("bob's token of the registry", token);
            }
        }
    }

    fn with_application_credential(&mut self) {
        let arguments = ["application-credential", "create", "ci", "--project", "acme/web", "-o", "json"];
        let made: Value = serde_json::from_str(&self.bob.gantry(&arguments).ok()).expect("JSON");
        let text = |key: &str| made[key].as_str().unwrap_or_else(|| panic!("{key} in {made}")).to_owned();
        let (id, secret) = (text("id"), text("secret"));
        self.confide("an application credential's secret", &secret);
        let wrong = self.confide("wrong, of an application credential", "Wrong-of-application-4");
        let by = |secret: &str| json!({ "id": id, "secret": secret });
        assert_eq!(self.sign_in("application_credential", by(&wrong)), None);
        let token = self.sign_in("application_credential", by(&secret)).expect("a token");
        self.confide_token("an application credential's token", &token);
        for (secret, wanted) in [(&wrong, StatusCode::UNAUTHORIZED), (&secret, StatusCode::OK)] {
            let shown = self.request(Method::GET, "/v2/").basic_auth(format!("app:{id}"), Some(secret));
            assert_eq!(self.send(shown).0, wanted);
        }
        // In the record of who made it, and of those who read it.
        self.bob.gantry(&["application-credential", "list"]).ok();
    }

    /// Seeds and keys that lie in the vault.
    fn with_second_factor(&mut self) {
        let token = self.by_password(&self.bob.password).expect("a token");
        self.confide("a TOTP seed", SEED);
        let totp = json!({ "credential": { "type": "totp", "blob": SEED, "user_id": self.user } });
        self.keystone(&token, Method::POST, "/credentials", &totp, StatusCode::CREATED);
        self.keystone(&token, Method::GET, "/credentials", &Value::Null, StatusCode::OK);
        let ec2 = json!({ "tenant_id": self.project });
        let path = format!("/users/{}/credentials/OS-EC2", self.user);
        let made = self.keystone(&token, Method::POST, &path, &ec2, StatusCode::CREATED);
        let secret = made["credential"]["secret"].as_str().unwrap_or_else(|| panic!("a secret in {made}"));
        self.confide("an EC2 secret", secret);
    }

    fn passwords_change(&mut self) {
        let path = format!("/users/{}/password", self.user);
        let (wrong, never) = ("Wrong-original-5", "Never-was-one-6");
        self.confide("wrong, as the password before", wrong);
        self.confide("refused as a new password", never);
        let body = json!({ "user": { "original_password": wrong, "password": never } });
        let changed = self.request(Method::POST, &format!("/identity/v3{path}")).json(&body);
        assert_eq!(self.send(changed).0, StatusCode::UNAUTHORIZED);
        let own = self.confide("bob's own choice", "Chosen-by-bob-himself-7");
        let lines = format!("{}\n{own}\n", self.bob.password);
        let mut command = self.bob.command(binary("gantry"));
        run_with_input(command.args(["user", "password", "--stdin"]), lines.as_bytes()).ok();
        let short = self.confide("too short", "Sh0rt-8");
        let reset = self.confide("set by the administrator", "Reset-by-admin-9");
        let first = self.confide("set when the user was made", "Made-with-carol-10");
        let path = format!("/users/{}", self.user);
        let admin = &self.admin;
        for (password, wanted) in [(&short, StatusCode::BAD_REQUEST), (&reset, StatusCode::OK)] {
            let body = json!({ "user": { "password": password } });
            self.keystone(admin, Method::PATCH, &path, &body, wanted);
        }
        let carol = json!({ "user": { "name": "carol", "domain_id": "default", "password": first } });
        self.keystone(admin, Method::POST, "/users", &carol, StatusCode::CREATED);
        assert!(self.by_password(&own).is_none(), "the one before");
        let token = self.by_password(&reset).expect("a token");
        self.confide_token("bob's last token", &token);
    }

    fn kubernetes_secrets(&mut self) {
        let secret = self.confide("in a Secret", "Kept-in-a-secret-11");
        let literal = format!("--from-literal=password={secret}");
        let made = ["create", "secret", "generic", "kept", "-n", "web-dev", &literal];
        eventually("the namespace is made", SOON, || self.gantry.kubectl(&made).succeeded());
        self.gantry.kubectl(&["get", "secrets", "-n", "web-dev", "-o", "yaml"]).ok();
    }

    /// The password by which a directory is asked: it goes by a pipe and lies in a Secret.
    fn with_identity_provider(&mut self) {
        let password = self.confide("a directory's", "Of-the-directory-12");
        let file = self.gantry.scratch().join("ldap.yaml");
        // Nobody answers there: the failure is in the log.
        let config =
            "urls: [ldap://127.0.0.1:9]\ninsecurePlaintext: true\nbindDn: cn=root\nusers: {base: dc=x}\n";
        std::fs::write(&file, config).expect("written");
        let mut command = self.gantry.gantry_command(&["identity-provider", "create", "directory"]);
        command.args(["--type", "ldap", "--domain", "acme", "--secret", "web-dev/directory"]);
        command.args(["--password-file", "-", "--config-file"]).arg(&file);
        run_with_input(&mut command, format!("{password}\n").as_bytes()).ok();
        eventually("the directory is asked", SOON, || {
            self.gantry.gantry(&["idp", "show", "directory"]).ok().contains("False (Unavailable)")
        });
    }

    /// Everything that the trail says, when the last request is in it.
    fn exported(&self) -> String {
        let last = self.request(Method::GET, "/gantry/health").header("x-request-id", LAST);
        assert_eq!(self.send(last.bearer_auth(&self.admin)).0, StatusCode::OK);
        let export = || -> Output { self.gantry.gantry(&["audit", "export"]) };
        eventually("the last record is in the trail", SOON, || export().ok().contains(LAST));
        export().ok()
    }
}

/// The ways in which a secret may be written.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
    for user in ["acme/bob", "admin", "default/admin"] {
        forms.push(STANDARD.encode(format!("{user}:{secret}")));
    }
    // A byte string, as `Debug` of a vector shows it.
    forms.push(secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", "));
    forms
}

/// Every file below: its name and its text. What is no text in it does not matter to what is searched for.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.display().to_string(), text(&path))),
        }
    }
    found
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).expect("our own file")).into_owned()
}

#[test]
fn no_log_and_no_record_has_a_password() {
    let Some(mut story) = Story::begin() else { return };
    story.by_login();
    story.by_keystone();
    story.by_basic();
    story.with_application_credential();
    story.with_second_factor();
    story.kubernetes_secrets();
    story.with_identity_provider();
    story.passwords_change();
    let exported = story.exported();
    let data = story.gantry.data_dir();
    let log = data.join("gantry.log");
    let mut places = vec![("gantry audit export".to_owned(), exported.clone())];
    places.extend(files(&data.join("log")));
    places.extend(files(&data.join("audit")));
    eventually("the last request is in the log", SOON, || text(&log).contains(LAST));
    places.push((log.display().to_string(), text(&log)));
    let failed = exported.matches("login-failed").count();
    assert!(failed >= FAILED_MIN, "{failed} failed sign-ins are in the trail");
    for event in ["password-changed", "password-reset", "credential-created", "user-created"] {
        assert!(exported.contains(event), "{event} is not in the trail");
    }
    let mut found = Vec::new();
    for (what, secret) in &story.said {
        for form in forms(secret) {
            let holding = places.iter().filter(|(_, text)| text.contains(&form));
            found.extend(holding.map(|(place, _)| format!("{what}: {form:?} is in {place}")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
