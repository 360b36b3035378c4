//! The instance's own certificate authority, and what it signs: the front door's certificate and
//! client certificates whose subject is a user (CN) in groups (O), as Kubernetes reads them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use time::{Duration, OffsetDateTime};

use crate::fs;

const CA_VALID_DAYS: i64 = 3650;
const LEAF_VALID_DAYS: i64 = 365;
/// A certificate with less left than this is made anew at the next start.
const RENEW_BEFORE_DAYS: i64 = 60;
/// Clocks of clients may be behind ours.
const BACKDATE: Duration = Duration::hours(1);

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} holds no usable certificate or key: {why}")]
    Unreadable { path: PathBuf, why: String },
    #[error("cannot make the certificate for {subject}: {source}")]
    Sign { subject: String, source: rcgen::Error },
}

/// A certificate with its key, both PEM.
#[derive(Clone, Debug)]
pub struct KeyedCertificate {
    pub certificate_pem: String,
    pub key_pem: crate::secret::Secret<String>,
}

/// The authority of one instance: `ca.crt` and `ca.key` (0600) in its directory.
pub struct CertificateAuthority {
    directory: PathBuf,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Reads the authority in `directory`, or makes it there.
    pub fn open(directory: &Path, name: &str) -> Result<Self, PkiError> {
        fs::create_directory(directory, 0o700).map_err(|source| file_error(directory, source))?;
        let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        let stored = (read_text(&certificate_path)?, read_text(&key_path)?);
        let (certificate_pem, key_pem) = match stored {
            (Some(certificate), Some(key)) => (certificate, key),
            _ => {
                let made = make_authority(name)?;
                // The key first: a certificate without its key would be trusted and of no use.
                write(&key_path, made.1.as_bytes(), 0o600)?;
                write(&certificate_path, made.0.as_bytes(), 0o644)?;
                made
            }
        };
        let unreadable =
            |why: rcgen::Error| PkiError::Unreadable { path: certificate_path.clone(), why: why.to_string() };
        let key = KeyPair::from_pem(&key_pem).map_err(unreadable)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(unreadable)?;
        Ok(Self { directory: directory.to_owned(), certificate_pem, issuer })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate `NAME.crt`/`NAME.key` of a server reachable under `names` and `addresses`;
    /// kept while it is valid and covers them all.
    pub fn server_certificate(
        &self,
        name: &str,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<KeyedCertificate, PkiError> {
        self.kept_or_made(
            name,
            |certificate| covers(certificate, names, addresses),
            || {
                let mut params = leaf_params(name, &[]);
                params.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
                for dns in names {
                    let dns = dns.clone().try_into().map_err(|source| sign_error(name, source))?;
                    params.subject_alt_names.push(SanType::DnsName(dns));
                }
                params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
                Ok(params)
            },
        )
    }

    /// The certificate `NAME.crt`/`NAME.key` of the client `user` in `groups`.
    pub fn client_certificate(
        &self,
        name: &str,
        user: &str,
        groups: &[&str],
    ) -> Result<KeyedCertificate, PkiError> {
        self.kept_or_made(
            name,
            |_| true,
            || {
                let mut params = leaf_params(user, groups);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                Ok(params)
            },
        )
    }

    fn kept_or_made(
        &self,
        name: &str,
        fits: impl Fn(&x509_parser::certificate::X509Certificate<'_>) -> bool,
        params: impl FnOnce() -> Result<CertificateParams, PkiError>,
    ) -> Result<KeyedCertificate, PkiError> {
        let certificate_path = self.directory.join(format!("{name}.crt"));
        let key_path = self.directory.join(format!("{name}.key"));
        if let (Some(certificate_pem), Some(key_pem)) = (read_text(&certificate_path)?, read_text(&key_path)?)
            && self.is_usable(&certificate_pem, &fits)
        {
            return Ok(KeyedCertificate { certificate_pem, key_pem: crate::secret::Secret::new(key_pem) });
        }
        let params = params()?;
        let key = KeyPair::generate().map_err(|source| sign_error(name, source))?;
        let signed = params.signed_by(&key, &self.issuer).map_err(|source| sign_error(name, source))?;
        let (certificate_pem, key_pem) = (signed.pem(), key.serialize_pem());
        write(&key_path, key_pem.as_bytes(), 0o600)?;
        write(&certificate_path, certificate_pem.as_bytes(), 0o644)?;
        Ok(KeyedCertificate { certificate_pem, key_pem: crate::secret::Secret::new(key_pem) })
    }

    fn is_usable(
        &self,
        certificate_pem: &str,
        fits: &impl Fn(&x509_parser::certificate::X509Certificate<'_>) -> bool,
    ) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(certificate_pem.as_bytes()) else { return false };
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else { return false };
        let Ok(authority) = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()) else {
            return false;
        };
        let Ok((_, authority)) = x509_parser::parse_x509_certificate(&authority) else { return false };
        let left = certificate.validity().not_after.timestamp() - OffsetDateTime::now_utc().unix_timestamp();
        left > Duration::days(RENEW_BEFORE_DAYS).whole_seconds()
            && certificate.verify_signature(Some(authority.public_key())).is_ok()
            && fits(&certificate)
    }
}

/// Certificates of a PEM text as rustls takes them.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect()
}

/// The private key of a PEM text as rustls takes it.
pub fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, rustls_pki_types::pem::Error> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
}

