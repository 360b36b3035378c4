//! A private agent with its containerd, and a sink that remembers statuses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_agent::config::{AgentConfig, CniDirs, Dirs, Programs, Reserved};
use gantry_agent::sink::{PodSink, SinkFuture};
use gantry_agent::{Agent, PAUSE, PodNews, PodSource};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub const SHELL: &str = "docker.io/test/shell:1";
const PAUSE_IMAGE: &str = "docker.io/gantry/pause:1";
/// Generous: the machine may be busy with other tests. Nothing waits this long when all is well.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Memory {
    statuses: BTreeMap<String, PodStatus>,
    deleted: Vec<String>,
}

/// Remembers what the agent says.
pub struct Sink(watch::Sender<Memory>);

impl PodSink for Sink {
    fn status<'a>(&'a self, pod: &'a Pod, _: &'a PodStatus, status: &'a PodStatus) -> SinkFuture<'a> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.0.send_modify(|memory| {
            memory.statuses.insert(uid, status.clone());
        });
        Box::pin(async { Ok(()) })
    }

    fn delete<'a>(&'a self, pod: &'a Pod) -> SinkFuture<'a> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.0.send_modify(|memory| memory.deleted.push(uid));
        Box::pin(async { Ok(()) })
    }
}

pub struct Rig {
    pub dir: tempfile::TempDir,
    instance: String,
    sink: Arc<Sink>,
    pods: Mutex<Option<mpsc::Sender<PodNews>>>,
    /// Stops every agent of this rig, so that none restarts what a failed test's clean-up ends.
    shutdown: CancellationToken,
}

impl Rig {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("gantry-agent-").tempdir().expect("temp dir");
        let instance = format!("test-{}", std::process::id());
        Self {
            dir,
            instance,
            sink: Arc::new(Sink(watch::channel(Memory::default()).0)),
            pods: Mutex::default(),
            shutdown: CancellationToken::new(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> AgentConfig {
        AgentConfig {
            instance: self.instance.clone(),
            node_name: "node".into(),
            node_ips: vec!["127.0.0.1".parse().expect("an address")],
            dirs: Dirs {
                data: self.path("data"),
                run: self.path("run"),
                pod_logs: self.path("logs/pods"),
                container_logs: self.path("logs/containers"),
            },
            client: absent_api(),
            cluster_dns: vec![],
            cluster_domain: "cluster.local".into(),
            host_resolv_conf: "/etc/resolv.conf".into(),
            registry: None,
            pause_image: PAUSE_IMAGE.into(),
            pod_cidr: None,
            cni: CniDirs { bin: "/usr/lib/cni".into(), conf: self.path("cni") },
            programs: Programs::default(),
            kubelet_port: 10250,
            node_labels: BTreeMap::new(),
            node_conditions: vec![],
            pods_max: 110,
            reserved: Reserved::default(),
            shutdown: self.shutdown.child_token(),
        }
    }

    /// Starts an agent on the same directories; may be called again after its shutdown.
    pub async fn start(&self) -> Agent {
        let (sender, receiver) = mpsc::channel(16);
        *self.pods.lock().expect("no test thread panics with it") = Some(sender);
        let source = PodSource::Direct(receiver, self.sink.clone());
        Agent::start_with(self.config(), source).await.expect("the agent starts")
    }

    pub async fn tell(&self, news: PodNews) {
        let sender = self.pods.lock().expect("no test thread panics with it").clone();
        sender.expect("started").send(news).await.expect("the agent runs");
    }

    pub async fn set(&self, pod: &Pod) {
        self.tell(PodNews::Set(Box::new(pod.clone()))).await;
    }

    /// The pod as the API server would hold it now.
    pub fn stored(&self, pod: &Pod) -> Pod {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let status = self.sink.0.borrow().statuses.get(&uid).cloned();
        Pod { status, ..pod.clone() }
    }

    /// Waits until the stored status satisfies `wanted`.
    pub async fn wait(&self, pod: &Pod, what: &str, wanted: impl Fn(&PodStatus) -> bool) -> PodStatus {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut memory = self.sink.0.subscribe();
        let found = memory.wait_for(|m| m.statuses.get(&uid).is_some_and(&wanted));
        match tokio::time::timeout(LIMIT, found).await {
            Ok(Ok(memory)) => memory.statuses[&uid].clone(),
            _ => panic!("{what}: not within {LIMIT:?}; last {:#?}", self.sink.0.borrow().statuses.get(&uid)),
        }
    }

    /// Deletes a pod as a user does, and waits until the agent has removed it.
    pub async fn delete(&self, pod: &Pod, grace: i64) {
        let mut pod = self.stored(pod);
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now()));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.set(&pod).await;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut memory = self.sink.0.subscribe();
        let gone = memory.wait_for(|m| m.deleted.contains(&uid));
        tokio::time::timeout(LIMIT, gone).await.expect("deleted in time").expect("the sink lives");
        self.tell(PodNews::Gone(Box::new(pod))).await;
    }

