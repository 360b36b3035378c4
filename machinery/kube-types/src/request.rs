//! What a request asks for, read from its method, path and query alone.
//!
//! The rules are those of `k8s.io/apiserver/pkg/endpoints/request`: authorisation, audit and flow
//! control all decide on this value, so it is computed once, at the front door.

use std::borrow::Cow;

use http::Method;

/// The header in which the front door puts the [`RequestId`], also for authenticators, which see headers alone.
pub const AUDIT_ID: &str = "audit-id";

/// One request's id: `X-Request-Id` of the client where it is well-formed, else a new UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

/// The attributes of a request that rights are decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// False for `/healthz`, `/version`, `/api`, `/apis/apps`, … which are authorised by path.
    pub is_resource_request: bool,
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the
    /// lower-case HTTP method where `is_resource_request` is false.
    pub verb: String,
    /// `api` or `apis`.
    pub api_prefix: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource, unescaped parts joined by `/` (for `proxy`).
    pub subresource_path: String,
    /// The name `fieldSelector=metadata.name=NAME` narrows a list, watch or deletecollection to.
    pub selected_name: String,
}

impl RequestInfo {
    /// `path` is percent-encoded as it came; `query` without the `?`.
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Self {
        let mut info =
            Self { path: path.to_owned(), verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        let decoded: Vec<Cow<'_, str>> =
            path.trim_matches('/').split('/').filter(|s| !s.is_empty()).map(percent_decode).collect();
        let parts: Vec<&str> = decoded.iter().map(AsRef::as_ref).collect();
        let rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource_request = true;
        info.api_prefix = parts[0].to_owned();
        let rest = info.read_legacy_prefix(method, rest);
        info.read_resource(rest);
        info.verb = info.resource_verb(method, query);
        if info.name.is_empty() && info.verb != "create" {
            info.selected_name = query.and_then(selected_name).unwrap_or_default();
        }
        info
    }

    /// `/api/v1/watch/pods` and `/api/v1/proxy/…`, which old clients still send.
    fn read_legacy_prefix<'a, 'b>(&mut self, _method: &Method, rest: &'a [&'b str]) -> &'a [&'b str] {
        match rest {
            ["watch", tail @ ..] if !tail.is_empty() => {
                self.verb = "watch".to_owned();
                tail
            }
            _ => rest,
        }
    }

    fn read_resource(&mut self, rest: &[&str]) {
        let rest = match rest {
            ["namespaces", namespace, tail @ ..] => {
                self.namespace = (*namespace).to_owned();
                // `/namespaces/x` itself and its subresources are about the namespace object.
                match tail {
                    [] | ["status" | "finalize", ..] => rest,
                    _ => tail,
                }
            }
            _ => rest,
        };
        let mut parts = rest.iter();
        let mut next = || parts.next().map(|s| (*s).to_owned()).unwrap_or_default();
        self.resource = next();
        self.name = next();
        self.subresource = next();
        self.subresource_path = parts.copied().collect::<Vec<_>>().join("/");
    }

    fn resource_verb(&self, method: &Method, query: Option<&str>) -> String {
        let named = !self.name.is_empty();
        let watching = self.verb == "watch" || query.is_some_and(wants_watch);
        let verb = match (method.as_str(), named) {
            // A watch of one object by `fieldSelector=metadata.name` keeps the verb `watch`.
            ("GET" | "HEAD", false) if watching => "watch",
            ("GET" | "HEAD", true) if self.verb == "watch" => "watch",
            ("GET" | "HEAD", true) => "get",
            ("GET" | "HEAD", false) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "delete",
            ("DELETE", false) => "deletecollection",
            (other, _) => return other.to_ascii_lowercase(),
        };
        verb.to_owned()
    }

    /// Is it a read that goes on (watch, log -f, exec, attach, port-forward, proxy)?
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || (self.is_resource_request
                && matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy"))
    }
}

fn wants_watch(query: &str) -> bool {
    query.split('&').any(|pair| match pair.split_once('=') {
        Some(("watch", value)) => !matches!(value, "false" | "0" | "False" | "FALSE" | "f" | "F"),
        Some(_) => false,
        None => pair == "watch",
    })
}

/// The name a field selector asks for, where it asks for one. A query with several selectors is not
/// read: the authoriser and the handler could disagree on which of them holds.
fn selected_name(query: &str) -> Option<String> {
    let mut selectors = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| percent_decode(key) == "fieldSelector");
    let (_, selector) = selectors.next()?;
    if selectors.next().is_some() {
        return None;
    }
    // In a query a plus sign is a space, as the handler reads it.
    let selector = selector.replace('+', " ");
    let selector = percent_decode(&selector);
    if selector.contains('\\') {
        return None;
    }
    let mut names = selector.split(',').filter_map(|term| term.strip_prefix("metadata.name="));
    let name = names.next()?.trim_start_matches('=');
    (!name.is_empty() && names.next().is_none()).then(|| name.to_owned())
}

