//! Containers that fail, in the words kubectl's users know.

use std::time::Duration;

use gantry_testkit::Instance;
use serde_json::{Value, json};

use crate::support::{IDLE, expect_field, expect_field_within, expect_output, has_all, tools_pod};

/// A second crash comes after a back-off of 10 seconds, and the third after 20.
const BACK_OFF: Duration = Duration::from_secs(60);

fn with(mut pod: Value, changes: &[(&str, Value)]) -> String {
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
        pod.pointer_mut(parent).expect("the parent is there")[key] = value.clone();
    }
    pod.to_string()
}

const CONTAINER: &str = "/spec/containers/0";

fn container(field: &str) -> String {
    format!("{CONTAINER}/{field}")
}

#[test]
fn containers_that_fail_say_how() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    let never = ("/spec/restartPolicy", json!("Never"));
    let pods = [
        tools_pod("crashes", "echo I fail; exit 3").to_string(),
        // dd's one block is larger than the limit: the kernel ends it, and it is process 1.
        with(
            tools_pod("hungry", "exec dd if=/dev/zero of=/dev/null bs=200M count=5"),
            &[(&container("resources"), json!({"limits": {"memory": "32Mi"}})), never.clone()],
        ),
        with(tools_pod("absent", IDLE), &[(&container("image"), json!("demo/not-there:1"))]),
        with(
            tools_pod("forbidden", IDLE),
            &[
                (&container("image"), json!("demo/not-there:2")),
                (&container("imagePullPolicy"), json!("Never")),
            ],
        ),
        with(
            tools_pod("no-program", IDLE),
            &[(&container("command"), json!(["/no/such/program"])), never.clone()],
        ),
        with(
            tools_pod("no-config", IDLE),
            &[(&container("envFrom"), json!([{"configMapRef": {"name": "not-there"}}]))],
        ),
        with(
            tools_pod("unready", IDLE),
            &[(&container("readinessProbe"), json!({"exec": {"command": ["false"]}, "periodSeconds": 1}))],
        ),
        with(
            tools_pod("sick", IDLE),
            &[(
                &container("livenessProbe"),
                json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}),
            )],
        ),
        with(tools_pod("finished", "echo done > /dev/termination-log"), std::slice::from_ref(&never)),
        with(tools_pod("too-big", IDLE), &[(&container("resources"), json!({"requests": {"cpu": "1000"}}))]),
    ];
    gantry.apply(&pods.join("\n"));
    ended(&gantry);
    waiting(&gantry);
    probes(&gantry);
    crash_loop(&gantry);
}

fn ended(gantry: &Instance) {
    let state = "{.status.containerStatuses[0].state.terminated.reason} {.status.phase}";
    expect_field(gantry, &["pod/finished"], state, "Completed Succeeded");
    let message =
        gantry.jsonpath(&["pod/finished"], "{.status.containerStatuses[0].state.terminated.message}");
    assert_eq!(message, "done\n");
    expect_field(gantry, &["pod/hungry"], state, "OOMKilled Failed");
    let code = "{.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(gantry.jsonpath(&["pod/hungry"], code), "137");
    expect_output(gantry, &["get", "pod/hungry"], "OOMKilled");
    expect_field(gantry, &["pod/no-program"], state, "StartError Failed");
    assert_eq!(gantry.jsonpath(&["pod/no-program"], code), "128");
    let why = gantry.jsonpath(&["pod/no-program"], "{.status.containerStatuses[0].state.terminated.message}");
    has_all(&why, &["/no/such/program"]);
}

fn waiting(gantry: &Instance) {
    let reason = "{.status.containerStatuses[0].state.waiting.reason} {.status.phase}";
    expect_field(gantry, &["pod/absent"], reason, "ImagePullBackOff Pending");
    expect_output(gantry, &["get", "pod/absent"], "0/1");
    expect_output(
        gantry,
        &["get", "events", "--field-selector=involvedObject.name=absent"],
        "Failed to pull image",
    );
    expect_output(gantry, &["get", "events", "--field-selector=reason=BackOff"], "Back-off pulling image");
    expect_field(gantry, &["pod/forbidden"], reason, "ErrImageNeverPull Pending");
    expect_field(gantry, &["pod/no-config"], reason, "CreateContainerConfigError Pending");
    let why = gantry.jsonpath(&["pod/no-config"], "{.status.containerStatuses[0].state.waiting.message}");
    assert_eq!(why, "configmap \"not-there\" not found");
    // What was missing arrives, and the pod starts without being asked.
    gantry.kubectl(&["create", "configmap", "not-there", "--from-literal=A=b"]).ok();
    expect_field(gantry, &["pod/no-config"], "{.status.phase}", "Running");
    let condition = "{.status.conditions[?(@.type=='PodScheduled')].reason}";
    expect_field(gantry, &["pod/too-big"], condition, "Unschedulable");
    expect_output(gantry, &["describe", "pod/too-big"], "FailedScheduling");
    expect_output(gantry, &["describe", "pod/too-big"], "0/1 nodes are available: 1 Insufficient cpu");
    has_all(&gantry.gantry(&["why", "pod/too-big"]).ok(), &["Insufficient cpu", "no "]);
}

fn probes(gantry: &Instance) {
    expect_output(gantry, &["describe", "pod/unready"], "Readiness probe failed");
    assert_eq!(gantry.jsonpath(&["pod/unready"], "{.status.phase}"), "Running");
    let ready =
        "{.status.conditions[?(@.type=='Ready')].status} {.status.conditions[?(@.type=='Ready')].reason}";
    assert_eq!(gantry.jsonpath(&["pod/unready"], ready), "False ContainersNotReady");
    expect_output(
        gantry,
        &["describe", "pod/sick"],
        "Container main failed liveness probe, will be restarted",
    );
    expect_field(gantry, &["pod/sick"], "{.status.containerStatuses[0].restartCount}", "1");
    expect_output(gantry, &["get", "events", "--field-selector=involvedObject.name=sick"], "Killing");
}

fn crash_loop(gantry: &Instance) {
    let reason = "{.status.containerStatuses[0].state.waiting.reason}";
    expect_field_within(gantry, &["pod/crashes"], reason, "CrashLoopBackOff", BACK_OFF);
    let last = "{.status.containerStatuses[0].lastState.terminated.exitCode} \
                {.status.containerStatuses[0].lastState.terminated.reason}";
    assert_eq!(gantry.jsonpath(&["pod/crashes"], last), "3 Error");
    has_all(&gantry.kubectl(&["logs", "crashes", "--previous"]).ok(), &["I fail"]);
    expect_output(gantry, &["describe", "pod/crashes"], "Back-off restarting failed container");
    expect_output(gantry, &["get", "pod/crashes"], "CrashLoopBackOff");
}
