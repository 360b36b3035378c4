//! Paths that are written so that one part of the server reads another path than the next: the choice of a service at
//! the front door, the authoriser, a service's own router. None answers what the plain path would refuse.

use std::sync::Arc;
use std::time::Duration;

use gantry_testkit::Instance;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::others::Two;
use super::{Door, administrator, runtime};

const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The status of a connection that is closed without one.
const CLOSED: u16 = 0;
/// What is as good as no.
const REFUSED: [u16; 6] = [CLOSED, 400, 401, 403, 404, 405];

/// A plain path that strangers are refused, and other ways to write it.
const STRANGERS: &[(&str, &[&str])] = &[
    (
        "/api/v1/secrets",
        &[
            "//api/v1/secrets",
            "/api//v1/secrets",
            "/api/v1//secrets",
            "/api/v1/secrets/",
            "/./api/v1/secrets",
            "/api/./v1/secrets",
            "/%61pi/v1/secrets",
            "/api%2fv1%2fsecrets",
            "/api%252fv1%252fsecrets",
            "/API/v1/secrets",
            "/Api/V1/Secrets",
            "/apı/v1/secrets",
            "/ａｐｉ/v1/secrets",
            "/api／v1／secrets",
            "/api/v1/secrets;x=y",
            "/api;/v1/secrets",
            "/api/v1/watch/secrets",
            "/api/v1/secrets?watch=true",
            "/healthz/../api/v1/secrets",
            "/healthz/..%2fapi/v1/secrets",
            "/healthz/%2e%2e/api/v1/secrets",
            "/healthz//../api/v1/secrets",
            "/healthz;/../api/v1/secrets",
            "/healthz%00/../api/v1/secrets",
            "/healthz\\..\\api\\v1\\secrets",
            "/livez/%2e%2e/api",
            "/livez/%2e%2e/api/v1/secrets",
            "/readyz/.%2e/api/v1/secrets",
            "/version/../api/v1/secrets",
            "/version/%2e%2e/api/v1/secrets",
            "/identity/../api/v1/secrets",
            "/identity/%2e%2e/api/v1/secrets",
            "/identity/v3/auth/tokens/../../../../api/v1/secrets",
            "/token/../api/v1/secrets",
            "/token/%2e%2e/api/v1/secrets",
            "/v2/%2e%2e/api/v1/secrets",
            "/v2/../api/v1/secrets",
            "https://gantry.test/api/v1/secrets",
            "https://gantry.test/healthz/../api/v1/secrets",
        ],
    ),
    (
        "/identity/v3/users",
        &[
            "//identity/v3/users",
            "///identity/v3/users",
            "/identity//v3/users",
            "/identity//v3",
            "/identity/v3//users",
            "/identity/v3/users/",
            "/identity/v3/users//",
            "/identity/./v3/users",
            "/identity/v3/%75sers",
            "/%69dentity/v3/users",
            "/identity%2fv3%2fusers",
            "/identity/v3%2fusers",
            "/identity/v3/users%2f",
            "/identity/v3/users%00",
            "/identity/v3/users;",
            "/identity/v3/auth/tokens/../../users",
            "/identity/v3/auth/tokens/%2e%2e/%2e%2e/users",
            "/IDENTITY/v3/users",
            "/identity/V3/users",
            "/identity/v3/Users",
            "/ıdentity/v3/users",
            "/identity／v3／users",
            "/identity/v3/uѕers",
            "/healthz/../identity/v3/users",
            "/api/../identity/v3/users",
        ],
    ),
    (
        "/v2/_catalog",
        &[
            "//v2/_catalog",
            "/v2//_catalog",
            "/v2/_catalog/",
            "/v2/%5fcatalog",
            "/v2%2f_catalog",
            "/V2/_catalog",
            "/v2/_CATALOG",
            "/v２/_catalog",
            "/v2/",
            "/v2//",
            "/v2/%2e%2e/",
            "/v2/../v2/_catalog",
            "/v2/./_catalog",
            "/token/../v2/_catalog",
            "/v2/gantry/pause/tags/list",
            "/v2//gantry/pause/tags/list",
            "/v2/library/gantry/pause/tags/list",
            "/v2/gantry%2fpause/tags/list",
            "/v2/gantry/pause/manifests/..%2fmanifests%2f1",
            "/v2/gantry/pause/../pause/tags/list",
        ],
    ),
    (
        "/registry/v1/archives",
        &[
            "/registry%2fv1",
            "/registry%2fv1/archives",
            "//registry/v1/archives",
            "/registry//v1/archives",
            "/registry/v1//archives",
            "/registry/v1/archives/",
            "/registry/v1/%61rchives",
            "/REGISTRY/v1/archives",
            "/v2/../registry/v1/archives",
            "/v2/%2e%2e/registry/v1/archives",
            "/token/../registry/v1/archives",
        ],
    ),
    (
        "/apis/audit.gantry.dev/v1alpha1/records",
        &[
            "//apis/audit.gantry.dev/v1alpha1/records",
            "/apis//audit.gantry.dev/v1alpha1/records",
            "/apis/audit.gantry.dev//v1alpha1/records",
            "/apis/audit.gantry.dev/v1alpha1/records/",
            "/apis/audit%2egantry%2edev/v1alpha1/records",
            "/apis/AUDIT.gantry.dev/v1alpha1/records",
            "/apis/audit.gantry.dev./v1alpha1/records",
            "/apis/x/../audit.gantry.dev/v1alpha1/records",
            "/apis/audit.gantry.dev/v1alpha1/../v1alpha1/records",
        ],
    ),
    (
        "/gantry/health",
        &[
            "//gantry/health",
            "/gantry//health",
            "/gantry/health/",
            "/gantry/%68ealth",
            "/gantry%2fhealth",
            "/Gantry/health",
            "/healthz/../gantry/health",
        ],
    ),
    ("/metrics", &["//metrics", "/metrics/", "/Metrics", "/%6detrics", "/healthz/../metrics", "/metrics%00"]),
    ("/", &["//", "/.", "/..", "/%2e", "/%2f", "/;", "/?x=/healthz"]),
];

