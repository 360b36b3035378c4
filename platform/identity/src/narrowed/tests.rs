use std::sync::Arc;

use gantry_identity_api::{ApplicationCredential, ApplicationCredentialSpec, RoleSpec, extra};
use gantry_kube_types::{Attributes, UserInfo};

use super::*;
use crate::directory::tests::{assign, put, show};
use crate::rights::rule;
use crate::tenancy::Tenancy;
use crate::tenancy::tests::{Engine, ask, info, organisations, world};

const TOKEN: &[(&str, &str)] = &[(extra::PROJECT, "web"), (extra::ROLES, "member,reader")];

fn alices_world() -> Arc<World> {
    let mut state = organisations(&[
        "admin alice project:web",
        "admin alice project:ops",
        "admin alice domain:acme",
        "admin alice system",
    ]);
    let spec = |roles: &[&str], unrestricted| ApplicationCredentialSpec {
        user: "alice".to_owned(),
        project: "web".to_owned(),
        roles: roles.iter().map(|r| (*r).to_owned()).collect(),
        unrestricted,
        ..Default::default()
    };
    put(&mut state, ApplicationCredential::new("looks", spec(&["reader"], false)));
    world(state)
}

#[test]
fn a_credential_is_good_for_its_scope_and_its_roles_alone() {
    let world = alices_world();
    let authorizer = Tenancy(world.clone()).wrap(Arc::new(Engine::of(&world)));
    let looks: &[(&str, &str)] =
        &[(extra::PROJECT, "web"), (extra::ROLES, "member,reader"), (extra::APPLICATION_CREDENTIAL, "looks")];
    let gone: &[(&str, &str)] = &[(extra::PROJECT, "web"), (extra::APPLICATION_CREDENTIAL, "gone")];
    let more: &[(&str, &str)] = &[(extra::PROJECT, "web"), (extra::ROLES, "member,operator,unknown")];
    let two: &[(&str, &str)] = &[(extra::PROJECT, "web"), (extra::SYSTEM, "all")];
    let twice: &[(&str, &str)] = &[(extra::PROJECT, "web,ops")];
    let no_scope: &[(&str, &str)] = &[(extra::ROLES, "admin")];
    let domain: &[(&str, &str)] = &[(extra::SCOPE_DOMAIN, "acme")];
    let system: &[(&str, &str)] = &[(extra::SYSTEM, "all"), (extra::ROLES, "reader")];
    let others: &[(&str, &str)] = &[(extra::PROJECT, "lab"), (extra::ROLES, "admin")];
    for (extras, asked, want) in [
        (&[][..], "create -/pods ops-dev", true),
        (TOKEN, "create -/pods web-dev", true),
        (TOKEN, "get -/namespaces web-dev web-dev", true),
        // Another project of the same user, the cluster, and what the listed roles do not have.
        (TOKEN, "create -/pods ops-dev", false),
        (TOKEN, "get -/pods lab-dev p", false),
        (TOKEN, "list -/pods -", false),
        (TOKEN, "get -/nodes - n", false),
        (TOKEN, "get -/namespaces ops-dev ops-dev", false),
        (TOKEN, "create rbac.authorization.k8s.io/rolebindings web-dev", false),
        (TOKEN, "impersonate -/users - globex/eve", false),
        (TOKEN, "impersonate -/groups - system:masters", false),
        (TOKEN, "create authentication.k8s.io/tokenreviews -", false),
        (TOKEN, "get identity.gantry.dev/projects - web", true),
        (TOKEN, "update identity.gantry.dev/projects - web", false),
        (TOKEN, "get identity.gantry.dev/projects - ops", false),
        (TOKEN, "get identity.gantry.dev/users - bob", false),
        (TOKEN, "delete identity.gantry.dev/domains - globex", false),
        (TOKEN, "push registry.gantry.dev/repositories - acme/web/x", true),
        (TOKEN, "push registry.gantry.dev/repositories - acme/ops/x", false),
        (TOKEN, "push registry.gantry.dev/repositories project:web x", true),
        (TOKEN, "pull registry.gantry.dev/repositories project:ops x", false),
        (TOKEN, "pull registry.gantry.dev/repositories domain:acme x", true),
        (TOKEN, "push registry.gantry.dev/repositories domain:acme x", false),
        (gone, "pull registry.gantry.dev/repositories project:web x", false),
        // The credential has the reader's role, whatever the token says.
        (looks, "get -/pods web-dev p", true),
        (looks, "create -/pods web-dev", false),
        (looks, "get -/secrets web-dev s", false),
        // It may not make others, and its own are still seen.
        (looks, "create identity.gantry.dev/applicationcredentials -", false),
        (looks, "get identity.gantry.dev/applicationcredentials - looks", true),
        (gone, "get -/pods web-dev p", false),
        (more, "create -/pods web-dev", true),
        (more, "delete -/nodes - n", false),
        (two, "get -/pods web-dev p", false),
        (twice, "get -/pods web-dev p", false),
        (no_scope, "get -/pods web-dev p", false),
        (no_scope, "get identity.gantry.dev/projects - web", false),
        (domain, "get -/pods web-dev p", false),
        (domain, "get identity.gantry.dev/projects - cart", true),
        (domain, "delete identity.gantry.dev/users - bob", true),
        (domain, "get identity.gantry.dev/projects - lab", false),
        (system, "get -/pods lab-dev p", true),
        (system, "list -/nodes -", true),
        (system, "delete -/nodes - n", false),
        (system, "get -/secrets lab-dev s", false),
        (system, "get identity.gantry.dev/users - eve", true),
        (system, "delete identity.gantry.dev/users - eve", false),
        (others, "get -/pods lab-dev p", false),
        (others, "get identity.gantry.dev/projects - lab", false),
    ] {
        let decided = authorizer.authorize(&ask(&info(&world, "alice", extras), asked));
        assert_eq!(decided.is_allowed(), want, "{extras:?}: {asked}: {decided:?}");
    }
}

