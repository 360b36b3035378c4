//! Attaching, restarting, cleaning up.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gantry_netstack::NetStack;
use serde_json::json;

use crate::api::{SERVICES, SLICES, service, slice};
use crate::bed::{Bed, greeted, inside, until, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_follows_the_specification() {
    let mut bed = Bed::start().await;
    let pod = bed.pod();
    let none = json!({});
    let (ok, again) = bed.cni("ADD", &pod.id, &pod.namespace, &none);
    assert!(ok, "{again}");
    assert_eq!(again["ips"][0]["address"], format!("{}/32", pod.ip), "a retry gets the same address");
    assert!(bed.cni("CHECK", &pod.id, &pod.namespace, &none).0);
    let (ok, error) = bed.cni("CHECK", "stranger", &pod.namespace, &none);
    assert!(!ok);
    assert_eq!(error["code"], 3);
    let (ok, error) = bed.cni("ADD", "x", "no-such-namespace", &none);
    assert!(!ok && error["code"].is_number() && error["msg"].is_string(), "{error}");
    let (ok, version) = bed.cni("VERSION", "", "", &none);
    assert!(ok && version["supportedVersions"].as_array().is_some_and(|v| v.contains(&json!("1.0.0"))));
    assert!(bed.cni("STATUS", "", "", &none).0);
    for _ in 0..2 {
        assert!(bed.cni("DEL", &pod.id, &pod.namespace, &none).0, "DEL may be repeated");
    }
    assert!(!bed.cni("CHECK", &pod.id, &pod.namespace, &none).0);
    let gone = bed.pod();
    bed.remove_namespace(&gone.namespace);
    assert!(bed.cni("DEL", &gone.id, &gone.namespace, &none).0, "DEL without its namespace");
    let limits = json!({ "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 800_000,
        "egressRate": 8_000_000, "egressBurst": 800_000 } });
    bed.pod_with(&limits);
    bed.stop_stack().await;
    let (ok, error) = bed.cni("ADD", "late", &pod.namespace, &none);
    assert!(!ok);
    assert_eq!(error["code"], 11, "a node that is down is a reason to try again");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_addresses_and_serving() {
    let mut bed = Bed::start().await;
    let (a, b) = (bed.pod(), bed.pod());
    bed.serve(&a.namespace, "0.0.0.0:8080", "a");
    let ip = bed.service_ip(30);
    let web = format!("{ip}:80");
    bed.api.set(SERVICES, service("web", json!({ "clusterIP": ip, "ports": [{ "port": 80 }] })));
    bed.api.set(SLICES, slice("web", std::slice::from_ref(&a.ip), "TCP", 8080));
    until(&b.namespace, &web, Result::is_ok).await;
    bed.stop_stack().await;
    assert!(greeted(&b.namespace, &web).await.is_ok(), "services go on without the process");
    bed.start_stack().await;
    assert!(greeted(&b.namespace, &web).await.is_ok());
    let (ok, again) = bed.cni("ADD", &a.id, &a.namespace, &json!({}));
    assert!(ok);
    assert_eq!(again["ips"][0]["address"], format!("{}/32", a.ip));
    assert_ne!(bed.pod().ip, a.ip);
    let stack = bed.stack.as_ref().expect("it runs");
    stack.reconcile(&BTreeSet::from([b.id.clone()])).await.expect("reconciling");
    let left: Vec<_> = stack.leases().await.into_iter().map(|lease| lease.container_id).collect();
    assert_eq!(left, std::slice::from_ref(&b.id));
    assert!(greeted(&b.namespace, &web).await.is_err(), "the released pod is off the network");
    // Somebody flushes the whole table: the next change brings all of it back.
    let table = bed.config.table();
    let status = std::process::Command::new("nft").args(["delete", "table", "ip", &table]).status();
    assert!(status.expect("nft runs").success());
    bed.serve(&b.namespace, "0.0.0.0:8080", "b");
    bed.api.set(SLICES, slice("web", std::slice::from_ref(&b.ip), "TCP", 8080));
    until("", &web, |t| t.as_ref().is_ok_and(|t| t.starts_with('b'))).await;
    bed.end().await;
}

/// A connection of two other programs of the host over loopback, which talk until it is ended.
struct Talk {
    end: Arc<AtomicBool>,
    said: Arc<AtomicUsize>,
    talking: std::thread::JoinHandle<io::Result<()>>,
}

impl Talk {
    fn begin() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut back = stream.try_clone()?;
            io::copy(&mut stream, &mut back)
        });
        let (end, said) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ended, count) = (end.clone(), said.clone());
        let talking = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            while !ended.load(Ordering::Relaxed) {
                stream.write_all(b"word")?;
                stream.read_exact(&mut [0; 4])?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { end, said, talking }
    }

    /// Waits until both have said more, or one of them was cut off.
    async fn goes_on(&self) {
        let before = self.said.load(Ordering::Relaxed);
        wait_for("both to talk on", || {
            self.talking.is_finished() || self.said.load(Ordering::Relaxed) > before + 100
        })
        .await;
    }

    fn end(self) -> io::Result<()> {
        self.end.store(true, Ordering::Relaxed);
        self.talking.join().expect("no panic")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_s_own_connections_outlive_the_table_s_coming_and_going() {
    let mut bed = Bed::start().await;
    // A service whose endpoint is on loopback, as the API server's is.
    let server = bed.config.api_server.to_string();
    bed.serve("", &server, "api");
    let ip = bed.service_ip(1);
    let address = format!("{ip}:443");
    bed.api.set(SERVICES, service("kubernetes", json!({ "clusterIP": ip, "ports": [{ "port": 443 }] })));
    until("", &address, Result::is_ok).await;
    bed.stop_stack().await;
    NetStack::purge(&bed.config).await.expect("the table goes");
    let talk = Talk::begin();
    talk.goes_on().await;
    bed.start_stack().await;
    until("", &address, Result::is_ok).await;
    talk.goes_on().await;
    // The rule of before translated whatever loopback says to itself; so these broke without it.
    let younger: Vec<Talk> = (0..8).map(|_| Talk::begin()).collect();
    for talk in &younger {
        talk.goes_on().await;
    }
    bed.stop_stack().await;
    NetStack::purge(&bed.config).await.expect("the table goes");
    for talk in younger.into_iter().chain([talk]) {
        talk.goes_on().await;
        talk.end().expect("nothing of the network's has to do with it");
    }
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_without_a_lease_are_removed_at_the_start() {
    let mut bed = Bed::start().await;
    let pod = bed.pod();
    let ports = |bridge: &str| {
        let ports = std::fs::read_dir(format!("/sys/class/net/{bridge}/brif")).expect("a bridge");
        ports.count()
    };
    assert_eq!(ports(&bed.config.bridge), 1);
    bed.stop_stack().await;
    std::fs::remove_file(bed.config.dirs.data.join("network/leases.json")).expect("the leases");
    bed.start_stack().await;
    assert_eq!(ports(&bed.config.bridge), 0);
    let (ok, again) = bed.cni("ADD", &pod.id, &pod.namespace, &json!({}));
    assert!(ok, "the namespace can be attached anew: {again}");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loopback_plugin_comes_with_it() {
    let mut bed = Bed::start().await;
    assert!(bed.config.cni_bin_dir().join("loopback").exists());
    let namespace = bed.new_namespace();
    let to_itself = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(b"x", ("127.0.0.1", 9))
    };
    assert!(inside(&namespace, to_itself).is_err(), "a new namespace's loopback is down");
    let config = json!({ "cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback" });
    let (ok, result) = bed.call_plugin("ADD", "id", &namespace, "lo", &config);
    assert!(ok && result["interfaces"][0]["name"] == "lo", "{result}");
    assert!(inside(&namespace, to_itself).is_ok());
    assert!(bed.call_plugin("DEL", "id", &namespace, "lo", &config).0);
    bed.end().await;
}
