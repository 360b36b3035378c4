//! One instance with its namespaces, taken away again whatever happens.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use gantry_base::health::Health;
use gantry_base::settings::InstanceDirs;
use gantry_netstack::{NetConfig, NetStack, bridge_name};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::Api;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Limit of every wait for a state.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// An instance under test.
pub struct Bed {
    pub config: NetConfig,
    pub api: Api,
    pub stack: Option<NetStack>,
    shutdown: CancellationToken,
    namespaces: Vec<String>,
    servers: Vec<JoinHandle<()>>,
    _directory: TempDir,
}

/// A namespace that ADD was called for.
pub struct Pod {
    pub id: String,
    pub namespace: String,
    pub ip: String,
}

impl Bed {
    pub async fn start() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let range = free_range(u32::from(nth));
        let instance = format!("t{}-{nth}", std::process::id());
        let dirs = InstanceDirs {
            data: directory.path().join("d"),
            run: directory.path().join("r"),
            logs: directory.path().join("l"),
            config: directory.path().join("c"),
        };
        let api_server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port());
        let config = NetConfig {
            bridge: bridge_name(&instance),
            instance,
            dirs,
            pod_cidr: format!("10.200.{range}.0/24").parse().expect("a range"),
            service_cidr: format!("10.201.{range}.0/24").parse().expect("a range"),
            dns_ip: Ipv4Addr::new(10, 201, range, 10),
            cluster_domain: "cluster.local".to_owned(),
            node_name: "here".to_owned(),
            node_ip: Ipv4Addr::new(10, 200, range, 1),
            api_server,
        };
        let mut bed = Self {
            config,
            api: Api::default(),
            stack: None,
            shutdown: CancellationToken::new(),
            namespaces: Vec::new(),
            servers: Vec::new(),
            _directory: directory,
        };
        bed.start_stack().await;
        bed
    }

    /// Starts the network (again), and waits until it knows its services.
    pub async fn start_stack(&mut self) {
        self.shutdown = CancellationToken::new();
        let started = NetStack::start(self.config.clone(), self.api.client(), self.shutdown.clone()).await;
        let stack = started.expect("the network starts; the tests need root and nftables");
        let health = stack.health();
        wait_for("the network to be healthy", || health.all().values().all(|h| *h == Health::Ok)).await;
        self.stack = Some(stack);
    }

    /// Ends the process's part, as a crash would leave the rest.
    pub async fn stop_stack(&mut self) {
        self.stack.take().expect("it runs").stop().await;
    }

    /// The `n`th address of the service range.
    pub fn service_ip(&self, n: u8) -> String {
        let [a, b, c, _] = self.config.service_cidr.network().octets();
        Ipv4Addr::new(a, b, c, n).to_string()
    }

    pub fn new_namespace(&mut self) -> String {
        let name = format!("{}-{}", self.config.instance, self.namespaces.len());
        run("ip", &["netns", "add", &name]);
        self.namespaces.push(name.clone());
        name
    }

    pub fn remove_namespace(&mut self, name: &str) {
        run("ip", &["netns", "del", name]);
        self.namespaces.retain(|n| n != name);
    }

    /// A pod, attached as a runtime does it.
    pub fn pod(&mut self) -> Pod {
        self.pod_with(&json!({}))
    }

    pub fn pod_with(&mut self, runtime_config: &Value) -> Pod {
        let namespace = self.new_namespace();
        let id = format!("id-{namespace}");
        let (ok, result) = self.cni("ADD", &id, &namespace, runtime_config);
        assert!(ok, "ADD: {result}");
        let ip = result["ips"][0]["address"].as_str().expect("an address");
        Pod { id, namespace, ip: ip.trim_end_matches("/32").to_owned() }
    }

    /// Calls the plugin with environment and standard input; its success and its output.
    pub fn cni(&self, command: &str, id: &str, namespace: &str, runtime_config: &Value) -> (bool, Value) {
        let path = self.config.cni_conf_dir().join("10-gantry.conflist");
        let list: Value = serde_json::from_slice(&std::fs::read(path).expect("the list")).expect("JSON");
        let mut config = list["plugins"][0].clone();
        config["cniVersion"] = list["cniVersion"].clone();
        config["name"] = list["name"].clone();
        config["runtimeConfig"] = runtime_config.clone();
        self.call_plugin(command, id, namespace, "eth0", &config)
    }

    /// Calls the plugin with any configuration.
    pub fn call_plugin(
        &self,
        command: &str,
        id: &str,
        namespace: &str,
        interface: &str,
        config: &Value,
    ) -> (bool, Value) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gantry-cni"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", format!("/var/run/netns/{namespace}"))
            .env("CNI_IFNAME", interface)
            .env("CNI_PATH", self.config.cni_bin_dir())
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the plugin runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(config.to_string().as_bytes()).expect("the plugin reads");
        drop(stdin);
        let output = child.wait_with_output().expect("the plugin ends");
        (output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    /// A TCP server in `namespace` (empty: the host) that greets with `name` and the caller's address.
    pub fn serve(&mut self, namespace: &str, address: &str, name: &str) {
        let address = address.to_owned();
        let listener = inside(namespace, move || {
            let listener = std::net::TcpListener::bind(&address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = tokio::net::TcpListener::from_std(listener.expect("listening")).expect("a listener");
        let name = name.to_owned();
        self.servers.push(tokio::spawn(async move {
            while let Ok((mut stream, peer)) = listener.accept().await {
                let greeting = format!("{name} {}", peer.ip());
                // A client that is gone already is the test's business.
                let _ = stream.write_all(greeting.as_bytes()).await;
            }
        }));
    }

    /// A UDP server that answers with its name.
    pub fn serve_udp(&mut self, namespace: &str, port: u16, name: &str) {
        let socket = inside(namespace, move || {
            let socket = UdpSocket::bind(("0.0.0.0", port))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let socket = tokio::net::UdpSocket::from_std(socket.expect("bound")).expect("a socket");
        let name = name.to_owned();
        self.servers.push(tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(name.as_bytes(), peer).await;
            }
        }));
    }

    /// Takes everything away and checks that nothing of the instance is left on the host.
    pub async fn end(mut self) {
        if self.stack.is_some() {
            self.stop_stack().await;
        }
        for _ in 0..2 {
            NetStack::purge(&self.config).await.expect("purging, and purging again");
        }
        let text = |program: &str, arguments: &[&str]| {
            String::from_utf8(Command::new(program).args(arguments).output().expect("run").stdout)
                .expect("text")
        };
        let links = text("ip", &["-o", "link"]);
        assert!(!links.contains(&self.config.bridge), "{links}");
        let [a, b, c, _] = self.config.pod_cidr.network().octets();
        let routes = text("ip", &["route", "show", "table", "all"]);
        assert!(!routes.contains(&format!("{a}.{b}.{c}.")), "{routes}");
        let tables = text("nft", &["list", "tables"]);
        assert!(!tables.contains(&self.config.table()), "{tables}");
        for path in
            [self.config.cni_socket(), self.config.cni_conf_dir(), self.config.dirs.data.join("network")]
        {
            assert!(!path.exists(), "{} is left", path.display());
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.shutdown.cancel();
        for server in &self.servers {
            server.abort();
        }
        for namespace in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
        let config = self.config.clone();
        let purge = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(NetStack::purge(&config)).map_err(io::Error::other)
        });
        if !matches!(purge.join(), Ok(Ok(()))) {
            eprintln!("the instance {} was not purged", self.config.instance);
        }
    }
}

pub fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("the program runs");
    assert!(status.success(), "{program} {arguments:?}");
}