/// A role of nothing but logs reads them, where it is assigned; a credential that has the role reads them, and one
/// that lacks it does not, whatever its user may.
#[test]
fn a_right_on_logs_reads_the_logs_of_pods() {
    let mut state =
        organisations(&["looker bob project:web", "admin alice project:web", "looker alice project:web"]);
    let rules = vec![rule(&["get"], "logs.gantry.dev", &["logs"])];
    put(&mut state, Role::new("looker", RoleSpec { rules, ..RoleSpec::default() }));
    let blind = vec![rule(&["get"], "", &["pods"])];
    put(&mut state, Role::new("blind", RoleSpec { rules: blind, ..RoleSpec::default() }));
    assign(&mut state, "blind alice project:web");
    let world = world(state);
    let authorizer = Tenancy(world.clone()).wrap(Arc::new(Engine::of(&world)));
    let looks: &[(&str, &str)] = &[(extra::PROJECT, "web"), (extra::ROLES, "looker")];
    let blind: &[(&str, &str)] = &[(extra::PROJECT, "web"), (extra::ROLES, "blind")];
    for (who, extras, asked, want) in [
        ("bob", &[][..], "get -/pods/log web-dev p", true),
        ("bob", &[], "get -/pods web-dev p", false),
        ("bob", &[], "list -/pods web-dev", false),
        ("bob", &[], "create -/pods/exec web-dev p", false),
        ("bob", &[], "get -/pods/attach web-dev p", false),
        ("bob", &[], "get -/pods/log ops-dev p", false),
        ("alice", looks, "get -/pods/log web-dev p", true),
        ("alice", looks, "get -/pods web-dev p", false),
        ("alice", looks, "get -/pods/log ops-dev p", false),
        ("alice", blind, "get -/pods/log web-dev p", false),
        ("alice", blind, "get -/pods web-dev p", true),
    ] {
        let decided = authorizer.authorize(&ask(&info(&world, who, extras), asked));
        assert_eq!(decided.is_allowed(), want, "{who} {extras:?}: {asked}: {decided:?}");
    }
}

/// Whoever remembers a decision asks whether it may have changed.
#[test]
fn decisions_are_of_another_version_when_something_they_depend_on_changes() {
    let world = alices_world();
    let authorizer = Tenancy(world.clone()).wrap(Arc::new(Engine::of(&world)));
    let alice = info(&world, "alice", TOKEN);
    let version = || authorizer.decisions_version(&alice).expect("the engine has versions");
    let mut versions = vec![version()];
    assert_eq!(versions, [version()]);
    let role = world.directory.read().roles.get("reader").map(|role| (**role).clone()).expect("it is there");
    show(&world.directory, role);
    versions.push(version());
    world.namespaces.put("web-dev", None);
    versions.push(version());
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
}

#[test]
fn a_narrowed_administrator_is_narrowed() {
    let world = alices_world();
    let authorizer = Tenancy(world.clone()).wrap(Arc::new(Engine::of(&world)));
    let mut masters = UserInfo::authenticated("root", &["system:masters"]);
    masters.extra.insert(extra::PROJECT.to_owned(), vec!["web".to_owned()]);
    assert!(!authorizer.authorize(&ask(&masters, "list identity.gantry.dev/users -")).is_allowed());
    assert!(!authorizer.authorize(&ask(&masters, "get -/secrets lab-dev s")).is_allowed());
}

#[test]
fn discovery_stays_open_and_nothing_that_looks_like_it() {
    let path = |path: &str, verb: &str| Attributes {
        verb: verb.to_owned(),
        path: path.to_owned(),
        ..Attributes::default()
    };
    for (text, verb, want) in [
        ("/api", "get", true),
        ("/apis/apps/v1", "get", true),
        ("/openapi/v3", "get", true),
        ("/version", "get", true),
        ("/apiserver", "get", false),
        ("/metrics", "get", false),
        ("/gantry/health", "get", false),
        ("/api", "post", false),
        ("/", "get", false),
    ] {
        assert_eq!(is_open(&path(text, verb)), want, "{verb} {text}");
    }
    let user = UserInfo::authenticated("a/b", &[]);
    assert!(is_open(&ask(&user, "create authorization.k8s.io/selfsubjectaccessreviews -")));
    assert!(!is_open(&ask(&user, "create authorization.k8s.io/subjectaccessreviews -")));
}

#[test]
fn lists_show_a_narrowed_credential_its_own() {
    let world = alices_world();
    let visibility = Tenancy(world.clone()).visibility();
    let (whole, token) = (info(&world, "alice", &[]), info(&world, "alice", TOKEN));
    for (resource, name, hidden) in [
        ("namespaces", "web-dev", false),
        ("namespaces", "ops-dev", true),
        ("namespaces", "lab-dev", true),
        ("namespaces", "kube-system", true),
    ] {
        assert_eq!(visibility.hides(&token, "", resource, name), hidden, "{name}");
        assert!(!visibility.hides(&whole, "", resource, name), "{name}");
    }
    let group = gantry_identity_api::GROUP;
    for (name, seen) in [("web", true), ("ops", false), ("lab", false)] {
        assert_eq!(visibility.visible(&token, group, "projects", name), seen, "{name}");
        assert_eq!(visibility.hides(&token, group, "projects", name), !seen, "{name}");
    }
}
