//! Clients of other registries, made from what objects say of them.

use std::net::IpAddr;
use std::time::Duration;

use gantry_base::secret::Secret;
use gantry_oci::client::{Credentials, RegistryClient, Url};
use gantry_registry_api::{Remote, SecretReference};
use k8s_openapi::api::core::v1;
use kube::{Api, Client};

/// Who asks.
pub(crate) const USER_AGENT: &str = concat!("gantry/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error("endpoint: {0}")]
    Endpoint(String),
    #[error("certificateAuthority: no certificate can be read in it")]
    Authority,
    #[error("credentials: {0}")]
    Credentials(String),
    #[error("a client cannot be made")]
    Client(#[from] reqwest::Error),
}

/// A client that gets in with the credentials of the Secret, read now.
pub(crate) async fn client(kube: &Client, remote: &Remote) -> Result<RegistryClient, RemoteError> {
    let url = endpoint(&remote.endpoint)?;
    let credentials = match &remote.credentials {
        Some(reference) => Some(credentials(kube, reference).await?),
        None => None,
    };
    if credentials.is_some() && url.scheme() != "https" && !is_loopback(&url) {
        return Err(RemoteError::Endpoint("a password goes over https, or to this machine".to_owned()));
    }
    let builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .user_agent(USER_AGENT);
    let builder = trusting(builder, remote.certificate_authority.as_deref())?;
    Ok(RegistryClient::new(url, builder.build()?).signed_in(credentials))
}

/// With the authorities of the PEM alone, if there is one.
pub(crate) fn trusting(
    builder: reqwest::ClientBuilder,
    pem: Option<&str>,
) -> Result<reqwest::ClientBuilder, RemoteError> {
    let Some(pem) = pem else { return Ok(builder) };
    let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
    let certificates = certificates.ok().filter(|all| !all.is_empty()).ok_or(RemoteError::Authority)?;
    Ok(builder.tls_certs_only(certificates))
}

fn endpoint(text: &str) -> Result<Url, RemoteError> {
    let url: Url = format!("{}/", text.trim_end_matches('/'))
        .parse()
        .map_err(|error| RemoteError::Endpoint(format!("{error}")))?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.path() == "/";
    match plain {
        true => Ok(url),
        false => Err(RemoteError::Endpoint("it is no https://HOST[:PORT]".to_owned())),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn credentials(kube: &Client, reference: &SecretReference) -> Result<Credentials, RemoteError> {
    let SecretReference { namespace, name } = reference;
    let wrong = |what: &str| RemoteError::Credentials(format!("the secret {namespace}/{name} {what}"));
    let secret = Api::<v1::Secret>::namespaced(kube.clone(), namespace).get(name).await;
    let secret = secret.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 404 => wrong("does not exist"),
        _ => wrong("cannot be read"),
    })?;
    let data = secret.data.unwrap_or_default();
    let field = |key: &str| {
        let text = data.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
        text.filter(|text| !text.is_empty()).ok_or_else(|| wrong(&format!("has no {key}")))
    };
    Ok(Credentials { user: field("username")?, password: Secret::new(field("password")?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_alone() {
        for good in ["https://registry-1.docker.io", "http://127.0.0.1:5000/", "https://[::1]:5000"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in
            ["registry", "ftp://x", "https://u:p@x", "https://x/v2", "https://x/?a=b", "file:///etc", ""]
        {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
        for (url, local) in [
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://127.9.9.9", true),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&endpoint(url).expect("an endpoint")), local, "{url}");
        }
    }
}
