//! Browsers: a session is a cookie, good at every service while a page of ours asks; people sign in with a password, or
//! at a real OpenID provider, as a browser does it.

use std::time::{Duration, Instant};

use gantry_testkit::{Instance, eventually, eventually_some};
use reqwest::header::{HeaderMap, LOCATION, SET_COOKIE};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::closed::{Door, runtime};
use crate::identity_oidc::{Browser, Provider, callback, goodbye};
use crate::people::Person;
use crate::support::SOON;

const SESSION: &str = "__Host-gantry-session";
const SIGN_IN: &str = "__Secure-gantry-sign-in";
const NAMESPACES: &str = "/api/v1/namespaces";
const CONFIG_MAPS: &str = "/api/v1/namespaces/web-dev/configmaps";
const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");
const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");

/// A page of the platform, open in a browser.
struct Page<'a> {
    door: &'a Door,
    runtime: &'a Runtime,
    cookie: String,
}

impl Page<'_> {
    fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Value) -> Response {
        let mut request = self.door.client.request(method, format!("{}{path}", self.door.base));
        if !self.cookie.is_empty() {
            request = request.header("cookie", format!("{SESSION}={}", self.cookie));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        self.runtime.block_on(request.send()).expect("an answer")
    }

    fn status(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Value) -> u16 {
        self.send(method, path, headers, body).status().as_u16()
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.send(Method::GET, path, &[SAME], Value::Null);
        assert_eq!(answer.status(), 200, "{path}");
        self.runtime.block_on(answer.json()).expect("JSON")
    }

    /// Signs in; the answer of who it is.
    fn sign_in(&mut self, body: Value) -> Value {
        let answer = self.send(Method::POST, "/identity/session", &[SAME], body);
        assert_eq!(answer.status(), 200);
        self.cookie = set_cookie(answer.headers(), SESSION).expect("a session");
        self.runtime.block_on(answer.json()).expect("JSON")
    }
}

/// The value of a cookie that is set.
fn set_cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut lines = headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().expect("text"));
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    line.split(';').next().map(str::to_owned)
}

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "a": "b" } })
}

/// `acme/web`, of which alice is a member.
fn alice(gantry: &Instance) -> Person {
    for arguments in
        [&["domain", "create", "acme"][..], &["project", "create", "acme/web", "--environment", "dev"]]
    {
        gantry.gantry(arguments).ok();
    }
    let alice = Person::create(gantry, "acme/alice");
    gantry.gantry(&["assign", "member", "--user", "acme/alice", "--project", "acme/web"]).ok();
    alice
}

/// What the trail says alice was known by, when she did this to what is called so.
fn credential(gantry: &Instance, verb: &str, resource: &str, name: &str) -> String {
    eventually_some(&format!("{verb} {resource} {name} is on record"), SOON, || {
        let asked = ["--user", "acme/alice", "--verb", verb, "--resource", resource, "-o", "json"];
        let said = gantry.gantry(&[&["audit", "search"], &asked[..]].concat()).ok();
        let records: Vec<Value> = serde_json::from_str(&said).expect("records");
        let found = records
            .into_iter()
            .find(|record| record["objectRef"]["name"].as_str().unwrap_or_default() == name);
        let credential = |record: Value| record["annotations"]["audit.gantry.dev/credential"].clone();
        found.map(credential).and_then(|word| word.as_str().map(str::to_owned)).ok_or(said)
    })
}

#[test]
fn a_session_is_good_at_every_service_until_it_ends() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let alice = alice(&gantry);
    let (runtime, door) = (runtime(), Door::of(&gantry));
    let mut page = Page { door: &door, runtime: &runtime, cookie: String::new() };
    assert_eq!(page.status(Method::GET, "/identity/session", &[SAME], Value::Null), 401);
    let who = page.sign_in(json!({ "domain": "acme", "user": "alice", "password": alice.password.clone() }));
    assert_eq!((&who["username"], &who["projects"][0]["name"]), (&json!("acme/alice"), &json!("web")));
    eventually("her rights are bound", SOON, || {
        page.status(Method::GET, CONFIG_MAPS, &[SAME], Value::Null) == 200
    });
    // The Kubernetes API, the Keystone API, the registry, the trail, and what is not any of them.
    let names = page.get(NAMESPACES)["items"].to_string();
    assert!(names.contains("web-dev"), "{names}");
    assert_eq!(page.get("/identity/v3/auth/projects")["projects"][0]["name"], "web");
    assert_eq!(page.get("/identity/session")["username"], "acme/alice");
    for path in ["/v2/", "/v2/_catalog", "/apis/audit.gantry.dev/v1alpha1/records", "/gantry/routes"] {
        page.get(path);
    }
    // A watch is a read.
    let watched =
        page.send(Method::GET, &format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"), &[], Value::Null);
    assert_eq!(watched.status(), 200);
    assert_eq!(
        watched.headers()["content-security-policy"].to_str().ok().map(|p| p.contains("sandbox")),
        Some(true)
    );
    writes_need_a_page_of_ours(&page);
    assert_eq!(credential(&gantry, "list", "namespaces", ""), "session");
    assert_eq!(credential(&gantry, "create", "configmaps", "made"), "session");
    assert_eq!(credential(&gantry, "create", "configmaps", "made-by-a-program"), "password");

    // The end: by a page of ours alone.
    for foreign in [&[][..], &[CROSS], &[("origin", "https://evil.test")]] {
        assert_eq!(page.status(Method::DELETE, "/identity/session", foreign, Value::Null), 401);
    }
    page.get(NAMESPACES);
    let ended = page.send(Method::DELETE, "/identity/session", &[SAME], Value::Null);
    assert_eq!((ended.status(), set_cookie(ended.headers(), SESSION).as_deref()), (StatusCode::OK, Some("")));
    gone(&page);
    let search = ["audit", "search", "--user", "acme/alice", "--event", "logout", "-o", "json"];
    eventually("it is on record", SOON, || gantry.gantry(&search).ok().contains("acme/alice"));
}

