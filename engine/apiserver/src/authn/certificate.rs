//! Client certificates: the subject's common name is the user, its organisations are the groups.

use std::sync::Arc;

use gantry_kube_types::{Authenticator, ConnectionInfo, StatusError, UserInfo};
use http::HeaderMap;
use x509_parser::certificate::{Validity, X509Certificate};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

/// Reads the identity out of the leaf certificate. TLS has already verified the chain against the
/// client CA and the time of the handshake; a long connection is checked against the time again here.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCertificates;

#[async_trait::async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(
        &self,
        _headers: &HeaderMap,
        connection: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let Some(leaf) = connection.client_certificates.first() else { return Ok(None) };
        let known = match connection.memory.get::<Subject>() {
            Some(known) => Ok(known),
            None => Subject::of(leaf).map(Arc::new),
        };
        let valid = known.and_then(|known| if known.is_valid() { Ok(known) } else { Err(OUTDATED) });
        let subject = valid.map_err(|reason| {
            tracing::debug!(reason, "client certificate refused");
            StatusError::unauthorized()
        })?;
        connection.memory.keep(subject.clone());
        Ok(Some(subject.user.clone()))
    }
}

const OUTDATED: &str = "it is not valid at this time";

/// What a leaf says. A connection has one for as long as it lives, so it is read once.
struct Subject {
    user: UserInfo,
    validity: Validity,
}

impl Subject {
    fn of(der: &[u8]) -> Result<Self, &'static str> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| "it is not a certificate")?;
        if !rest.is_empty() {
            return Err("bytes follow the certificate");
        }
        Ok(Self { user: identity(&certificate)?, validity: certificate.validity().clone() })
    }

    fn is_valid(&self) -> bool {
        self.validity.is_valid()
    }
}

fn identity(certificate: &X509Certificate<'_>) -> Result<UserInfo, &'static str> {
    if !is_for_clients(certificate) {
        return Err("it is not for client authentication");
    }
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok()).filter(|name| !name.is_empty());
    let name = name.ok_or("its subject has no common name")?;
    if names.next().is_some() {
        return Err("its subject has more than one common name");
    }
    let groups: Result<Vec<&str>, _> =
        certificate.subject().iter_organization().map(|organisation| organisation.as_str()).collect();
    let groups = groups.map_err(|_| "its subject has an organisation that is not text")?;
    let mut user = UserInfo::authenticated(name, &groups);
    user.groups.dedup();
    Ok(user)
}

/// A certificate that names extended key usages must name this one (RFC 5280, 4.2.1.12).
fn is_for_clients(certificate: &X509Certificate<'_>) -> bool {
    certificate.extensions().iter().all(|extension| match extension.parsed_extension() {
        ParsedExtension::ExtendedKeyUsage(usage) => usage.client_auth || usage.any,
        _ => true,
    })
}