/// Decodes `%xx`; malformed escapes are kept as they stand. NUL becomes U+FFFD, as in the store's keys:
/// rights are decided on the very name that is looked up.
fn percent_decode(part: &str) -> Cow<'_, str> {
    let bytes = part.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | 0)) {
        return Cow::Borrowed(part);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| part.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        out.push(escape.unwrap_or(bytes[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    Cow::Owned(String::from_utf8_lossy(&out).replace('\0', "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, path: &str, query: &str) -> String {
        let method = Method::from_bytes(method.as_bytes()).expect("a method in the table");
        let i = RequestInfo::parse(&method, path, (!query.is_empty()).then_some(query));
        format!(
            "{} {}|{}|{}|{}|{}|{}",
            i.verb, i.group, i.version, i.namespace, i.resource, i.name, i.subresource
        )
    }

    #[test]
    fn a_selector_of_one_name_is_a_question_about_it() {
        for (query, want) in [
            ("fieldSelector=metadata.name%3Da", "a"),
            ("watch=1&fieldSelector=metadata.name=a", "a"),
            ("fieldSelector=spec.x%3D1%2Cmetadata.name%3D%3Da", "a"),
            ("fieldSelector=metadata.name!=a", ""),
            ("fieldSelector=metadata.name=a,metadata.name=b", ""),
            // Two selectors, one of them disguised: which the handler takes is not for us to guess.
            ("fieldSelector=metadata.name=a&field%53elector=metadata.name=b", ""),
            ("labelSelector=metadata.name=a", ""),
            ("fieldSelector=metadata.name=a+b", "a b"),
            ("fieldSelector=metadata.name=a%5C,b", ""),
        ] {
            let info = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/n/secrets", Some(query));
            assert_eq!(info.selected_name, want, "{query}");
        }
    }

    #[test]
    fn paths_become_attributes() {
        for (method, path, query, want) in [
            ("GET", "/api/v1/pods", "", "list |v1||pods||"),
            ("GET", "/api/v1/pods", "watch=true", "watch |v1||pods||"),
            ("GET", "/api/v1/pods", "watch=0", "list |v1||pods||"),
            ("GET", "/api/v1/watch/pods", "", "watch |v1||pods||"),
            ("GET", "/api/v1/namespaces/a", "", "get |v1|a|namespaces|a|"),
            ("PUT", "/api/v1/namespaces/a/finalize", "", "update |v1|a|namespaces|a|finalize"),
            ("GET", "/api/v1/namespaces", "", "list |v1||namespaces||"),
            ("POST", "/api/v1/namespaces/a/pods/p/exec", "", "create |v1|a|pods|p|exec"),
            ("GET", "/api/v1/namespaces/a/pods/p/exec", "", "get |v1|a|pods|p|exec"),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "",
                "deletecollection apps|v1|a|deployments||",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "",
                "patch apps|v1|a|deployments|d|scale",
            ),
            // Empty segments count for nothing, dots are names like others, an escaped slash stays in its
            // segment, and a NUL is what the store would make of it.
            ("GET", "//api//v1///namespaces/a//pods/", "", "list |v1|a|pods||"),
            ("GET", "/api/v1/namespaces/a/../b/secrets", "", "get |v1|a|..|b|secrets"),
            ("GET", "/api/v1/namespaces/a%2fsecrets%2fx", "", "get |v1|a/secrets/x|namespaces|a/secrets/x|"),
            ("GET", "/api/v1/namespaces/a%2F..%2Fb/secrets", "", "list |v1|a/../b|secrets||"),
            ("GET", "/api/v1/namespaces/%61/%73ecrets/x", "", "get |v1|a|secrets|x|"),
            ("GET", "/api/v1/namespaces/a%00/secrets", "", "list |v1|a\u{fffd}|secrets||"),
            ("GET", "/api/v1/namespaces/A/secrets", "", "list |v1|A|secrets||"),
            ("GET", "/api/v1/namespaces/\u{ff41}/secrets", "", "list |v1|\u{ff41}|secrets||"),
            ("GET", "/api%2fv1/secrets", "", "get |||||"),
            ("GET", "/%61pi/v1/secrets", "", "list |v1||secrets||"),
            ("GET", "/API/v1/secrets", "", "get |||||"),
            ("POST", "/api/v1/watch/namespaces/a/pods", "", "create |v1|a|pods||"),
            ("GET", "/api/v1/watch/namespaces/a/pods/x", "", "watch |v1|a|pods|x|"),
            ("GET", "/apis/apps", "", "get |||||"),
            ("GET", "/healthz", "", "get |||||"),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Aadmin",
                "",
                "get rbac.authorization.k8s.io|v1||clusterroles|system:admin|",
            ),
        ] {
            assert_eq!(parse(method, path, query), want, "{method} {path}?{query}");
        }
    }
}
