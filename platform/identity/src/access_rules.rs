//! What an application credential with access rules may be used for, at every door: what one of its rules names
//! (service, method, path), and nothing else. And image pull secrets, which are for the registry's protocol alone.
//!
//! The Keystone API asks in its own handlers, which answer in Keystone's words. Before every other service stands
//! [`hold`]. Where a credential is shown to somebody who does not know these rules (a TokenReview), it is not known:
//! see [`crate::authenticator::TokenAuthenticator`].

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use gantry_identity_api::extra;
use gantry_kube_types::{StatusError, UserInfo};
use http::{Extensions, StatusCode};

use crate::core::Core;
use crate::directory::State;
use crate::keystone::find_record;
use crate::pull;

/// The collection of rules; the user stands where others have the parent.
pub(crate) const RULES: &str = "access_rules";
/// Types of the platform's services, as the catalogue and the rules name them.
pub(crate) const IDENTITY: &str = "identity";
pub(crate) const KUBERNETES: &str = "kubernetes";
pub(crate) const REGISTRY: &str = "container-registry";

/// The service that a path of the front door belongs to, and the path as rules write it.
fn service_of(path: &str) -> (&'static str, &str) {
    let below =
        |prefix: &str| path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match below("/identity") {
        Some(rest) => (IDENTITY, rest),
        None if ["/v2", "/token", "/registry"].iter().any(|p| below(p).is_some()) => (REGISTRY, path),
        None => (KUBERNETES, path),
    }
}

/// Has the credential rules that it is held to? One that is gone is good for nothing anyway.
pub(crate) fn has_rules(state: &State, credential: &str) -> bool {
    state.application_credentials.get(credential).is_some_and(|c| !c.spec.access_rules.is_empty())
}

/// May the credential be used for this call? `path` is as rules write it: `/v3/users`, `/api/v1/namespaces`.
pub(crate) fn allow(state: &State, credential: &str, service: &str, method: &str, path: &str) -> bool {
    let Some(credential) = state.application_credentials.get(credential) else { return true };
    let rules = &credential.spec.access_rules;
    let mut found = rules.iter().filter_map(|id| find_record(state, RULES, Some(&credential.spec.user), id));
    // Rules that are gone allow nothing: a credential that was limited does not become unlimited.
    rules.is_empty()
        || found.any(|rule| {
            let text = |name: &str| rule.spec.attributes.get(name).and_then(serde_json::Value::as_str);
            let fits = text("path").is_some_and(|pattern| matches(pattern, path));
            text("service") == Some(service) && text("method") == Some(method) && fits
        })
}

/// `*` and `{name}` stand for one part of a path, `**` for any number. A path that means another one to somebody
/// fits nothing.
fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.trim_matches('/').split('/').collect();
    let path: Vec<&str> = path.trim_matches('/').split('/').collect();
    let plain = |part: &&str| {
        let dots = part.to_ascii_lowercase().replace("%2e", ".");
        !matches!(dots.as_str(), "." | "..") && !part.is_empty() && !part.to_ascii_lowercase().contains("%2f")
    };
    (path == [""] || path.iter().all(plain)) && parts(&pattern, &path)
}

/// Goes back to the last `**` alone: users write the patterns, and many of them must not take time that grows with
/// their number.
fn parts(pattern: &[&str], path: &[&str]) -> bool {
    let one =
        |part: &str, at: &str| part == "*" || (part.starts_with('{') && part.ends_with('}')) || part == at;
    let (mut next, mut at, mut last) = (0, 0, None);
    while at < path.len() {
        match (pattern.get(next), last) {
            (Some(&"**"), _) => {
                last = Some((next, at));
                next += 1;
            }
            (Some(part), _) if one(part, path[at]) => (next, at) = (next + 1, at + 1),
            (_, Some((any, taken))) => {
                last = Some((any, taken + 1));
                (next, at) = (any + 1, taken + 1);
            }
            (_, None) => return false,
        }
    }
    pattern[next..].iter().all(|rest| *rest == "**")
}

impl Core {
    /// Is the caller's credential good for this request? Says why it is not.
    pub(crate) fn held_to_rules(&self, caller: &UserInfo, method: &str, path: &str) -> Result<(), String> {
        if pull::is_pull_secret(caller) && !pull::may_reach(path) {
            return Err("a pull secret is good for the registry only".to_owned());
        }
        let Some(credentials) = caller.extra.get(extra::APPLICATION_CREDENTIAL) else { return Ok(()) };
        let (service, path) = service_of(path);
        let state = self.directory.read();
        // Its handlers ask, and answer in Keystone's words.
        let allowed = service == IDENTITY
            || credentials.iter().all(|credential| allow(&state, credential, service, method, path));
        let refusal = "the application credential's access rules do not allow this request";
        if allowed { Ok(()) } else { Err(format!("{refusal} ({service}: {method} {path})")) }
    }
}

