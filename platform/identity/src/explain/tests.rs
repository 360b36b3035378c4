use gantry_identity_api::{RoleSpec, extra};

use super::*;
use crate::directory::tests::{assign, put};
use crate::rights::rule;
use crate::tenancy::Tenancy;
use crate::tenancy::tests::{Engine, ask, info, organisations, world};

/// Two organisations with a role of `acme`'s own, `pusher`, whose one right is to push.
fn platform(assignments: &[&str]) -> Arc<World> {
    let mut state = organisations(&[]);
    let rules = vec![rule(&["push"], "registry.gantry.dev", &["repositories"])];
    let spec = RoleSpec { domain: Some("acme".to_owned()), rules, ..RoleSpec::default() };
    put(&mut state, Role::new("pusher", spec));
    assignments.iter().for_each(|text| assign(&mut state, text));
    world(state)
}

/// The explanation in one line: what grants it, or what may be done and is missing.
fn told(world: &World, about: &UserInfo, listener: &UserInfo, asked: &str) -> String {
    let Some(said) = explain(world, &ask(about, asked), listener) else { return "not ours".to_owned() };
    let granted = said.grants.iter().map(|grant| {
        let place = told_place(grant.scope.as_ref());
        let inherited = if grant.inherited { " inherited" } else { "" };
        let implied = if grant.implied.is_empty() { String::new() } else { format!(" > {}", grant.implied) };
        format!("{}{implied} to {} at {place}{inherited}", grant.role, grant.subject)
    });
    let missing = said.nearest.iter().map(|missing| {
        let held = if missing.bound_in.is_empty() {
            String::new()
        } else {
            format!(" (held at {})", missing.bound_in.join(", "))
        };
        format!("lacks {} at {}{held}", missing.role, told_place(missing.scope.as_ref()))
    });
    granted.chain(missing).collect::<Vec<_>>().join("; ")
}

fn told_place(place: Option<&Place>) -> String {
    place.map(super::told).unwrap_or_default()
}

#[test]
fn what_grants_it_is_named_with_role_actor_and_scope() {
    let world = platform(&[
        "member alice project:web",
        "reader group:acme-devs project:web",
        "manager bob domain:acme",
        "admin bob domain:acme inherited",
        "pusher bob project:ops",
    ]);
    let web = "registry.gantry.dev/repositories - acme/web/front";
    for (who, asked, want) in [
        ("alice", format!("push {web}"), "member to acme/alice at project acme/web"),
        (
            "alice",
            format!("pull {web}"),
            "member > reader to acme/alice at project acme/web; reader to acme/acme-devs at project acme/web",
        ),
        ("bob", format!("push {web}"), "admin > member to acme/bob at domain acme inherited"),
        (
            "bob",
            "push registry.gantry.dev/repositories - acme/ops/x".to_owned(),
            "admin > member to acme/bob at domain acme inherited; acme/pusher to acme/bob at project acme/ops",
        ),
        (
            "bob",
            "update identity.gantry.dev/projects - web".to_owned(),
            "manager to acme/bob at domain acme; admin > manager to acme/bob at domain acme inherited",
        ),
        ("bob", "delete identity.gantry.dev/users - alice".to_owned(), "manager to acme/bob at domain acme"),
        // One's own takes no assignment.
        ("alice", "get identity.gantry.dev/users - alice".to_owned(), ""),
        ("alice", "get -/pods web-dev p".to_owned(), "not ours"),
        ("alice", "pull registry.gantry.dev/repositories web-dev acme/web/front".to_owned(), "not ours"),
        // Records of a project and of a domain; those of a namespace are its bindings'.
        (
            "bob",
            "list audit.gantry.dev/records project:web".to_owned(),
            "admin > manager to acme/bob at domain acme inherited",
        ),
        ("bob", "list audit.gantry.dev/records domain:acme".to_owned(), "manager to acme/bob at domain acme"),
        ("bob", "list audit.gantry.dev/records web-dev".to_owned(), "not ours"),
        ("bob", "list audit.gantry.dev/records -".to_owned(), "not ours"),
    ] {
        let user = info(&world, who, &[]);
        assert_eq!(told(&world, &user, &user, &asked), want, "{who}: {asked}");
    }
}

#[test]
fn what_is_missing_is_the_least_role_in_the_nearest_scope() {
    let world =
        platform(&["reader alice project:web", "member alice project:ops", "manager bob project:shop"]);
    for (who, asked, want) in [
        (
            "alice",
            "push registry.gantry.dev/repositories - acme/web/front",
            "lacks member at project acme/web (held at project acme/ops)",
        ),
        (
            "alice",
            "delete registry.gantry.dev/repositories - acme/web/front",
            "lacks manager at project acme/web",
        ),
        (
            "alice",
            "update identity.gantry.dev/projects - web",
            "lacks manager at project acme/web; lacks manager at domain acme",
        ),
        ("alice", "delete identity.gantry.dev/projects - web", "lacks manager at domain acme"),
        // The one above would have to be seen by who hears it.
        (
            "bob",
            "delete identity.gantry.dev/projects - shop",
            "lacks manager at domain acme (held at project acme/shop)",
        ),
        ("alice", "create identity.gantry.dev/projects -", "lacks manager at domain acme"),
        // For the trail there is a role that does nothing else.
        (
            "alice",
            "list audit.gantry.dev/records project:web",
            "lacks auditor at project acme/web; lacks manager at project acme/web",
        ),
        ("alice", "list audit.gantry.dev/records project:lab", ""),
        ("alice", "update identity.gantry.dev/domains - acme", ""),
        // Neither the platform's repositories nor all of its objects are any tenant's to be given.
        ("alice", "push registry.gantry.dev/repositories platform library/x", ""),
        ("alice", "deletecollection identity.gantry.dev/users -", ""),
    ] {
        let user = info(&world, who, &[]);
        assert_eq!(told(&world, &user, &user, asked), want, "{who}: {asked}");
    }
    let user = info(&world, "alice", &[]);
    let asked = ask(&user, "push registry.gantry.dev/repositories - acme/web/front");
    assert_eq!(explain(&world, &asked, &user).expect("ours").held_verbs, ["pull"]);
}