/// Within a second.
fn gone(page: &Page<'_>) {
    let began = Instant::now();
    for path in [NAMESPACES, "/identity/v3/auth/projects", "/identity/session", "/gantry/routes"] {
        while page.status(Method::GET, path, &[SAME], Value::Null) != 401 {
            assert!(began.elapsed() < Duration::from_secs(1), "{path} is still open");
        }
    }
}

fn writes_need_a_page_of_ours(page: &Page<'_>) {
    let own = page.door.base.clone();
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    for (headers, want) in [
        (vec![], 401),
        (vec![("origin", "https://evil.test")], 401),
        (vec![("origin", "null")], 401),
        (vec![CROSS], 401),
        (vec![("sec-fetch-site", "same-site")], 401),
        (vec![CROSS, ("origin", own.as_str())], 401),
        (vec![("origin", own.as_str())], 201),
    ] {
        let status = page.status(Method::POST, CONFIG_MAPS, &headers, config_map("made"));
        assert_eq!(status, want, "{headers:?}");
        let exec = "/api/v1/namespaces/web-dev/pods/none/exec?command=x&stdout=true";
        let exec = page.status(Method::GET, exec, &[&upgrade[..], &headers].concat(), Value::Null);
        assert_eq!(exec, if want == 401 { 401 } else { 404 }, "exec, {headers:?}");
    }
    assert_eq!(page.status(Method::POST, CONFIG_MAPS, &[SAME], config_map("made-too")), 201);
    // A read of a script elsewhere, and of a page elsewhere that leads here.
    assert_eq!(page.status(Method::GET, NAMESPACES, &[CROSS], Value::Null), 401);
    let led = [CROSS, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(page.status(Method::GET, NAMESPACES, &led, Value::Null), 200);
    // No page of a pod is one of ours.
    let proxied = "/api/v1/namespaces/web-dev/pods/none/proxy/";
    assert_eq!(page.status(Method::GET, proxied, &[SAME], Value::Null), 401);
    // The same token, shown as programs show it, needs no page.
    let bearer = format!("Bearer {}", page.cookie);
    let program = [("authorization", bearer.as_str()), ("origin", "https://evil.test")];
    assert_eq!(page.status(Method::POST, CONFIG_MAPS, &program, config_map("made-by-a-program")), 201);
}

#[test]
fn a_session_ends_with_the_password_and_with_the_user() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let mut alice = alice(&gantry);
    let (runtime, door) = (runtime(), Door::of(&gantry));
    let mut page = Page { door: &door, runtime: &runtime, cookie: String::new() };
    let sign_in = |page: &mut Page<'_>, password: &str| {
        page.sign_in(json!({ "domain": "acme", "user": "alice", "password": password }))
    };
    sign_in(&mut page, &alice.password);
    let other = Page { door: &door, runtime: &runtime, cookie: page.cookie.clone() };
    let body = json!({ "domain": "acme", "user": "alice", "password": alice.password, "newPassword": "staple horse battery" });
    page.sign_in(body);
    gone(&other);
    alice.password = "staple horse battery".to_owned();
    page.get("/identity/session");
    // One of one project is not made to more.
    let scoped = page.send(
        Method::POST,
        "/identity/session/scope",
        &[SAME],
        json!({ "project": { "name": "web", "domain": { "name": "acme" } } }),
    );
    assert_eq!(scoped.status(), 200);
    let before = Page { door: &door, runtime: &runtime, cookie: page.cookie.clone() };
    page.cookie = set_cookie(scoped.headers(), SESSION).expect("another session");
    gone(&before);
    assert_eq!(page.get("/identity/session")["scope"]["project"]["name"], "web");
    gantry.gantry(&["user", "set", "acme/alice", "--disable"]).ok();
    gone(&page);
    gantry.gantry(&["user", "set", "acme/alice", "--enable"]).ok();
    gone(&page);
    sign_in(&mut page, &alice.password);
}

