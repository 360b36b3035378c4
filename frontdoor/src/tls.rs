//! The front door's TLS settings.

use std::sync::Arc;

use gantry_base::pki::{self, KeyedCertificate};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite as suite;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the front door's certificate or key is not readable: {0}")]
    Pem(String),
    #[error("the client authority is not usable: {0}")]
    ClientAuthority(String),
    #[error("the front door's certificate is not usable: {0}")]
    Certificate(#[source] rustls::Error),
}

/// In the order in which they are taken, whatever a client names first. AES with keys of 128 bits comes before 256, as
/// in Go's servers: it is 10 rounds instead of 14 for each block of an image, on both sides.
const CIPHER_SUITES: [SupportedCipherSuite; 9] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, client certificates of the authorities in `client_ca_pem`
/// asked for but not required.
pub fn server_config(
    certificate: &KeyedCertificate,
    client_ca_pem: &str,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: CIPHER_SUITES.to_vec(),
        ..rustls::crypto::ring::default_provider()
    });
    let mut authorities = RootCertStore::empty();
    let pem = |error: rustls::pki_types::pem::Error| TlsError::Pem(error.to_string());
    for authority in pki::certificates(client_ca_pem).map_err(pem)? {
        authorities.add(authority).map_err(|error| TlsError::ClientAuthority(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::ClientAuthority(error.to_string()))?;
    let chain = pki::certificates(&certificate.certificate_pem).map_err(pem)?;
    let key = pki::private_key(certificate.key_pem.expose()).map_err(pem)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Certificate)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Certificate)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}
