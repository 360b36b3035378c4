//! Roll-outs step by step, with the sets as a controller would see them.

use super::*;

fn deployment(replicas: i32, image: &str, strategy: serde_json::Value) -> Deployment {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "u", "annotations": {REVISION: "1"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": strategy,
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    }))
    .expect("a deployment")
}

fn rolling() -> serde_json::Value {
    serde_json::json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
}

/// The set the deployment would make, as it looks with `available` pods.
fn set(of: &Deployment, sets: &[Arc<ReplicaSet>], replicas: i32, available: i32) -> Arc<ReplicaSet> {
    let mut set = next_set(of, sets);
    set.metadata.uid = Some(set.name_any());
    set.spec.replicas = Some(replicas);
    let status = serde_json::json!({"replicas": replicas, "availableReplicas": available});
    set.status = Some(serde_json::from_value(status).expect("a status"));
    Arc::new(set)
}

fn sizes(actions: &[Action]) -> Vec<(i32, i32)> {
    actions
        .iter()
        .filter_map(|a| if let Action::Scale { from, to, .. } = a { Some((*from, *to)) } else { None })
        .collect()
}

#[test]
fn the_first_set_has_all_replicas_and_a_hash() {
    let d = deployment(3, "a", rolling());
    let [Action::Create(created)] = &plan(&d, &[], false)[..] else { panic!("one set is created") };
    assert_eq!(set_replicas(created), 3);
    let hash = created.labels()[HASH_LABEL].clone();
    assert_eq!(created.name_any(), format!("web-{hash}"));
    assert_eq!(created.spec.selector.match_labels.as_ref().expect("labels")[HASH_LABEL], hash);
    assert_eq!(created.annotations()[REVISION], "1");
    assert!(same_template(&d, created));
}

#[test]
fn a_roll_goes_up_by_the_surge_and_down_by_what_is_spare() {
    let before = deployment(3, "a", rolling());
    let old = set(&before, &[], 3, 3);
    let after = deployment(3, "b", rolling());
    let [Action::Create(created)] = &plan(&after, std::slice::from_ref(&old), true)[..] else {
        panic!("a new set")
    };
    assert_eq!((set_replicas(created), created.annotations()[REVISION].as_str()), (1, "2"));
    for (old_size, new_size, new_available, want) in [
        (3, 1, 0, vec![]),
        (3, 1, 1, vec![(3, 2)]),
        (2, 1, 1, vec![(1, 2)]),
        (1, 3, 2, vec![]),
        (1, 3, 3, vec![(1, 0)]),
    ] {
        let old = set(&before, &[], old_size, old_size);
        let new = set(&after, std::slice::from_ref(&old), new_size, new_available);
        assert_eq!(
            sizes(&plan(&after, &[old, new], true)),
            want,
            "{old_size} old, {new_size}/{new_available} new"
        );
    }
}

#[test]
fn broken_old_pods_go_first_and_a_stuck_roll_keeps_what_serves() {
    let before = deployment(
        4,
        "a",
        serde_json::json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}),
    );
    let after = deployment(4, "b", serde_json::json!(before.spec.strategy));
    let old = set(&before, &[], 4, 3);
    let new = set(&after, std::slice::from_ref(&old), 1, 0);
    assert_eq!(sizes(&plan(&after, &[old, new], true)), [(4, 3)]);
    let old = set(&before, &[], 3, 3);
    let new = set(&after, std::slice::from_ref(&old), 2, 0);
    assert_eq!(sizes(&plan(&after, &[old, new], true)), []);
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let strategy = serde_json::json!({"type": "Recreate"});
    let (before, after) = (deployment(2, "a", strategy.clone()), deployment(2, "b", strategy));
    let old = set(&before, &[], 2, 2);
    assert_eq!(sizes(&plan(&after, std::slice::from_ref(&old), true)), [(2, 0)]);
    let old = set(&before, &[], 0, 0);
    assert_eq!(plan(&after, std::slice::from_ref(&old), true), []);
    let [Action::Create(created)] = &plan(&after, &[old], false)[..] else { panic!("the new set") };
    assert_eq!(set_replicas(created), 2);
}

#[test]
fn rolling_back_reuses_the_old_set_with_a_new_revision() {
    let first = deployment(1, "a", rolling());
    let second = deployment(1, "b", rolling());
    let old = set(&first, &[], 0, 0);
    let current = set(&second, std::slice::from_ref(&old), 1, 1);
    let actions = plan(&first, &[old.clone(), current], true);
    assert!(
        actions.iter().any(|a| matches!(a, Action::Annotate { name, annotations }
        if *name == old.name_any() && annotations.get(REVISION).map(String::as_str) == Some("3"))),
        "{actions:?}"
    );
    assert!(actions.contains(&Action::SetRevision(3)), "{actions:?}");
    assert_eq!(sizes(&actions), [(0, 1)]);
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let before = deployment(2, "a", rolling());
    let old = set(&before, &[], 2, 2);
    let mut after = deployment(5, "b", rolling());
    after.spec.paused = Some(true);
    assert_eq!(sizes(&plan(&after, &[old], true)), [(2, 5)]);
}

#[test]
fn scaling_during_a_roll_is_shared_by_size() {
    let before = deployment(
        10,
        "a",
        serde_json::json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}),
    );
    let strategy = serde_json::json!(before.spec.strategy);
    let middle = deployment(10, "b", strategy.clone());
    let old = set(&before, &[], 8, 8);
    let new = set(&middle, std::slice::from_ref(&old), 5, 0);
    let bigger = deployment(15, "b", strategy);
    assert_eq!(sizes(&plan(&bigger, &[old, new], true)), [(8, 11), (5, 7)]);
}

#[test]
fn history_beyond_the_limit_is_removed_oldest_first() {
    let mut d = deployment(1, "z", rolling());
    d.spec.revision_history_limit = Some(1);
    let mut sets = Vec::new();
    for image in ["a", "b", "c"] {
        sets.push(set(&deployment(1, image, rolling()), &sets, 0, 0));
    }
    sets.push(set(&d, &sets, 1, 1));
    let deleted: Vec<String> = plan(&d, &sets, false)
        .into_iter()
        .filter_map(|a| if let Action::Delete { name } = a { Some(name) } else { None })
        .collect();
    assert_eq!(deleted, [sets[0].name_any(), sets[1].name_any()]);
}
