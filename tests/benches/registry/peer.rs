//! A docker-registry of this bench.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use gantry_base::pki::CertificateAuthority;
use gantry_testkit::free_port;

use crate::remote::Remote;

pub struct Peer {
    process: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Peer {
    /// `None` where the program is not installed.
    pub fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str| {
            gantry_base::fs::write_atomic(&path(name), text.as_bytes(), 0o600).expect("written");
        };
        let authority = CertificateAuthority::open(&path("pki"), "bench").expect("an authority");
        let certificate = authority
            .server_certificate("registry", &["localhost".to_owned()], &[Ipv4Addr::LOCALHOST.into()])
            .expect("a certificate");
        write("ca.crt", authority.certificate_pem());
        write("tls.crt", &certificate.certificate_pem);
        write("tls.key", certificate.key_pem.expose());
        let port = free_port();
        let shown = |name: &str| path(name).display().to_string();
        let config = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\nstorage:\n  filesystem: {{ \
             rootdirectory: {} }}\n  cache: {{ blobdescriptor: inmemory }}\n  delete: {{ enabled: true }}\nhttp:\n  addr: \
             127.0.0.1:{port}\n  tls: {{ certificate: {}, key: {} }}\n",
            shown("data"),
            shown("tls.crt"),
            shown("tls.key"),
        );
        write("config.yml", &config);
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(path("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().ok()?;
        let peer = Self { process, port, directory };
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            std::thread::yield_now();
        }
        Some(peer)
    }

    pub fn remote(&self) -> Remote {
        // A process's number is positive and small.
        let pid = self.process.id() as i32;
        Remote::new("docker-registry", self.port, &self.directory.path().join("ca.crt"), pid, None)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
