use serde_json::{Value, json};

use super::*;

fn shown(all: &Amounts) -> String {
    all.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
}

fn pod(resources: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
}

#[test]
fn objects_count_as_upstream_counts_them() {
    for (group, resource, object, want) in [
        ("", "configmaps", json!({}), "configmaps=1 count/configmaps=1"),
        ("apps", "deployments", json!({}), "count/deployments.apps=1"),
        ("example.com", "widgets", json!({}), "count/widgets.example.com=1"),
        ("", "pods", pod(json!({})), "count/pods=1 pods=1"),
        (
            "",
            "pods",
            pod(json!({"requests": {"cpu": "100m", "example.com/gpu": "2"}, "limits": {"memory": "1Gi"}})),
            "count/pods=1 cpu=100m limits.memory=1Gi pods=1 requests.cpu=100m requests.example.com/gpu=2",
        ),
        ("", "pods", json!({"status": {"phase": "Failed"}, "spec": {}}), "count/pods=1"),
        (
            "",
            "services",
            json!({"spec": {"type": "NodePort", "ports": [{}, {}]}}),
            "count/services=1 services=1 services.loadbalancers=0 services.nodeports=2",
        ),
        (
            "",
            "services",
            json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{}]}}),
            "count/services=1 services=1 services.loadbalancers=1 services.nodeports=0",
        ),
        (
            "",
            "persistentvolumeclaims",
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "3Gi"}}}}),
            "count/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
             fast.storageclass.storage.k8s.io/requests.storage=3Gi persistentvolumeclaims=1 requests.storage=3Gi",
        ),
    ] {
        assert_eq!(shown(&usage(group, resource, &object).amounts), want, "{group}/{resource} {object}");
    }
}

#[test]
fn scopes_choose_pods() {
    let plain = pod(json!({}));
    let mut ending = pod(json!({"requests": {"cpu": "1"}}));
    ending["spec"]["activeDeadlineSeconds"] = json!(60);
    ending["spec"]["priorityClassName"] = json!("high");
    ending["spec"]["affinity"] = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"podAffinityTerm": {"namespaceSelector": {}}}]}});
    let class = |operator: &str, values: Value| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    for (spec, on_plain, on_ending) in [
        (json!({}), true, true),
        (json!({"scopes": ["Terminating"]}), false, true),
        (json!({"scopes": ["NotTerminating"]}), true, false),
        (json!({"scopes": ["BestEffort"]}), true, false),
        (json!({"scopes": ["NotBestEffort"]}), false, true),
        (json!({"scopes": ["NotBestEffort", "NotTerminating"]}), false, false),
        (json!({"scopes": ["CrossNamespacePodAffinity"]}), false, true),
        (json!({"scopes": ["Unknown"]}), false, false),
        (class("In", json!(["high", "low"])), false, true),
        (class("In", json!(["low"])), false, false),
        (class("NotIn", json!(["high"])), true, false),
        (class("Exists", json!(null)), false, true),
        (class("DoesNotExist", json!(null)), true, false),
    ] {
        let quota = Quota::of(&json!({"metadata": {"name": "q"}, "spec": spec}));
        let tracks = |pod: &Value| quota.tracks(&usage("", "pods", pod));
        assert_eq!((tracks(&plain), tracks(&ending)), (on_plain, on_ending), "{spec}");
        let map = usage("", "configmaps", &json!({}));
        assert_eq!(quota.tracks(&map), spec == json!({}), "only a quota without scopes counts other kinds");
    }
}

#[test]
fn refusals_say_the_numbers() {
    let quota = |hard: Value| Quota::of(&json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}));
    let one = pod(json!({"requests": {"cpu": "300m"}}));
    let one = usage("", "pods", &one);
    for (hard, others, want) in [
        (json!({"pods": "2"}), 1, Ok(())),
        (json!({"pods": "2"}), 2, Err("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2")),
        (
            json!({"pods": "9", "requests.cpu": "1", "cpu": "0.5"}),
            3,
            Err(
                "exceeded quota: q, requested: cpu=300m,requests.cpu=300m, used: cpu=900m,requests.cpu=900m, \
                 limited: cpu=500m,requests.cpu=1",
            ),
        ),
        (json!({"secrets": "0"}), 5, Ok(())),
    ] {
        let quota = quota(hard.clone());
        let used = quota.used(std::iter::repeat_n(&one, others));
        assert_eq!(quota.admit(&used, &growth(&one, None)), want.map_err(str::to_owned), "{hard}");
    }
    // What only shrinks is always allowed, also where more is used than allowed.
    let small = usage("", "pods", &pod(json!({"requests": {"cpu": "100m"}})));
    assert_eq!(shown(&growth(&small, Some(&one))), "");
    assert_eq!(shown(&growth(&one, Some(&small))), "cpu=200m requests.cpu=200m");
    let used = quota(json!({"pods": "1", "secrets": "3"})).used([&one]);
    assert_eq!(shown(&used), "pods=1 secrets=0", "every limited name is reported");
}

#[test]
fn limited_compute_must_be_named() {
    let two = json!({"spec": {
        "initContainers": [{"name": "i"}],
        "containers": [{"name": "b", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}, {"name": "a"}],
    }});
    for (limited, want) in [
        (vec!["pods", "count/pods"], Ok(())),
        (vec!["requests.cpu", "limits.cpu"], Err("must specify limits.cpu for: a,i; requests.cpu for: a,i")),
        (vec!["memory"], Err("must specify memory for: a,b,i")),
        (vec!["limits.ephemeral-storage"], Ok(())),
    ] {
        let got = missing_for_containers(limited.iter().copied(), &two);
        assert_eq!(got, want.map_err(str::to_owned), "{limited:?}");
    }
    let mut whole = two;
    whole["spec"]["resources"] = json!({"requests": {"cpu": "2"}});
    assert_eq!(missing_for_containers(["requests.cpu"], &whole), Ok(()), "the pod names it for all");
}
