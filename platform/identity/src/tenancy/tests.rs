//! Tables over the plans, worlds made at random, and a small engine that decides by what the plans say.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_identity_api::{
    ApplicationCredential, ApplicationCredentialSpec, Domain, Environment, Group, Named, PodSecurityLevel,
    Project, Quota, Role, RoleSpec, User, extra, labels,
};
use gantry_kube_logic::rbac::RuleIndex;
use gantry_kube_types::{Attributes, Authorizer, Decision, UserInfo};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use proptest::prelude::*;

use super::bindings::{self, Bound};
use super::cascade::hanging;
use super::diff::Seen;
use super::namespaces::{Known, Namespaces};
use super::reconcile::Key;
use super::{World, contents, managed, names, project, roles};
use crate::bootstrap::default_roles;
use crate::directory::State;
use crate::directory::assignments::{Actor, Target};
use crate::directory::table::Entry;
use crate::directory::tests::{assign, directory_of, put, two_organisations};
use crate::hanging::Hanging;
use crate::pull::{PullCredentials, period_begin};
use crate::rights::rule;

/// [`two_organisations`] with the rules of the default roles, and an environment `dev` in every project.
pub(crate) fn organisations(assignments: &[&str]) -> State {
    let mut state = two_organisations();
    for (id, spec) in default_roles() {
        put(&mut state, Role::new(id, spec));
    }
    for id in ["web", "shop", "cart", "ops", "lab"] {
        change::<Project>(&mut state, id, |p| {
            p.spec.environments = vec![Environment { name: "dev".to_owned(), ..Default::default() }];
        });
    }
    assignments.iter().for_each(|text| assign(&mut state, text));
    state
}

/// Changes one object of a state.
pub(crate) fn change<K: Found>(state: &mut State, id: &str, change: impl FnOnce(&mut K)) {
    let mut object = K::find(state, id).expect("an object of the table");
    change(&mut object);
    put(state, object);
}

/// Kinds that [`change`] finds.
pub(crate) trait Found: crate::directory::Stored {
    fn find(state: &State, id: &str) -> Option<Self>;
}

macro_rules! found {
    ($($kind:ty, $table:ident;)*) => {$(
        impl Found for $kind {
            fn find(state: &State, id: &str) -> Option<Self> {
                state.$table.get(id).map(|o| (**o).clone())
            }
        }
    )*};
}
found! { Domain, domains; Project, projects; User, users; Group, groups; Role, roles; }

fn now() -> Option<Time> {
    Some(Time(jiff::Timestamp::now()))
}

/// The namespaces of all environments, as the reconcilers would have made them.
fn made(state: &State) -> Namespaces {
    let namespaces = Namespaces::default();
    for found in state.projects.iter() {
        for environment in &found.spec.environments {
            let known = Known { project: Some(found.id().as_str().into()), ..Known::default() };
            namespaces.put(&names::namespace(found, environment), Some(known));
        }
    }
    namespaces
}

/// A world with everything in its place.
pub(crate) fn world(state: State) -> Arc<World> {
    let namespaces = made(&state);
    world_of(state, namespaces)
}

/// A world of these parts.
pub(crate) fn world_of(state: State, namespaces: Namespaces) -> Arc<World> {
    Arc::new(World { directory: directory_of(state), namespaces, ..World::default() })
}

/// RBAC over the planned bindings and cluster roles.
pub(crate) struct Engine(RuleIndex);

impl Engine {
    pub(crate) fn of(world: &World) -> Self {
        let state = world.directory.read();
        let mut index = RuleIndex::new();
        for role in state.roles.iter() {
            for planned in roles::cluster_roles(&state, &role.id()) {
                index.set_role("", &planned.name_any(), planned.rules.unwrap_or_default());
            }
        }
        for (namespace, project) in world.namespaces.owned() {
            let found = state.projects.get(&project).expect("a project of the world");
            let holders = bindings::in_project(&state, found);
            for binding in bindings::role_bindings(&holders, &namespace, found) {
                let name = binding.name_any();
                index.set_binding(&namespace, &name, binding.role_ref, binding.subjects.unwrap_or_default());
            }
        }
        for binding in bindings::cluster_bindings(&bindings::in_system(&state)) {
            let name = binding.name_any();
            index.set_binding("", &name, binding.role_ref, binding.subjects.unwrap_or_default());
        }
        Self(index)
    }
}

