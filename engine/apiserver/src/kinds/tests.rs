//! Tables over the built-in kinds: defaults, printed rows, conversions.

use serde_json::{Value, json};

use super::builtin;
use crate::kind::Kind;

fn kind(group: &str, version: &str, resource: &str) -> Kind {
    builtin()
        .into_iter()
        .find(|k| k.info.group == group && k.info.version == version && k.info.resource == resource)
        .expect("a built-in kind")
}

/// The object after the defaults; doing them twice changes nothing.
fn defaulted(kind: &Kind, object: &Value) -> Value {
    let mut once = object.clone();
    kind.strategy.default(&mut once);
    let mut twice = once.clone();
    kind.strategy.default(&mut twice);
    assert_eq!(once, twice, "{}: defaulting twice changes nothing", kind.info.resource);
    once
}

#[test]
fn defaults_users_see() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "web:1"}]}});
    type Case = (&'static str, &'static str, Value, Vec<(&'static str, Value)>);
    let cases: Vec<Case> = vec![
        (
            "apps",
            "deployments",
            json!({"spec": {"template": template}}),
            vec![
                ("/spec/replicas", json!(1)),
                (
                    "/spec/strategy",
                    json!({"type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}),
                ),
                ("/spec/revisionHistoryLimit", json!(10)),
                ("/spec/progressDeadlineSeconds", json!(600)),
                ("/spec/template/spec/restartPolicy", json!("Always")),
                ("/spec/template/spec/schedulerName", json!("default-scheduler")),
                ("/spec/template/spec/containers/0/imagePullPolicy", json!("IfNotPresent")),
                ("/spec/template/spec/containers/0/terminationMessagePath", json!("/dev/termination-log")),
            ],
        ),
        (
            "apps",
            "statefulsets",
            json!({"spec": {"template": template, "volumeClaimTemplates": [{"metadata": {"name": "d"}}]}}),
            vec![
                ("/spec/podManagementPolicy", json!("OrderedReady")),
                ("/spec/updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})),
                (
                    "/spec/persistentVolumeClaimRetentionPolicy",
                    json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
                ),
                ("/spec/volumeClaimTemplates/0/spec/volumeMode", json!("Filesystem")),
                ("/spec/volumeClaimTemplates/0/status/phase", json!("Pending")),
            ],
        ),
        (
            "apps",
            "daemonsets",
            json!({"spec": {"template": template}}),
            vec![(
                "/spec/updateStrategy",
                json!({"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}),
            )],
        ),
        (
            "batch",
            "jobs",
            json!({"spec": {"template": template}}),
            vec![
                ("/spec/completions", json!(1)),
                ("/spec/parallelism", json!(1)),
                ("/spec/backoffLimit", json!(6)),
                ("/spec/completionMode", json!("NonIndexed")),
                ("/spec/suspend", json!(false)),
                ("/spec/manualSelector", json!(false)),
                ("/spec/podReplacementPolicy", json!("TerminatingOrFailed")),
            ],
        ),
        (
            "batch",
            "cronjobs",
            json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}}),
            vec![
                ("/spec/concurrencyPolicy", json!("Allow")),
                ("/spec/successfulJobsHistoryLimit", json!(3)),
                ("/spec/failedJobsHistoryLimit", json!(1)),
                ("/spec/jobTemplate/spec/template/spec/dnsPolicy", json!("ClusterFirst")),
            ],
        ),
        (
            "",
            "services",
            json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}}),
            vec![
                ("/spec/ports/0", json!({"port": 80, "protocol": "TCP", "targetPort": 80})),
                ("/spec/sessionAffinityConfig/clientIP/timeoutSeconds", json!(10_800)),
                ("/spec/externalTrafficPolicy", json!("Cluster")),
                ("/spec/internalTrafficPolicy", json!("Cluster")),
                ("/spec/allocateLoadBalancerNodePorts", json!(true)),
            ],
        ),
        (
            "",
            "secrets",
            json!({"stringData": {"a": "secret"}}),
            vec![("/type", json!("Opaque")), ("/data/a", json!("c2VjcmV0"))],
        ),
        (
            "",
            "namespaces",
            json!({"metadata": {"name": "n"}}),
            vec![("/metadata/labels/kubernetes.io~1metadata.name", json!("n"))],
        ),
        (
            "networking.k8s.io",
            "networkpolicies",
            json!({"spec": {"egress": [{}]}}),
            vec![("/spec/policyTypes", json!(["Ingress", "Egress"]))],
        ),
    ];
    for (group, resource, object, expected) in cases {
        let kind = kind(group, "v1", resource);
        let object = defaulted(&kind, &object);
        for (pointer, value) in expected {
            assert_eq!(object.pointer(pointer), Some(&value), "{resource}{pointer}");
        }
    }
}

#[test]
fn defaulting_and_printing_survive_any_shape() {
    let wrong = [
        json!(null),
        json!([]),
        json!({}),
        json!({"metadata": 1, "spec": [], "status": "x"}),
        json!({"spec": {"template": [], "containers": {}, "ports": [1], "selector": "x"}}),
        json!({"spec": {"template": {"spec": {"containers": [null, 1, {"env": [{"valueFrom": 1}]}]}}}}),
    ];
    let now = jiff::Timestamp::UNIX_EPOCH;
    for kind in builtin() {
        for object in &wrong {
            let object = defaulted(&kind, object);
            kind.strategy.validate_create(&object);
            kind.strategy.validate_update(&object, &json!({}));
            kind.strategy.selectable_fields(&object);
            let row = kind.strategy.row(&object, now);
            assert_eq!(row.len(), kind.strategy.columns().len(), "{}: a cell per column", kind.info.resource);
        }
    }
}

