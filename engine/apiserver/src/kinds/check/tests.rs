//! Tables of objects and of what users read about them.

use serde_json::{Value, json};

use crate::kind::Strategy;
use crate::kinds::behaviour;
use crate::kinds::rules::Rules;

/// Defaults the object as a create does; the messages of what is wrong.
fn create(rules: &Rules, mut object: Value) -> Vec<String> {
    rules.default(&mut object);
    rules.prepare_create(&mut object);
    rules.validate_create(&object).iter().map(ToString::to_string).collect()
}

fn update(rules: &Rules, mut new: Value, mut old: Value) -> Vec<String> {
    rules.default(&mut new);
    rules.default(&mut old);
    rules.validate_update(&new, &old).iter().map(ToString::to_string).collect()
}

/// `base` with the value at each pointer replaced, missing objects made.
fn with(base: &Value, changes: &[(&str, Value)]) -> Value {
    let mut object = base.clone();
    for (pointer, value) in changes {
        let mut at = &mut object;
        for part in pointer[1..].split('/') {
            at = match (part.parse::<usize>(), at.is_array()) {
                (Ok(index), true) => &mut at[index],
                _ => &mut at[part.replace("~1", "/")],
            };
        }
        *at = value.clone();
    }
    object
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "a", "image": "web:1", "ports": [{"containerPort": 80}]}],
        "volumes": [{"name": "v", "emptyDir": {}}]}})
}

#[test]
fn a_plain_pod_is_fine_and_each_mistake_has_its_sentence() {
    assert_eq!(create(&behaviour::POD, pod()), [""; 0]);
    let table: Vec<(&str, Value, &str)> = vec![
        ("/spec/containers", json!([]), "spec.containers: Required value"),
        ("/spec/containers/0/image", json!(""), "spec.containers[0].image: Required value"),
        (
            "/spec/containers/0/image",
            json!(" web"),
            "spec.containers[0].image: Invalid value: \" web\": must not have leading or trailing whitespace",
        ),
        ("/spec/containers/0/name", json!(""), "spec.containers[0].name: Required value"),
        (
            "/spec/containers/0/ports/0",
            json!({"containerPort": 70000}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "x", "mountPath": "/x"}]),
            "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "v", "mountPath": "/x", "subPath": "../x"}]),
            "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {}}]),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, \
             `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            "/spec/containers/0/envFrom",
            json!([{"configMapRef": {"name": "a"}, "secretRef": {"name": "b"}}]),
            "spec.containers[0].envFrom[0]: Invalid value: \"\": may not have more than one field specified at a time",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"tcpSocket": {"port": 80}, "successThreshold": 2}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            "/spec/containers/0/lifecycle",
            json!({"preStop": {"sleep": {"seconds": 31}}}),
            "spec.containers[0].lifecycle.preStop.sleep.seconds: Invalid value: 31: must be non-negative and less \
             than terminationGracePeriodSeconds (30)",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"privileged": true, "allowPrivilegeEscalation": false}),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        (
            "/spec/containers/0/restartPolicy",
            json!("Always"),
            "spec.containers[0].restartPolicy: Forbidden: may not be set for non-init containers",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]),
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without \
             restartPolicy=Always",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "a", "image": "i"}]),
            "spec.containers[0].name: Duplicate value: \"a\"",
        ),
        (
            "/spec/volumes/0",
            json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "/spec/volumes/0",
            json!({"name": "v", "persistentVolumeClaim": {}}),
            "spec.volumes[0].persistentVolumeClaim.claimName: Required value",
        ),
        (
            "/spec/tolerations",
            json!([{"operator": "Equal"}]),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, \
             which means \"match all values and all keys\"",
        ),
        (
            "/spec/topologySpreadConstraints",
            json!([{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            "/spec/affinity",
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}),
            "requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
        ),
        (
            "/spec/dnsPolicy",
            json!("None"),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            "/spec/securityContext",
            json!({"runAsUser": -1}),
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            "/spec/restartPolicy",
            json!("Sometimes"),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \
             \"OnFailure\"",
        ),
    ];
    for (pointer, value, expected) in table {
        let found = create(&behaviour::POD, with(&pod(), &[(pointer, value.clone())]));
        assert!(found.len() == 1 && found[0].contains(expected), "{pointer} = {value}: {found:#?}");
    }
}