impl Authorizer for Engine {
    fn authorize(&self, asked: &Attributes) -> Decision {
        self.0.decide(asked)
    }

    /// Nothing changes it.
    fn decisions_version(&self, _: &UserInfo) -> Option<u64> {
        Some(0)
    }
}

/// The user as a token names them; `extras` narrow it.
pub(crate) fn info(world: &World, user: &str, extras: &[(&str, &str)]) -> UserInfo {
    let state = world.directory.read();
    let found = state.users.get(user).expect("a user of the world");
    let groups = state.kubernetes_groups(found);
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let mut info = UserInfo::authenticated(state.kubernetes_name(found).expect("a domain"), &groups);
    info.uid = user.to_owned();
    info.extra.insert(extra::USER_ID.to_owned(), vec![user.to_owned()]);
    for (key, values) in extras {
        info.extra.insert((*key).to_owned(), values.split(',').map(str::to_owned).collect());
    }
    info
}

/// `verb group/resource[/subresource] namespace [name]`; `-` for an empty group or namespace.
pub(crate) fn ask(user: &UserInfo, text: &str) -> Attributes {
    let words: Vec<&str> = text.split(' ').collect();
    let word = |at: usize| words.get(at).filter(|w| **w != "-").map(|w| (*w).to_owned()).unwrap_or_default();
    let mut path = words[1].splitn(3, '/');
    let mut part = || path.next().filter(|p| *p != "-").unwrap_or_default().to_owned();
    Attributes {
        user: user.clone(),
        verb: word(0),
        is_resource_request: true,
        group: part(),
        version: "v1".to_owned(),
        resource: part(),
        subresource: part(),
        namespace: word(2),
        name: word(3),
        ..Attributes::default()
    }
}

fn bound(state: &State, project: &str) -> String {
    let found = state.projects.get(project).expect("a project of the table");
    let holders = bindings::in_project(state, found);
    let text = holders.iter().map(|(role, who)| {
        let who: Vec<&str> = who
            .iter()
            .map(|bound| match bound {
                Bound::User(name) | Bound::Group(name) => name.as_str(),
            })
            .collect();
        format!("{role}={}", who.join("+"))
    });
    text.collect::<Vec<_>>().join(" ")
}

