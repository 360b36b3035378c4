//! Services as their clients see them.

use std::collections::BTreeSet;
use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::{SERVICES, SLICES, service, slice};
use crate::bed::{Bed, free_port, greeted, inside, run, until};

fn is_refused(answer: &io::Result<String>) -> bool {
    answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn tcp(ip: &str, port: u16) -> serde_json::Value {
    json!({ "type": "ClusterIP", "clusterIP": ip, "ports": [{ "port": port, "protocol": "TCP" }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_answers_pods_the_host_and_itself() {
    let mut bed = Bed::start().await;
    let (a, b) = (bed.pod(), bed.pod());
    bed.serve(&a.namespace, "0.0.0.0:8080", "a");
    let direct = greeted(&b.namespace, &format!("{}:8080", a.ip)).await.expect("pod to pod");
    assert_eq!(direct, format!("a {}", b.ip), "pods see one another's own address");

    let web = format!("{}:80", bed.service_ip(20));
    bed.api.set(SERVICES, service("web", tcp(&bed.service_ip(20), 80)));
    until(&b.namespace, &web, is_refused).await;
    until("", &web, is_refused).await;
    until(&b.namespace, &format!("{}:81", bed.service_ip(20)), is_refused).await;

    bed.api.set(SLICES, slice("web", std::slice::from_ref(&a.ip), "TCP", 8080));
    until(&b.namespace, &web, |answer| answer.as_ref().is_ok_and(|t| *t == format!("a {}", b.ip))).await;
    assert!(greeted("", &web).await.expect("host to service").starts_with("a "));
    assert!(greeted(&a.namespace, &web).await.expect("hairpin").starts_with("a "));

    bed.serve(&b.namespace, "0.0.0.0:8080", "b");
    bed.api.set(SLICES, slice("web", &[a.ip.clone(), b.ip.clone()], "TCP", 8080));
    until(&a.namespace, &web, |answer| answer.as_ref().is_ok_and(|t| t.starts_with('b'))).await;
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        seen.insert(greeted(&b.namespace, &web).await.expect("spread")[..1].to_owned());
    }
    assert_eq!(seen.len(), 2, "both endpoints are used, and a hairpin among them works");

    bed.api.set(SLICES, slice("web", std::slice::from_ref(&b.ip), "TCP", 8080));
    until(&a.namespace, &web, |answer| answer.as_ref().is_ok_and(|t| t.starts_with('b'))).await;
    bed.api.set(SLICES, slice("web", &[], "TCP", 8080));
    until(&a.namespace, &web, is_refused).await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_s_ports_lead_to_pods() {
    let mut bed = Bed::start().await;
    let (node_port, host_port) = (free_port(), free_port());
    let mapping = json!({ "portMappings": [
        { "hostPort": host_port, "containerPort": 8080, "protocol": "tcp", "hostIP": "" },
    ]});
    let pod = bed.pod_with(&mapping);
    let other = bed.pod();
    bed.serve(&pod.namespace, "0.0.0.0:8080", "pod");
    let mut spec = tcp(&bed.service_ip(21), 80);
    spec["type"] = json!("NodePort");
    spec["externalIPs"] = json!(["203.0.113.77"]);
    spec["ports"][0]["nodePort"] = json!(node_port);
    bed.api.set(SERVICES, service("web", spec));
    bed.api.set(SLICES, slice("web", std::slice::from_ref(&pod.ip), "TCP", 8080));
    until("", &format!("127.0.0.1:{node_port}"), Result::is_ok).await;
    let gateway = bed.config.gateway();
    for (from, to) in [
        ("", format!("{gateway}:{node_port}")),
        (other.namespace.as_str(), format!("{gateway}:{node_port}")),
        (pod.namespace.as_str(), format!("{gateway}:{node_port}")),
        ("", format!("127.0.0.1:{host_port}")),
        (other.namespace.as_str(), format!("{gateway}:{host_port}")),
        (pod.namespace.as_str(), format!("{gateway}:{host_port}")),
        (other.namespace.as_str(), "203.0.113.77:80".to_owned()),
    ] {
        let answer = greeted(from, &to).await;
        assert!(answer.as_ref().is_ok_and(|text| text.starts_with("pod ")), "{from:?} to {to}: {answer:?}");
    }
    let namespace = bed.new_namespace();
    let (ok, error) = bed.cni("ADD", "second", &namespace, &mapping);
    assert!(!ok && error["msg"].as_str().is_some_and(|m| m.contains("already used")), "{error}");
    let (ok, _) = bed.cni("DEL", &pod.id, &pod.namespace, &mapping);
    assert!(ok);
    assert!(is_refused(&greeted("", &format!("127.0.0.1:{host_port}")).await), "the port is free again");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_affinity_stays_with_its_endpoint() {
    let mut bed = Bed::start().await;
    let (a, b, client) = (bed.pod(), bed.pod(), bed.pod());
    bed.serve(&a.namespace, "0.0.0.0:8080", "a");
    bed.serve(&b.namespace, "0.0.0.0:8080", "b");
    let address = format!("{}:80", bed.service_ip(22));
    let mut spec = tcp(&bed.service_ip(22), 80);
    spec["sessionAffinity"] = json!("ClientIP");
    bed.api.set(SERVICES, service("web", spec));
    bed.api.set(SLICES, slice("web", &[a.ip.clone(), b.ip.clone()], "TCP", 8080));
    until(&client.namespace, &address, Result::is_ok).await;
    let mut seen = BTreeSet::new();
    for _ in 0..30 {
        seen.insert(greeted(&client.namespace, &address).await.expect("an answer"));
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
    bed.stop_stack().await;
    bed.start_stack().await;
    let rules = std::process::Command::new("nft").args(["list", "table", "ip", &bed.config.table()]).output();
    let rules = String::from_utf8(rules.expect("nft runs").stdout).expect("text");
    assert!(
        rules.contains(&format!("elements = {{ {} timeout", client.ip))
            || rules.contains(&format!("elements = {{ {} expires", client.ip)),
        "a restart forgets no client: {rules}"
    );
    let chosen_a = seen.first().is_some_and(|name| name.starts_with('a'));
    let (rest, letter) = if chosen_a { (&b.ip, 'b') } else { (&a.ip, 'a') };
    bed.api.set(SLICES, slice("web", std::slice::from_ref(rest), "TCP", 8080));
    until(&client.namespace, &address, |t| t.as_ref().is_ok_and(|t| t.starts_with(letter))).await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_udp_client_that_keeps_its_socket_is_led_to_the_new_endpoint() {
    let mut bed = Bed::start().await;
    let (a, b, client) = (bed.pod(), bed.pod(), bed.pod());
    bed.serve_udp(&a.namespace, 9000, "a");
    bed.serve_udp(&b.namespace, 9000, "b");
    let ip = bed.service_ip(23);
    let ports = json!([{ "port": 9000, "protocol": "UDP" }]);
    bed.api.set(SERVICES, service("udp", json!({ "clusterIP": ip, "ports": ports })));
    bed.api.set(SLICES, slice("udp", std::slice::from_ref(&a.ip), "UDP", 9000));
    let socket = inside(&client.namespace, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(socket)
    });
    let socket = std::sync::Arc::new(socket.expect("a socket"));
    let answers = |wanted: &'static [u8]| {
        let (socket, address) = (socket.clone(), format!("{ip}:9000"));
        tokio::task::spawn_blocking(move || {
            let mut buffer = [0; 8];
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(10) {
                // Nothing may be there yet: refused and silence are both tried again.
                let _ = socket.send_to(b"?", &address);
                if socket.recv(&mut buffer).is_ok_and(|n| &buffer[..n] == wanted) {
                    return true;
                }
            }
            false
        })
    };
    assert!(answers(b"a").await.expect("no panic"));
    bed.api.set(SLICES, slice("udp", std::slice::from_ref(&b.ip), "UDP", 9000));
    assert!(answers(b"b").await.expect("no panic"));
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_an_api_server_that_listens_on_loopback_and_nothing_else_there() {
    let mut bed = Bed::start().await;
    let pod = bed.pod();
    let server = bed.config.api_server.to_string();
    bed.serve("", &server, "api");
    bed.api.set(SERVICES, service("kubernetes", tcp(&bed.service_ip(1), 443)));
    let address = format!("{}:443", bed.service_ip(1));
    until(&pod.namespace, &address, |t| t.as_ref().is_ok_and(|t| t.starts_with("api"))).await;
    assert!(greeted("", &address).await.expect("from the host").starts_with("api"));
    let gateway = bed.config.gateway().to_string();
    // A pod that may change its own routes and settings sends loopback addresses to the host.
    for arguments in [
        &["route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local"][..],
        &["route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local"],
        &["route", "add", "127.0.0.1", "via", &gateway, "dev", "eth0", "src", &pod.ip],
    ] {
        run("ip", &[&["-n", &pod.namespace], arguments].concat());
    }
    let set = inside(&pod.namespace, || {
        #[expect(clippy::disallowed_methods, reason = "a kernel setting of the pod's namespace")]
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
    });
    set.expect("the setting");
    assert!(greeted(&pod.namespace, &server).await.is_err(), "the host's loopback is not for pods");
    // It is the guard that kept it out: the packets came as far as it.
    let guard = std::process::Command::new("nft")
        .args(["list", "chain", "ip", &bed.config.table(), "guard"])
        .output()
        .expect("nft runs");
    let guard = String::from_utf8(guard.stdout).expect("text");
    assert!(guard.contains("ip daddr 127.0.0.0/8 counter packets"), "{guard}");
    assert!(!guard.contains("counter packets 0 "), "{guard}");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_s_traffic_to_the_world_carries_the_host_s_address() {
    let mut bed = Bed::start().await;
    let pod = bed.pod();
    let world = bed.new_namespace();
    // A network behind the host: 10.202.<range>.0/30, the host .1 and the world .2.
    let range = bed.config.pod_cidr.network().octets()[2];
    let (host, far) = (format!("10.202.{range}.1"), format!("10.202.{range}.2"));
    let link = format!("w{range}");
    run("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &world]);
    run("ip", &["addr", "add", &format!("{host}/30"), "dev", &link]);
    run("ip", &["link", "set", &link, "up"]);
    run("ip", &["-n", &world, "addr", "add", &format!("{far}/30"), "dev", "eth0"]);
    run("ip", &["-n", &world, "link", "set", "eth0", "up"]);
    bed.serve(&world, "0.0.0.0:8080", "world");
    let seen = greeted(&pod.namespace, &format!("{far}:8080")).await.expect("the world answers");
    assert_eq!(seen, format!("world {host}"));
    // A service may lead there too, from the host and from pods.
    let ip = bed.service_ip(24);
    bed.api.set(SERVICES, service("world", tcp(&ip, 80)));
    bed.api.set(SLICES, slice("world", std::slice::from_ref(&far), "TCP", 8080));
    let address = format!("{ip}:80");
    for from in [pod.namespace.as_str(), ""] {
        until(from, &address, |t| t.as_ref().is_ok_and(|t| *t == format!("world {host}"))).await;
    }
    // And the world reaches a node port, with its own address.
    let node_port = free_port();
    bed.serve(&pod.namespace, "0.0.0.0:8080", "pod");
    let mut spec = tcp(&bed.service_ip(25), 80);
    spec["type"] = json!("NodePort");
    spec["ports"][0]["nodePort"] = json!(node_port);
    bed.api.set(SERVICES, service("web", spec));
    bed.api.set(SLICES, slice("web", std::slice::from_ref(&pod.ip), "TCP", 8080));
    let wanted = format!("pod {far}");
    until(&world, &format!("{host}:{node_port}"), |t| t.as_ref().is_ok_and(|t| *t == wanted)).await;
    bed.remove_namespace(&world);
    bed.end().await;
}
