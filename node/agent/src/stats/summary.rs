//! `/stats/summary`, in the shape of `k8s.io/kubelet/pkg/apis/stats/v1alpha1`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::sample::{PodSample, Sample, rate};
use super::usage::{FileSystem, Interface, Usage};

/// What the summary tells beside counters.
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    /// When the host started.
    pub(super) boot: Option<Timestamp>,
    pub(super) fs: Option<FileSystem>,
    pub(super) image_fs: Option<FileSystem>,
    /// Bytes that images take, when the runtime knows.
    pub(super) image_bytes: Option<u64>,
}

/// Times of the API have seconds.
fn time(time: Timestamp) -> Value {
    json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// An object without the members that are not known.
fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let known = members.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(known.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn cpu(at: &Value, before: Usage, now: Usage, between: Duration) -> Value {
    if now.cpu_ns.is_none() {
        return Value::Null;
    }
    object([
        ("time", at.clone()),
        ("usageNanoCores", json!(rate(before.cpu_ns, now.cpu_ns, between))),
        ("usageCoreNanoSeconds", json!(now.cpu_ns)),
    ])
}

fn memory(at: &Value, usage: Usage, limit: Option<u64>) -> Value {
    let Some(m) = usage.memory else { return Value::Null };
    object([
        ("time", at.clone()),
        ("availableBytes", json!(limit.map(|l| l.saturating_sub(m.working_set)))),
        ("usageBytes", json!(m.usage)),
        ("workingSetBytes", json!(m.working_set)),
        ("rssBytes", json!(m.rss)),
        ("pageFaults", json!(m.faults)),
        ("majorPageFaults", json!(m.major_faults)),
    ])
}

fn network(at: &Value, interfaces: &[Interface]) -> Value {
    let one = |i: &Interface| {
        json!({"name": i.name, "rxBytes": i.rx_bytes, "rxErrors": i.rx_errors,
            "txBytes": i.tx_bytes, "txErrors": i.tx_errors})
    };
    // The default interface of a pod is its first; the kernel lists them as they were made.
    let Some(first) = interfaces.first() else { return Value::Null };
    let mut all = json!({"time": at});
    if let (Value::Object(all), Value::Object(first)) = (&mut all, one(first)) {
        all.extend(first);
        all.insert("interfaces".to_owned(), interfaces.iter().map(one).collect());
    }
    all
}

fn fs(at: &Value, fs: Option<FileSystem>, used: Option<u64>) -> Value {
    let Some(fs) = fs else { return Value::Null };
    json!({"time": at, "availableBytes": fs.available, "capacityBytes": fs.capacity,
        "usedBytes": used.unwrap_or(fs.used), "inodesFree": fs.inodes_free, "inodes": fs.inodes,
        "inodesUsed": fs.inodes.saturating_sub(fs.inodes_free)})
}

/// The whole answer.
pub(super) fn summary(node: &Node<'_>, before: &Sample, now: &Sample) -> Value {
    let between = now.at.saturating_duration_since(before.at);
    let at = time(now.time);
    let pods: Vec<Value> = now.pods.iter().map(|p| pod(&at, p, before, now, between)).collect();
    json!({
        "node": object([
            ("nodeName", json!(node.name)),
            ("startTime", node.boot.map_or(Value::Null, time)),
            ("cpu", cpu(&at, before.node, now.node, between)),
            ("memory", memory(&at, now.node, Some(now.node_memory))),
            ("network", network(&at, &now.node_interfaces)),
            ("fs", fs(&at, node.fs, None)),
            ("runtime", object([
                ("imageFs", fs(&at, node.image_fs, node.image_bytes)),
                ("containerFs", fs(&at, node.image_fs, None)),
            ])),
        ]),
        "pods": pods,
    })
}

fn pod(at: &Value, sample: &PodSample, before: &Sample, now: &Sample, between: Duration) -> Value {
    let record = &sample.record;
    let usage_before = before.pods.iter().find(|p| p.record.uid == record.uid).map(|p| p.usage);
    let started = record.pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    let containers: Vec<Value> = record
        .containers
        .iter()
        .filter(|c| c.running)
        .filter_map(|c| {
            let usage = *now.containers.get(&c.id)?;
            let earlier = before.containers.get(&c.id).copied().unwrap_or_default();
            Some(object([
                ("name", json!(c.name)),
                ("startTime", start(c.started_at_ns).map_or(Value::Null, time)),
                ("cpu", cpu(at, earlier, usage, between)),
                ("memory", memory(at, usage, None)),
            ]))
        })
        .collect();
    object([
        (
            "podRef",
            json!({"name": record.pod.metadata.name, "namespace": record.pod.metadata.namespace, "uid": record.uid}),
        ),
        ("startTime", started.map_or(Value::Null, |t| time(t.0))),
        ("containers", Value::Array(containers)),
        ("cpu", cpu(at, usage_before.unwrap_or_default(), sample.usage, between)),
        ("memory", memory(at, sample.usage, None)),
        ("network", network(at, &sample.interfaces)),
    ])
}

/// A run's start, when it has started.
pub(super) fn start(ns: i64) -> Option<Timestamp> {
    (ns > 0).then(|| Timestamp::from_nanosecond(i128::from(ns)).ok()).flatten()
}