/// The registration for browsers.
fn console(gantry: &Instance) -> Value {
    json!({
        "clientId": "console",
        "redirectUris": [callback(gantry)],
        "postLogoutRedirectUris": [goodbye(gantry)],
    })
}

fn url(gantry: &Instance, path: &str) -> String {
    format!("https://127.0.0.1:{}{path}", gantry.port())
}

/// Up to where the provider leads back, which is not opened.
async fn led_back(gantry: &Instance, browser: &mut Browser, user: &str, return_to: &str) -> reqwest::Url {
    let begin = url(gantry, &format!("/identity/session/begin?provider=corporate&return_to={return_to}"));
    browser.walk(&begin, user, &callback(gantry)).await.expect("it leads back")
}

fn redirect(answer: &Response) -> (u16, String) {
    let to = answer.headers().get(LOCATION).map(|to| to.to_str().expect("text").to_owned());
    (answer.status().as_u16(), to.unwrap_or_default())
}

#[test]
fn people_of_a_provider_sign_in_with_their_browser() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let Some(provider) = Provider::start(&gantry) else { return };
    gantry.apply(&provider.organisation(&console(&gantry)));
    let runtime = runtime();
    runtime.block_on(async {
        let mut browser = provider.browser(&gantry);
        let client = browser.client.clone();
        let offered = browser.send(browser.client.get(url(&gantry, "/identity/session/providers"))).await;
        let offered: Value = offered.json().await.expect("JSON");
        let want = json!({ "name": "corporate", "domain": "acme", "text": "corporate" });
        assert_eq!(offered, json!({ "password": true, "providers": [want] }));

        let back = led_back(&gantry, &mut browser, "alice", "/identity/session").await;
        let cookies = &browser.cookies;
        assert_eq!(cookies[SIGN_IN].0, "/identity/session/callback", "sent nowhere else");
        // As a browser opens it, which a page elsewhere has led here.
        let led = |request: reqwest::RequestBuilder| {
            let request = request.header("sec-fetch-site", "cross-site");
            request.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document")
        };
        let signed_in = browser.send(led(browser.client.get(back))).await;
        assert_eq!(redirect(&signed_in), (303, "/identity/session".to_owned()));
        assert!(!browser.cookies.contains_key(SIGN_IN), "it is used up");
        let who = browser.send(led(browser.client.get(url(&gantry, "/identity/session")))).await;
        assert_eq!(who.status(), 200, "the page that is led to is signed in");
        let who: Value = who.json().await.expect("JSON");
        assert_eq!((&who["username"], &who["methods"]), (&json!("acme/alice"), &json!(["openid"])));
        assert!(who["groups"].as_array().is_some_and(|all| all.contains(&json!("acme/devs"))), "{who}");
        let kept = async |session: &str| {
            let request = client.get(url(&gantry, "/identity/session"));
            let request = request.header("cookie", format!("{SESSION}={session}"));
            request.send().await.expect("an answer").status().as_u16()
        };
        let (_, first) = browser.cookies[SESSION].clone();
        let back = led_back(&gantry, &mut browser, "alice", "/").await;
        assert_eq!(redirect(&browser.send(led(browser.client.get(back))).await).0, 303);
        let (_, session) = browser.cookies[SESSION].clone();
        assert_eq!((kept(&first).await, kept(&session).await), (401, 200), "the browser has another");

        let ended = browser.client.delete(url(&gantry, "/identity/session")).header(SAME.0, SAME.1);
        let ended = browser.send(ended).await;
        assert_eq!(ended.status(), 200);
        let ended: Value = ended.json().await.expect("JSON");
        let there: reqwest::Url =
            ended["endSessionUrl"].as_str().expect("a page").parse().expect("an address");
        assert!(there.as_str().starts_with(&provider.issuer), "{there}");
        let of: Vec<_> = there.query_pairs().into_owned().collect();
        assert!(of.contains(&("post_logout_redirect_uri".to_owned(), goodbye(&gantry))), "{of:?}");
        let page = browser.send(browser.client.get(there)).await;
        assert_eq!(page.status(), 200, "the provider knows the address");
        assert!(!browser.cookies.contains_key(SESSION));
        assert_eq!(kept(&session).await, 401, "whoever has kept it");
    });
    // Who is known there and in no group that means anything here has a session, which opens nothing.
    let status = runtime.block_on(async {
        let mut browser = provider.browser(&gantry);
        let back = led_back(&gantry, &mut browser, "mallory", "/").await;
        assert_eq!(redirect(&browser.send(browser.client.get(back)).await).0, 303);
        browser.send(browser.client.get(url(&gantry, CONFIG_MAPS))).await.status()
    });
    assert_eq!(status, 403);
    gantry.gantry(&["user", "set", "acme/mallory", "--disable"]).ok();
    runtime.block_on(async {
        let mut browser = provider.browser(&gantry);
        let back = led_back(&gantry, &mut browser, "mallory", "/").await;
        let refused = browser.send(browser.client.get(back)).await;
        assert_eq!((refused.status().as_u16(), set_cookie(refused.headers(), SESSION)), (403, None));
    });
}

