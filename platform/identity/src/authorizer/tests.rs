use std::sync::Arc;

use gantry_identity_api::{Project, User};
use gantry_kube_types::{Authorizer, UserInfo};

use super::*;
use crate::tenancy::Tenancy;
use crate::tenancy::tests::{Engine, ask, change, info, organisations, world, world_of};

fn authorizer(world: &Arc<World>) -> Arc<dyn Authorizer> {
    Tenancy(world.clone()).wrap(Arc::new(Engine::of(world)))
}

#[test]
fn identitys_kinds_are_the_policys_and_namespaces_rbacs() {
    let world = world(organisations(&[
        "admin alice domain:acme",
        "member alice project:web",
        "reader group:acme-devs project:ops",
        "manager bob project:shop",
        "admin eve system",
    ]));
    let authorizer = authorizer(&world);
    const OWN: &str = "identity.gantry.dev";
    for (who, asked, want) in [
        ("alice", "get identity.gantry.dev/projects - web", true),
        ("alice", "update identity.gantry.dev/projects - cart", true),
        ("alice", "get identity.gantry.dev/projects - lab", false),
        ("alice", "delete identity.gantry.dev/users - bob", true),
        ("alice", "get identity.gantry.dev/users - eve", false),
        // Full lists are not theirs: what they see of them is filtered.
        ("alice", "list identity.gantry.dev/projects -", false),
        ("alice", "update identity.gantry.dev/domains - acme", false),
        ("alice", "update identity.gantry.dev/projects/status - web", false),
        ("bob", "update identity.gantry.dev/projects - shop", true),
        ("bob", "delete identity.gantry.dev/projects - shop", false),
        ("bob", "create identity.gantry.dev/roleassignments -", true),
        ("bob", "create identity.gantry.dev/applicationcredentials -", true),
        ("bob", "get identity.gantry.dev/users - bob", true),
        ("bob", "deletecollection identity.gantry.dev/projects -", false),
        ("eve", "list identity.gantry.dev/users -", true),
        ("eve", "delete identity.gantry.dev/domains - acme", true),
        ("eve", "get -/secrets web-dev s", true),
        ("alice", "create -/pods web-dev", true),
        ("alice", "get -/pods ops-dev p", true),
        ("alice", "create -/pods ops-dev", false),
        ("alice", "get -/pods lab-dev p", false),
        ("alice", "list -/pods -", false),
        ("alice", "get -/nodes - n", false),
        ("alice", "create -/namespaces -", false),
        ("alice", "escalate rbac.authorization.k8s.io/roles web-dev", false),
    ] {
        let user = info(&world, who, &[]);
        assert_eq!(authorizer.authorize(&ask(&user, asked)).is_allowed(), want, "{who}: {asked}");
    }
    let stranger = UserInfo::authenticated("stranger", &[]);
    assert!(!authorizer.authorize(&ask(&stranger, &format!("get {OWN}/users - bob"))).is_allowed());
    let masters = UserInfo::authenticated("root", &["system:masters"]);
    assert!(authorizer.authorize(&ask(&masters, &format!("list {OWN}/users -"))).is_allowed());
    let asked = ask(&info(&world, "alice", &[]), "create -/namespaces -");
    let Decision::NoOpinion(why) = authorizer.authorize(&asked) else { panic!("refused") };
    assert!(why.contains("gantry project environment add"), "{why}");
}

#[test]
fn a_right_ends_with_its_assignment_also_while_the_binding_stands() {
    let state = organisations(&[
        "member alice project:web",
        "reader group:acme-devs project:ops",
        "admin eve system",
    ]);
    let before = world(state.clone());
    let bindings: Arc<dyn Authorizer> = Arc::new(Engine::of(&before));
    let decide = |state: State, who: &UserInfo, asked: &str| {
        let world = world_of(state, before.namespaces.clone());
        Tenancy(world).wrap(bindings.clone()).authorize(&ask(who, asked)).is_allowed()
    };
    let (alice, eve) = (info(&before, "alice", &[]), info(&before, "eve", &[]));
    assert!(decide(state.clone(), &alice, "create -/pods web-dev"));
    assert!(decide(state.clone(), &alice, "get -/pods ops-dev p"));
    assert!(decide(state.clone(), &eve, "delete -/nodes - n"));
    let bare = organisations(&[]);
    assert!(!decide(bare.clone(), &alice, "create -/pods web-dev"), "the assignment is gone");
    assert!(!decide(bare.clone(), &alice, "get -/pods ops-dev p"), "the group's assignment is gone");
    assert!(!decide(bare, &eve, "delete -/nodes - n"), "the system's assignment is gone");
    let mut out = state.clone();
    change::<User>(&mut out, "alice", |u| u.spec.groups.clear());
    assert!(!decide(out, &alice, "get -/pods ops-dev p"), "not in the group any more");
    let mut off = state.clone();
    change::<User>(&mut off, "alice", |u| u.spec.enabled = false);
    assert!(!decide(off, &alice, "create -/pods web-dev"), "disabled");
    let mut off = state.clone();
    change::<Project>(&mut off, "web", |p| p.spec.enabled = false);
    assert!(!decide(off, &alice, "create -/pods web-dev"), "the project is disabled");
    let mut renamed = state.clone();
    change::<User>(&mut renamed, "alice", |u| u.spec.name = Some("other".to_owned()));
    assert!(!decide(renamed, &alice, "create -/pods web-dev"), "the name is another's now, or nobody's");
    assert!(!decide(State::default(), &alice, "create -/pods web-dev"), "before the directory knows anybody");
}