/// Headers by which servers behind others are told who asks, what for, and where.
const TOLD: &[&str] = &[
    "x-remote-user: admin\r\nx-remote-group: system:masters",
    "x-forwarded-user: admin",
    "x-original-url: /healthz",
    "x-rewrite-url: /healthz",
    "x-http-method-override: OPTIONS",
    "forwarded: for=127.0.0.1;by=127.0.0.1",
    "x-forwarded-for: 127.0.0.1",
    "impersonate-user: admin\r\nimpersonate-group: system:masters",
    "x-ssl-client-verify: SUCCESS\r\nx-ssl-client-s-dn: O=system:masters,CN=admin",
    "x-user-id: admin\r\nx-roles: admin\r\nx-identity-status: Confirmed",
    "x-service-token: x",
    "authorization: Bearer",
    "authorization: Basic Og==",
    "authorization: Negotiate x",
    "x-auth-token:",
];

/// What is acme's, asked for with a token of globex's project `lab`: the plain path, and other ways to write it.
/// `WEB` is the id of acme's project.
const GLOBEX: &[(&str, &[&str])] = &[
    (
        "/api/v1/namespaces/web-dev/secrets/x",
        &[
            "/api/v1/namespaces/web-dev/secrets/x/",
            "/api/v1/namespaces/web-dev//secrets/x",
            "/api/v1/namespaces//web-dev/secrets/x",
            "/api/v1//namespaces/web-dev/secrets/x",
            "/api/v1/namespaces/lab-dev/../web-dev/secrets/x",
            "/api/v1/namespaces/lab-dev/%2e%2e/web-dev/secrets/x",
            "/api/v1/namespaces/lab-dev%2f..%2fweb-dev/secrets/x",
            "/api/v1/namespaces/lab-dev/secrets/..%2f..%2fweb-dev%2fsecrets%2fx",
            "/api/v1/namespaces/lab-dev/secrets/../../web-dev/secrets/x",
            "/api/v1/namespaces/web%2ddev/secrets/x",
            "/api/v1/namespaces/web-dev%00lab-dev/secrets/x",
            "/api/v1/namespaces/WEB-DEV/secrets/x",
            "/api/v1/namespaces/web-dev/Secrets/x",
            "/api/v1/watch/namespaces/web-dev/secrets/x",
            "/api/v1/namespaces/web-dev/secrets?fieldSelector=metadata.name=x",
            "/api/v1/secrets?fieldSelector=metadata.namespace=web-dev",
            "/api/v1/namespaces/web-dev/secrets/x?namespace=lab-dev",
            "/api/v1/namespaces/lab-dev/secrets/x?namespace=web-dev",
            "/api/v1/proxy/namespaces/web-dev/secrets/x",
        ],
    ),
    (
        "/v2/acme/web/front/tags/list",
        &[
            "/v2//acme/web/front/tags/list",
            "/v2/library/acme/web/front/tags/list",
            "/v2/acme%2fweb%2ffront/tags/list",
            "/v2/globex/lab/../../acme/web/front/tags/list",
            "/v2/globex/lab/%2e%2e/%2e%2e/acme/web/front/tags/list",
            "/v2/ACME/web/front/tags/list",
            "/v2/acme/web/front/tags/list/",
            "/v2/acme/web/front/manifests/1",
            "/v2/library/acme/web/front/manifests/1",
            "/registry/v1/reports/acme/web/front/1",
            "/registry/v1/reports//acme/web/front/1",
            "/registry/v1/reports/globex/lab/../../acme/web/front/1",
            "/registry/v1/reports/acme%2fweb%2ffront%2f1",
        ],
    ),
    (
        "/identity/v3/projects/WEB",
        &[
            "/identity/v3/projects/WEB/",
            "/identity/v3/projects//WEB",
            "/identity/v3/projects/lab/../WEB",
            "/identity/v3/projects/lab%2f..%2fWEB",
            "/identity/v3/projects/WEB%00",
            "/identity/v3/projects/WEB%20",
            "/identity/v3/projects/WEB?domain_id=globex",
        ],
    ),
];

