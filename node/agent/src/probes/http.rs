//! HTTP checks, as probes and lifecycle hooks make them: certificates are not verified, redirects stay on the host.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reqwest::redirect::Policy;

/// How much of an answer is read.
const BODY_BYTES_MAX: usize = 10 << 10;
const REDIRECTS_MAX: usize = 10;

/// A request to make.
pub(crate) struct HttpCheck {
    url: String,
    headers: Vec<(String, String)>,
}

/// The port's number; names are looked up among the container's ports.
pub(crate) fn resolve_port(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => {
                let named = |p: &&k8s_openapi::api::core::v1::ContainerPort| p.name.as_deref() == Some(name);
                container.ports.iter().flatten().find(named)?.container_port
            }
        },
    };
    u16::try_from(number).ok().filter(|n| *n > 0)
}

impl HttpCheck {
    pub(crate) fn new(get: &HTTPGetAction, container: &Container, pod_ip: IpAddr) -> Result<Self, String> {
        let port =
            resolve_port(&get.port, container).ok_or("couldn't find the named port in the container")?;
        let host = match get.host.as_deref().filter(|h| !h.is_empty()) {
            Some(host) => host.to_owned(),
            None => match pod_ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            },
        };
        let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
        let path = get.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let headers = get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
        Ok(Self { url: format!("{scheme}://{host}:{port}{slash}{path}"), headers })
    }

    /// Makes the request. `Ok` for an answer of 200 to 399, otherwise what to tell the user.
    pub(crate) async fn get(&self, limit: Duration) -> Result<(), String> {
        let mut request = client().get(&self.url).timeout(limit);
        let given = |name: &str| self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !given("accept") {
            request = request.header("accept", "*/*");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.map_err(|e| self.explain(&e))?;
        let status = answer.status();
        // Read a little, so that a server that writes does not see a reset; more is the server's business.
        let mut seen = 0;
        let mut body = answer.bytes_stream();
        while let Some(Ok(chunk)) = body.next().await {
            seen += chunk.len();
            if seen >= BODY_BYTES_MAX {
                break;
            }
        }
        match status.as_u16() {
            200..400 => Ok(()),
            code => Err(format!("HTTP probe failed with statuscode: {code}")),
        }
    }

    fn explain(&self, error: &reqwest::Error) -> String {
        if error.is_timeout() {
            let when = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            return format!("Get \"{}\": {when}", self.url);
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        let address = self.url.split('/').nth(2).unwrap_or_default();
        let text = match cause.downcast_ref::<std::io::Error>() {
            Some(io) => super::check::dial_error(address, io),
            None => cause.to_string(),
        };
        format!("Get \"{}\": {text}", self.url)
    }
}

fn client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let same_host = Policy::custom(|attempt| {
            let stays =
                attempt.previous().first().is_some_and(|first| first.host_str() == attempt.url().host_str());
            // Leaving the host counts as an answer: the server did redirect.
            if stays && attempt.previous().len() < REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
        });
        reqwest::Client::builder()
            .user_agent("kube-probe/1.37")
            .danger_accept_invalid_certs(true)
            .redirect(same_host)
            .no_proxy()
            // Each check opens its own connection: an idle one would hide a server that stopped accepting.
            .pool_max_idle_per_host(0)
            .build()
            .expect("fails only without a TLS provider, which the agent installs when it starts")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn urls_name_the_pod_unless_told_otherwise() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
                .expect("a container");
        for (get, want) in [
            (json!({"port": 80}), Some("http://10.0.0.1:80/")),
            (json!({"port": "web", "path": "health"}), Some("http://10.0.0.1:8080/health")),
            (
                json!({"port": "8443", "scheme": "HTTPS", "host": "h", "path": "/x?y=1"}),
                Some("https://h:8443/x?y=1"),
            ),
            (json!({"port": "nope"}), None),
        ] {
            let get: HTTPGetAction = serde_json::from_value(get).expect("an action");
            let check = HttpCheck::new(&get, &container, "10.0.0.1".parse().expect("an address"));
            assert_eq!(check.ok().map(|c| c.url).as_deref(), want);
        }
    }
}
