use super::*;
use crate::dns::SharedIndex;
use crate::dns::forward::Forwarder;
use crate::dns::handler::Handler;
use crate::service::{Endpoint, Protocol, ServicePort};
use hickory_proto::op::ResponseCode;
use std::sync::RwLock;

fn service(kind: Kind) -> ServiceView {
    let port =
        |name: &str, protocol, port| ServicePort { name: name.to_owned(), protocol, port, node_port: None };
    ServiceView {
        kind,
        ports: vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
    }
}

fn zone() -> Zone {
    let range = |text: &str| text.parse().expect("a range");
    let domain = Name::from_ascii("cluster.local.").expect("a name");
    Zone { domain, ranges: [range("10.1.0.0/16"), range("10.96.0.0/16")] }
}

fn index() -> Index {
    let mut world = World::default();
    let mut add = |name: &str, kind: Kind| {
        world.services.insert(("shop".to_owned(), name.to_owned()), Arc::new(service(kind)));
    };
    add("web", Kind::ClusterIp(Ipv4Addr::new(10, 96, 0, 20)));
    add("db", Kind::Headless);
    add("empty", Kind::Headless);
    add("out", Kind::ExternalName("web.shop.svc.cluster.local".to_owned()));
    add("loop", Kind::ExternalName("loop.shop.svc.cluster.local".to_owned()));
    let endpoint = |n: u8, hostname: Option<&str>, ready: bool| Endpoint {
        address: Ipv4Addr::new(10, 1, 0, n),
        hostname: hostname.map(str::to_owned),
        node: None,
        ready,
        serving: ready,
        terminating: false,
    };
    let endpoints =
        vec![endpoint(1, Some("db-0"), true), endpoint(2, None, true), endpoint(3, Some("db-2"), false)];
    let ports = vec![("http".to_owned(), Protocol::Tcp, 8080)];
    let slice = SliceView { service: "db".to_owned(), endpoints, ports };
    world.slices.insert(("shop".to_owned(), "db-1".to_owned()), Arc::new(slice));
    Index::new(zone(), &world)
}

/// The outcome as text: record data, or the kind of denial.
fn outcome(answer: Answer) -> String {
    match answer {
        Answer::Found(records, more) => {
            let text = |records: Vec<Record>| {
                records.iter().map(|r| r.data.to_string()).collect::<Vec<_>>().join(", ")
            };
            if more.is_empty() { text(records) } else { format!("{} + {}", text(records), text(more)) }
        }
        Answer::Alias(_, target) => format!("alias {target}"),
        Answer::NoData => "nodata".to_owned(),
        Answer::NxDomain => "nxdomain".to_owned(),
        Answer::NotOurs => "not ours".to_owned(),
    }
}

#[test]
fn names_follow_the_specification() {
    use RecordType::{A, AAAA, PTR, SRV, TXT};
    let index = index();
    for (name, kind, expected) in [
        ("web.shop.svc.cluster.local.", A, "10.96.0.20"),
        ("WEB.Shop.svc.Cluster.local.", A, "10.96.0.20"),
        ("web.shop.svc.cluster.local.", AAAA, "nodata"),
        ("web.other.svc.cluster.local.", A, "nxdomain"),
        ("no.shop.svc.cluster.local.", A, "nxdomain"),
        ("shop.svc.cluster.local.", A, "nodata"),
        ("other.svc.cluster.local.", A, "nxdomain"),
        ("svc.cluster.local.", A, "nodata"),
        ("cluster.local.", A, "nodata"),
        ("_http._tcp.web.shop.svc.cluster.local.", SRV, "0 100 80 web.shop.svc.cluster.local. + 10.96.0.20"),
        ("_http._tcp.web.shop.svc.cluster.local.", A, "nodata"),
        ("_http._udp.web.shop.svc.cluster.local.", SRV, "nxdomain"),
        ("_tcp.web.shop.svc.cluster.local.", SRV, "nodata"),
        ("_sctp.web.shop.svc.cluster.local.", SRV, "nxdomain"),
        ("db.shop.svc.cluster.local.", A, "10.1.0.1, 10.1.0.2"),
        ("db-0.db.shop.svc.cluster.local.", A, "10.1.0.1"),
        ("10-1-0-2.db.shop.svc.cluster.local.", A, "10.1.0.2"),
        ("db-2.db.shop.svc.cluster.local.", A, "nxdomain"),
        ("db-0.web.shop.svc.cluster.local.", A, "nxdomain"),
        (
            "_http._tcp.db.shop.svc.cluster.local.",
            SRV,
            "0 50 8080 10-1-0-2.db.shop.svc.cluster.local., 0 50 8080 db-0.db.shop.svc.cluster.local. + \
             10.1.0.2, 10.1.0.1",
        ),
        ("empty.shop.svc.cluster.local.", A, "nxdomain"),
        ("out.shop.svc.cluster.local.", A, "alias web.shop.svc.cluster.local."),
        ("20.0.96.10.in-addr.arpa.", PTR, "web.shop.svc.cluster.local."),
        ("1.0.1.10.in-addr.arpa.", PTR, "db-0.db.shop.svc.cluster.local."),
        ("9.0.1.10.in-addr.arpa.", PTR, "nxdomain"),
        ("1.0.0.127.in-addr.arpa.", PTR, "not ours"),
        ("10-1-0-9.shop.pod.cluster.local.", A, "10.1.0.9"),
        ("x.shop.pod.cluster.local.", A, "nxdomain"),
        ("dns-version.cluster.local.", TXT, "1.1.0"),
        ("example.org.", A, "not ours"),
        ("notcluster.local.", A, "not ours"),
    ] {
        let asked = Name::from_ascii(name).expect("a name");
        assert_eq!(outcome(index.lookup(&asked, kind)), expected, "{name} {kind}");
    }
}