#[test]
fn assignments_become_bindings_where_they_hold() {
    type Change = fn(&mut State);
    let nothing: Change = |_| {};
    let table: Vec<(&[&str], &str, Change, &str)> = vec![
        (&["member alice project:web"], "web", nothing, "member=acme/alice"),
        (&["member alice project:web"], "shop", nothing, ""),
        (&["member alice project:web inherited"], "web", nothing, ""),
        (&["member alice project:web inherited"], "cart", nothing, "member=acme/alice"),
        (&["reader group:acme-devs project:ops"], "ops", nothing, "reader=acme/acme-devs"),
        (&["admin alice domain:acme"], "web", nothing, ""),
        (&["admin alice domain:acme inherited"], "cart", nothing, "admin=acme/alice"),
        (&["admin alice domain:acme inherited"], "lab", nothing, ""),
        (&["admin alice system"], "web", nothing, ""),
        // Of another organisation, on purpose.
        (&["reader eve project:web"], "web", nothing, "reader=globex/eve"),
        (
            &["member alice project:web", "member bob project:web", "reader bob project:web"],
            "web",
            nothing,
            "member=acme/alice+acme/bob reader=acme/bob",
        ),
        (&["nothing alice project:web", "member nobody project:web"], "web", nothing, ""),
        (
            &["member alice project:web"],
            "web",
            |s| change::<User>(s, "alice", |u| u.spec.enabled = false),
            "",
        ),
        (
            &["member alice project:web"],
            "web",
            |s| change::<User>(s, "alice", |u| u.metadata.deletion_timestamp = now()),
            "",
        ),
        (
            &["member alice project:cart"],
            "cart",
            |s| change::<Project>(s, "web", |p| p.spec.enabled = false),
            "",
        ),
        (
            &["member alice project:web"],
            "web",
            |s| change::<Domain>(s, "acme", |d| d.spec.enabled = false),
            "",
        ),
        (
            &["member eve project:web"],
            "web",
            |s| change::<Domain>(s, "globex", |d| d.spec.enabled = false),
            "",
        ),
        (
            &["reader group:globex-devs project:web"],
            "web",
            |s| change::<Domain>(s, "globex", |d| d.spec.enabled = false),
            "",
        ),
        (
            &["member alice project:web"],
            "web",
            |s| change::<Project>(s, "web", |p| p.metadata.deletion_timestamp = now()),
            "",
        ),
        // A role of another domain is good nowhere here.
        (
            &["special alice project:web"],
            "web",
            |s| {
                let spec = RoleSpec { domain: Some("globex".to_owned()), ..RoleSpec::default() };
                put(s, Role::new("special", spec));
            },
            "",
        ),
        (
            &["member alice project:web"],
            "web",
            |s| change::<User>(s, "alice", |u| u.spec.name = Some("alice@acme".to_owned())),
            "member=acme/alice@acme",
        ),
    ];
    for (at, (assignments, project, change, want)) in table.into_iter().enumerate() {
        let mut state = organisations(assignments);
        change(&mut state);
        assert_eq!(bound(&state, project), want, "row {at}: {assignments:?} in {project}");
    }
}

#[test]
fn a_binding_holds_a_bounded_number_of_subjects() {
    let state = organisations(&[]);
    let web = state.projects.get("web").expect("web");
    let many: BTreeSet<Bound> = (0..2500).map(|n| Bound::User(format!("acme/u{n:05}"))).collect();
    let holders = [("member".into(), many)].into();
    let planned = bindings::role_bindings(&holders, "web-dev", web);
    let shape: Vec<(String, usize)> =
        planned.iter().map(|b| (b.name_any(), b.subjects.as_ref().map_or(0, Vec::len))).collect();
    assert_eq!(
        shape,
        [("gantry:member".into(), 1000), ("gantry:member:1".into(), 1000), ("gantry:member:2".into(), 500)]
    );
    assert!(planned.iter().all(|b| b.role_ref.name == "gantry:member"));
}

#[test]
fn a_role_is_its_rules_and_those_it_implies() {
    let mut state = organisations(&[]);
    let spec = RoleSpec {
        domain: Some("acme".to_owned()),
        rules: vec![rule(&["get"], "x.io", &["xs"])],
        implies: vec!["reader".to_owned()],
        ..RoleSpec::default()
    };
    put(&mut state, Role::new("special", spec));
    let names = |id: &str| roles::cluster_roles(&state, id).iter().map(|r| r.name_any()).collect::<Vec<_>>();
    assert_eq!(names("member"), ["gantry:system:member", "gantry:member"]);
    assert_eq!(names("special"), ["gantry:special"], "a domain's role is nothing in the system");
    let rules = roles::rules(&state, "special");
    assert!(rules.contains(&rule(&["get"], "x.io", &["xs"])));
    assert!(rules.len() > 5, "the reader's, too");
    let everything = rule(&["*"], "*", &["*"]);
    let planned = roles::cluster_roles(&state, "admin");
    let has = |at: usize| planned[at].rules.as_ref().is_some_and(|rules| rules.contains(&everything));
    assert!(has(0) && !has(1), "everything is the system's administrator's, not a project's");
    assert_eq!(roles::affected(&state, "reader"), ["admin", "manager", "member", "reader", "special"]);
}

