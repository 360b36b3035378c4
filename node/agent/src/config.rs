//! What the composition root tells the agent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::NodeCondition;
use tokio_util::sync::CancellationToken;

/// Everything the agent needs to know; it reads no environment and no settings file of its own.
#[derive(Clone)]
pub struct AgentConfig {
    /// Name of this Gantry instance; part of cgroup names, so that several run on one host.
    pub instance: String,
    /// Name of the Node object.
    pub node_name: String,
    /// Addresses of the host, the preferred first: `status.addresses`, `hostIP` of pods.
    pub node_ips: Vec<IpAddr>,
    /// Where the agent keeps what it owns.
    pub dirs: Dirs,
    /// Client with the node's identity (`system:node:NAME` in `system:nodes`).
    pub client: kube::Client,
    /// Address of the cluster's DNS service, for `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster, usually `cluster.local`.
    pub cluster_domain: String,
    /// Resolver file of the host, for `dnsPolicy: Default`.
    pub host_resolv_conf: PathBuf,
    /// Our own registry, which the node trusts by certificate and asks first for `docker.io` images.
    pub registry: Option<RegistryHost>,
    /// Reference of the sandbox image; pulled before the node is Ready.
    pub pause_image: String,
    /// Address range of this node's pods, told to the runtime and written to the Node object.
    pub pod_cidr: Option<String>,
    /// Where containerd finds CNI plugins and their configuration.
    pub cni: CniDirs,
    /// Absolute paths of the runtime's programs.
    pub programs: Programs,
    /// Port on which the node answers exec, logs and stats for the API server, as shown on the Node object.
    pub kubelet_port: u16,
    /// Extra labels of the Node object, set at registration only.
    pub node_labels: BTreeMap<String, String>,
    /// Conditions of the Node object beside the agent's own (probed host features).
    pub node_conditions: Vec<NodeCondition>,
    /// The most pods this node takes.
    pub pods_max: u32,
    /// What is kept back from pods for the host.
    pub reserved: Reserved,
    /// Cancelled when Gantry stops. Containers go on.
    pub shutdown: CancellationToken,
}

/// Directories, all absolute. The agent creates them.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// Pods' volumes and files, containerd's root (`containerd/`).
    pub data: PathBuf,
    /// containerd's state, sockets, pid files.
    pub run: PathBuf,
    /// Container logs in the kubelet's layout, usually `/var/log/pods`.
    pub pod_logs: PathBuf,
    /// Symbolic links to container logs, usually `/var/log/containers`.
    pub container_logs: PathBuf,
}

impl Dirs {
    /// Where the operator puts seccomp profiles for `type: Localhost`.
    pub fn seccomp_profiles(&self) -> PathBuf {
        self.data.join("seccomp")
    }

    /// Files of the pod with this uid.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.data.join("pods").join(uid)
    }

    /// Log directory of a pod: `NAMESPACE_NAME_UID` under the log root.
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs.join(format!("{namespace}_{name}_{uid}"))
    }
}

/// A registry that containerd reaches with our own CA and the node's client certificate.
#[derive(Clone, Debug)]
pub struct RegistryHost {
    /// `HOST:PORT` as in image references.
    pub host: String,
    /// PEM file of the certificate authority.
    pub ca_file: PathBuf,
    /// PEM file of the node's certificate.
    pub cert_file: PathBuf,
    /// PEM file of the node's key.
    pub key_file: PathBuf,
}

/// CNI directories.
#[derive(Clone, Debug)]
pub struct CniDirs {
    /// Directory of the plugins.
    pub bin: PathBuf,
    /// Directory of the network configuration.
    pub conf: PathBuf,
}

/// Programs of the runtime.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `containerd`.
    pub containerd: PathBuf,
    /// `runc`; named explicitly, so that another runtime on the host is never picked.
    pub runc: PathBuf,
}

impl Default for Programs {
    fn default() -> Self {
        Self { containerd: "/usr/bin/containerd".into(), runc: "/usr/sbin/runc".into() }
    }
}

/// Resources kept back from pods.
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    /// Thousandths of a core.
    pub cpu_millis: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
}

impl Default for Reserved {
    fn default() -> Self {
        Self { cpu_millis: 100, memory_bytes: 256 << 20 }
    }
}
