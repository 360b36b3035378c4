//! `/metrics/resource`: the few counters that autoscalers and `kubectl top` live on, as Prometheus text.

use std::fmt::Write;

use super::sample::Sample;
use super::summary::start;
use super::usage::Usage;

/// The content type of the text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    lines: String,
}

impl Family {
    fn new(name: &'static str, help: &'static str, kind: &'static str) -> Self {
        Self { name, help, kind, lines: String::new() }
    }

    fn add(&mut self, labels: &str, value: Option<f64>, millis: i64) {
        if let Some(value) = value {
            // Writing to a String does not fail.
            let _ = writeln!(self.lines, "{}{labels} {value} {millis}", self.name);
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has floating point numbers only")]
fn cpu(usage: Usage) -> Option<f64> {
    usage.cpu_ns.map(|ns| ns as f64 / 1e9)
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has floating point numbers only")]
fn memory(usage: Usage) -> Option<f64> {
    usage.memory.map(|m| m.working_set as f64)
}

/// The text for one sample.
pub(super) fn text(sample: &Sample) -> String {
    let millis = sample.time.as_millisecond();
    let cpu_help = "[STABLE] Cumulative cpu time consumed in core-seconds";
    let memory_help = "[STABLE] Current working set in bytes";
    let mut container_cpu = Family::new("container_cpu_usage_seconds_total", cpu_help, "counter");
    let mut container_memory = Family::new("container_memory_working_set_bytes", memory_help, "gauge");
    let start_help = "[STABLE] Start time of the container since unix epoch in seconds";
    let mut container_start = Family::new("container_start_time_seconds", start_help, "gauge");
    let mut node_cpu = Family::new("node_cpu_usage_seconds_total", cpu_help, "counter");
    let mut node_memory = Family::new("node_memory_working_set_bytes", memory_help, "gauge");
    let mut pod_cpu = Family::new("pod_cpu_usage_seconds_total", cpu_help, "counter");
    let mut pod_memory = Family::new("pod_memory_working_set_bytes", memory_help, "gauge");
    node_cpu.add("", cpu(sample.node), millis);
    node_memory.add("", memory(sample.node), millis);
    for pod in &sample.pods {
        let meta = &pod.record.pod.metadata;
        // Names of Kubernetes objects have no characters that need escapes.
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let labels = format!("{{namespace=\"{namespace}\",pod=\"{name}\"}}");
        pod_cpu.add(&labels, cpu(pod.usage), millis);
        pod_memory.add(&labels, memory(pod.usage), millis);
        for container in &pod.record.containers {
            let Some(usage) = sample.containers.get(&container.id) else { continue };
            let labels =
                format!("{{container=\"{}\",namespace=\"{namespace}\",pod=\"{name}\"}}", container.name);
            container_cpu.add(&labels, cpu(*usage), millis);
            container_memory.add(&labels, memory(*usage), millis);
            let started = start(container.started_at_ns).map(|t| t.as_duration().as_secs_f64());
            container_start.add(&labels, started, millis);
        }
    }
    let mut error = Family::new(
        "resource_scrape_error",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
        "gauge",
    );
    error.lines = "resource_scrape_error 0\n".to_owned();
    let families =
        [container_cpu, container_memory, container_start, node_cpu, node_memory, pod_cpu, pod_memory, error];
    let mut out = String::new();
    for family in families.iter().filter(|f| !f.lines.is_empty()) {
        let Family { name, help, kind, lines } = family;
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
    }
    out
}
