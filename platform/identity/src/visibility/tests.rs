use std::sync::Arc;
use std::time::Duration;

use gantry_identity_api::GROUP;
use gantry_kube_types::{UserInfo, Visibility};

use super::*;
use crate::tenancy::namespaces::Known;
use crate::tenancy::tests::{info, organisations, world};

#[test]
fn two_organisations_do_not_see_each_other() {
    let world = world(organisations(&[
        "admin alice domain:acme",
        "reader bob project:shop",
        "admin eve domain:globex",
    ]));
    let visibility = OwnKinds::new(world.clone());
    for (who, resource, name, seen) in [
        ("alice", "projects", "web", true),
        ("alice", "projects", "lab", false),
        ("alice", "domains", "acme", true),
        ("alice", "domains", "globex", false),
        ("alice", "users", "bob", true),
        ("alice", "users", "eve", false),
        ("alice", "groups", "acme-devs", true),
        ("alice", "groups", "globex-devs", false),
        ("alice", "roleassignments", "reader-bob-project-shop", true),
        ("alice", "roleassignments", "admin-eve-domain-globex", false),
        ("bob", "projects", "shop", true),
        ("bob", "projects", "web", false),
        ("bob", "users", "bob", true),
        ("bob", "users", "alice", false),
        ("bob", "roleassignments", "reader-bob-project-shop", true),
        ("bob", "roleassignments", "admin-alice-domain-acme", false),
        ("bob", "roles", "member", true),
        ("eve", "projects", "lab", true),
        ("eve", "projects", "web", false),
        ("eve", "users", "alice", false),
        ("eve", "projects", "no-such", false),
    ] {
        let user = info(&world, who, &[]);
        assert_eq!(visibility.visible(&user, GROUP, resource, name), seen, "{who}: {resource}/{name}");
    }
    let stranger = UserInfo::authenticated("stranger", &[]);
    assert!(!visibility.visible(&stranger, GROUP, "domains", "acme"));
    assert!(!visibility.visible(&info(&world, "alice", &[]), "", "projects", "web"), "another group");
}

#[tokio::test]
async fn changes_are_told() {
    let world = world(organisations(&[]));
    let visibility = Arc::new(OwnKinds::new(world.clone()));
    let seen = visibility.generation();
    let waiting = tokio::spawn({
        let visibility = visibility.clone();
        async move { visibility.changed(seen).await }
    });
    world.namespaces.put("new", Some(Known::default()));
    tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("told").expect("no panic");
    assert!(visibility.generation() > seen);
}
