//! `kill -9` between what was acknowledged and what follows from it: rights end up as assigned and are never wider,
//! and what was revoked stays revoked.

use gantry_testkit::{Instance, eventually};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::closed::Door;
use crate::people::Person;
use crate::support::SOON;

const ROUNDS: usize = 12;
const PEOPLE: [&str; 3] = ["acme/u0", "acme/u1", "acme/u2"];

/// Somebody with a token, and whether the role was given to them.
struct Holder {
    person: Person,
    id: String,
    token: String,
    assigned: bool,
}

impl Holder {
    fn password_login(&self) -> Value {
        let name = self.person.name.rsplit('/').next();
        let user = json!({ "name": name, "domain": { "name": "acme" }, "password": self.person.password });
        json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": user } } } })
    }

    async fn pods(&self, door: &Door) -> StatusCode {
        let bearer = format!("Bearer {}", self.token);
        door.ask(Method::GET, "/api/v1/namespaces/web-dev/pods", Some(("authorization", &bearer))).await
    }
}

/// Gives the role, or takes it back; comes back when the server has said that it is done.
async fn flip(gantry: &Instance, holder: &mut Holder, project: &str) {
    let client = crate::clients::client(&gantry.kubeconfig()).await;
    let kind = GroupVersionKind::gvk("identity.gantry.dev", "v1alpha1", "RoleAssignment");
    let resource = ApiResource::from_gvk_with_plural(&kind, "roleassignments");
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let name = format!("{}-of-web", holder.person.name.replace('/', "-"));
    if holder.assigned {
        api.delete(&name, &DeleteParams::default()).await.expect("deleted");
    } else {
        let spec = json!({ "spec": { "role": "member", "user": holder.id, "project": project } });
        let object = DynamicObject::new(&name, &resource).data(spec);
        api.create(&PostParams::default(), &object).await.expect("created");
    }
    holder.assigned = !holder.assigned;
}

/// A token that was good and is revoked; comes back when the server has said that it is.
async fn revoked(door: &Door, holder: &Holder) -> String {
    let token = door.login(&holder.password_login()).await;
    let good = door.ask(Method::GET, "/identity/v3/auth/projects", Some(("x-auth-token", &token))).await;
    assert_eq!(good, StatusCode::OK);
    let request = door.client.delete(format!("{}/identity/v3/auth/tokens", door.base));
    let answer = request.header("x-auth-token", &token).header("x-subject-token", &token).send().await;
    assert_eq!(answer.expect("an answer").status(), StatusCode::NO_CONTENT);
    token
}

/// Names of the users in the namespace's bindings of the role.
fn bound(gantry: &Instance) -> Vec<String> {
    let subjects = gantry.jsonpath(&["rolebinding", "gantry:member", "-n", "web-dev"], "{.subjects[*].name}");
    let mut names: Vec<String> = subjects.split_whitespace().map(str::to_owned).collect();
    names.retain(|name| PEOPLE.contains(&name.as_str()));
    names.sort();
    names
}

#[test]
fn whenever_it_is_killed_rights_are_as_assigned_and_never_wider() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    gantry.gantry(&["domain", "create", "acme"]).ok();
    gantry.gantry(&["project", "create", "acme/web", "--environment", "dev"]).ok();
    let id = |kind: &str, name: &str| {
        let path = format!("{{.items[?(@.spec.name==\"{name}\")].metadata.name}}");
        gantry.jsonpath(&[&format!("{kind}.identity.gantry.dev")], &path)
    };
    let project = id("projects", "web");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let door = Door::of(&gantry);
    let mut holders = PEOPLE.map(|name| {
        let person = Person::create(&gantry, name);
        let id = id("users", name.rsplit('/').next().unwrap_or(name));
        let mut holder = Holder { person, id, token: String::new(), assigned: false };
        holder.token = runtime.block_on(door.login(&holder.password_login()));
        holder
    });
    let mut dead = Vec::new();
    for round in 0..ROUNDS {
        let at = round % PEOPLE.len();
        // What is last before the end is one in one round and the other in the next.
        if round % 2 == 0 {
            dead.push(runtime.block_on(revoked(&door, &holders[at])));
            runtime.block_on(flip(&gantry, &mut holders[at], &project));
        } else {
            runtime.block_on(flip(&gantry, &mut holders[at], &project));
            dead.push(runtime.block_on(revoked(&door, &holders[at])));
        }
        gantry.kill9();
        gantry.restart();
        let door = Door::of(&gantry);
        for holder in holders.iter().filter(|holder| !holder.assigned) {
            let seen = runtime.block_on(holder.pods(&door));
            assert_eq!(seen, StatusCode::FORBIDDEN, "round {round}: {} was not given it", holder.person.name);
        }
        for token in &dead {
            let ask = door.ask(Method::GET, "/identity/v3/auth/projects", Some(("x-auth-token", token)));
            assert_eq!(runtime.block_on(ask), StatusCode::UNAUTHORIZED, "round {round}: it was revoked");
        }
        for holder in holders.iter().filter(|holder| holder.assigned) {
            eventually(&format!("round {round}: {} may work", holder.person.name), SOON, || {
                runtime.block_on(holder.pods(&door)) == StatusCode::OK
            });
        }
        let wanted: Vec<&str> = holders
            .iter()
            .filter(|holder| holder.assigned)
            .map(|holder| holder.person.name.as_str())
            .collect();
        eventually(&format!("round {round}: bindings name {wanted:?}"), SOON, || bound(&gantry) == wanted);
        for holder in holders.iter().filter(|holder| !holder.assigned) {
            assert_eq!(runtime.block_on(holder.pods(&door)), StatusCode::FORBIDDEN, "round {round}");
        }
    }
}
