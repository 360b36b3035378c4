//! Refusals as Kubernetes clients read them.

use axum::body::Body;
use gantry_kube_types::{Attributes, StatusError};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

/// `error` as the `Status` object on the wire, with `Retry-After` where it names a delay.
pub fn status_response(error: &StatusError) -> Response<Body> {
    let mut body = error.to_json().to_string();
    body.push('\n');
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = error.details.as_ref().and_then(|d| d.retry_after_seconds) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The refusal of what `attributes` asks for, in upstream's words; `reason` ends the sentence where
/// an authoriser gave one.
pub fn forbidden(attributes: &Attributes, reason: &str) -> StatusError {
    let mut why = forbidden_sentence(attributes);
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    StatusError::forbidden(&attributes.group, &attributes.resource, &attributes.name, why)
}

fn forbidden_sentence(attributes: &Attributes) -> String {
    let user = &attributes.user.username;
    let verb = &attributes.verb;
    if !attributes.is_resource_request {
        return format!("User {user:?} cannot {verb} path {:?}", attributes.path);
    }
    let mut resource = attributes.resource.clone();
    if !attributes.subresource.is_empty() {
        resource = format!("{resource}/{}", attributes.subresource);
    }
    let group = &attributes.group;
    match attributes.namespace.as_str() {
        "" => {
            format!(
                "User {user:?} cannot {verb} resource {resource:?} in API group {group:?} at the cluster scope"
            )
        }
        namespace => format!(
            "User {user:?} cannot {verb} resource {resource:?} in API group {group:?} in the namespace {namespace:?}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube_types::UserInfo;

    #[test]
    fn refusals_read_as_upstream() {
        let mut attributes = Attributes {
            user: UserInfo::authenticated("x", &[]),
            verb: "list".to_owned(),
            is_resource_request: true,
            resource: "pods".to_owned(),
            namespace: "y".to_owned(),
            ..Attributes::default()
        };
        assert_eq!(
            forbidden(&attributes, "").message,
            "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"y\""
        );
        attributes.namespace.clear();
        attributes.group = "apps".to_owned();
        attributes.resource = "deployments".to_owned();
        attributes.subresource = "scale".to_owned();
        attributes.name = "web".to_owned();
        assert_eq!(
            forbidden(&attributes, "no").message,
            "deployments.apps \"web\" is forbidden: User \"x\" cannot list resource \"deployments/scale\" in API group \"apps\" at the cluster scope: no"
        );
        let path = Attributes {
            user: UserInfo::anonymous(),
            verb: "get".to_owned(),
            path: "/metrics".to_owned(),
            ..Attributes::default()
        };
        assert_eq!(
            forbidden(&path, "").message,
            "forbidden: User \"system:anonymous\" cannot get path \"/metrics\""
        );
    }
}