/// A namespace with these labels, marked as made for the project with what it was given.
fn made_for(project: &str, labels: &std::collections::BTreeMap<String, String>, given: &str) -> Known {
    let marks = [(names::GIVEN_LABELS, given), (names::MADE_FOR, project)];
    let marks = marks.into_iter().filter(|(_, value)| !value.is_empty());
    Known::of(&k8s_openapi::api::core::v1::Namespace {
        metadata: kube::core::ObjectMeta {
            labels: Some(labels.clone()),
            annotations: Some(marks.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
            ..Default::default()
        },
        ..Default::default()
    })
}

#[test]
fn environments_become_namespaces_and_what_is_others_stays_theirs() {
    let mut found = Project::new("web", Default::default());
    found.spec.domain = "acme".to_owned();
    found.spec.labels.insert("team".to_owned(), "shop".to_owned());
    found.spec.labels.insert("pod-security.kubernetes.io/enforce".to_owned(), "privileged".to_owned());
    found.spec.environments = vec![
        Environment { name: "dev".to_owned(), ..Default::default() },
        Environment {
            name: "prod".to_owned(),
            pod_security: Some(PodSecurityLevel::Restricted),
            ..Default::default()
        },
        Environment { name: "x".to_owned(), namespace: Some("kube-system".to_owned()), ..Default::default() },
    ];
    let namespaces = Namespaces::default();
    let plan = |namespaces: &Namespaces| {
        project::plan(&found, |name| namespaces.get(name), &namespaces.of_project("web"))
    };
    let first = plan(&namespaces);
    let names: Vec<&str> = first.apply.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["web-dev", "web-prod"]);
    assert_eq!(first.apply[0].1[labels::POD_SECURITY_ENFORCE], "baseline", "a label cannot weaken it");
    assert_eq!(first.apply[1].1[labels::POD_SECURITY_ENFORCE], "restricted");
    assert_eq!(first.apply[0].2, "team");
    for (_, labels, _) in &first.apply {
        assert_eq!(labels[labels::ISOLATION], "isolated");
    }
    assert!(first.environments[2].problem.contains("belong to the platform"));

    let made = |labels: &_, given: &str| made_for("web", labels, given);
    for (name, labels, given) in &first.apply {
        namespaces.put(name, Some(made(labels, given)));
    }
    assert!(plan(&namespaces).apply.is_empty(), "twice changes nothing");
    for (key, by_hand) in [
        (labels::POD_SECURITY_ENFORCE, Some("privileged")),
        (labels::ISOLATION, Some("open")),
        (labels::ISOLATION, None),
        (labels::RECORD_SESSIONS, Some("true")),
    ] {
        let mut edited = first.apply[0].1.clone();
        edited.remove(key);
        edited.extend(by_hand.map(|value| (key.to_owned(), value.to_owned())));
        namespaces.put("web-dev", Some(made(&edited, "team")));
        assert_eq!(plan(&namespaces).apply, first.apply[..1], "{key}={by_hand:?} is repaired");
    }

    let mut others = first.apply[0].1.clone();
    namespaces.put("web-dev", Some(made_for("", &others, "team")));
    assert_eq!(plan(&namespaces).apply.len(), 1, "both labels say so: it is marked from now on");
    others.insert(labels::PROJECT.to_owned(), "ops".to_owned());
    namespaces.put("web-dev", Some(made(&others, "team")));
    assert_eq!(plan(&namespaces).apply.len(), 1, "another's label does not make it theirs");
    namespaces.put("web-dev", Some(made(&Default::default(), "team")));
    assert_eq!(plan(&namespaces).apply.len(), 1, "it is the project's without any label");
    namespaces.put("web-dev", Some(made_for("", &others, "team")));
    let refused = plan(&namespaces);
    assert_eq!(refused.environments[0].problem, r#"namespace "web-dev" belongs to project "ops""#);
    namespaces.put("web-dev", Some(Known::default()));
    let refused = plan(&namespaces);
    assert!(refused.environments[0].problem.contains("belongs to no project"));
    assert!(refused.apply.is_empty() && refused.delete.is_empty() && !refused.is_ready());

    namespaces.put("web-old", Some(Known { project: Some("web".into()), ..Known::default() }));
    assert_eq!(plan(&namespaces).delete, ["web-old"], "no environment's any more");
    namespaces.put("web-old", Some(Known { project: Some("web".into()), leaving: true, ..Known::default() }));
    assert!(plan(&namespaces).delete.is_empty(), "on its way already");
}

#[test]
fn a_namespace_is_bounded_by_its_environment_or_its_project() {
    let quota = |cpu: Option<&str>, pods: Option<&str>| Quota {
        cpu: cpu.map(str::to_owned),
        pods: pods.map(str::to_owned),
        images: Some("1Gi".to_owned()),
        ..Quota::default()
    };
    let mut found = Project::new("web", Default::default());
    found.spec.quota = quota(Some("8"), Some("20"));
    let environment = Environment { quota: quota(Some("2"), None), ..Default::default() };
    let planned = contents::quota(&found, &environment, "web-dev").expect("a quota");
    let hard = planned.spec.and_then(|s| s.hard).expect("bounds");
    let hard: Vec<(&str, &str)> = hard.iter().map(|(k, v)| (k.as_str(), v.0.as_str())).collect();
    assert_eq!(hard, [("pods", "20"), ("requests.cpu", "2")]);
    found.spec.quota = Quota::default();
    assert!(contents::quota(&found, &Environment::default(), "web-dev").is_none());
    let limits = contents::limits(&found, "web-dev");
    assert_eq!((limits.name_any().as_str(), limits.namespace().as_deref()), ("gantry", Some("web-dev")));
}

/// Told by digests, as the reconciler tells it.
#[test]
fn an_edited_pull_secret_is_another_one_and_so_is_that_of_the_next_period() {
    const HOUR: i64 = 3600;
    let files = tempfile::tempdir().expect("a temporary directory");
    let made = || {
        let hosts = vec!["registry.test:6443".to_owned()];
        PullCredentials::open(&files.path().join("key"), hosts).expect("a key")
    };
    let mut project = Project::new("web", Default::default());
    project.spec.domain = "acme".to_owned();
    let at = |second: i64| jiff::Timestamp::from_second(second).expect("a time");
    let secret = |made: &PullCredentials, second: i64| {
        contents::pull_secret(&project, "web-dev", made.docker_config("web", "web-dev", at(second)))
    };
    let digest = managed::digest::<Secret>;
    let renewed = period_begin("web-dev", at(1_800_000_000));
    let wanted = secret(&made(), renewed);
    let place = (wanted.name_any(), wanted.namespace(), wanted.type_.as_deref());
    assert_eq!(
        place,
        ("gantry-registry".to_owned(), Some("web-dev".to_owned()), Some("kubernetes.io/dockerconfigjson"))
    );
    assert_eq!(digest(&secret(&made(), renewed + 11 * HOUR)), digest(&wanted), "a restart writes nothing");
    assert_ne!(digest(&secret(&made(), renewed + 12 * HOUR)), digest(&wanted), "it is renewed");
    type Edit = fn(&mut Secret);
    let edits: [(&str, Edit); 5] = [
        ("another credential", |s| {
            let config = s.data.as_mut().and_then(|data| data.get_mut(".dockerconfigjson"));
            config.expect("hosts and credentials").0.push(b' ');
        }),
        ("more data", |s| {
            s.data.get_or_insert_default().insert("x".to_owned(), k8s_openapi::ByteString(b"x".to_vec()));
        }),
        ("no label", |s| drop(s.labels_mut().remove(labels::MANAGED_BY))),
        ("another type", |s| s.type_ = Some("Opaque".to_owned())),
        ("locked", |s| s.immutable = Some(true)),
    ];
    for (what, edit) in edits {
        let mut edited = wanted.clone();
        edit(&mut edited);
        assert_ne!(digest(&edited), digest(&wanted), "{what}");
    }
}

#[test]
fn what_hangs_on_something_goes_with_it() {
    let mut state = organisations(&[
        "member alice project:web",
        "reader group:acme-devs project:web",
        "admin bob domain:acme",
        "member bob project:shop",
    ]);
    let spec = ApplicationCredentialSpec {
        user: "alice".to_owned(),
        project: "web".to_owned(),
        ..Default::default()
    };
    put(&mut state, ApplicationCredential::new("robot", spec));
    let assignment = |id: &str| Hanging::Assignment(id.to_owned());
    let credential = Hanging::ApplicationCredential("robot".to_owned());
    let of = |key: Key| {
        let mut all = hanging(&state, &key);
        all.sort();
        all
    };
    assert_eq!(of(Key::User("alice".into())), [assignment("member-alice-project-web"), credential.clone()]);
    assert_eq!(
        of(Key::Project("web".into())),
        [
            assignment("member-alice-project-web"),
            assignment("reader-group-acme-devs-project-web"),
            credential
        ]
    );
    assert_eq!(of(Key::Role("admin".into())), [assignment("admin-bob-domain-acme")]);
    let domain = of(Key::Domain("acme".into()));
    for one in
        [Hanging::Project("cart".into()), Hanging::User("bob".into()), Hanging::Group("acme-devs".into())]
    {
        assert!(domain.contains(&one), "{one:?}");
    }
    assert!(!domain.contains(&Hanging::Project("web".into())), "projects below it go first");
    assert!(!domain.contains(&Hanging::Project("lab".into())), "another domain's");
}

#[test]
fn a_change_wakes_what_it_concerns_and_nothing_else() {
    let mut state =
        organisations(&["member alice project:web", "reader group:acme-devs domain:acme inherited"]);
    let namespaces = made(&state);
    let mut seen = Seen::default();
    let all = seen.advance(&state, &namespaces);
    for key in [Key::Project("lab".into()), Key::Namespace("web-dev".into()), Key::Role("admin".into())] {
        assert!(all.contains(&key), "{key:?} at the start");
    }
    assert!(seen.advance(&state, &namespaces).is_empty(), "nothing changed");

    let namespace = |name: &str| Key::Namespace(name.to_owned());
    assign(&mut state, "member bob project:ops");
    assert_eq!(seen.advance(&state, &namespaces), [namespace("ops-dev")].into());
    change::<User>(&mut state, "alice", |u| u.spec.description = "hello".to_owned());
    assert!(seen.advance(&state, &namespaces).is_empty(), "nothing that bindings show");
    change::<User>(&mut state, "alice", |u| u.spec.enabled = false);
    assert_eq!(seen.advance(&state, &namespaces), [namespace("web-dev")].into());
    change::<Group>(&mut state, "acme-devs", |g| g.spec.name = Some("devs".to_owned()));
    let woken = seen.advance(&state, &namespaces);
    let acme = ["web-dev", "shop-dev", "cart-dev", "ops-dev"];
    assert_eq!(woken, acme.iter().map(|name| namespace(name)).collect());
    change::<Project>(&mut state, "shop", |p| p.spec.enabled = false);
    let woken = seen.advance(&state, &namespaces);
    assert!(woken.contains(&namespace("cart-dev")) && !woken.contains(&namespace("web-dev")));
    assert!(woken.contains(&Key::Project("web".into())), "the one above shows what it gave");
    assign(&mut state, "member ghost project:web");
    assert!(
        seen.advance(&state, &namespaces).contains(&Key::User("ghost".into())),
        "a cascade that was cut off"
    );
}

const ROLES: [&str; 5] = ["admin", "manager", "member", "reader", "unknown"];
const ACTORS: [&str; 6] = ["alice", "bob", "eve", "ghost", "group:acme-devs", "group:globex-devs"];
const TARGETS: [&str; 8] = [
    "project:web",
    "project:shop",
    "project:cart",
    "project:ops",
    "project:lab",
    "domain:acme",
    "domain:globex",
    "system",
];

fn any_world() -> impl Strategy<Value = State> {
    let assignment = (0..ROLES.len(), 0..ACTORS.len(), 0..TARGETS.len(), any::<bool>());
    let off = proptest::sample::subsequence(vec!["alice", "eve", "acme", "globex", "web", "shop"], 0..3);
    (proptest::collection::vec(assignment, 0..24), off).prop_map(|(assignments, off)| {
        let mut state = organisations(&[]);
        for (role, actor, target, inherited) in assignments {
            let inherited = if inherited { " inherited" } else { "" };
            assign(&mut state, &format!("{} {} {}{inherited}", ROLES[role], ACTORS[actor], TARGETS[target]));
        }
        for id in off {
            match id {
                "alice" | "eve" => change::<User>(&mut state, id, |u| u.spec.enabled = false),
                "acme" | "globex" => change::<Domain>(&mut state, id, |d| d.spec.enabled = false),
                _ => change::<Project>(&mut state, id, |p| p.spec.enabled = false),
            }
        }
        state
    })
}

/// An independent, slow reading of the rules: is the role the actor's in the project by some assignment?
fn assigned(state: &State, role: &str, actor: &Actor, project: &Project) -> bool {
    let mut above = Vec::new();
    let mut next = project.spec.parent.clone();
    while let Some(id) = next {
        next = state.projects.get(&id).and_then(|p| p.spec.parent.clone());
        above.push(id);
    }
    state.assignments.iter().filter(|a| a.role.as_ref() == role && *a.actor == *actor).any(|a| {
        match &*a.target {
            Target::Project(id) if a.inherited => above.iter().any(|p| p == id.as_ref()),
            Target::Project(id) => id.as_ref() == project.id(),
            Target::Domain(id) => a.inherited && *id.as_ref() == project.spec.domain,
            Target::System => false,
        }
    })
}

proptest! {
    /// Never wider than assigned, never narrower; and planning twice is planning once.
    #[test]
    fn bindings_are_what_is_assigned(state in any_world()) {
        for found in state.projects.iter() {
            let holders = bindings::in_project(&state, found);
            let mut count = 0;
            for role in state.roles.iter().map(|r| r.id()) {
                let has = |bound: &Bound| holders.get(role.as_str()).is_some_and(|who| who.contains(bound));
                for user in state.users.iter() {
                    let bound = Bound::User(state.kubernetes_name(user).expect("a domain"));
                    let enabled = state.user_enabled(user) && state.project_enabled(found);
                    let want = enabled && assigned(&state, &role, &Actor::User(user.id().as_str().into()), found);
                    prop_assert_eq!(has(&bound), want, "{} {:?} {}", &role, &bound, found.id());
                    count += usize::from(want);
                    if want {
                        let roles = state.roles_in(user, &Target::Project(found.id().as_str().into()));
                        prop_assert!(roles.contains(&role), "the resolver agrees");
                    }
                }
                for group in state.groups.iter() {
                    let domain = state.domains.get(&group.spec.domain).expect("a domain");
                    let bound = Bound::Group(format!("{}/{}", domain.display_name(), group.display_name()));
                    let enabled = domain.spec.enabled && state.project_enabled(found);
                    let want = enabled && assigned(&state, &role, &Actor::Group(group.id().as_str().into()), found);
                    prop_assert_eq!(has(&bound), want, "{} {:?} {}", &role, &bound, found.id());
                    count += usize::from(want);
                }
            }
            prop_assert_eq!(holders.values().map(BTreeSet::len).sum::<usize>(), count, "and nobody else");
            let once = bindings::role_bindings(&holders, "n", found);
            let twice = bindings::role_bindings(&bindings::in_project(&state, found), "n", found);
            let digests = |all: &[k8s_openapi::api::rbac::v1::RoleBinding]| {
                all.iter().map(managed::digest).collect::<Vec<_>>()
            };
            prop_assert_eq!(digests(&once), digests(&twice));
        }
    }
}
