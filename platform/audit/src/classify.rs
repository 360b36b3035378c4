//! Which requests are security events, by what they ask for.

use gantry_kube_types::{AuditEvent, AuditStage, SecurityEvent};

const IDENTITY: &str = "identity.gantry.dev";
const RBAC: &str = "rbac.authorization.k8s.io";
/// Kinds of the identity group whose change is a change of rights.
const RIGHTS: &[&str] =
    &["roleassignments", "roles", "groups", "trusts", "projects", "domains", "identityproviders"];

/// The security event that the request of this record is; its maker's word goes first.
pub(crate) fn security_event(event: &AuditEvent) -> Option<SecurityEvent> {
    if event.security.is_some() || event.stage == AuditStage::RequestReceived {
        return event.security;
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
        _ => None,
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
}
