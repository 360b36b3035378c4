//! What a call is about, for its record in the audit trail: read from its route.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::MethodRouter;
use gantry_kube_types::{AuditNotes, AuditObject, audit_annotations};

use super::call::{Api, PREFIX};

/// The same methods, whose answers say what the call was about. `route` is a path of the table.
pub(crate) fn noted(route: &str, methods: MethodRouter<Api>) -> MethodRouter<Api> {
    let route: Arc<str> = route.trim_start_matches('/').into();
    // Most calls check a token, which is none.
    if of_route(&route, &route).is_none() {
        return methods;
    }
    methods.layer(from_fn(move |request: Request, next: Next| {
        let about = below(request.uri().path()).and_then(|path| of_route(&route, path));
        async move {
            let mut response = next.run(request).await;
            if let Some(about) = about {
                note(&mut response, about);
            }
            response
        }
    }))
}

fn below(path: &str) -> Option<&str> {
    path.strip_prefix(PREFIX)?.strip_prefix("/v3/")
}

/// `users/{user}/password` and `users/5f0c/password`: the user 5f0c. What is below is a subresource, but for
/// application credentials, which are objects of their own.
fn of_route(route: &str, path: &str) -> Option<AuditObject> {
    // Extensions stand before the collections that they bring, and are none.
    let mut parts =
        route.split('/').zip(path.split('/')).filter(|(word, _)| !word.starts_with("OS-")).peekable();
    let mut about: Option<AuditObject> = None;
    while let Some((word, _)) = parts.next() {
        if is_parameter(word) {
            continue;
        }
        let name = parts.peek().filter(|(next, _)| is_parameter(next)).map_or("", |(_, name)| *name);
        match &mut about {
            Some(about) if word != "application_credentials" => word.clone_into(&mut about.subresource),
            _ => about = Some(AuditObject::new(gantry_identity_api::GROUP, &word.replace('_', ""), name)),
        }
    }
    // Tokens have no name in the trail.
    about.filter(|about| !matches!(about.resource.as_str(), "auth" | "s3tokens" | "ec2tokens"))
}

fn is_parameter(word: &str) -> bool {
    word.starts_with('{')
}

/// Puts it into the answer, beside what the handler has noted: the id of what it made.
fn note(response: &mut Response, object: AuditObject) {
    let notes = response.extensions_mut().get_or_insert_default::<AuditNotes>();
    let whose = match object.resource.as_str() {
        "projects" => Some(audit_annotations::PROJECT),
        "domains" => Some(audit_annotations::OBJECT_DOMAIN),
        _ => None,
    };
    if let Some(whose) = whose.filter(|_| !object.name.is_empty()) {
        notes.annotations.push((whose.into(), object.name.clone()));
    }
    // What is made below an object is not its name.
    if !object.name.is_empty() {
        notes.name = None;
    }
    notes.object = Some(object);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_names_its_object() {
        for (route, path, want) in [
            ("users", "users", "users//"),
            ("users/{user}", "users/5f0c", "users/5f0c/"),
            ("users/{user}/password", "users/5f0c/password", "users/5f0c/password"),
            ("groups/{group}/users/{user}", "groups/devs/users/5f0c", "groups/devs/users"),
            ("projects/{project}/tags/{tag}", "projects/web/tags/blue", "projects/web/tags"),
            (
                "OS-INHERIT/projects/{project}/users/{user}/roles/{role}/inherited_to_projects",
                "OS-INHERIT/projects/web/users/5f0c/roles/reader/inherited_to_projects",
                "projects/web/inherited_to_projects",
            ),
            (
                "projects/{project}/users/{user}/roles/{role}",
                "projects/web/users/5f0c/roles/reader",
                "projects/web/roles",
            ),
            (
                "users/{user}/application_credentials/{credential}",
                "users/5f0c/application_credentials/ci",
                "applicationcredentials/ci/",
            ),
            (
                "users/{user}/credentials/OS-EC2/{credential}",
                "users/5f0c/credentials/OS-EC2/k",
                "users/5f0c/credentials",
            ),
            ("OS-TRUST/trusts/{trust}", "OS-TRUST/trusts/t", "trusts/t/"),
            ("role_assignments", "role_assignments", "roleassignments//"),
            ("auth/tokens", "auth/tokens", ""),
        ] {
            let found = of_route(route, path);
            let found =
                found.map(|o| format!("{}/{}/{}", o.resource, o.name, o.subresource)).unwrap_or_default();
            assert_eq!(found, want, "{route}");
        }
    }
}
