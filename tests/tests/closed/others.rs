//! Two organisations on one instance: what one's token opens of the other's, which is nothing.

use std::cell::Cell;

use gantry_testkit::{Instance, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::routes::{Open, Served, filled};
use super::{Door, METHODS, REFUSED, Try, administrator, runtime, walk};
use crate::people::Person;
use crate::support::SOON;

/// Routes that name something of a project; fewer means that a list or a parameter's name was lost.
const ROUTES_MIN: usize = 150;
/// Of these that alice, who may, reads something of.
const HERS_MIN: usize = 15;

/// `acme/web` with a secret and an image, which are alice's; and eve of `globex/lab`.
pub struct Two {
    pub gantry: Instance,
    alice: Person,
    eve: Person,
    /// Ids of the project `web`, its domain and alice.
    pub project: String,
    domain: String,
    user: String,
}

impl Two {
    pub fn set() -> Option<Self> {
        let gantry =
            Instance::builder().no_node().file("config.toml", "[registry]\nscan = false\n").start()?;
        for arguments in [
            &["domain", "create", "acme"][..],
            &["domain", "create", "globex"],
            &["project", "create", "acme/web", "--environment", "dev"],
            &["project", "create", "globex/lab", "--environment", "dev", "--id", "lab"],
        ] {
            gantry.gantry(arguments).ok();
        }
        let (alice, eve) = (Person::create(&gantry, "acme/alice"), Person::create(&gantry, "globex/eve"));
        gantry.gantry(&["assign", "admin", "--user", "acme/alice", "--project", "acme/web"]).ok();
        gantry.gantry(&["assign", "admin", "--user", "globex/eve", "--project", "globex/lab"]).ok();
        let secret = ["create", "secret", "generic", "x", "-n", "web-dev", "--from-literal=a=b"];
        eventually("the namespace is made", SOON, || gantry.kubectl(&secret).succeeded());
        gantry.gantry(&["image", "pack", "/bin/true", "--tag", "acme/web/front:1"]).ok();
        let id = |kind: &str, name: &str| {
            let path = format!("{{.items[?(@.spec.name==\"{name}\")].metadata.name}}");
            let found = gantry.jsonpath(&[&format!("{kind}.identity.gantry.dev")], &path);
            assert!(!found.is_empty() && !found.contains(' '), "{kind} {name}: {found:?}");
            found
        };
        let (project, user) = (id("projects", "web"), id("users", "alice"));
        let domain = gantry.jsonpath(&["projects.identity.gantry.dev", &project], "{.spec.domain}");
        Some(Self { gantry, alice, eve, project, domain, user })
    }

    /// Tokens of the two projects: alice's and eve's. They are good for what is their own.
    pub fn tokens(&self, runtime: &Runtime, door: &Door) -> (String, String) {
        let token = |person: &Person, project: &str| {
            let (domain, name) = person.name.split_once('/').expect("DOMAIN/NAME");
            let user = json!({ "name": name, "domain": { "name": domain }, "password": person.password });
            let body = json!({ "auth": {
                "identity": { "methods": ["password"], "password": { "user": user } },
                "scope": { "project": { "name": project, "domain": { "name": domain } } },
            }});
            runtime.block_on(door.login(&body))
        };
        let (alices, eves) = (token(&self.alice, "web"), token(&self.eve, "lab"));
        for (token, path) in [
            (&alices, "/api/v1/namespaces/web-dev/secrets/x".to_owned()),
            (&alices, "/v2/acme/web/front/tags/list".to_owned()),
            (&alices, format!("/identity/v3/projects/{}", self.project)),
            (&eves, "/api/v1/namespaces/lab-dev/secrets".to_owned()),
            (&eves, "/identity/v3/projects/lab".to_owned()),
        ] {
            let bearer = format!("Bearer {token}");
            eventually(&format!("{path} is open to whose it is"), SOON, || {
                let shown = Some(("authorization", bearer.as_str()));
                runtime.block_on(door.ask(Method::GET, &path, shown)) == StatusCode::OK
            });
        }
        (alices, eves)
    }

    /// The path, where the route names something of acme's.
    fn acmes(&self, template: &str) -> Option<String> {
        let named = Cell::new(false);
        let path = filled(template, |parameter| {
            let value = match parameter {
                "project" | "projects" => &self.project,
                "domain" | "domains" => &self.domain,
                "user" | "users" => &self.user,
                "namespace" | "namespaces" => "web-dev",
                "repository" => "acme/web/front",
                "repositories" => "acme.web.front",
                "*image" => "acme/web/front/1",
                "reference" => "1",
                _ => return None,
            };
            named.set(true);
            Some(value.to_owned())
        });
        named.get().then_some(path)
    }
}

#[test]
fn another_projects_token_opens_nothing_of_this_one() {
    let Some(two) = Two::set() else { return };
    let (runtime, door) = (runtime(), Door::of(&two.gantry));
    let admin = administrator(&two.gantry, &runtime, &door);
    let (alices, eves) = two.tokens(&runtime, &door);
    runtime.block_on(async {
        let (served, open) = (Served::by(&door, &admin).await, Open::read());
        let acmes: Vec<(&String, String)> =
            served.templates.iter().filter_map(|template| Some((template, two.acmes(template)?))).collect();
        assert!(acmes.len() > ROUTES_MIN, "{} routes are not all of a project's", acmes.len());
        let tries = |token: &str, methods: &[Method]| -> Vec<Try> {
            let header = Some(("authorization", format!("Bearer {token}")));
            let one = |method: &Method, (template, path): &(&String, String)| Try {
                method: method.clone(),
                template: (*template).clone(),
                path: path.clone(),
                header: header.clone(),
            };
            let all = methods.iter().flat_map(|method| acmes.iter().map(move |route| one(method, route)));
            all.filter(|one| !open.has(&one.method, &one.template)).collect()
        };
        // What is another's is not there, or not for eve; a method that a path has not tells nothing.
        let refused = |status: StatusCode| {
            REFUSED.contains(&status)
                || status == StatusCode::NOT_FOUND
                || status == StatusCode::METHOD_NOT_ALLOWED
        };
        let answers = walk(&door, tries(&eves, &METHODS)).await;
        let answered = answers.iter().filter(|(_, status)| !refused(*status));
        let answered: Vec<String> = answered.map(|(one, status)| format!("{one}: {status}")).collect();
        assert!(answered.is_empty(), "{} answered eve:\n{}", answered.len(), answered.join("\n"));
        // The paths are those of something: its owner reads there. Asked after eve, who has changed nothing of it.
        let hers = walk(&door, tries(&alices, &[Method::GET])).await;
        let hers = hers.iter().filter(|(_, status)| status.is_success()).count();
        assert!(hers > HERS_MIN, "alice reads {hers} of her own");
        let secret = door.json("/api/v1/namespaces/web-dev/secrets/x", &alices).await;
        assert_eq!(secret["data"]["a"], Value::from("Yg=="), "{secret}");
    });
}