/// Sends request lines as they are: an HTTP client would tidy the path up.
struct Raw {
    connector: TlsConnector,
    port: u16,
}

impl Raw {
    fn to(gantry: &Instance) -> Self {
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(gantry.data_dir().join("pki/ca.crt")).expect("the instance's authority");
        roots.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        Self { connector: TlsConnector::from(Arc::new(config)), port: gantry.port() }
    }

    /// The status of the answer to `GET path`, with `headers` as lines.
    async fn get(&self, path: &str, headers: &str) -> u16 {
        let asked = tokio::time::timeout(ANSWER_MAX, self.answer(path, headers)).await;
        asked.unwrap_or_else(|_| panic!("GET {path} {headers:?}: no answer"))
    }

    async fn answer(&self, path: &str, headers: &str) -> u16 {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("connected");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = self.connector.connect(name, stream).await.expect("TLS");
        let headers = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        // Closed without a word of TLS is closed too.
        let _ = stream.take(1 << 16).read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if answer.is_empty() {
            return CLOSED;
        }
        let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        status.unwrap_or_else(|| panic!("GET {path}: {answer:?} is no answer"))
    }
}

#[test]
fn however_a_path_is_written_it_opens_no_more_than_the_plain_one() {
    let Some(two) = Two::set() else { return };
    let (runtime, door) = (runtime(), Door::of(&two.gantry));
    let admin = format!("authorization: Bearer {}", administrator(&two.gantry, &runtime, &door));
    let (alices, eves) = two.tokens(&runtime, &door);
    runtime.block_on(async {
        let raw = Raw::to(&two.gantry);
        let mut answered = Vec::new();
        for (plain, tricks) in STRANGERS {
            // There is something behind the plain path, and it is closed.
            assert_eq!(raw.get(plain, &admin).await, 200, "{plain} as the administrator");
            for path in tricks.iter().chain([plain]) {
                let status = raw.get(path, "").await;
                if !REFUSED.contains(&status) {
                    answered.push(format!("{path} without a credential: {status}"));
                }
            }
            for told in TOLD {
                let status = raw.get(plain, told).await;
                if !REFUSED.contains(&status) {
                    answered.push(format!("{plain} with {told:?}: {status}"));
                }
            }
        }
        let (alices, eves) =
            (format!("authorization: Bearer {alices}"), format!("authorization: Bearer {eves}"));
        for (plain, tricks) in GLOBEX {
            let of_web = |path: &str| path.replace("WEB", &two.project);
            assert_eq!(raw.get(&of_web(plain), &alices).await, 200, "{plain} as alice, whose it is");
            for path in tricks.iter().chain([plain]) {
                // `WEB-DEV` is meant as it stands.
                let path = if path.contains("WEB-DEV") { (*path).to_owned() } else { of_web(path) };
                let status = raw.get(&path, &eves).await;
                if !REFUSED.contains(&status) {
                    answered.push(format!("{path} with a token of globex: {status}"));
                }
            }
        }
        assert!(answered.is_empty(), "{} answered:\n{}", answered.len(), answered.join("\n"));
        assert_eq!(raw.get("/healthz", "").await, 200, "the plain way, for everybody");
    });
}
