//! Which requests are security events, by what they ask for.

use gantry_kube_types::{AuditBody, AuditEvent, AuditStage, SecurityEvent};
use serde_json::Value;

const IDENTITY: &str = "identity.gantry.dev";
/// Paths of the API whose handlers say themselves what they have done.
const KEYSTONE: &str = "/identity/";
const RBAC: &str = "rbac.authorization.k8s.io";
const REGISTRY: &str = "registry.gantry.dev";
/// Kinds of the identity group whose change is a change of rights.
const RIGHTS: &[&str] =
    &["roleassignments", "roles", "groups", "trusts", "projects", "domains", "identityproviders"];

/// The security event that the request of this record is; its maker's word goes first.
pub(crate) fn security_event(event: &AuditEvent) -> Option<SecurityEvent> {
    if event.security.is_some() || event.stage == AuditStage::RequestReceived {
        return event.security;
    }
    // Keystone's API makes an event of its own of each: its request is not another.
    if event.uri.path().starts_with(KEYSTONE) {
        return None;
    }
    let object = &event.object;
    let done = event.status.code < 400;
    let writes = matches!(event.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
    match (object.group.as_str(), object.resource.as_str(), object.subresource.as_str()) {
        // A refused attempt is worth as much as a session.
        ("", "pods", "exec" | "attach" | "portforward") | ("", "nodes" | "pods" | "services", "proxy") => {
            Some(SecurityEvent::ExecOpened)
        }
        ("", "secrets", _) if done && !writes => Some(SecurityEvent::SecretRead),
        ("", "serviceaccounts", "token") if done && writes => Some(SecurityEvent::TokenIssued),
        // Written by the reconcilers alone: it says what was found, and gives nothing.
        (_, _, "status") => None,
        (RBAC, ..) if done && writes => Some(SecurityEvent::RightChanged),
        (IDENTITY, resource, _) if done && writes && RIGHTS.contains(&resource) => {
            Some(SecurityEvent::RightChanged)
        }
        (IDENTITY, "applicationcredentials", _) if done && event.verb == "create" => {
            Some(SecurityEvent::CredentialCreated)
        }
        (IDENTITY, "applicationcredentials", _) if done && writes => Some(SecurityEvent::CredentialDeleted),
        (IDENTITY, "users", _) if done && event.verb == "create" => Some(SecurityEvent::UserCreated),
        (IDENTITY, "users", _) if done && event.verb == "delete" => Some(SecurityEvent::UserDeleted),
        // Groups and domain are fields of a user.
        (IDENTITY, "users", "") if done && writes => Some(match disables(&event.request) {
            true => SecurityEvent::UserDisabled,
            false => SecurityEvent::RightChanged,
        }),
        // Shares and visibility are fields of a repository.
        (REGISTRY, "repositories", "") if done && matches!(event.verb.as_str(), "update" | "patch") => {
            Some(SecurityEvent::RightChanged)
        }
        _ => None,
    }
}

/// Does this object, merge patch or JSON patch switch a user off? Where the body is not on record, nobody knows.
fn disables(body: &AuditBody) -> bool {
    let AuditBody::Whole(bytes) = body else { return false };
    match serde_json::from_slice(bytes) {
        Ok(Value::Array(steps)) => {
            steps.iter().any(|step| step["path"] == "/spec/enabled" && step["value"] == false)
        }
        Ok(object) => object["spec"]["enabled"] == false,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube_types::{AuditObject, AuditStatus};

    #[test]
    fn deeds_are_known_by_what_they_touch() {
        for (verb, group, resource, sub, code, want) in [
            ("get", "", "pods", "exec", 101, Some(SecurityEvent::ExecOpened)),
            ("create", "", "pods", "attach", 403, Some(SecurityEvent::ExecOpened)),
            ("get", "", "pods", "log", 200, None),
            ("list", "", "secrets", "", 200, Some(SecurityEvent::SecretRead)),
            ("list", "", "secrets", "", 403, None),
            ("create", "", "secrets", "", 201, None),
            ("create", "", "serviceaccounts", "token", 201, Some(SecurityEvent::TokenIssued)),
            ("delete", RBAC, "rolebindings", "", 200, Some(SecurityEvent::RightChanged)),
            ("get", RBAC, "rolebindings", "", 200, None),
            ("create", IDENTITY, "roleassignments", "", 201, Some(SecurityEvent::RightChanged)),
            ("patch", IDENTITY, "projects", "status", 200, None),
            ("create", IDENTITY, "users", "", 201, Some(SecurityEvent::UserCreated)),
            ("update", IDENTITY, "users", "", 200, Some(SecurityEvent::RightChanged)),
            ("patch", IDENTITY, "users", "", 200, Some(SecurityEvent::RightChanged)),
            ("patch", IDENTITY, "users", "", 403, None),
            ("patch", IDENTITY, "users", "status", 200, None),
            ("delete", IDENTITY, "users", "", 200, Some(SecurityEvent::UserDeleted)),
            ("patch", REGISTRY, "repositories", "", 200, Some(SecurityEvent::RightChanged)),
            ("update", REGISTRY, "repositories", "", 200, Some(SecurityEvent::RightChanged)),
            ("update", REGISTRY, "repositories", "status", 200, None),
            ("create", REGISTRY, "repositories", "", 201, None),
            ("push", REGISTRY, "repositories", "manifests", 201, None),
        ] {
            let mut object = AuditObject::new(group, resource, "x");
            object.subresource = sub.to_owned();
            let event = AuditEvent {
                verb: verb.to_owned(),
                object,
                status: AuditStatus { code, ..AuditStatus::default() },
                ..AuditEvent::default()
            };
            assert_eq!(security_event(&event), want, "{verb} {resource}.{group}/{sub} {code}");
        }
    }

    #[test]
    fn a_call_of_keystone_is_no_second_event() {
        let event = AuditEvent {
            verb: "delete".to_owned(),
            object: AuditObject::new(IDENTITY, "groups", "devs"),
            status: AuditStatus { code: 204, ..AuditStatus::default() },
            ..AuditEvent::default()
        };
        assert_eq!(security_event(&event), Some(SecurityEvent::RightChanged));
        let uri = http::Uri::from_static("/identity/v3/groups/devs");
        assert_eq!(security_event(&AuditEvent { uri, ..event }), None);
    }

    #[test]
    fn who_is_switched_off_is_known_by_the_body() {
        for (body, want) in [
            (r#"{"spec":{"enabled":false}}"#, SecurityEvent::UserDisabled),
            (r#"{"spec":{"enabled":true,"groups":["ops"]}}"#, SecurityEvent::RightChanged),
            (r#"[{"op":"replace","path":"/spec/enabled","value":false}]"#, SecurityEvent::UserDisabled),
            (r#"[{"op":"add","path":"/spec/groups/-","value":"ops"}]"#, SecurityEvent::RightChanged),
            ("spec: {enabled: false}", SecurityEvent::RightChanged),
        ] {
            let event = AuditEvent {
                verb: "patch".to_owned(),
                object: AuditObject::new(IDENTITY, "users", "x"),
                status: AuditStatus { code: 200, ..AuditStatus::default() },
                request: AuditBody::Whole(body.into()),
                ..AuditEvent::default()
            };
            assert_eq!(security_event(&event), Some(want), "{body}");
        }
    }
}
