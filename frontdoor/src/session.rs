//! The session of a browser, whose cookie comes with every request, whoever made the page that asks.

use axum::body::Body;
use gantry_kube_types::{Cookie, RequestInfo, SESSION_COOKIE, is_own_page, remove_cookie};
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Request, Response};

/// What the cookie of a session is to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    Absent,
    /// Authenticators see it.
    Counts,
    /// It was taken out: the request is a stranger's.
    Ignored,
}

impl Session {
    /// Takes the cookie out where it does not count: when a page of somebody else sent the request, and when the answer
    /// is that of a pod or a service, whose pages would be pages of ours.
    pub(crate) fn judge(request: &mut Request<Body>, info: &RequestInfo) -> Self {
        if Cookie::of(request.headers(), SESSION_COOKIE) == Cookie::Absent {
            return Self::Absent;
        }
        let is_proxied = info.is_resource_request && info.subresource == "proxy";
        if !is_proxied && is_own_page(request.method(), request.uri(), request.headers()) {
            return Self::Counts;
        }
        remove_cookie(request.headers_mut(), SESSION_COOKIE);
        Self::Ignored
    }

    /// What is answered to a session may be opened as a page, and may be of anybody's making (logs, images' layers): it
    /// is no page of ours, and no script of it runs as one. Who serves pages of ours says so.
    pub(crate) fn guard(self, response: &mut Response<Body>) {
        if self != Self::Counts {
            return;
        }
        let headers = response.headers_mut();
        headers.entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
        let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");
        headers.entry(CONTENT_SECURITY_POLICY).or_insert(policy);
    }
}