/// A third octet that no route of this host uses yet.
fn free_range(nth: u32) -> u8 {
    let routes = Command::new("ip").args(["route", "show", "table", "all"]).output().expect("ip");
    let routes = String::from_utf8_lossy(&routes.stdout).into_owned();
    let used = |n: u8| ["10.200", "10.201"].iter().any(|p| routes.contains(&format!("{p}.{n}.")));
    // Tests of one process, and of several at once, begin to look at different places.
    let first = (std::process::id() + nth * 31) % 200;
    (0..200).map(|i| 1 + ((first + i) % 200) as u8).find(|n| !used(*n)).expect("a free range")
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Runs `work` in a namespace (empty: here) on a thread of its own.
pub fn inside<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = namespace.to_owned();
    let thread = std::thread::spawn(move || {
        if !namespace.is_empty() {
            setns(File::open(format!("/var/run/netns/{namespace}"))?, CloneFlags::CLONE_NEWNET)?;
        }
        work()
    });
    thread.join().expect("the work does not panic")
}

/// What the server at `address` greets with.
pub fn call(namespace: &str, address: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().expect("an address");
    inside(namespace, move || {
        let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

/// [`call`] off the runtime's threads, on which the servers run.
pub async fn greeted(namespace: &str, address: &str) -> io::Result<String> {
    let (namespace, address) = (namespace.to_owned(), address.to_owned());
    tokio::task::spawn_blocking(move || call(&namespace, &address)).await.expect("no panic")
}

pub async fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < WAIT_MAX, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Calls until the answer is as wanted: changes of the API take a moment to arrive.
pub async fn until(namespace: &str, address: &str, wanted: impl Fn(&io::Result<String>) -> bool) {
    let began = Instant::now();
    loop {
        let answer = greeted(namespace, address).await;
        if wanted(&answer) {
            return;
        }
        assert!(began.elapsed() < WAIT_MAX, "{address} from {namespace:?} still gives {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