#[test]
fn rows_as_kubectl_prints_them() {
    let made = json!({"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"});
    let template = json!({"spec": {"containers": [{"name": "a", "image": "web:1"}]}});
    let table = [
        (
            "apps",
            "deployments",
            json!({"spec": {"replicas": 3, "template": template, "selector": {"matchLabels": {"app": "x"}}},
                "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}}),
            json!(["2/3", 3, 2, "5m", "a", "web:1", "app=x"]),
        ),
        (
            "apps",
            "replicasets",
            json!({"spec": {"replicas": 3, "template": template, "selector": {"matchLabels": {"app": "x"}}},
                "status": {"replicas": 3}}),
            json!([3, 3, 0, "5m", "a", "web:1", "app=x"]),
        ),
        (
            "",
            "services",
            json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.2", "selector": {"app": "x"},
                "ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}]}}),
            json!(["NodePort", "10.96.0.2", "<none>", "80:30001/TCP", "5m", "app=x"]),
        ),
        (
            "",
            "nodes",
            json!({"spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian"},
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}),
            json!([
                "Ready,SchedulingDisabled",
                "<none>",
                "5m",
                "v1.37.0",
                "10.0.0.1",
                "<none>",
                "Debian",
                "<unknown>",
                "<unknown>"
            ]),
        ),
        (
            "",
            "events",
            json!({"type": "Warning", "reason": "BackOff", "message": "why\n", "count": 3,
                "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet", "host": "n"},
                "firstTimestamp": "2026-01-01T00:04:00Z", "lastTimestamp": "2026-01-01T00:04:30Z"}),
            json!(["30s", "Warning", "BackOff", "pod/p", "why", "", "kubelet, n", "60s", 3, "x"]),
        ),
        (
            "",
            "resourcequotas",
            json!({"status": {"hard": {"limits.cpu": "4", "pods": "10", "cpu": "2"}, "used": {"pods": "3"}}}),
            json!(["cpu: 0/2, pods: 3/10", "limits.cpu: 0/4", "5m"]),
        ),
        (
            "certificates.k8s.io",
            "certificatesigningrequests",
            json!({"spec": {"signerName": "s", "username": "u"},
                "status": {"certificate": "x", "conditions": [{"type": "Approved", "status": "True"}]}}),
            json!(["5m", "s", "u", "<none>", "Approved,Issued"]),
        ),
    ];
    let now = "2026-01-01T00:05:00Z".parse().expect("a time");
    for (group, resource, mut object, expected) in table {
        object["metadata"] = made.clone();
        let row = kind(group, "v1", resource).strategy.row(&object, now);
        assert_eq!(Value::from(row), expected, "{resource}");
    }
}

#[test]
fn two_versions_of_one_resource_hold_the_same() {
    let event = kind("events.k8s.io", "v1", "events");
    let stored = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"},
        "message": "m", "source": {"component": "c"}, "reportingComponent": "c", "reportingInstance": "i",
        "firstTimestamp": null, "lastTimestamp": null, "eventTime": null, "count": 2, "type": "Normal"});
    let mut served = stored.clone();
    event.strategy.from_storage(&mut served);
    assert_eq!((&served["regarding"]["name"], &served["note"]), (&json!("p"), &json!("m")));
    assert_eq!((&served["reportingController"], &served["deprecatedCount"]), (&json!("c"), &json!(2)));
    let mut back = served.clone();
    event.strategy.to_storage(&mut back);
    assert_eq!(back, stored, "there and back");

    let v1 = kind("autoscaling", "v1", "horizontalpodautoscalers");
    assert_eq!(v1.storage, kind("autoscaling", "v2", "horizontalpodautoscalers").storage);
    let mut object = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3,
        "targetCPUUtilizationPercentage": 50}});
    v1.strategy.to_storage(&mut object);
    assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    assert_eq!(object["spec"]["minReplicas"], 1);
    object["spec"]["metrics"].as_array_mut().expect("a list").push(json!({"type": "Pods"}));
    let stored = object.clone();
    v1.strategy.from_storage(&mut object);
    assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 50);
    assert!(object["spec"].get("metrics").is_none(), "{object}");
    v1.strategy.to_storage(&mut object);
    assert_eq!(object["spec"]["metrics"], stored["spec"]["metrics"], "nothing is lost on the way");
}

#[test]
fn what_will_surprise_is_said() {
    let spec = json!({"containers": [{"name": "a", "image": "x",
        "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
        "ports": [{"containerPort": 80}, {"containerPort": 80}]}]});
    let pod = json!({"metadata": {"name": "a.b"}, "spec": spec});
    let found = kind("", "v1", "pods").strategy.warnings(&pod);
    let parts = [
        "metadata.name: this is used in Pod names and hostnames",
        "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
        "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
    ];
    assert_eq!(found.len(), parts.len(), "{found:#?}");
    for (sentence, part) in found.iter().zip(parts) {
        assert!(sentence.starts_with(part), "{sentence}");
    }
    let quiet = json!({"metadata": {"name": "web"}, "spec": {"template": {"spec": {"containers": []}}}});
    assert_eq!(kind("apps", "v1", "deployments").strategy.warnings(&quiet), [""; 0]);
}