#[test]
fn host_ports_collide_and_match() {
    let two = json!([
        {"name": "a", "image": "x", "ports": [{"containerPort": 80, "hostPort": 80}]},
        {"name": "b", "image": "x", "ports": [{"containerPort": 81, "hostPort": 80}]}
    ]);
    let found = create(&behaviour::POD, with(&pod(), &[("/spec/containers", two.clone())]));
    assert_eq!(found, ["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\""]);
    let shared = [("/spec/containers", json!([two[1]])), ("/spec/hostNetwork", json!(true))];
    let found = create(&behaviour::POD, with(&pod(), &shared));
    assert_eq!(
        found,
        [
            "spec.containers[0].ports[0].containerPort: Invalid value: 81: must match `hostPort` when `hostNetwork` is true"
        ]
    );
}

#[test]
fn what_an_update_of_a_pod_may_change() {
    let old = with(&pod(), &[("/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]))]);
    let allowed = [
        ("/spec/containers/0/image", json!("web:2")),
        ("/spec/activeDeadlineSeconds", json!(5)),
        (
            "/spec/tolerations",
            json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]),
        ),
        ("/metadata/labels", json!({"a": "b"})),
    ];
    for change in allowed {
        let found = update(&behaviour::POD, with(&old, std::slice::from_ref(&change)), old.clone());
        assert_eq!(found, [""; 0], "{}", change.0);
    }
    let refused = [
        (
            "/spec/nodeSelector",
            json!({"a": "b"}),
            "spec: Forbidden: pod updates may not change fields other than",
        ),
        ("/spec/containers/0/command", json!(["x"]), "spec: Forbidden: pod updates may not change fields"),
        (
            "/spec/terminationGracePeriodSeconds",
            json!(1),
            "spec: Forbidden: pod updates may not change fields",
        ),
        (
            "/spec/tolerations",
            json!([{"key": "b", "operator": "Exists"}]),
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
        ),
    ];
    for (pointer, value, expected) in refused {
        let found = update(&behaviour::POD, with(&old, &[(pointer, value)]), old.clone());
        assert!(found.len() == 1 && found[0].contains(expected), "{pointer}: {found:#?}");
    }
}

fn workload(kind: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "w"}, "spec": {
        "selector": {"matchLabels": {"app": "w"}},
        "template": {"metadata": {"labels": {"app": "w"}},
            "spec": {"containers": [{"name": "a", "image": "web"}]}}}})
}

#[test]
fn workloads_and_their_selectors() {
    let kinds = [
        (behaviour::DEPLOYMENT, "Deployment", "deployment"),
        (behaviour::REPLICA_SET, "ReplicaSet", "deployment"),
        (behaviour::STATEFUL_SET, "StatefulSet", "statefulset"),
        (behaviour::DAEMON_SET, "DaemonSet", "daemonset"),
    ];
    for (rules, kind, word) in kinds {
        let good = workload(kind);
        assert_eq!(create(&rules, good.clone()), [""; 0], "{kind}");
        let wrong = with(&good, &[("/spec/template/metadata/labels", json!({"app": "x"}))]);
        let mismatch = "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match \
                        template `labels`";
        assert_eq!(create(&rules, wrong), [mismatch], "{kind}");
        let missing = with(&good, &[("/spec/selector", Value::Null)]);
        assert_eq!(create(&rules, missing), ["spec.selector: Required value"], "{kind}");
        let empty = with(&good, &[("/spec/selector", json!({}))]);
        let expected = format!("spec.selector: Invalid value: {{}}: empty selector is invalid for {word}");
        assert_eq!(create(&rules, empty), [expected], "{kind}");
        let once = with(&good, &[("/spec/template/spec/restartPolicy", json!("Never"))]);
        assert_eq!(
            create(&rules, once),
            ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
        );
        let labels = json!({"app": "x"});
        let moved =
            [("/spec/selector/matchLabels", labels.clone()), ("/spec/template/metadata/labels", labels)];
        let found = update(&rules, with(&good, &moved), good.clone());
        let expected = if kind == "StatefulSet" {
            "spec: Forbidden: updates to statefulset spec"
        } else {
            "field is immutable"
        };
        assert!(found.len() == 1 && found[0].contains(expected), "{kind}: {found:?}");
    }
}

