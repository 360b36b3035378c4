//! What OpenStack's clients call, replayed from a table over HTTP: methods, paths and statuses are those seen between
//! them and a Keystone.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_identity_api::{DEFAULT_DOMAIN, Domain, DomainSpec, User, UserSpec};
use http::Request;
use jiff::Timestamp;
use ring::hmac;
use serde_json::{Value, json};

use super::query::encode;
use super::tests::{Platform, Said};
use crate::directory::State;
use crate::directory::tests::{assign, put};
use crate::login::Origin;
use crate::password::Password;
use crate::tenancy::tests::organisations;

/// The calls, in order; the head of the file says how it is read.
const CALLS: &str = include_str!("calls.txt");
/// Different methods and paths that the clients' own test suites call.
const SEEN: usize = 192;
/// Calls of the table that are no part of those: what is limited for projects is set and taken away between others.
const OURS: [&str; 4] = [
    "DELETE /v3/OS-EP-FILTER/endpoint_groups/{}/projects/{}",
    "DELETE /v3/OS-EP-FILTER/projects/{}/endpoints/{}",
    "PUT /v3/OS-EP-FILTER/endpoint_groups/{}/projects/{}",
    "PUT /v3/OS-EP-FILTER/projects/{}/endpoints/{}",
];
const SECRET: &str = "Tr0ub4dor&3";

/// One line of the table.
#[derive(Debug)]
struct Row {
    who: String,
    method: String,
    path: String,
    status: u16,
    /// Names, and where in the answer what they stand for is.
    keeps: Vec<(String, String)>,
    body: String,
}

impl Row {
    fn of(line: &str) -> Self {
        let (head, body) = line.split_at(line.find(" {\"").unwrap_or(line.len()));
        let mut words = head.split_whitespace().peekable();
        let named = words.next_if_eq(&"as").and_then(|_| words.next());
        let mut word = || words.next().unwrap_or_else(|| panic!("a word is missing: {line}")).to_owned();
        let (method, path, status) = (word(), word(), word());
        let keeps = words.map(|word| {
            let (name, place) = word.split_once('=').unwrap_or_else(|| panic!("NAME=WHERE: {line}"));
            (name.to_owned(), place.to_owned())
        });
        Self {
            who: named.unwrap_or("root").to_owned(),
            keeps: keeps.collect(),
            method,
            path,
            status: status.parse().unwrap_or_else(|_| panic!("a status: {line}")),
            body: body.trim().to_owned(),
        }
    }

    /// Method and path without the names.
    fn call(&self) -> String {
        let mut path = String::new();
        let mut inside = false;
        for character in self.path.chars() {
            inside = character == '{' || inside && character != '}';
            if !inside || character == '{' {
                path.push(character);
            }
        }
        format!("{} {path}", self.method)
    }
}

