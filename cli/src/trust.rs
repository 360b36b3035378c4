//! Whether a server is the one that is meant: by an authority that is known, or by a fingerprint that somebody
//! compared. Nothing is ever sent to a server that is not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the caller says of whom to trust.
#[derive(Clone, Debug, Default)]
pub struct Trust<'a> {
    /// Authorities in PEM that were named for this, or that a kubeconfig has for the server.
    pub authority: Option<&'a str>,
    /// SHA-256 of the server's certificate or of the authority it shows.
    pub fingerprint: Option<&'a str>,
}

/// Why a server is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error(
        "the certificate of {server} is not trusted: its authority is not known here\n\
         \n  authority  {issuer}\n  sha-256    {fingerprint}\n\n\
         Compare this with what the server's operator sees:\n\
         \n  openssl x509 -noout -fingerprint -sha256 -in DATA-DIR/pki/ca.crt\n\n\
         If it is the same, add  --trust-fingerprint {fingerprint}\n\
         or copy that file here and add  --ca FILE"
    )]
    Unknown { server: String, issuer: String, fingerprint: String },
    #[error(
        "the certificate of {server} is not of the authority that is known for it; it shows {fingerprint}.\n\
         Somebody may be between you and the server. If the server was set up anew, name its authority with --ca \
         or its fingerprint with --trust-fingerprint"
    )]
    Other { server: String, fingerprint: String },
    #[error("the fingerprint of {server} is {shown}, not the one to trust")]
    Fingerprint { server: String, shown: String },
    #[error("{server} does not show the authority of its certificate: name it with --ca FILE")]
    NoAuthority { server: String },
    #[error("the certificate of {server} is not for that name or address, but for others")]
    Name { server: String },
    #[error("the certificate of {server} is not good: {why}")]
    Bad { server: String, why: String },
}

/// The authorities to use from now on, in PEM; `None`: the system's.
pub async fn establish(server: &url::Url, trust: &Trust<'_>) -> anyhow::Result<Option<String>> {
    let host = server.host_str().context("the server's address has no host")?;
    // A URL has an IPv6 address in brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())?;
    let port = server.port_or_known_default().unwrap_or(443);
    let shown = tokio::time::timeout(CONNECT_TIMEOUT, chain_of(host, port, name.clone())).await;
    let chain = shown.map_err(|_| anyhow!("{server} does not answer"))??;
    let shown_as = server.as_str().trim_end_matches('/');
    Ok(decide(shown_as, &name, &chain, trust, UnixTime::now())?)
}

/// The decision alone. `chain` begins with the server's own certificate.
pub fn decide(
    server: &str,
    name: &ServerName<'_>,
    chain: &[CertificateDer<'static>],
    trust: &Trust<'_>,
    now: UnixTime,
) -> Result<Option<String>, TrustError> {
    let server = server.to_owned();
    let bad = |why: String| TrustError::Bad { server: server.clone(), why };
    let leaf = chain.first().ok_or_else(|| bad("it shows none".to_owned()))?;
    let root = chain.iter().find(|certificate| is_authority(certificate));
    let shown = fingerprint(root.unwrap_or(leaf));
    if let Some(wanted) = trust.fingerprint {
        let pinned = chain.iter().any(|certificate| same_fingerprint(&fingerprint(certificate), wanted));
        if !pinned {
            return Err(TrustError::Fingerprint { server, shown });
        }
        // Whoever holds the key of a pinned server certificate is the server, and shows its own authority.
        let root = root.ok_or_else(|| TrustError::NoAuthority { server: server.clone() })?;
        verify(name, chain, std::slice::from_ref(root), now).map_err(|e| refused(e, &server, &bad))?;
        return Ok(Some(pem(root)));
    }
    if let Some(text) = trust.authority {
        let roots = gantry_base::pki::certificates(text).map_err(|error| bad(error.to_string()))?;
        return match verify(name, chain, &roots, now) {
            Ok(()) => Ok(Some(text.to_owned())),
            Err(error) if unknown(&error) => Err(TrustError::Other { server, fingerprint: shown }),
            Err(error) => Err(refused(error, &server, &bad)),
        };
    }
    let system = rustls_native_certs::load_native_certs().certs;
    match verify(name, chain, &system, now) {
        Ok(()) => Ok(None),
        Err(error) if unknown(&error) => {
            let issuer = subject(root.unwrap_or(leaf), root.is_none());
            Err(TrustError::Unknown { server, issuer, fingerprint: shown })
        }
        Err(error) => Err(refused(error, &server, &bad)),
    }
}

fn unknown(error: &rustls::Error) -> bool {
    // Without any root, the verifier has another word for the same.
    matches!(
        error,
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) | rustls::Error::General(_)
    ) || matches!(error, rustls::Error::InvalidCertificate(CertificateError::BadSignature))
}

fn refused(error: rustls::Error, server: &str, bad: &impl Fn(String) -> TrustError) -> TrustError {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => TrustError::Name { server: server.to_owned() },
        other => bad(other.to_string()),
    }
}

fn verify(
    name: &ServerName<'_>,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let [leaf, intermediates @ ..] = chain else {
        return Err(rustls::Error::NoCertificatesPresented);
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    verifier.verify_server_cert(leaf, intermediates, name, &[], now).map(drop)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// `AB:CD:…`, as openssl prints it.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// As people copy them: with or without colons, `sha256:` before it, any case.
fn same_fingerprint(ours: &str, theirs: &str) -> bool {
    let theirs = theirs.trim().to_ascii_uppercase();
    let theirs = ["SHA256 FINGERPRINT=", "SHA-256:", "SHA256:"]
        .iter()
        .find_map(|prefix| theirs.strip_prefix(prefix))
        .unwrap_or(&theirs);
    let digits = |text: &str| text.chars().filter(|c| *c != ':').collect::<String>();
    digits(ours) == digits(theirs)
}

fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    parsed.is_ok_and(|(_, parsed)| parsed.is_ca() && parsed.subject() == parsed.issuer())
}

