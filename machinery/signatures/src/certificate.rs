//! Certificates for signing: a chain to one of the roots that somebody trusts.

use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{KeyError, PublicKey, pem};

/// `id-kp-codeSigning` (RFC 5280, section 4.2.1.12).
const CODE_SIGNING: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 3];
/// Certificates of one text; chains are short.
const CERTIFICATES_MAX: usize = 16;

/// Why a certificate is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("there is no certificate in the text")]
    Absent,
    #[error("a text with more than {CERTIFICATES_MAX} certificates is no chain")]
    TooMany,
    #[error("a certificate is not readable: {0}")]
    Format(String),
    #[error("it is not valid at this time: from {not_before} to {not_after}")]
    Expired { not_before: String, not_after: String },
    #[error("it is not for signing code")]
    Usage,
    #[error("it does not lead to a root that is trusted: {0}")]
    Chain(String),
    #[error("it is of {0}, who is not among those that may sign")]
    Identity(String),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Whose certificates are trusted, and of whom.
#[derive(Clone, Debug)]
pub struct Authority {
    roots: Vec<CertificateDer<'static>>,
    intermediates: Vec<CertificateDer<'static>>,
    /// Patterns (`*`, `?`) of names in the certificate: an address of mail, a URI, a DNS name, its subject. None: all.
    pub identities: Vec<String>,
}

/// A certificate that was found good.
#[derive(Clone, Debug)]
pub(crate) struct Trusted {
    pub(crate) key: PublicKey,
    pub(crate) subject: String,
    pub(crate) identities: Vec<String>,
}

impl Authority {
    /// Reads a chain as `cosign --certificate-chain` takes it: intermediates, and the root at the end.
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        let mut intermediates = certificates(text)?;
        let mut roots = Vec::new();
        for at in (0..intermediates.len()).rev() {
            let parsed = parse(&intermediates[at])?;
            if parsed.subject() == parsed.issuer() {
                roots.push(intermediates.remove(at));
            }
        }
        if roots.is_empty() {
            roots.extend(intermediates.pop());
        }
        Ok(Self { roots, intermediates, identities: Vec::new() })
    }

    /// Looks whether the certificate leads to one of the roots; `chain` are more intermediates, which are not trusted.
    pub(crate) fn trusts(
        &self,
        certificate: &str,
        chain: Option<&str>,
        now: Timestamp,
    ) -> Result<Trusted, CertificateError> {
        let all = certificates(certificate)?;
        let leaf = all.first().ok_or(CertificateError::Absent)?;
        let parsed = parse(leaf)?;
        within(&parsed, now)?;
        let usage = parsed.extended_key_usage().ok().flatten();
        if !usage.is_some_and(|usage| usage.value.code_signing) {
            return Err(CertificateError::Usage);
        }
        let mut intermediates = self.intermediates.clone();
        intermediates.extend(all[1..].iter().cloned());
        intermediates.extend(chain.map(certificates).transpose()?.unwrap_or_default());
        self.leads_to_a_root(leaf, &intermediates, now)?;
        let key = PublicKey::from_spki(parsed.public_key().raw)?;
        let (subject, identities) = (parsed.subject().to_string(), names(&parsed));
        let named = |pattern: &String| {
            identities.iter().chain([&subject]).any(|name| gantry_base::pattern::matches(pattern, name))
        };
        if !self.identities.is_empty() && !self.identities.iter().any(named) {
            let who = if identities.is_empty() { subject } else { identities.join(", ") };
            return Err(CertificateError::Identity(who));
        }
        Ok(Trusted { key, subject, identities })
    }

    fn leads_to_a_root(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<(), CertificateError> {
        let chain = |error: webpki::Error| CertificateError::Chain(format!("{error:?}"));
        let mut anchors: Vec<TrustAnchor<'_>> = Vec::new();
        let mut expired = None;
        for root in &self.roots {
            // An anchor has no time of its own. One that is over leaves the others good: roots are replaced.
            match within(&parse(root)?, now) {
                Ok(()) => anchors.push(anchor_from_trusted_cert(root).map_err(chain)?),
                Err(error) => expired = Some(error),
            }
        }
        if let Some(error) = expired.filter(|_| anchors.is_empty()) {
            return Err(error);
        }
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let end = EndEntityCert::try_from(leaf).map_err(chain)?;
        let usage = KeyUsage::required_if_present(CODE_SIGNING);
        let path =
            end.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, intermediates, time, usage, None, None);
        path.map(drop).map_err(chain)
    }
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let blocks = pem::blocks(text).into_iter().filter(|block| block.label == "CERTIFICATE");
    let found: Vec<_> = blocks.map(|block| CertificateDer::from(block.contents)).collect();
    match found.len() {
        0 => Err(CertificateError::Absent),
        1..=CERTIFICATES_MAX => Ok(found),
        _ => Err(CertificateError::TooMany),
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    let parsed = X509Certificate::from_der(der);
    parsed.map(|(_, certificate)| certificate).map_err(|error| CertificateError::Format(error.to_string()))
}

fn within(certificate: &X509Certificate<'_>, now: Timestamp) -> Result<(), CertificateError> {
    let validity = certificate.validity();
    let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if (from..=to).contains(&now.as_second()) {
        return Ok(());
    }
    let (not_before, not_after) = (validity.not_before.to_string(), validity.not_after.to_string());
    Err(CertificateError::Expired { not_before, not_after })
}

/// The names that a certificate is for beside its subject.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::RFC822Name(text) | GeneralName::DNSName(text) | GeneralName::URI(text) => {
            Some((*text).to_owned())
        }
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}