fn rows() -> Vec<Row> {
    let mut lines: Vec<String> = Vec::new();
    for line in CALLS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match (line.strip_prefix("    "), lines.last_mut()) {
            (Some(more), Some(last)) => {
                // A body is broken where a space does not matter.
                last.push(' ');
                last.push_str(more);
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines.iter().map(|line| Row::of(line)).collect()
}

/// What is known of the objects that were made.
struct Known(BTreeMap<String, String>);

impl Known {
    fn get(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("nothing is called {name}"))
    }

    fn path(&self, template: &str) -> String {
        let mut path = template.to_owned();
        while let (Some(from), Some(to)) = (path.find('{'), path.find('}')) {
            let value = self.get(&path[from + 1..to]).to_owned();
            path.replace_range(from..=to, &value);
        }
        path
    }

    fn body(&self, template: &str) -> String {
        // The longest names first: one may begin as another.
        let mut names: Vec<&String> = self.0.keys().collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        names.iter().fold(template.to_owned(), |body, name| body.replace(&format!("${name}"), self.get(name)))
    }

    /// The headers that say who calls, and about which token.
    fn headers(&self, row: &Row, url: &str) -> Vec<(&'static str, String)> {
        let mut headers = match row.who.as_str() {
            "nobody" => Vec::new(),
            "consumer" => {
                let project = self.get("project_id").to_owned();
                vec![("authorization", self.signed(url)), ("requested-project-id", project)]
            }
            who => vec![("x-auth-token", self.get(who).to_owned())],
        };
        if row.path == "/v3/auth/tokens" && row.method != "POST" {
            headers.push(("x-subject-token", self.get("subject").to_owned()));
        }
        headers
    }

    /// `Authorization` of a consumer, with its request token where it has one (RFC 5849, section 3).
    fn signed(&self, url: &str) -> String {
        let now = Timestamp::now().as_second().to_string();
        let known = |name: &str| self.0.get(name).map(String::as_str);
        let all = [
            ("oauth_consumer_key", known("consumer_id")),
            ("oauth_nonce", Some("once")),
            ("oauth_signature_method", Some("HMAC-SHA1")),
            ("oauth_timestamp", Some(now.as_str())),
            ("oauth_token", known("request_token_id")),
            ("oauth_verifier", known("verifier")),
        ];
        let pairs: Vec<(&str, String)> =
            all.iter().filter_map(|(name, value)| Some((*name, encode((*value)?)))).collect();
        let base: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let base = format!("POST&{}&{}", encode(url), encode(&base.join("&")));
        let secret = format!("{}&{}", self.get("consumer_secret"), known("request_secret").unwrap_or(""));
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let signature = encode(&STANDARD.encode(hmac::sign(&key, base.as_bytes())));
        let shown: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        format!("OAuth {}, oauth_signature=\"{signature}\"", shown.join(", "))
    }

    fn keep(&mut self, row: &Row, said: &Said) {
        for (name, place) in &row.keeps {
            let found = match place.split_at(1) {
                ("@", header) => said.headers.get(header).and_then(|value| value.to_str().ok()),
                ("%", member) => {
                    said.text.split('&').find_map(|pair| pair.strip_prefix(member)?.strip_prefix('='))
                }
                _ => said.body.pointer(place).and_then(Value::as_str),
            };
            let found = found.unwrap_or_else(|| panic!("{name} is not in {said:?}"));
            self.0.insert(name.clone(), found.to_owned());
        }
    }
}

/// Somebody who administers the platform by a password, and two organisations that are nobody's business here.
async fn platform() -> Platform {
    let mut state = organisations(&[]);
    put(&mut state, Domain::new(DEFAULT_DOMAIN, DomainSpec { enabled: true, ..DomainSpec::default() }));
    with_user(&mut state, "root", DEFAULT_DOMAIN);
    assign(&mut state, "admin root system");
    let platform = Platform::of(state);
    set_password(&platform, "root").await;
    platform
}

fn with_user(state: &mut State, id: &str, domain: &str) {
    let spec = UserSpec { domain: domain.to_owned(), enabled: true, ..UserSpec::default() };
    put(state, User::new(id, spec));
}

async fn set_password(platform: &Platform, user: &str) {
    let (password, by) = (Password::new(SECRET.to_owned()), crate::component::own_user());
    platform.core.set_password(user, password, by, &Origin::default()).await.expect("set");
}

#[tokio::test]
async fn openstacks_clients_are_answered_as_by_keystone() {
    let platform = platform().await;
    let fixed = [
        ("secret", SECRET),
        ("other_secret", "An0ther&secret"),
        ("nothing", "00000000000000000000000000000000"),
        ("admin", "admin"),
        ("group", "ldap"),
        ("option", "url"),
        ("tag", "b"),
        ("other_region_id", "South"),
        ("identity_provider_id", "idp"),
        ("mapping_id", "mapping"),
        ("other_mapping_id", "none"),
        ("protocol_id", "saml2"),
        ("other_protocol_id", "mapped"),
        ("service_provider_id", "sp"),
        ("other_service_provider_id", "none"),
    ];
    let mut known =
        Known(fixed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
    let mut wrong = Vec::new();
    for row in rows() {
        let path = known.path(&row.path);
        let uri = format!("/identity{path}");
        let mut request =
            Request::builder().method(row.method.as_str()).uri(&uri).header("host", "gantry.test");
        for (name, value) in known.headers(&row, &format!("https://gantry.test{uri}")) {
            request = request.header(name, value);
        }
        let said = platform.send(request.body(Body::from(known.body(&row.body))).expect("a request")).await;
        if said.status == row.status {
            known.keep(&row, &said);
        } else {
            wrong.push(format!(
                "{} {path}: {} and not {}: {}",
                row.method, said.status, row.status, said.text
            ));
        }
        // Without what a line keeps the ones after it say nothing.
        assert!(row.keeps.is_empty() || said.status == row.status, "{}", wrong.join("\n"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_call_that_was_seen_is_in_the_table() {
    let calls: BTreeSet<String> = rows().iter().map(Row::call).collect();
    let ours: BTreeSet<String> = OURS.iter().map(|call| (*call).to_owned()).collect();
    assert!(ours.is_subset(&calls), "{:?}", ours.difference(&calls));
    assert_eq!(calls.len() - ours.len(), SEEN, "{calls:#?}");
}

#[tokio::test]
async fn lists_are_had_in_pages_in_an_order_and_by_filters() {
    let platform = platform().await;
    let root = platform.token("root", crate::token::TokenScope::System);
    let get = async |path: &str| {
        let said = platform.call(&root, &format!("GET {path}"), Value::Null).await;
        assert_eq!(said.status, 200, "{path}: {said:?}");
        said
    };
    let names = |said: &Said| -> Vec<String> {
        let users = said.body["users"].as_array().expect("a list");
        users.iter().map(|u| u["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    // What a page points to is followed as it stands, until there is no further one.
    let mut path = "/users?sort_key=name&sort_dir=desc&limit=3".to_owned();
    let mut pages = Vec::new();
    loop {
        let said = get(&path).await;
        pages.push(names(&said));
        let next = said.body["links"]["next"].as_str().map(str::to_owned);
        assert_eq!(said.body.get("truncated"), next.as_ref().map(|_| &json!(true)), "{path}");
        let Some(next) = next else { break };
        path = next.split_once("/identity/v3").expect("one of ours").1.to_owned();
    }
    assert_eq!(pages, [vec!["root", "eve", "bob"], vec!["alice"]]);
    for (query, want) in [
        ("domain_id=globex", vec!["eve"]),
        ("name__startswith=al", vec!["alice"]),
        ("domain_id=acme&name=eve", vec![]),
        ("sort_key=name&marker=alice&limit=1", vec!["bob"]),
    ] {
        assert_eq!(names(&get(&format!("/users?{query}")).await), want, "{query}");
    }
    let said = platform.call(&root, "GET /users?marker=nobody", Value::Null).await;
    assert_eq!(said.status, 400, "{said:?}");
}

#[tokio::test]
async fn a_token_of_a_domain_is_got_and_used() {
    let mut state = organisations(&["manager bob domain:acme"]);
    with_user(&mut state, "carol", "acme");
    let platform = Platform::of(state);
    set_password(&platform, "bob").await;
    let signs_in = async |domain: Value| {
        let user = json!({ "name": "bob", "domain": { "name": "acme" }, "password": SECRET });
        let identity = json!({ "methods": ["password"], "password": { "user": user } });
        let body = json!({ "auth": { "identity": identity, "scope": { "domain": domain } } });
        platform.call("", "POST /auth/tokens", body).await
    };
    assert_eq!(signs_in(json!({ "id": "globex" })).await.status, 401, "no role there");
    let said = signs_in(json!({ "name": "acme" })).await;
    assert_eq!(said.status, 201, "{said:?}");
    let token = &said.body["token"];
    assert_eq!(token["domain"]["id"], "acme");
    assert!(token.get("project").is_none() && token.get("system").is_none(), "{token}");
    assert!(token["roles"].as_array().is_some_and(|roles| roles.iter().any(|role| role["id"] == "manager")));
    let bob = said.headers["x-subject-token"].to_str().expect("a token").to_owned();
    for (what, body, want) in [
        ("GET /auth/catalog", Value::Null, 200),
        ("GET /users?domain_id=acme", Value::Null, 200),
        ("GET /domains/acme", Value::Null, 200),
        ("GET /users/eve", Value::Null, 403),
        ("GET /services", Value::Null, 403),
        ("PATCH /users/carol", json!({ "user": { "description": "x" } }), 200),
        ("PUT /projects/web/users/carol/roles/member", Value::Null, 204),
        ("PUT /projects/lab/users/carol/roles/member", Value::Null, 403),
        ("PUT /system/users/bob/roles/reader", Value::Null, 403),
    ] {
        let said = platform.call(&bob, what, body).await;
        assert_eq!(said.status, want, "{what}: {said:?}");
    }
    // What is made with it is the domain's.
    let said = platform.call(&bob, "POST /projects", json!({ "project": { "name": "new" } })).await;
    assert_eq!((said.status, &said.body["project"]["domain_id"]), (201, &json!("acme")), "{said:?}");
    let said = platform.call(&bob, "GET /users", Value::Null).await;
    let users = said.body["users"].as_array().expect("a list");
    assert!(users.len() == 3 && users.iter().all(|user| user["domain_id"] == "acme"), "{users:?}");
}

#[tokio::test]
async fn a_trust_that_is_not_there_is_not_found_by_who_is_known_and_by_nobody_else() {
    let platform = platform().await;
    for (password, want) in [(SECRET, 404), ("wrong", 401)] {
        let user = json!({ "id": "root", "password": password });
        let identity = json!({ "methods": ["password"], "password": { "user": user } });
        let scope = json!({ "OS-TRUST:trust": { "id": "nothing" } });
        let body = json!({ "auth": { "identity": identity, "scope": scope } });
        let said = platform.call("", "POST /auth/tokens", body).await;
        assert_eq!(said.status, want, "{said:?}");
    }
}
