//! Whom to trust at the other end.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// A TLS client that trusts the authorities of `ca_pem` and nobody else.
pub(crate) fn client_config(ca_pem: &str) -> Result<ClientConfig, String> {
    let certificates = gantry_base::pki::certificates(ca_pem).map_err(|e| format!("caPem: {e}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|e| format!("caPem: {e}"))?;
    }
    if roots.is_empty() {
        return Err("caPem holds no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|e| e.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
