//! Records arrive at a real rsyslog, over TLS.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gantry_audit::{Audit, Config, SyslogConfig};
use gantry_base::health::{Health, HealthBoard};
use gantry_base::pki::CertificateAuthority;
use gantry_base::tasks::Tasks;
use gantry_host::{Capabilities, Host};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{config, eventually, fill, open};

/// What our certificate says we are.
const PEER: &str = "gantry-audit";

/// An rsyslogd of the test's own, which ends with it.
struct Rsyslog {
    child: Child,
    output: PathBuf,
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rsyslogd() -> Option<PathBuf> {
    ["/usr/sbin/rsyslogd", "/sbin/rsyslogd"].iter().map(PathBuf::from).find(|path| path.is_file())
}

#[expect(clippy::disallowed_methods, reason = "files of a test need no durability")]
fn put(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
}

/// What a server presents, and whom it lets in.
struct Server<'a> {
    /// Signs for it.
    authority: &'a CertificateAuthority,
    /// Where it says that it is.
    address: &'a str,
    /// Signs for clients; absent: nobody is asked for a certificate.
    clients: Option<&'a CertificateAuthority>,
}

impl Server<'_> {
    fn start(&self, directory: &Path, port: u16, program: &Path) -> Rsyslog {
        let Self { authority, address, clients } = self;
        let address = address.parse().expect("an address");
        let name = format!("syslog-{address}");
        let server = authority
            .server_certificate(&name, &["localhost".to_owned()], &[address])
            .expect("a certificate");
        put(&directory.join("clients.pem"), clients.unwrap_or(*authority).certificate_pem());
        put(&directory.join("server.pem"), &server.certificate_pem);
        put(&directory.join("server-key.pem"), server.key_pem.expose());
        let at = directory.display();
        let auth = match clients {
            None => r#"streamDriver.authMode="anon""#.to_owned(),
            Some(_) => format!(r#"streamDriver.authMode="x509/name" permittedPeer=["{PEER}"]"#),
        };
        let settings = format!(
            r#"global(workDirectory="{at}" maxMessageSize="256k"
  defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="{at}/clients.pem"
  defaultNetstreamDriverCertFile="{at}/server.pem" defaultNetstreamDriverKeyFile="{at}/server-key.pem")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" {auth})
template(name="whole" type="string" string="%pri%|%timereported:::date-rfc3339%|%hostname%|%app-name%|%msgid%|%structured-data%|%msg%\n")
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="keep")
ruleset(name="keep") {{ action(type="omfile" file="{at}/received" template="whole") }}
"#
        );
        put(&directory.join("rsyslog.conf"), &settings);
        let child = Command::new(program)
            .args(["-n", "-i"])
            .arg(directory.join("rsyslogd.pid"))
            .arg("-f")
            .arg(directory.join("rsyslog.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rsyslogd starts");
        Rsyslog { child, output: directory.join("received") }
    }
}

/// A client of nothing: no test here has a cluster, and the watch of namespaces may fail.
fn host(tasks: &Tasks) -> Host {
    let nowhere = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<kube::client::Body>, _>(std::io::Error::from(std::io::ErrorKind::NotConnected))
    });
    let client = kube::Client::new(nowhere, "default");
    Host { client, tasks: tasks.clone(), capabilities: Capabilities::default() }
}

fn sequences(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let number = |line: &str| line.split("sequence=\"").nth(1)?.split('"').next()?.parse().ok();
    text.lines().filter_map(number).collect()
}

/// Records that arrived, each counted once: checkpoints have numbers too, and are not sent.
fn arrived(path: &Path) -> usize {
    let mut got = sequences(path);
    got.sort_unstable();
    got.dedup();
    got.len()
}

/// A trail that is sent on, and where to.
struct Sending {
    program: PathBuf,
    directory: TempDir,
    port: u16,
    right: CertificateAuthority,
    other: CertificateAuthority,
    audit: Audit,
    tasks: Tasks,
}

impl Sending {
    /// With a certificate of ours, if `known`. Nobody listens yet.
    fn begin(known: bool) -> Option<Self> {
        let Some(program) = rsyslogd() else {
            gantry_testkit::skip("there is no rsyslogd (cargo xtask test installs it)");
            return None;
        };
        let directory = TempDir::new().expect("a directory");
        let authority = |name: &str| {
            let at = directory.path().join(name);
            std::fs::create_dir(&at).expect("a folder");
            CertificateAuthority::open(&at, name).expect("an authority")
        };
        let (right, other) = (authority("right"), authority("other"));
        let at = |name: &str| directory.path().join(name);
        put(&at("ca.pem"), right.certificate_pem());
        let ours = right.client_certificate("ours", PEER, &[]).expect("a certificate");
        put(&at("ours.pem"), &ours.certificate_pem);
        put(&at("ours-key.pem"), ours.key_pem.expose());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let port = listener.expect("a port").port();
        let sends = SyslogConfig {
            server: format!("127.0.0.1:{port}"),
            server_name: None,
            authorities: at("ca.pem"),
            client: known.then(|| (at("ours.pem"), at("ours-key.pem"))),
            host_name: "node-1".to_owned(),
            retry_max: Duration::from_secs(1),
        };
        let audit = open(Config { syslog: Some(sends), ..config(&at("trail")) });
        let tasks = Tasks::new(CancellationToken::new(), HealthBoard::default());
        audit.start(&host(&tasks));
        Some(Self { program, directory, port, right, other, audit, tasks })
    }

