//! Cluster DNS over the wire, from a pod.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use serde_json::json;

use crate::api::{SERVICES, SLICES, service, slice};
use crate::bed::{Bed, inside};

fn ask(namespace: &str, server: Ipv4Addr, tcp: bool, name: &str, kind: RecordType) -> Message {
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    question.metadata.recursion_desired = true;
    let bytes = question.to_vec().expect("encodes");
    let timeout = Some(Duration::from_secs(5));
    let answer = inside(namespace, move || {
        let mut buffer = vec![0; 65_535];
        if tcp {
            let mut stream = TcpStream::connect((server, 53))?;
            stream.set_read_timeout(timeout)?;
            let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
            stream.write_all(&[&length[..], &bytes].concat())?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            buffer.truncate(usize::from(u16::from_be_bytes(length)));
            stream.read_exact(&mut buffer)?;
        } else {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(timeout)?;
            socket.send_to(&bytes, (server, 53))?;
            let (length, _) = socket.recv_from(&mut buffer)?;
            buffer.truncate(length);
        }
        Ok(buffer)
    });
    Message::from_vec(&answer.expect("an answer")).expect("a message")
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_answered_over_udp_and_tcp() {
    let mut bed = Bed::start().await;
    let pod = bed.pod();
    let (server, ip) = (bed.config.dns_ip, bed.service_ip(40));
    bed.api.set(SERVICES, service("web", json!({ "clusterIP": ip, "ports": [{ "port": 80 }] })));
    let many: Vec<_> = (2..102).map(|n| format!("10.99.0.{n}")).collect();
    bed.api.set(SERVICES, service("many", json!({ "clusterIP": "None", "ports": [{ "port": 80 }] })));
    bed.api.set(SLICES, slice("many", &many, "TCP", 80));
    let (web, big) = ("web.default.svc.cluster.local.", "many.default.svc.cluster.local.");
    let query = |namespace: &str, tcp: bool, name: &'static str, kind: RecordType| {
        let namespace = namespace.to_owned();
        tokio::task::spawn_blocking(move || ask(&namespace, server, tcp, name, kind))
    };
    let began = Instant::now();
    while query("", true, big, RecordType::A).await.expect("no panic").answers.len() != 100 {
        assert!(began.elapsed() < Duration::from_secs(10), "the names do not come");
    }
    for (namespace, tcp) in [(pod.namespace.as_str(), false), (pod.namespace.as_str(), true), ("", false)] {
        let answer = query(namespace, tcp, web, RecordType::A).await.expect("no panic");
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        let [record] = &answer.answers[..] else { panic!("one answer: {answer:?}") };
        assert_eq!(record.ttl, 5);
        assert!(matches!(&record.data, RData::A(a) if a.0.to_string() == ip), "{record:?}");
        let absent =
            query(namespace, tcp, "no.default.svc.cluster.local.", RecordType::A).await.expect("no panic");
        assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(absent.authorities.len(), 1, "with the SOA");
    }
    let short = query(&pod.namespace, false, big, RecordType::A).await.expect("no panic");
    assert!(short.metadata.truncation, "100 addresses do not fit into 512 bytes");
    let whole = query(&pod.namespace, true, big, RecordType::A).await.expect("no panic");
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 100));
    bed.end().await;
}