#[test]
fn every_other_kind_names_the_field_that_is_wrong() {
    let job = json!({"kind": "Job", "metadata": {"name": "j", "uid": "u"}, "spec": {"template":
        {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "web"}]}}}});
    let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *",
        "jobTemplate": {"spec": job["spec"]}}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"}}});
    let hpa = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 2,
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"rules": [{"host": "a.b", "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}});
    let policy = json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}, "ingress": [
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}]}]}});
    let slice = json!({"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"port": 80}]});
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {}}});
    let class = json!({"metadata": {"name": "high"}, "value": 10});
    let node = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let lease = json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 5}});
    type Case<'a> = (Rules, &'a Value, &'a [(&'a str, Value, &'a str)]);
    let cases: [Case<'_>; 13] = [
        (
            behaviour::JOB,
            &job,
            &[
                (
                    "/spec/template/spec/restartPolicy",
                    json!("Always"),
                    "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ),
                (
                    "/spec/completionMode",
                    json!("Sometimes"),
                    "spec.completionMode: Unsupported value: \"Sometimes\"",
                ),
            ],
        ),
        (
            behaviour::CRON_JOB,
            &cron,
            &[
                (
                    "/spec/schedule",
                    json!("* *"),
                    "spec.schedule: Invalid value: \"* *\": expected exactly 5 fields",
                ),
                (
                    "/spec/timeZone",
                    json!("Mars/Base"),
                    "spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone",
                ),
            ],
        ),
        (
            behaviour::CLAIM,
            &claim,
            &[
                (
                    "/spec/accessModes",
                    json!([]),
                    "spec.accessModes: Required value: at least 1 access mode is required",
                ),
                ("/spec/resources", json!({}), "spec.resources[storage]: Required value"),
            ],
        ),
        (
            behaviour::VOLUME,
            &volume,
            &[
                ("/spec/hostPath", Value::Null, "spec: Required value: must specify a volume type"),
                ("/spec/nfs", json!({"server": "s", "path": "/"}), "may not specify more than 1 volume type"),
            ],
        ),
        (
            behaviour::AUTOSCALER,
            &hpa,
            &[
                (
                    "/spec/minReplicas",
                    json!(0),
                    "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                ),
                ("/spec/minReplicas", json!(3), "must be greater than or equal to `minReplicas`"),
            ],
        ),
        (
            behaviour::SERVICE,
            &service,
            &[
                ("/spec/ports", json!([]), "spec.ports: Required value"),
                (
                    "/spec/ports/0/nodePort",
                    json!(30000),
                    "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                ),
            ],
        ),
        (
            behaviour::INGRESS,
            &ingress,
            &[
                ("/spec/rules/0/http/paths/0/pathType", json!("x"), "pathType: Unsupported value: \"x\""),
                ("/spec/rules/0/host", json!("10.0.0.1"), "must be a DNS name, not an IP address"),
            ],
        ),
        (
            behaviour::NETWORK_POLICY,
            &policy,
            &[
                (
                    "/spec/ingress/0/from/0",
                    json!({}),
                    "spec.ingress[0].from[0]: Required value: must specify a peer",
                ),
                (
                    "/spec/ingress/0/from/0/ipBlock/except",
                    json!(["11.0.0.0/8"]),
                    "must be a strict subset of `cidr`",
                ),
            ],
        ),
        (
            behaviour::ENDPOINT_SLICE,
            &slice,
            &[
                ("/endpoints/0/addresses/0", json!("127.0.0.1"), "may not be in the loopback range"),
                ("/addressType", json!(""), "addressType: Required value"),
            ],
        ),
        (
            behaviour::DISRUPTION_BUDGET,
            &budget,
            &[
                ("/spec/maxUnavailable", json!(1), "minAvailable and maxUnavailable cannot be both set"),
                ("/spec/minAvailable", json!("110%"), "must not be greater than 100%"),
            ],
        ),
        (
            behaviour::PRIORITY_CLASS,
            &class,
            &[(
                "/value",
                json!(2_000_000_000),
                "maximum allowed value of a user defined priority is 1000000000",
            )],
        ),
        (behaviour::NODE, &node, &[("/spec/taints/0/effect", json!("x"), "Unsupported value: \"x\"")]),
        (behaviour::LEASE, &lease, &[("/spec/leaseDurationSeconds", json!(0), "must be greater than 0")]),
    ];
    for (rules, good, mistakes) in cases {
        assert_eq!(create(&rules, good.clone()), [""; 0], "{good}");
        for (pointer, value, expected) in mistakes {
            let found = create(&rules, with(good, &[(pointer, value.clone())]));
            assert!(found.len() == 1 && found[0].contains(expected), "{pointer} = {value}: {found:#?}");
        }
    }
}

#[test]
fn what_is_bound_or_started_stays() {
    let claim = json!({"metadata": {"name": "c"}, "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "v", "resources": {"requests": {"storage": "2Gi"}}}});
    let sized = |size: &str| with(&claim, &[("/spec/resources/requests/storage", json!(size))]);
    assert_eq!(update(&behaviour::CLAIM, sized("3Gi"), claim.clone()), [""; 0]);
    assert_eq!(
        update(&behaviour::CLAIM, sized("1Gi"), claim.clone()),
        ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
    );
    let moved = with(&claim, &[("/spec/volumeName", json!("w"))]);
    assert!(update(&behaviour::CLAIM, moved, claim)[0].contains("spec is immutable after creation"));
}