    fn listens(&self, server: &Server<'_>) -> Rsyslog {
        server.start(self.directory.path(), self.port, &self.program)
    }

    fn health(&self) -> Health {
        let all = self.tasks.health().all();
        all.into_iter().find(|(part, _)| part == "audit syslog").map_or(Health::Ok, |(_, health)| health)
    }

    /// Nothing comes through to this server, and the operator is told why.
    async fn is_refused(&self, server: &Server<'_>, why: &str) {
        let receiver = self.listens(server);
        // Before it listened, nobody was there.
        let nobody = "os error 111";
        let told = || matches!(self.health(), Health::Degraded(text) if text.contains(why) && !text.contains(nobody));
        eventually(why, told).await;
        assert_eq!(arrived(&receiver.output), 0, "{why}");
    }

    async fn ends(self) {
        assert!(self.tasks.drain(Duration::from_secs(10)).await);
        self.audit.close().await;
    }
}

/// More than are sent again after a break.
const BACKLOG: u64 = 5000;

#[tokio::test]
async fn a_server_that_is_another_gets_nothing_and_the_right_one_gets_all() {
    let Some(sending) = Sending::begin(false) else { return };
    fill(&sending.audit, 0..BACKLOG).await;
    let (right, other) = (&sending.right, &sending.other);
    let by_another = Server { authority: other, address: "127.0.0.1", clients: None };
    sending.is_refused(&by_another, "UnknownIssuer").await;
    let elsewhere = Server { authority: right, address: "192.0.2.7", clients: None };
    sending.is_refused(&elsewhere, "not valid for name").await;
    let receiver = sending.listens(&Server { authority: right, address: "127.0.0.1", clients: None });
    eventually("all is there", || arrived(&receiver.output) as u64 == BACKLOG).await;
    eventually("all is well", || sending.health() == Health::Ok).await;
    sending.ends().await;
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_is_shown_our_certificate() {
    let Some(sending) = Sending::begin(true) else { return };
    fill(&sending.audit, 0..BACKLOG).await;
    let (right, other) = (&sending.right, &sending.other);
    // In TLS 1.3 it refuses us when we have begun to send: nothing of that is lost.
    let of_others = Server { authority: right, address: "127.0.0.1", clients: Some(other) };
    sending.is_refused(&of_others, "127.0.0.1").await;
    assert!(matches!(sending.health(), Health::Degraded(_)));
    let receiver = sending.listens(&Server { authority: right, address: "127.0.0.1", clients: Some(right) });
    eventually("all is there", || arrived(&receiver.output) as u64 == BACKLOG).await;
    eventually("all is well", || sending.health() == Health::Ok).await;
    sending.ends().await;
}

#[tokio::test]
async fn who_has_no_certificate_is_refused_and_says_so() {
    let Some(sending) = Sending::begin(false) else { return };
    fill(&sending.audit, 0..BACKLOG).await;
    let right = &sending.right;
    let asks = Server { authority: right, address: "127.0.0.1", clients: Some(right) };
    sending.is_refused(&asks, "127.0.0.1").await;
    let receiver = sending.listens(&Server { authority: right, address: "127.0.0.1", clients: None });
    eventually("all is there", || arrived(&receiver.output) as u64 == BACKLOG).await;
    sending.ends().await;
}

#[tokio::test]
async fn records_arrive_and_go_on_after_a_break() {
    let Some(sending) = Sending::begin(false) else { return };
    let server = Server { authority: &sending.right, address: "127.0.0.1", clients: None };
    let receiver = sending.listens(&server);
    fill(&sending.audit, 0..300).await;
    eventually("the first records are there", || arrived(&receiver.output) >= 300).await;
    let text = std::fs::read_to_string(&receiver.output).expect("read");
    let first = text.lines().next().expect("a line");
    assert!(first.starts_with("110|2026-01-01T00:00:00"), "log audit, informational: {first}");
    assert!(
        first.contains("|node-1|gantry-audit|request|[gantry@32473 sequence=\"1\" auditID=\"id-0\""),
        "{first}"
    );
    let body = first.split_once("] ").or_else(|| first.split_once("]|")).expect("a message").1;
    let body: serde_json::Value =
        serde_json::from_str(body.trim_start_matches(['|', ' '])).expect("the record");
    assert_eq!(body["auditID"], "id-0");

    // The server goes, records come, the server comes back.
    drop(receiver);
    fill(&sending.audit, 300..500).await;
    let receiver = sending.listens(&server);
    eventually("what came meanwhile is there", || arrived(&receiver.output) >= 500).await;
    sending.ends().await;
}