fn subject(certificate: &CertificateDer<'_>, issuer: bool) -> String {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    let named = parsed.map(|(_, c)| if issuer { c.issuer().to_string() } else { c.subject().to_string() });
    // What a stranger wrote goes to a terminal.
    named.unwrap_or_else(|_| "unreadable".to_owned()).chars().filter(|c| !c.is_control()).collect()
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines = encoded.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
}

/// The certificates the server shows, over a connection that carries nothing else.
async fn chain_of(
    host: &str,
    port: u16,
    name: ServerName<'static>,
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let provider = provider();
    let seen =
        Arc::new(Seen { algorithms: provider.signature_verification_algorithms, chain: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    let unreachable = || format!("{host}:{port} cannot be reached");
    let stream = tokio::net::TcpStream::connect((host, port)).await.with_context(unreachable)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connected = connector.connect(name, stream).await;
    connected.with_context(|| format!("{host}:{port} does not speak TLS as expected"))?;
    let chain = std::mem::take(&mut *seen.chain.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(chain)
}

/// Keeps what is shown. That the server holds the key of its certificate is checked here, the rest in [`decide`].
#[derive(Debug)]
struct Seen {
    algorithms: WebPkiSupportedAlgorithms,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let chain = chain.map(|certificate| certificate.clone().into_owned()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_base::pki::{CertificateAuthority, certificates};

    struct Server {
        authority: String,
        leaf: CertificateDer<'static>,
        root: CertificateDer<'static>,
    }

    fn server() -> Server {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let authority = CertificateAuthority::open(directory.path(), "gantry").expect("an authority");
        let address = "127.0.0.1".parse().expect("an address");
        let made = authority.server_certificate("front-door", &["localhost".to_owned()], &[address]);
        let one = |pem: &str| certificates(pem).expect("PEM").remove(0);
        Server {
            leaf: one(&made.expect("a certificate").certificate_pem),
            root: one(authority.certificate_pem()),
            authority: authority.certificate_pem().to_owned(),
        }
    }

    fn asked(
        chain: &[CertificateDer<'static>],
        host: &str,
        trust: &Trust<'_>,
    ) -> Result<Option<String>, TrustError> {
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        decide(&format!("https://{host}:6443"), &name, chain, trust, UnixTime::now())
    }

    #[test]
    fn a_stranger_is_refused_with_a_fingerprint_to_compare() {
        let server = server();
        let chain = [server.leaf.clone(), server.root.clone()];
        let error = asked(&chain, "localhost", &Trust::default()).expect_err("not trusted").to_string();
        let shown = fingerprint(&server.root);
        assert!(error.contains(&format!("--trust-fingerprint {shown}")), "{error}");
        assert!(error.contains("pki/ca.crt"), "{error}");
    }

    #[test]
    fn an_authority_that_is_known_is_enough_and_no_other() {
        let (ours, theirs) = (server(), server());
        let chain = [ours.leaf.clone(), ours.root.clone()];
        let known = Trust { authority: Some(&ours.authority), ..Trust::default() };
        for host in ["localhost", "127.0.0.1"] {
            assert_eq!(
                asked(&chain, host, &known).expect("trusted").as_deref(),
                Some(ours.authority.as_str())
            );
            assert!(asked(&chain[..1], host, &known).is_ok(), "without its authority in the chain");
        }
        assert!(matches!(asked(&chain, "example.com", &known), Err(TrustError::Name { .. })));
        let other = Trust { authority: Some(&theirs.authority), ..Trust::default() };
        assert!(matches!(asked(&chain, "localhost", &other), Err(TrustError::Other { .. })));
    }

    #[test]
    fn a_fingerprint_pins_the_server_or_its_authority() {
        let (ours, theirs) = (server(), server());
        let chain = [ours.leaf.clone(), ours.root.clone()];
        for pinned in [&ours.leaf, &ours.root] {
            let text = fingerprint(pinned);
            for written in [text.clone(), text.to_lowercase().replace(':', ""), format!("sha256:{text}")] {
                let trust = Trust { fingerprint: Some(&written), ..Trust::default() };
                let kept = asked(&chain, "localhost", &trust).expect("trusted").expect("an authority");
                assert_eq!(certificates(&kept).expect("PEM"), std::slice::from_ref(&ours.root));
            }
        }
        let wrong = fingerprint(&theirs.root);
        let trust = Trust { fingerprint: Some(&wrong), authority: Some(&ours.authority) };
        assert!(matches!(asked(&chain, "localhost", &trust), Err(TrustError::Fingerprint { .. })));
        // An authority that is shown but did not sign the certificate proves nothing.
        let mixed = [ours.leaf.clone(), theirs.root.clone()];
        let trust = Trust { fingerprint: Some(&wrong), ..Trust::default() };
        assert!(asked(&mixed, "localhost", &trust).is_err());
        let right = fingerprint(&ours.leaf);
        let trust = Trust { fingerprint: Some(&right), ..Trust::default() };
        assert!(matches!(asked(&chain[..1], "localhost", &trust), Err(TrustError::NoAuthority { .. })));
    }
}