/// Who does not see a thing hears of it what they hear of a thing that is not there.
#[test]
fn what_the_listener_does_not_see_is_not_named() {
    let world = platform(&["member eve project:web", "member alice project:ops", "reader bob domain:acme"]);
    let user = |name: &str| info(&world, name, &[]);
    for (about, listener, asked, want) in [
        ("alice", "alice", "pull registry.gantry.dev/repositories - globex/lab/x", ""),
        ("alice", "alice", "pull registry.gantry.dev/repositories project:web x", ""),
        ("alice", "alice", "get identity.gantry.dev/projects - lab", ""),
        ("alice", "alice", "delete identity.gantry.dev/users - eve", ""),
        // Of another organisation, with a role here: hers is told, to her and to who reads the domain.
        (
            "eve",
            "eve",
            "push registry.gantry.dev/repositories project:web x",
            "member to globex/eve at project acme/web",
        ),
        (
            "eve",
            "bob",
            "push registry.gantry.dev/repositories project:web x",
            "member to globex/eve at project acme/web",
        ),
        ("eve", "alice", "push registry.gantry.dev/repositories project:web x", ""),
        // What she has at home is not bob's to hear.
        (
            "eve",
            "bob",
            "delete registry.gantry.dev/repositories project:web x",
            "lacks manager at project acme/web",
        ),
    ] {
        assert_eq!(
            told(&world, &user(about), &user(listener), asked),
            want,
            "{about} to {listener}: {asked}"
        );
    }
    let said = |name: &str| {
        let asked = ask(&user("alice"), &format!("pull registry.gantry.dev/repositories - {name}"));
        explain(&world, &asked, &user("alice"))
    };
    assert_eq!(said("globex/lab/x"), said("globex/gone/x"));
    assert_eq!(said("globex/lab/x"), said("nobody/gone/x"));
    let project = |name: &str| {
        let asked = ask(&user("alice"), &format!("delete identity.gantry.dev/projects - {name}"));
        explain(&world, &asked, &user("alice"))
    };
    assert_eq!(project("lab"), project("gone"));
}

/// For every user, question and credential: grants are named where, and only where, it is allowed.
#[test]
fn explanations_agree_with_decisions() {
    let world = platform(&[
        "member alice project:web",
        "manager bob domain:acme",
        "admin eve project:lab",
        "reader alice project:ops",
    ]);
    let authorizer = Tenancy(world.clone()).wrap(Arc::new(Engine::of(&world)));
    let token: &[(&str, &str)] = &[(extra::PROJECT, "web"), (extra::ROLES, "reader")];
    let mut asked: Vec<String> = Vec::new();
    for verb in ["get", "update", "delete"] {
        asked.extend(
            ["projects - web", "projects - cart", "projects - lab", "users - eve", "groups - acme-devs"]
                .map(|what| format!("{verb} identity.gantry.dev/{what}")),
        );
    }
    for verb in REPOSITORY_VERBS {
        asked.extend(
            ["- acme/web/x", "- globex/lab/x", "project:ops x", "domain:acme x", "platform x"]
                .map(|what| format!("{verb} registry.gantry.dev/repositories {what}")),
        );
    }
    for verb in RECORD_VERBS {
        asked.extend(
            ["project:web", "project:ops", "domain:acme", "domain:globex", "platform"]
                .map(|what| format!("{verb} audit.gantry.dev/records {what}")),
        );
    }
    for (who, extras) in [("alice", &[][..]), ("alice", token), ("bob", &[]), ("eve", &[])] {
        let user = info(&world, who, extras);
        for text in &asked {
            let question = ask(&user, text);
            let allowed = authorizer.authorize(&question).is_allowed();
            let said = authorizer.explain(&question, &user).expect("ours");
            // Everybody sees themselves, by no assignment.
            let by_nothing = who == "eve" && text == "get identity.gantry.dev/users - eve";
            assert_eq!(!said.grants.is_empty(), allowed && !by_nothing, "{who} {extras:?} {text}: {said:?}");
            let refusal = !said.nearest.is_empty() || !said.held_verbs.is_empty() || !said.note.is_empty();
            assert!(!(allowed && refusal), "{who} {extras:?} {text}: {said:?}");
        }
    }
    // A credential that is too narrow for what its user may lacks no assignment.
    let narrow = info(&world, "alice", token);
    assert_eq!(told(&world, &narrow, &narrow, "push registry.gantry.dev/repositories - acme/web/x"), "");
}
