//! Tables over the resolver: who has which roles where.

use gantry_identity_api::{
    Domain, DomainSpec, Group, GroupSpec, Project, ProjectSpec, Role, RoleAssignment, RoleAssignmentSpec,
    RoleSpec, User, UserSpec,
};

use super::assignments::Target;
use super::follow::Stored;
use super::state::State;

/// Two organisations: `acme` with projects `web` ⊃ `shop` ⊃ `cart` and `ops`, `globex` with `lab`.
pub(crate) fn two_organisations() -> State {
    let mut state = State::default();
    for (role, implies) in [
        ("admin", Some("manager")),
        ("manager", Some("member")),
        ("member", Some("reader")),
        ("reader", None),
    ] {
        let implies = implies.into_iter().map(str::to_owned).collect();
        put(&mut state, Role::new(role, RoleSpec { implies, ..Default::default() }));
    }
    for domain in ["acme", "globex"] {
        put(&mut state, Domain::new(domain, DomainSpec { enabled: true, ..Default::default() }));
        let spec = GroupSpec { domain: domain.to_owned(), ..Default::default() };
        put(&mut state, Group::new(&format!("{domain}-devs"), spec));
    }
    for (project, domain, parent) in [
        ("web", "acme", None),
        ("shop", "acme", Some("web")),
        ("cart", "acme", Some("shop")),
        ("ops", "acme", None),
        ("lab", "globex", None),
    ] {
        let (domain, parent) = (domain.to_owned(), parent.map(str::to_owned));
        put(
            &mut state,
            Project::new(project, ProjectSpec { domain, parent, enabled: true, ..Default::default() }),
        );
    }
    for (user, domain, groups) in [
        ("alice", "acme", vec!["acme-devs"]),
        ("bob", "acme", vec!["globex-devs"]),
        ("eve", "globex", vec![]),
    ] {
        let groups = groups.into_iter().map(str::to_owned).collect();
        let spec = UserSpec { domain: domain.to_owned(), enabled: true, groups, ..Default::default() };
        put(&mut state, User::new(user, spec));
    }
    state
}

/// A directory that shows this state, and follows nothing.
pub(crate) fn directory_of(state: State) -> super::Directory {
    let directory = super::Directory::default();
    *directory.write() = state;
    directory
}

/// Shows this state and no other.
pub(crate) fn fill(directory: &super::Directory, state: State) {
    *directory.write() = state;
    directory.mark("everything", 1);
}

/// Shows the object, as a watch would.
pub(crate) fn show<K: Stored>(directory: &super::Directory, object: K) {
    K::put(&mut directory.write(), K::kept(object));
    directory.mark(K::WORD, 1);
}

/// Shows that the object is gone.
pub(crate) fn forget<K: Stored>(directory: &super::Directory, id: &str) {
    K::remove(&mut directory.write(), id);
    directory.mark(K::WORD, 1);
}

pub(crate) fn put<K: Stored>(state: &mut State, object: K) {
    K::put(state, K::kept(object));
}

/// `role actor target [inherited]`, e.g. `member alice project:web`.
pub(crate) fn assign(state: &mut State, text: &str) {
    let words: Vec<&str> = text.split(' ').collect();
    let mut spec = RoleAssignmentSpec { role: words[0].to_owned(), ..Default::default() };
    match words[1].strip_prefix("group:") {
        Some(group) => spec.group = Some(group.to_owned()),
        None => spec.user = Some(words[1].to_owned()),
    }
    match words[2].split_once(':') {
        Some(("project", id)) => spec.project = Some(id.to_owned()),
        Some(("domain", id)) => spec.domain = Some(id.to_owned()),
        _ => spec.system = true,
    }
    spec.inherited = words.get(3) == Some(&"inherited");
    put(state, RoleAssignment::new(&text.replace([' ', ':'], "-"), spec));
}

fn roles(state: &State, user: &str, scope: &Target) -> String {
    let user = state.users.get(user).expect("a user of the table").clone();
    state.roles_in(&user, scope).into_iter().collect::<Vec<_>>().join(",")
}

fn project(id: &str) -> Target {
    Target::Project(id.into())
}

#[test]
fn roles_are_direct_inherited_implied_and_by_group() {
    for (assignments, user, scope, want) in [
        (vec!["member alice project:web"], "alice", project("web"), "member,reader"),
        (vec!["member alice project:web"], "alice", project("shop"), ""),
        (vec!["member alice project:web inherited"], "alice", project("web"), ""),
        (vec!["member alice project:web inherited"], "alice", project("cart"), "member,reader"),
        (vec!["member alice project:web inherited"], "alice", project("ops"), ""),
        (vec!["manager alice domain:acme inherited"], "alice", project("cart"), "manager,member,reader"),
        (vec!["manager alice domain:acme inherited"], "alice", Target::Domain("acme".into()), ""),
        (vec!["manager alice domain:acme inherited"], "alice", project("lab"), ""),
        (vec!["admin alice domain:acme"], "alice", project("web"), ""),
        (vec!["reader group:acme-devs project:ops"], "alice", project("ops"), "reader"),
        // Named in a group of another domain: not a member.
        (vec!["reader group:globex-devs project:ops"], "bob", project("ops"), ""),
        (vec!["unknown alice project:web"], "alice", project("web"), ""),
        (vec!["reader alice system"], "alice", Target::System, "reader"),
        (vec!["reader alice system"], "alice", project("web"), ""),
    ] {
        let mut state = two_organisations();
        assignments.iter().for_each(|text| assign(&mut state, text));
        assert_eq!(roles(&state, user, &scope), want, "{assignments:?} {user} {scope:?}");
        let user = state.users.get(user).expect("a user of the table").clone();
        let grants = state.grants(&user);
        let all = grants.in_scope(&scope).map(|r| r.iter().cloned().collect::<Vec<_>>().join(","));
        assert_eq!(all.unwrap_or_default(), want, "grants agree: {assignments:?} {scope:?}");
    }
}

#[test]
fn what_is_disabled_grants_nothing() {
    let mut state = two_organisations();
    assign(&mut state, "member alice project:cart");
    let mut shop = (**state.projects.get("shop").expect("shop")).clone();
    shop.spec.enabled = false;
    put(&mut state, shop);
    let alice = state.users.get("alice").expect("alice").clone();
    assert!(state.grants(&alice).projects.is_empty(), "a project below a disabled one");
}

#[test]
fn an_assignment_has_one_name_and_different_ones_have_different_names() {
    use super::assignments::{Actor, Assignment};
    let name = |role: &str, actor: Actor, inherited| {
        Assignment::object_name(role, &actor, &Target::Project("p".into()), inherited)
    };
    let user = Actor::User("u".into());
    assert_eq!(name("r", user.clone(), false), name("r", user.clone(), false));
    assert_ne!(name("r", user.clone(), false), name("r", user.clone(), true));
    assert_ne!(name("r", user, false), name("r", Actor::Group("u".into()), false));
}

#[test]
fn names_find_what_they_name() {
    let state = two_organisations();
    let alice = state.user_by_kubernetes_name("acme/alice").expect("alice");
    assert_eq!(state.kubernetes_name(alice).as_deref(), Some("acme/alice"));
    assert_eq!(state.kubernetes_groups(alice), ["acme/acme-devs"]);
    assert!(state.user_by_kubernetes_name("globex/alice").is_none());
    assert!(state.user_by_kubernetes_name("alice").is_none());
}