#[test]
fn a_repository_is_its_projects() {
    let world = world(organisations(&["member alice project:web", "reader bob project:web"]));
    let authorizer = authorizer(&world);
    for (who, asked, want) in [
        ("alice", "push registry.gantry.dev/repositories - acme/web/front", true),
        ("alice", "pull registry.gantry.dev/repositories - acme/web/front/end", true),
        ("alice", "delete registry.gantry.dev/repositories - acme/web/front", false),
        ("bob", "pull registry.gantry.dev/repositories - acme/web/front", true),
        ("bob", "push registry.gantry.dev/repositories - acme/web/front", false),
        ("alice", "pull registry.gantry.dev/repositories - acme/ops/front", false),
        ("alice", "pull registry.gantry.dev/repositories - globex/web/front", false),
        ("alice", "pull registry.gantry.dev/repositories - acme/web", false),
        ("alice", "pull registry.gantry.dev/repositories - acme/web/", false),
        ("alice", "pull registry.gantry.dev/repositories - acme//web/x", false),
        ("alice", "list registry.gantry.dev/repositories -", false),
        ("eve", "pull registry.gantry.dev/repositories - acme/web/front", false),
    ] {
        let user = info(&world, who, &[]);
        assert_eq!(authorizer.authorize(&ask(&user, asked)).is_allowed(), want, "{who}: {asked}");
    }
}

#[test]
fn whose_a_repository_is_outweighs_its_name() {
    let world = world(organisations(&[
        "manager alice project:web",
        "reader bob project:web",
        "member eve domain:acme",
    ]));
    let authorizer = authorizer(&world);
    const RESOURCE: &str = "registry.gantry.dev/repositories";
    for (who, verb, owner, name, want) in [
        // The name says another project, another domain, or nothing.
        ("alice", "push", "project:web", "acme/ops/x", true),
        ("alice", "update", "project:web", "hello", true),
        ("alice", "pull", "project:ops", "acme/web/x", false),
        ("alice", "pull", "platform", "acme/web/x", false),
        ("alice", "pull", "nonsense", "acme/web/x", false),
        ("bob", "pull", "project:web", "x", true),
        ("bob", "push", "project:web", "x", false),
        ("bob", "update", "project:web", "x", false),
        // An organisation's: read by its projects, written by who has a role in it.
        ("bob", "pull", "domain:acme", "acme/x", true),
        ("alice", "push", "domain:acme", "acme/x", false),
        ("eve", "push", "domain:acme", "acme/x", true),
        ("eve", "delete", "domain:acme", "acme/x", false),
        ("bob", "pull", "domain:globex", "globex/x", false),
        ("bob", "pull", "project:gone", "acme/x", false),
    ] {
        let asked = format!("{verb} {RESOURCE} {owner} {name}");
        let user = info(&world, who, &[]);
        assert_eq!(authorizer.authorize(&ask(&user, &asked)).is_allowed(), want, "{who}: {asked}");
    }
}

#[test]
fn bindings_are_recognised_by_what_the_engine_says() {
    for (why, want) in [
        (
            r#"RBAC: allowed by RoleBinding "gantry:member/web-dev" of ClusterRole "gantry:member" to User "acme/alice""#,
            Some(("member", Some("web-dev"))),
        ),
        (
            r#"RBAC: allowed by RoleBinding "gantry:member:3/web-dev" of ClusterRole "gantry:member" to User "a/b""#,
            Some(("member", Some("web-dev"))),
        ),
        (
            r#"RBAC: allowed by ClusterRoleBinding "gantry:system:admin" of ClusterRole "gantry:system:admin" to User "a/b""#,
            Some(("admin", None)),
        ),
        (r#"RBAC: allowed by RoleBinding "mine/web-dev" of ClusterRole "gantry:admin" to User "a/b""#, None),
        ("", None),
    ] {
        assert_eq!(component_binding(why), want, "{why}");
    }
}
