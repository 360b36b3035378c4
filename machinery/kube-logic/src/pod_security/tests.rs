use serde_json::{Value, json};

use super::*;

/// A pod that `restricted` has nothing against.
fn good() -> Value {
    json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    })
}

/// Sets the value at a pointer of the good pod.
fn with(pointer: &str, value: Value) -> Value {
    let mut spec = good();
    let mut at = &mut spec;
    for part in pointer.trim_start_matches('/').split('/') {
        at = match part.parse::<usize>() {
            Ok(index) => {
                if !at.is_array() {
                    *at = json!([]);
                }
                let list = at.as_array_mut().expect("a list");
                while list.len() <= index {
                    list.push(json!({"name": format!("n{}", list.len())}));
                }
                &mut list[index]
            }
            Err(_) => &mut at[part],
        };
    }
    *at = value;
    spec
}

fn told(level: Level, spec: &Value) -> String {
    let found = evaluate(LevelVersion::latest(level), &Value::Null, spec);
    found.iter().map(Violation::to_string).collect::<Vec<_>>().join(", ")
}

const A: &str = "/containers/0/securityContext";

#[test]
fn nothing_is_held_against_a_good_pod() {
    for level in [Level::Privileged, Level::Baseline, Level::Restricted] {
        assert_eq!(told(level, &good()), "");
    }
}

#[test]
fn baseline_closes_the_ways_to_the_host() {
    let at = |field: &str| format!("{A}/{field}");
    for (spec, want) in [
        (
            with(&at("privileged"), json!(true)),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (with("/hostNetwork", json!(true)), "host namespaces (hostNetwork=true)"),
        (with("/hostPID", json!(true)), "host namespaces (hostPID=true)"),
        (with("/hostIPC", json!(true)), "host namespaces (hostIPC=true)"),
        (
            with("/containers/0/ports", json!([{"hostPort": 80}, {"hostPort": 81}, {"hostPort": 0}])),
            "hostPort (container \"a\" uses hostPorts 80, 81)",
        ),
        (
            with(&at("capabilities/add"), json!(["CHOWN", "SYS_ADMIN", "NET_ADMIN"])),
            "non-default capabilities (container \"a\" must not include \"NET_ADMIN\", \"SYS_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            with(&at("procMount"), json!("Unmasked")),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            with(&at("seccompProfile/type"), json!("Unconfined")),
            "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            with("/securityContext/seccompProfile/type", json!("Unconfined")),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            with(
                "/securityContext/sysctls",
                json!([{"name": "kernel.msgmax"}, {"name": "kernel.shm_rmid_forced"}]),
            ),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            with(&at("appArmorProfile/type"), json!("Unconfined")),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            with("/securityContext/seLinuxOptions", json!({"type": "spc_t", "user": "u"})),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        ),
        (
            with(&at("windowsOptions/hostProcess"), json!(true)),
            "hostProcess (container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            with("/containers/0/livenessProbe/httpGet/host", json!("10.0.0.1")),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
    ] {
        assert_eq!(told(Level::Baseline, &spec), want);
        let strict = told(Level::Restricted, &spec);
        assert!(!strict.is_empty(), "restricted forbids it too: {want}");
        assert_eq!(told(Level::Privileged, &spec), "");
    }
    let volumes = json!([{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}]);
    let mounted = with("/volumes", volumes);
    assert_eq!(told(Level::Baseline, &mounted), "hostPath volumes (volumes \"v\", \"w\")");
    assert_eq!(
        told(Level::Restricted, &mounted),
        "restricted volume types (volumes \"v\", \"w\" use restricted volume type \"hostPath\")"
    );
    // No container of any list is passed over.
    for list in ["initContainers", "ephemeralContainers"] {
        let spec = with(&format!("/{list}/0/securityContext/privileged"), json!(true));
        let want = "privileged (container \"n0\" must not set securityContext.privileged=true)";
        assert_eq!(told(Level::Baseline, &spec), want, "{list}");
    }
    let annotated =
        json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}});
    let found = evaluate(LevelVersion::latest(Level::Baseline), &annotated, &good());
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn restricted_wants_little_asked_for() {
    let at = |field: &str| format!("{A}/{field}");
    for (spec, want) in [
        (
            with(&at("allowPrivilegeEscalation"), Value::Null),
            "allowPrivilegeEscalation != false (container \"a\" must set \
             securityContext.allowPrivilegeEscalation=false)",
        ),
        (
            with(&at("capabilities"), json!({"drop": ["CHOWN"], "add": ["NET_BIND_SERVICE", "CHOWN"]})),
            "unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]; \
             container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            with(
                "/volumes",
                json!([{"name": "v", "nfs": {}}, {"name": "ok", "secret": {}}, {"name": "none"}]),
            ),
            "restricted volume types (volume \"v\" uses restricted volume type \"nfs\")",
        ),
        (
            with("/securityContext/runAsNonRoot", Value::Null),
            "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
        ),
        (
            with("/securityContext/runAsNonRoot", json!(false)),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
        ),
        (
            with(&at("runAsNonRoot"), json!(false)),
            "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
        ),
        (with(&at("runAsUser"), json!(0)), "runAsUser=0 (container \"a\" must not set runAsUser=0)"),
        (
            with("/securityContext/seccompProfile", Value::Null),
            "seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \
             \"RuntimeDefault\" or \"Localhost\")",
        ),
    ] {
        assert_eq!(told(Level::Restricted, &spec), want);
        assert_eq!(told(Level::Baseline, &spec), "", "baseline lets it: {want}");
    }
}

#[test]
fn labels_say_what_holds() {
    let namespace = |labels: Value| json!({"metadata": {"labels": labels}});
    let defaults = Policy::default();
    let (policy, bad) = Policy::of(&namespace(json!({})), &defaults);
    assert_eq!((policy, bad.len()), (defaults, 0));
    let (policy, bad) = Policy::of(
        &namespace(json!({
            "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.28",
            "pod-security.kubernetes.io/audit": "restricted",
        })),
        &defaults,
    );
    assert_eq!(policy.enforce.to_string(), "baseline:v1.28");
    assert_eq!(policy.audit.to_string(), "restricted:latest");
    assert_eq!((policy.warn, bad.len()), (policy.enforce, 0), "who enforces is warned of workloads");
    let (policy, bad) = Policy::of(
        &namespace(json!({
            "pod-security.kubernetes.io/enforce": "strict", "pod-security.kubernetes.io/warn-version": "1.2",
        })),
        &defaults,
    );
    assert_eq!(policy.enforce.level, Level::Restricted, "what cannot be read must not open anything");
    let keys: Vec<&str> = bad.iter().map(|b| b.key.as_str()).collect();
    assert_eq!(keys, ["pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/warn-version"]);
    // Older versions know fewer checks.
    let probe = with("/containers/0/livenessProbe/httpGet/host", json!("10.0.0.1"));
    let old = LevelVersion { level: Level::Baseline, minor: Some(33) };
    assert_eq!(evaluate(old, &Value::Null, &probe), []);
    let violations = evaluate(LevelVersion::latest(Level::Baseline), &Value::Null, &probe);
    assert!(
        sentence(old, &violations).starts_with("PodSecurity \"baseline:v1.33\": probe or lifecycle host (")
    );
}