fn handler(index: Option<Index>, upstream: &str) -> (Handler, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("resolv.conf");
    gantry_base::fs::write_atomic(&path, upstream.as_bytes(), 0o600).expect("written");
    let own = Ipv4Addr::new(10, 96, 0, 10);
    let shared: SharedIndex = Arc::new(RwLock::new(index.map(Arc::new)));
    (Handler::new(zone(), shared, Forwarder::with_file(own, path)), directory)
}

#[tokio::test]
async fn aliases_are_followed_and_end() {
    let (handler, _directory) = handler(Some(index()), "");
    let name = |text: &str| Name::from_ascii(text).expect("a name");
    let reply = handler.resolve(&name("out.shop.svc.cluster.local."), RecordType::A).await;
    let kinds: Vec<_> = reply.answers.iter().map(Record::record_type).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
    assert_eq!(reply.answers[1].name, name("web.shop.svc.cluster.local."));
    assert!(reply.answers.iter().all(|record| record.ttl == TTL_SECONDS));
    let reply = handler.resolve(&name("out.shop.svc.cluster.local."), RecordType::AAAA).await;
    assert_eq!((reply.code, reply.answers.len(), reply.soa.is_some()), (ResponseCode::NoError, 1, true));
    let reply = handler.resolve(&name("loop.shop.svc.cluster.local."), RecordType::A).await;
    assert_eq!(reply.code, ResponseCode::ServFail);
}

#[tokio::test]
async fn what_is_not_known_yet_fails_and_is_not_denied() {
    let (handler, _directory) = handler(None, "");
    let reply = handler
        .resolve(&Name::from_ascii("web.shop.svc.cluster.local.").expect("a name"), RecordType::A)
        .await;
    assert_eq!(reply.code, ResponseCode::ServFail);
}

#[tokio::test]
async fn our_own_address_is_never_asked() {
    let (handler, _directory) = handler(Some(index()), "nameserver 10.96.0.10\n");
    let asked = Name::from_ascii("example.org.").expect("a name");
    let reply =
        tokio::time::timeout(std::time::Duration::from_secs(1), handler.resolve(&asked, RecordType::A));
    assert_eq!(reply.await.expect("at once").code, ResponseCode::ServFail);
}

#[tokio::test]
async fn other_names_are_forwarded_and_cached() {
    use hickory_proto::op::Message;
    let socket = tokio::net::UdpSocket::bind("127.53.0.9:53").await;
    let socket = socket.expect("binding port 53 of a loopback address needs root");
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = asked.clone();
    let server = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let question = Message::from_vec(&buffer[..length]).expect("a question");
            let query = question.queries[0].clone();
            let mut answer = question.into_response();
            if query.name().to_ascii().starts_with("example") {
                let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 77)));
                answer.add_answer(Record::from_rdata(query.name().clone(), 300, data));
            } else {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            let bytes = answer.to_vec().expect("encodes");
            if socket.send_to(&bytes, peer).await.is_err() {
                return;
            }
        }
    });
    let (handler, _directory) = handler(Some(index()), "nameserver 127.53.0.9\n");
    let name = |text: &str| Name::from_ascii(text).expect("a name");
    for _ in 0..2 {
        let reply = handler.resolve(&name("example.org."), RecordType::A).await;
        assert_eq!(reply.code, ResponseCode::NoError);
        assert_eq!(reply.answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>(), ["192.0.2.77"]);
        assert!(!reply.authoritative);
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1, "the second answer is a kept one");
    let reply = handler.resolve(&name("absent.example."), RecordType::A).await;
    assert_eq!(reply.code, ResponseCode::NXDomain);
    server.abort();
}
