//! The front door's TLS settings.

use std::sync::Arc;

use gantry_base::pki::{self, KeyedCertificate};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the front door's certificate or key is not readable: {0}")]
    Pem(String),
    #[error("the client authority is not usable: {0}")]
    ClientAuthority(String),
    #[error("the front door's certificate is not usable: {0}")]
    Certificate(#[source] rustls::Error),
}

/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, client certificates of the authorities in `client_ca_pem`
/// asked for but not required.
pub fn server_config(
    certificate: &KeyedCertificate,
    client_ca_pem: &str,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
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
    Ok(Arc::new(config))
}
