//! The docker-registry of this bench: with TLS, and without a log.

use std::net::Ipv4Addr;

use gantry_base::pki::CertificateAuthority;
use gantry_testkit::DockerRegistry;
use serde_json::json;

use crate::remote::Remote;

/// `None` where the program is not installed.
pub fn start() -> Option<DockerRegistry> {
    DockerRegistry::configured(|configuration, directory| {
        let authority = CertificateAuthority::open(&directory.join("pki"), "bench").expect("an authority");
        let certificate = authority
            .server_certificate("registry", &["localhost".to_owned()], &[Ipv4Addr::LOCALHOST.into()])
            .expect("a certificate");
        for (name, text) in [
            ("ca.crt", authority.certificate_pem()),
            ("tls.crt", &certificate.certificate_pem),
            ("tls.key", certificate.key_pem.expose()),
        ] {
            gantry_base::fs::write_atomic(&directory.join(name), text.as_bytes(), 0o600).expect("written");
        }
        configuration["log"] = json!({ "level": "error", "accesslog": { "disabled": true } });
        configuration["storage"]["cache"] = json!({ "blobdescriptor": "inmemory" });
        configuration["http"]["tls"] =
            json!({ "certificate": directory.join("tls.crt"), "key": directory.join("tls.key") });
    })
}

pub fn remote(peer: &DockerRegistry) -> Remote {
    let pid = peer.pid().expect("it runs");
    Remote::new("docker-registry", peer.port(), &peer.path("ca.crt"), pid, None)
}
