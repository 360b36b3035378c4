//! Records arrive at a real rsyslog, over TLS.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gantry_audit::{Config, SyslogConfig};
use gantry_base::health::HealthBoard;
use gantry_base::pki::CertificateAuthority;
use gantry_base::tasks::Tasks;
use gantry_host::{Capabilities, Host};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{config, eventually, fill, open};

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

fn start(directory: &Path, port: u16, program: &Path) -> Rsyslog {
    let authority = CertificateAuthority::open(directory, "test").expect("an authority");
    let address = "127.0.0.1".parse().expect("an address");
    let server =
        authority.server_certificate("syslog", &["localhost".to_owned()], &[address]).expect("a certificate");
    put(&directory.join("ca.pem"), authority.certificate_pem());
    put(&directory.join("server.pem"), &server.certificate_pem);
    put(&directory.join("server-key.pem"), server.key_pem.expose());
    let at = directory.display();
    let settings = format!(
        r#"global(workDirectory="{at}" maxMessageSize="256k"
  defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="{at}/ca.pem"
  defaultNetstreamDriverCertFile="{at}/server.pem" defaultNetstreamDriverKeyFile="{at}/server-key.pem")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
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

#[tokio::test]
async fn records_arrive_and_go_on_after_a_break() {
    let Some(program) = rsyslogd() else {
        gantry_testkit::skip("there is no rsyslogd (cargo xtask test installs it)");
        return;
    };
    let directory = TempDir::new().expect("a directory");
    let syslog = TempDir::new().expect("a directory");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let receiver = start(syslog.path(), port, &program);
    let sends = SyslogConfig {
        server: format!("127.0.0.1:{port}"),
        server_name: None,
        authorities: syslog.path().join("ca.pem"),
        client: None,
        host_name: "node-1".to_owned(),
    };
    let audit = open(Config { syslog: Some(sends.clone()), ..config(directory.path()) });
    let tasks = Tasks::new(CancellationToken::new(), HealthBoard::default());
    audit.start(&host(&tasks));
    fill(&audit, 0..300).await;
    let complete = |want: u64| {
        let mut got = sequences(&receiver.output);
        got.sort_unstable();
        got.dedup();
        got.len() as u64 >= want
    };
    eventually("the first records are there", || complete(300)).await;
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
    fill(&audit, 300..500).await;
    let receiver = start(syslog.path(), port, &program);
    let complete = || {
        let mut got = sequences(&receiver.output);
        got.sort_unstable();
        got.dedup();
        // Checkpoints have numbers too, and are not sent: count records.
        got.len() >= 500
    };
    eventually("what came meanwhile is there", complete).await;
    assert!(tasks.drain(Duration::from_secs(10)).await);
    audit.close().await;
}