fn make_authority(name: &str) -> Result<(String, String), PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = OffsetDateTime::now_utc() - BACKDATE;
    params.not_after = OffsetDateTime::now_utc() + Duration::days(CA_VALID_DAYS);
    let key = KeyPair::generate().map_err(|source| sign_error(name, source))?;
    let certificate = params.self_signed(&key).map_err(|source| sign_error(name, source))?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn leaf_params(common_name: &str, organisations: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(common_name, organisations);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_before = OffsetDateTime::now_utc() - BACKDATE;
    params.not_after = OffsetDateTime::now_utc() + Duration::days(LEAF_VALID_DAYS);
    params
}

/// rcgen keeps one value per attribute type, so several groups cannot stand in one subject through it
/// twice; the one group our certificates need is written, more are refused at build time.
fn distinguished_name(common_name: &str, organisations: &[&str]) -> DistinguishedName {
    debug_assert!(organisations.len() <= 1, "a certificate of ours carries one group");
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    for organisation in organisations {
        name.push(DnType::OrganizationName, *organisation);
    }
    name
}

fn covers(
    certificate: &x509_parser::certificate::X509Certificate<'_>,
    names: &[String],
    addresses: &[IpAddr],
) -> bool {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return false };
    let general = &extension.value.general_names;
    let has_name = |name: &String| general.iter().any(|g| matches!(g, GeneralName::DNSName(d) if d == name));
    let has_address = |address: &IpAddr| {
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        general.iter().any(|g| matches!(g, GeneralName::IPAddress(bytes) if *bytes == octets.as_slice()))
    };
    names.iter().all(has_name) && addresses.iter().all(has_address)
}

fn read_text(path: &Path) -> Result<Option<String>, PkiError> {
    let bytes = fs::read_optional(path).map_err(|source| file_error(path, source))?;
    bytes
        .map(String::from_utf8)
        .transpose()
        .map_err(|error| PkiError::Unreadable { path: path.to_owned(), why: error.to_string() })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    fs::write_atomic(path, bytes, mode).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: std::io::Error) -> PkiError {
    PkiError::File { path: path.to_owned(), source }
}

fn sign_error(subject: &str, source: rcgen::Error) -> PkiError {
    PkiError::Sign { subject: subject.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_kept_while_they_fit_and_made_anew_when_not() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let authority = CertificateAuthority::open(directory.path(), "test").expect("made");
        let again = CertificateAuthority::open(directory.path(), "test").expect("read");
        assert_eq!(authority.certificate_pem(), again.certificate_pem());
        let names = ["localhost".to_owned()];
        let addresses = ["127.0.0.1".parse().expect("an address")];
        let first = authority.server_certificate("front", &names, &addresses).expect("made");
        let kept = again.server_certificate("front", &names, &addresses).expect("kept");
        assert_eq!(first.certificate_pem, kept.certificate_pem);
        let more = ["localhost".to_owned(), "gantry".to_owned()];
        let renewed = authority.server_certificate("front", &more, &addresses).expect("made anew");
        assert_ne!(first.certificate_pem, renewed.certificate_pem);
        assert_eq!(certificates(&renewed.certificate_pem).expect("readable").len(), 1);
        assert_eq!(format!("{:?}", renewed.key_pem), "[secret]");
    }
}