#[test]
fn nobody_is_signed_in_by_an_answer_that_is_not_theirs() {
    // Failures are slowed down: not here, where there are so many.
    let patient = "[identity.lockout]\nuser = { free = 1000 }\naddress = { free = 1000 }\n";
    let Some(gantry) = Instance::builder().no_node().file("config.toml", patient).start() else { return };
    let Some(provider) = Provider::start(&gantry) else { return };
    gantry.apply(&provider.organisation(&console(&gantry)));
    runtime().block_on(async {
        let with = |back: &reqwest::Url, name: &str, value: Option<&str>| {
            let mut changed = back.clone();
            let kept = back.query_pairs().into_owned().filter(|(key, _)| key != name);
            let all = kept.chain(value.map(|value| (name.to_owned(), value.to_owned())));
            let all: Vec<_> = all.collect();
            changed.query_pairs_mut().clear().extend_pairs(all);
            changed
        };
        let ask = async |browser: &mut Browser, back: &reqwest::Url| {
            let answer = browser.send(browser.client.get(back.clone())).await;
            assert!(answer.status() == 303 || set_cookie(answer.headers(), SESSION).is_none());
            assert!(answer.status() == 303 || !answer.headers().contains_key(LOCATION));
            answer.status().as_u16()
        };
        // Mallory's answer in alice's browser, which began a sign-in of its own, and in one that has begun none.
        let (mut mallory, mut alice) = (provider.browser(&gantry), provider.browser(&gantry));
        let hers = led_back(&gantry, &mut alice, "alice", "/console").await;
        let mallorys = led_back(&gantry, &mut mallory, "mallory", "/console").await;
        assert_eq!(ask(&mut alice, &mallorys).await, 401, "another's state");
        assert_eq!(ask(&mut provider.browser(&gantry), &mallorys).await, 400, "no cookie");
        let state = |back: &reqwest::Url| {
            back.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned()
        };
        let mixed = with(&mallorys, "state", Some(&state(&hers)));
        // Her state with mallory's code: the code was made for another verifier and nonce. The state is used up by it.
        let binding = alice.cookies[SIGN_IN].clone();
        assert_eq!(ask(&mut alice, &mixed).await, 401, "another's code");
        assert_eq!(ask(&mut alice, &hers).await, 401, "her own answer, after its state was used");
        // Her own, once.
        let hers = led_back(&gantry, &mut alice, "alice", "/console").await;
        assert_ne!(alice.cookies[SIGN_IN], binding);
        let own = alice.cookies[SIGN_IN].clone();
        assert_eq!(ask(&mut alice, &hers).await, 303);
        assert_eq!(ask(&mut alice, &hers).await, 400, "the browser has forgotten it");
        alice.cookies.insert(SIGN_IN.to_owned(), own);
        assert_eq!(ask(&mut alice, &hers).await, 401, "twice");
        for (what, name, value) in [
            ("no state", "state", None),
            ("an empty state", "state", Some("")),
            ("another issuer", "iss", Some("https://evil.test")),
            ("no issuer", "iss", None),
            ("no code", "code", None),
            ("a made-up code", "code", Some("made-up")),
            ("an error", "error", Some("access_denied")),
        ] {
            let mut browser = provider.browser(&gantry);
            let back = led_back(&gantry, &mut browser, "alice", "/").await;
            assert_eq!(ask(&mut browser, &with(&back, name, value)).await, 401, "{what}");
        }
        // No address of somebody else is led to.
        for return_to in ["//evil.test", "https://evil.test", "/%5Cevil.test", "/%0d%0ax:y"] {
            let begin = format!("/identity/session/begin?provider=corporate&return_to={return_to}");
            let refused = alice.send(alice.client.get(url(&gantry, &begin))).await;
            assert_eq!(redirect(&refused), (400, String::new()), "{return_to}");
        }
    });
}
