//! `/healthz`, `/livez` and `/readyz` with `?verbose`, `?exclude=` and one path per check.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

/// `Err` says what is wrong; it goes to the log, not to the caller, who may be anonymous.
pub type HealthCheck = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

#[derive(Clone)]
struct Named {
    name: String,
    check: HealthCheck,
    for_live: bool,
}

/// The checks behind the health paths. `ping` is always there.
#[derive(Clone, Default)]
pub struct HealthChecks(Vec<Named>);

impl HealthChecks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Checked by `/readyz` and `/healthz`: may this instance get work?
    #[must_use]
    pub fn ready(self, name: &str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.with(name, Arc::new(check), false)
    }

    /// Checked by `/livez` as well: would a restart help?
    #[must_use]
    pub fn live(self, name: &str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.with(name, Arc::new(check), true)
    }

    fn with(mut self, name: &str, check: HealthCheck, for_live: bool) -> Self {
        self.0.push(Named { name: name.to_owned(), check, for_live });
        self
    }

    /// The paths these checks answer.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for root in ["healthz", "livez", "readyz"] {
            paths.push(format!("/{root}"));
            paths.push(format!("/{root}/ping"));
            let below = self.0.iter().filter(|c| root != "livez" || c.for_live);
            paths.extend(below.map(|c| format!("/{root}/{}", c.name)));
        }
        paths
    }

    /// The answer to `path`, or `None` where it is no health path.
    pub(crate) fn answer(&self, path: &str, query: &str) -> Option<Response<Body>> {
        let mut parts = path.trim_matches('/').splitn(2, '/');
        let root = parts.next().filter(|root| matches!(*root, "healthz" | "livez" | "readyz"))?;
        let ping = Named { name: "ping".to_owned(), check: Arc::new(|| Ok(())), for_live: true };
        let checks = std::iter::once(&ping).chain(self.0.iter()).filter(|c| root != "livez" || c.for_live);
        if let Some(name) = parts.next() {
            let mut checks = checks;
            let one = checks.find(|c| c.name == name)?;
            return Some(match (one.check)() {
                Ok(()) => text(StatusCode::OK, "ok".to_owned()),
                Err(why) => {
                    tracing::warn!(check = name, why, "health check failed");
                    text(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "internal server error: reason withheld\n".to_owned(),
                    )
                }
            });
        }
        let asked: Vec<(&str, &str)> =
            query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
        let excluded = |name: &str| asked.iter().any(|(k, v)| *k == "exclude" && *v == name);
        let (mut lines, mut failed) = (String::new(), false);
        for check in checks {
            // Writing to a String cannot fail.
            let _ = match (excluded(&check.name), (check.check)()) {
                (true, _) => writeln!(lines, "[+]{} excluded: ok", check.name),
                (false, Ok(())) => writeln!(lines, "[+]{} ok", check.name),
                (false, Err(why)) => {
                    failed = true;
                    tracing::warn!(check = check.name, why, "health check failed");
                    writeln!(lines, "[-]{} failed: reason withheld", check.name)
                }
            };
        }
        Some(match (failed, asked.iter().any(|(k, _)| *k == "verbose")) {
            (true, _) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{root} check failed\n")),
            (false, true) => text(StatusCode::OK, format!("{lines}{root} check passed\n")),
            (false, false) => text(StatusCode::OK, "ok".to_owned()),
        })
    }
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
