use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::sample::{PodSample, Sample};
use super::summary::{Node, summary};
use super::usage::{Interface, Memory, Usage};
use crate::api::{ContainerRecord, PodRecord};

fn usage(cpu_ns: u64) -> Usage {
    let memory = Memory { usage: 100, working_set: 80, rss: 60, faults: 5, major_faults: 1 };
    Usage { cpu_ns: Some(cpu_ns), memory: Some(memory) }
}

fn sample(at: Instant, cpu_ns: u64, container: &str) -> Sample {
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": []}});
    let record = PodRecord {
        pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
        uid: "u".into(),
        sandbox_id: None,
        ips: vec![],
        containers: vec![ContainerRecord {
            name: "c".into(),
            id: container.into(),
            attempt: 0,
            running: true,
            log_path: "/l".into(),
            previous: None,
            started_at_ns: 1_500_000_000,
        }],
        cgroup: "/g".into(),
    };
    let interface = Interface { name: "eth0".into(), rx_bytes: 1, rx_errors: 0, tx_bytes: 2, tx_errors: 0 };
    Sample {
        at,
        time: Timestamp::UNIX_EPOCH,
        node: usage(cpu_ns * 2),
        node_memory: 1000,
        node_interfaces: vec![],
        pods: vec![PodSample { record: Arc::new(record), usage: usage(cpu_ns), interfaces: vec![interface] }],
        containers: HashMap::from([(container.to_owned(), usage(cpu_ns))]),
    }
}

fn of(first: &str, second: &str) -> serde_json::Value {
    let start = Instant::now();
    let before = sample(start, 1_000_000_000, first);
    let now = sample(start + Duration::from_secs(2), 2_000_000_000, second);
    let node = Node { name: "here", boot: None, fs: None, image_fs: None, image_bytes: None };
    summary(&node, &before, &now)
}

#[test]
fn the_summary_has_rates_of_two_samples() {
    let told = of("id", "id");
    assert_eq!(told["node"]["cpu"]["usageNanoCores"], 1_000_000_000);
    assert_eq!(told["node"]["memory"]["availableBytes"], 920);
    assert!(told["node"].get("fs").is_none(), "what is not known is not told");
    let pod = &told["pods"][0];
    assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "n", "uid": "u"}));
    assert_eq!(pod["network"]["txBytes"], 2);
    let cpu = json!({"time": "1970-01-01T00:00:00Z", "usageNanoCores": 500_000_000, "usageCoreNanoSeconds": 2_000_000_000});
    assert_eq!(pod["containers"][0]["cpu"], cpu);
    assert_eq!(pod["containers"][0]["startTime"], "1970-01-01T00:00:01Z");
    assert_eq!(pod["containers"][0]["memory"]["workingSetBytes"], 80);
}

#[test]
fn a_new_run_has_no_rate_yet() {
    let told = of("old", "new");
    let cpu = &told["pods"][0]["containers"][0]["cpu"];
    assert!(cpu.get("usageNanoCores").is_none() && cpu["usageCoreNanoSeconds"] == 2_000_000_000, "{cpu}");
}

#[test]
fn metrics_have_the_kubelets_names() {
    let text = super::metrics::text(&sample(Instant::now(), 1_500_000_000, "id"));
    for line in [
        "# TYPE container_cpu_usage_seconds_total counter",
        "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 0",
        "container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 80 0",
        "container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 0",
        "pod_memory_working_set_bytes{namespace=\"n\",pod=\"p\"} 80 0",
        "node_cpu_usage_seconds_total 3 0",
        "resource_scrape_error 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}