/// Puts the rules before a service. `caller` finds who made the request, whoever they act as.
pub(crate) fn hold(core: Arc<Core>, service: Router, caller: fn(&Extensions) -> Option<&UserInfo>) -> Router {
    service.layer(from_fn(move |request: Request, next: Next| {
        let verdict = caller(request.extensions()).map_or(Ok(()), |caller| {
            core.held_to_rules(caller, request.method().as_str(), request.uri().path())
        });
        async move {
            match verdict {
                Ok(()) => next.run(request).await,
                Err(why) => refused(&why),
            }
        }
    }))
}

fn refused(why: &str) -> Response {
    (StatusCode::FORBIDDEN, axum::Json(StatusError::forbidden("", "", "", why).to_json())).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use gantry_identity_api::{ApplicationCredential, ApplicationCredentialSpec};
    use gantry_kube_types::Authenticator;
    use http::HeaderMap;
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;
    use crate::authenticator::TokenAuthenticator;
    use crate::directory::tests::put;
    use crate::keystone::new_record;
    use crate::keystone::tests::Platform;
    use crate::tenancy::tests::organisations;
    use crate::token::{NewToken, TokenScope};

    #[test]
    fn patterns_stand_for_parts() {
        // Trying every way to share the path among the stars would not end.
        let (many, long) = ("/**/a".repeat(30) + "/b", "/a".repeat(500));
        for (pattern, path, want) in [
            ("/v3/users", "/v3/users", true),
            ("/v3/users", "/v3/users/1", false),
            ("/v3/users/*", "/v3/users/1", true),
            ("/v3/users/{user_id}", "/v3/users/1", true),
            ("/v3/users/*", "/v3/users/1/groups", false),
            ("/v3/users/*/groups", "/v3/users/1/groups", true),
            ("/v3/**", "/v3/users/1/groups", true),
            ("/v3/**", "/v3", true),
            ("/v3/**/groups", "/v3/users/1/groups", true),
            ("/v3/**/roles", "/v3/users/1/groups", false),
            ("/**/groups/**/x", "/a/groups/b/groups/x", true),
            ("/**/groups/*/x/**", "/groups/b/groups/c/x", true),
            ("/**/groups/*/x", "/groups/b/c/x", false),
            (&many, &long, false),
            ("**", "/v3/users", true),
            ("/", "/v3", false),
            // What a router or a proxy could read otherwise.
            ("/v3/users/**", "/v3/users/../projects", false),
            ("/v3/users/**", "/v3/users/%2E%2e/projects", false),
            ("/v3/users/*", "/v3/users/a%2Fb", false),
            ("/v3/**", "/v3//users", false),
        ] {
            assert_eq!(matches(pattern, path), want, "{pattern} {path}");
        }
    }

    /// Alice's credential `ci` in web, which may look at pods and pull one image; `gone` names a rule that is gone.
    fn platform() -> Platform {
        let mut state = organisations(&["admin alice project:web", "admin alice system"]);
        let rules = [
            ("pods", KUBERNETES, "GET", "/api/v1/namespaces/web-dev/pods/**"),
            ("pull", REGISTRY, "GET", "/v2/acme/web/front/manifests/*"),
            ("me", IDENTITY, "GET", "/v3/users/alice"),
        ];
        for (id, service, method, path) in rules {
            let attributes = json!({"service": service, "method": method, "path": path, "user_id": "alice"});
            let attributes = attributes.as_object().expect("attributes").clone();
            put(&mut state, new_record(RULES, Some("alice"), id, attributes));
        }
        for (id, rules) in [("ci", vec!["pods", "pull", "me"]), ("gone", vec!["nonesuch"]), ("free", vec![])]
        {
            let spec = ApplicationCredentialSpec {
                name: id.to_owned(),
                user: "alice".to_owned(),
                project: "web".to_owned(),
                roles: vec!["member".to_owned()],
                access_rules: rules.into_iter().map(str::to_owned).collect(),
                ..Default::default()
            };
            put(&mut state, ApplicationCredential::new(id, spec));
        }
        Platform::of(state)
    }

    fn token(platform: &Platform, credential: &str) -> String {
        platform.made(NewToken {
            application_credential: Some(credential.to_owned()),
            scope: TokenScope::Project { id: "web".to_owned(), domain: "acme".to_owned() },
            ..platform.new_token("alice")
        })
    }

    #[tokio::test]
    async fn a_credential_is_held_to_its_rules_at_every_service() {
        let platform = platform();
        let service = Router::new().fallback(|| async { "served" });
        let held = hold(platform.core.clone(), service, |all| all.get::<UserInfo>());
        for (credential, method, path, want) in [
            ("ci", "GET", "/api/v1/namespaces/web-dev/pods/p", 200),
            ("ci", "GET", "/api/v1/namespaces/web-dev/pods/p/log?follow=true", 200),
            ("ci", "POST", "/api/v1/namespaces/web-dev/pods", 403),
            ("ci", "DELETE", "/api/v1/namespaces/web-dev/pods/p", 403),
            ("ci", "GET", "/api/v1/namespaces/web-dev/pods/../secrets", 403),
            ("ci", "GET", "/api/v1/namespaces/web-dev/secrets", 403),
            ("ci", "GET", "/apis/audit.gantry.dev/v1alpha1/records", 403),
            ("ci", "GET", "/gantry/health", 403),
            ("ci", "GET", "/version", 403),
            ("ci", "GET", "/v2/acme/web/front/manifests/1", 200),
            ("ci", "PUT", "/v2/acme/web/front/manifests/1", 403),
            ("ci", "GET", "/v2/acme/web/other/manifests/1", 403),
            ("ci", "GET", "/token?scope=repository:acme/web/front:pull", 403),
            ("gone", "GET", "/api/v1/namespaces/web-dev/pods/p", 403),
            ("free", "GET", "/api/v1/namespaces/web-dev/secrets", 200),
        ] {
            let session = platform.core.validate(&token(&platform, credential)).expect("good");
            let mut request =
                Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
            request.extensions_mut().insert(session.info.clone());
            let response = held.clone().oneshot(request).await.expect("an answer");
            assert_eq!(response.status().as_u16(), want, "{credential}: {method} {path}");
        }
        let nobody = Request::builder().uri("/token").body(Body::empty()).expect("a request");
        assert_eq!(
            held.clone().oneshot(nobody).await.expect("an answer").status(),
            200,
            "it is asked with the credential"
        );
        for (path, want) in [
            ("/v2/acme/web/front/manifests/1", 200),
            ("/token?scope=repository:acme/web/front:pull", 200),
            ("/registry/v1/archives", 403),
            ("/gantry/health", 403),
            ("/api", 403),
        ] {
            let mut caller = UserInfo::authenticated("gantry:pull:web-dev", &[]);
            caller.extra.insert(extra::PULLS.to_owned(), vec!["web".to_owned()]);
            let mut request = Request::builder().uri(path).body(Body::empty()).expect("a request");
            request.extensions_mut().insert(caller);
            let response = held.clone().oneshot(request).await.expect("an answer");
            assert_eq!(response.status().as_u16(), want, "with a pull secret: {path}");
        }
        let ci = token(&platform, "ci");
        let call = |path: &'static str| platform.call(&ci, path, serde_json::Value::Null);
        assert_eq!(call("GET /users/alice").await.status, 200);
        assert_eq!(call("GET /projects/web").await.status, 403);
    }

    #[tokio::test]
    async fn who_cannot_narrow_a_caller_does_not_know_narrowed_ones() {
        let platform = platform();
        let project = TokenScope::Project { id: "web".to_owned(), domain: "acme".to_owned() };
        let whole = platform.token("alice", TokenScope::Unscoped);
        let few = NewToken { roles: Some(vec!["reader".to_owned()]), ..platform.new_token("alice") };
        for (what, token, elsewhere, want) in [
            ("whole", whole.clone(), false, true),
            ("whole", whole, true, true),
            ("ci", token(&platform, "ci"), false, true),
            ("ci", token(&platform, "ci"), true, false),
            ("gone", token(&platform, "gone"), true, false),
            ("free", token(&platform, "free"), true, false),
            ("of a project", platform.token("alice", project), true, false),
            ("of few roles", platform.made(few), true, false),
        ] {
            let core = platform.core.clone();
            let knows =
                if elsewhere { TokenAuthenticator::elsewhere(core) } else { TokenAuthenticator::new(core) };
            let mut headers = HeaderMap::new();
            let value = format!("Bearer {token}");
            headers.insert("authorization", value.parse().expect("a header"));
            let known = knows.authenticate(&headers, &Default::default()).await;
            assert_eq!(known.is_ok_and(|user| user.is_some()), want, "{what} elsewhere: {elsewhere}");
        }
    }
}