    pub fn containerd_pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.path("run/containerd/containerd.pid")).expect("a pid file");
        text.trim().parse().expect("a pid")
    }

    /// Imports the sandbox image and one with the host's shell.
    pub fn import_images(&self) {
        let pause = self.path("rootfs-pause");
        std::fs::create_dir_all(&pause).expect("directory");
        #[allow(clippy::disallowed_methods, reason = "a test's own file needs no durability")]
        std::fs::write(pause.join("pause"), PAUSE).expect("written");
        run("chmod", &["755", pause.join("pause").to_str().expect("a plain path")]);
        self.import(PAUSE_IMAGE, &pause, "/pause");
        let shell = self.path("rootfs-shell");
        for program in ["/bin/sh", "/bin/sleep", "/bin/cat", "/bin/ls", "/usr/bin/id"] {
            copy(Path::new(program), &shell);
            let libraries = run("ldd", &[program]);
            for library in libraries.split_whitespace().filter(|w| w.starts_with('/')) {
                copy(Path::new(library), &shell);
            }
        }
        std::fs::create_dir_all(shell.join("tmp")).expect("directory");
        self.import(SHELL, &shell, "/bin/sh");
    }

    fn import(&self, name: &str, rootfs: &Path, entry: &str) {
        let layout = rootfs.with_extension("oci");
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("directory");
        let text = |p: &Path| p.to_str().expect("a plain path").to_owned();
        let layer_file = layout.join("layer.tar");
        run("tar", &["-C", &text(rootfs), "-cf", &text(&layer_file), "."]);
        let put = |content: Vec<u8>, kind: &str| -> Value {
            let digest = hex::encode(Sha256::digest(&content));
            let size = content.len();
            #[allow(clippy::disallowed_methods, reason = "a test's own file needs no durability")]
            std::fs::write(blobs.join(&digest), content).expect("written");
            json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size})
        };
        let layer = std::fs::read(&layer_file).expect("the layer");
        std::fs::remove_file(&layer_file).expect("removed");
        let diff = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
        let layer = put(layer, "application/vnd.oci.image.layer.v1.tar");
        let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let config = json!({"architecture": arch, "os": "linux", "config": {"Entrypoint": [entry],
            "Env": ["PATH=/bin:/usr/bin"]}, "rootfs": {"type": "layers", "diff_ids": [diff]}});
        let config = put(config.to_string().into_bytes(), "application/vnd.oci.image.config.v1+json");
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [layer]});
        let mut manifest =
            put(manifest.to_string().into_bytes(), "application/vnd.oci.image.manifest.v1+json");
        manifest["annotations"] = json!({"io.containerd.image.name": name});
        for (file, content) in [
            ("index.json", json!({"schemaVersion": 2, "manifests": [manifest]})),
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
        ] {
            #[allow(clippy::disallowed_methods, reason = "a test's own file needs no durability")]
            std::fs::write(layout.join(file), content.to_string()).expect("written");
        }
        let archive = rootfs.with_extension("tar");
        run("tar", &["-C", &text(&layout), "-cf", &text(&archive), "."]);
        let socket = text(&self.path("run/containerd/containerd.sock"));
        run("ctr", &["-a", &socket, "-n", "k8s.io", "images", "import", &text(&archive)]);
    }

    /// What a purge must not leave behind.
    pub fn assert_nothing_left(&self) {
        let root = self.dir.path().to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&root)).collect();
        assert!(left.is_empty(), "mounts are left: {left:#?}");
        let cgroup = format!("gantry-{}", self.instance);
        for tree in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            assert!(!tree.path().join(&cgroup).exists(), "{} is left", tree.path().join(&cgroup).display());
        }
        for process in std::fs::read_dir("/proc").expect("processes").flatten() {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            assert!(!line.contains(&root), "a process is left: {line:?}");
        }
    }
}

impl Drop for Rig {
    /// After a failed test: ends what this test started, found by its own directory, and unmounts.
    fn drop(&mut self) {
        self.shutdown.cancel();
        let root = self.dir.path().to_string_lossy().into_owned();
        let kill = |pid: i32| {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        };
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&root) {
                kill(pid);
            }
        }
        let cgroup = format!("gantry-{}", self.instance);
        for tree in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroup(&tree.path().join(&cgroup), &kill);
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for point in mounts.lines().rev().filter_map(|l| l.split(' ').nth(4)).filter(|p| p.starts_with(&root))
        {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

fn remove_cgroup(path: &Path, kill: &dyn Fn(i32)) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_cgroup(&entry.path(), kill);
        }
    }
    let members = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    members.lines().filter_map(|l| l.parse().ok()).for_each(kill);
    let _ = std::fs::remove_dir(path);
}

fn copy(file: &Path, root: &Path) {
    let target = root.join(file.strip_prefix("/").expect("absolute"));
    std::fs::create_dir_all(target.parent().expect("not the root")).expect("directory");
    std::fs::copy(file, target).expect("copied");
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A client of an API server that knows no object at all.
fn absent_api() -> kube::Client {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
            "message": "not found", "code": 404});
        let body = http_body_util::Full::new(bytes::Bytes::from(status.to_string()));
        let answer =
            http::Response::builder().status(404).header("content-type", "application/json").body(body);
        Ok::<_, std::convert::Infallible>(answer.expect("constant parts"))
    });
    kube::Client::new(service, "default")
}
