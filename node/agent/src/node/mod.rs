//! The Node object: registration, conditions, lease.

pub(crate) mod host;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_cri::{ListImagesRequest, StatusRequest, VersionRequest};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use gantry_base::health::Health;

use crate::events::Kind as EventKind;
use crate::shared::Shared;
use host::HostFacts;

/// How often the lease is renewed, and how long it lasts.
const LEASE_PERIOD: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
/// How often the status is written although nothing changed.
const STATUS_PERIOD: Duration = Duration::from_secs(300);
/// How often conditions are looked at: while all is well, and while the node is not ready.
const LOOK_PERIOD: Duration = Duration::from_secs(10);
const LOOK_PERIOD_UNREADY: Duration = Duration::from_millis(250);
/// Pressure begins below this much free memory, and below this share of free disk or pids.
const MEMORY_FREE_MIN: i64 = 100 << 20;
const DISK_FREE_MIN_PERCENT: u64 = 10;
const PIDS_FREE_MIN_PERCENT: u64 = 5;
/// Images listed on the Node object.
const IMAGES_MAX: usize = 50;

/// One condition of the node as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// Registers the node and keeps its object and lease until the agent stops.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut runtime_ready: watch::Receiver<bool>,
    health: watch::Sender<Health>,
) {
    let shutdown = shared.config.shutdown.clone();
    let mut node =
        StatusWriter { shared: shared.clone(), last: Vec::new(), since: BTreeMap::new(), written: None };
    loop {
        let runtime_up = *runtime_ready.borrow_and_update();
        let findings = node.look(runtime_up).await;
        let unready = findings.iter().find(|f| f.kind == "Ready" && !f.holds).map(|f| f.message.clone());
        let stored = node.write(findings).await.err();
        // Only what others can read counts as ready.
        let problem = unready.or(stored.map(|error| format!("its status cannot be written: {error}")));
        let pause = if problem.is_none() { LOOK_PERIOD } else { LOOK_PERIOD_UNREADY };
        health.send_replace(problem.map_or(Health::Ok, Health::Degraded));
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = runtime_ready.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct StatusWriter {
    shared: Arc<Shared>,
    last: Vec<Finding>,
    /// When each condition took its present value.
    since: BTreeMap<&'static str, Timestamp>,
    written: Option<tokio::time::Instant>,
}

impl StatusWriter {
    async fn look(&self, runtime_up: bool) -> Vec<Finding> {
        let ready = match self.runtime_problem(runtime_up).await {
            None => finding("Ready", true, "KubeletReady", "kubelet is posting ready status"),
            Some(message) => finding("Ready", false, "KubeletNotReady", message),
        };
        let memory = host::meminfo("MemAvailable").is_some_and(|free| free < MEMORY_FREE_MIN);
        let disk = nix::sys::statvfs::statvfs(&self.shared.config.dirs.data)
            .is_ok_and(|fs| fs.blocks_available() * 100 < fs.blocks() * DISK_FREE_MIN_PERCENT);
        let pids =
            pids().is_some_and(|(used, max)| (max.saturating_sub(used)) * 100 < max * PIDS_FREE_MIN_PERCENT);
        let pressure = |kind, holds, yes: (&'static str, &str), no: (&'static str, &str)| {
            let (reason, message) = if holds { yes } else { no };
            finding(kind, holds, reason, message)
        };
        vec![
            pressure(
                "MemoryPressure",
                memory,
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ),
            pressure(
                "DiskPressure",
                disk,
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ),
            pressure(
                "PIDPressure",
                pids,
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ),
            ready,
        ]
    }

    async fn runtime_problem(&self, up: bool) -> Option<String> {
        if !up {
            return Some("container runtime is down".into());
        }
        match self.shared.runtime.status(StatusRequest::default()).await {
            Err(error) => Some(format!("container runtime status check may not have completed yet: {error}")),
            Ok(answer) => {
                let conditions = answer.status.map(|s| s.conditions).unwrap_or_default();
                let bad = conditions.into_iter().find(|c| !c.status)?;
                let what = if bad.r#type == "NetworkReady" {
                    "container runtime network"
                } else {
                    "container runtime"
                };
                let (kind, reason, message) = (bad.r#type, bad.reason, bad.message);
                Some(format!("{what} not ready: {kind}=false reason:{reason} message:{message}"))
            }
        }
    }

    /// Writes the status when it changed or is old.
    async fn write(&mut self, findings: Vec<Finding>) -> Result<(), kube::Error> {
        let fresh = self.written.is_some_and(|at| at.elapsed() < STATUS_PERIOD);
        if fresh && findings == self.last {
            return Ok(());
        }
        let now = Timestamp::now();
        for finding in &findings {
            let old = self.last.iter().find(|f| f.kind == finding.kind);
            if old.is_none_or(|old| old.holds != finding.holds) {
                self.since.insert(finding.kind, now);
                self.tell(finding, old);
            }
        }
        let stored = self.store(&findings, now).await;
        match &stored {
            Ok(()) => {
                self.last = findings;
                self.written = Some(tokio::time::Instant::now());
            }
            Err(error) => tracing::debug!(%error, "node status not written"),
        }
        stored
    }

    fn tell(&self, finding: &Finding, old: Option<&Finding>) {
        let name = &self.shared.config.node_name;
        let reason = match (finding.kind, finding.holds) {
            ("Ready", true) => "NodeReady",
            ("Ready", false) => "NodeNotReady",
            _ if old.is_none() => return,
            _ => finding.reason,
        };
        let text = format!("Node {name} status is now: {reason}");
        self.shared.recorder.node(name, EventKind::Normal, reason, &text);
    }

    async fn store(&self, findings: &[Finding], now: Timestamp) -> Result<(), kube::Error> {
        let config = &self.shared.config;
        let api: Api<Node> = Api::all(config.client.clone());
        if self.written.is_none() {
            let node = Node {
                metadata: ObjectMeta {
                    name: Some(config.node_name.clone()),
                    labels: Some(self.shared.host.labels(config)),
                    ..Default::default()
                },
                spec: Some(NodeSpec {
                    pod_cidr: config.pod_cidr.clone(),
                    pod_cidrs: config.pod_cidr.clone().map(|cidr| vec![cidr]),
                    ..Default::default()
                }),
                ..Default::default()
            };
            match api.create(&PostParams::default(), &node).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let labels = self.shared.host.labels(config);
                    let patch = json!({"metadata": {"labels": labels}});
                    api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let patch = json!({"status": self.status(findings, now).await});
        api.patch_status(&config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    async fn status(&self, findings: &[Finding], now: Timestamp) -> Value {
        let (config, host) = (&self.shared.config, &self.shared.host);
        let second = |t: Timestamp| Some(Time(crate::pods::whole_seconds(t)));
        let mut conditions: Vec<NodeCondition> = findings
            .iter()
            .map(|f| NodeCondition {
                type_: f.kind.into(),
                status: if f.holds { "True" } else { "False" }.into(),
                reason: Some(f.reason.into()),
                message: Some(f.message.clone()),
                last_heartbeat_time: second(now),
                last_transition_time: second(self.since.get(f.kind).copied().unwrap_or(now)),
            })
            .collect();
        conditions.extend(config.node_conditions.clone());
        let (cpu, memory) = self.shared.allocatable();
        let disk =
            nix::sys::statvfs::statvfs(&config.dirs.data).map_or(0, |f| f.blocks() * f.fragment_size());
        let amount = |cpu: i64, memory: i64, disk: u64| {
            json!({"cpu": milli(cpu), "memory": format!("{}Ki", memory / 1024),
                "ephemeral-storage": format!("{}Ki", disk / 1024), "pods": config.pods_max.to_string()})
        };
        let version = self.shared.runtime.version(VersionRequest::default()).await.ok();
        let runtime =
            version.map(|v| format!("{}://{}", v.runtime_name, v.runtime_version)).unwrap_or_default();
        let mut addresses: Vec<Value> = config
            .node_ips
            .iter()
            .map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}))
            .collect();
        addresses.push(json!({"type": "Hostname", "address": host.hostname}));
        // Addresses merge by their type, of which several can be the same: replace the list as a whole.
        addresses.push(json!({"$patch": "replace"}));
        json!({
            "capacity": amount(host.cpu_millis, host.memory_bytes, disk),
            "allocatable": amount(cpu, memory, disk / 10 * 9),
            "conditions": conditions,
            "addresses": addresses,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": config.kubelet_port}},
            "images": self.images().await,
            "nodeInfo": {
                "machineID": host.machine_id, "systemUUID": host.system_uuid, "bootID": host.boot_id,
                "kernelVersion": host.kernel, "osImage": host.os_image, "operatingSystem": "linux",
                "architecture": HostFacts::arch(), "containerRuntimeVersion": runtime,
                "kubeletVersion": concat!("v1.37.0-gantry.", env!("CARGO_PKG_VERSION")), "kubeProxyVersion": "",
            },
        })
    }

    async fn images(&self) -> Vec<Value> {
        let answer = self.shared.runtime.list_images(ListImagesRequest::default()).await;
        let mut images = answer.map(|a| a.images).unwrap_or_default();
        images.sort_by_key(|image| std::cmp::Reverse(image.size));
        images.truncate(IMAGES_MAX);
        let names = |image: gantry_cri::Image| {
            let names = [image.repo_digests, image.repo_tags].concat();
            json!({"names": names, "sizeBytes": image.size})
        };
        images.into_iter().map(names).collect()
    }
}

fn finding(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Finding {
    Finding { kind, holds, reason, message: message.into() }
}

fn milli(cpu: i64) -> String {
    if cpu % 1000 == 0 { (cpu / 1000).to_string() } else { format!("{cpu}m") }
}

/// Processes and threads there are, and the most there can be.
fn pids() -> Option<(u64, u64)> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let used = load.split(' ').nth(3)?.split('/').nth(1)?.parse().ok()?;
    let max = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok()?;
    Some((used, max))
}

/// Renews the node's lease: the sign of life that the node lifecycle controller looks at.
pub(crate) async fn renew_lease(shared: Arc<Shared>) {
    let name = &shared.config.node_name;
    let api: Api<Lease> = Api::namespaced(shared.config.client.clone(), "kube-node-lease");
    let mut timer = tokio::time::interval(LEASE_PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.config.shutdown.cancelled() => return,
            _ = timer.tick() => {}
        }
        let spec = LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..Default::default()
        };
        let patch = Patch::Merge(json!({"spec": spec}));
        let renewed = match api.patch(name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let metadata = ObjectMeta { name: Some(name.clone()), ..Default::default() };
                api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
            }
            other => other,
        };
        if let Err(error) = renewed {
            tracing::debug!(%error, "node lease not renewed");
            // The namespace may not be there yet right after the first start.
            timer.reset_after(Duration::from_secs(1));
        }
    }
}
