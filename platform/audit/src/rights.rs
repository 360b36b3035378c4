//! The rights that the component itself needs: to know whose project each namespace is, and which projects and
//! domains there are.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::OWN_USER;

/// Installs them, as somebody who may. Doing it again changes nothing.
pub(crate) async fn install(client: &Client) -> kube::Result<()> {
    let how = PatchParams::apply(OWN_USER).force();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": OWN_USER },
        "rules": [
            { "apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"] },
            {
                "apiGroups": [gantry_identity_api::GROUP], "resources": ["domains", "projects"],
                "verbs": ["get", "list", "watch"],
            },
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": OWN_USER },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": OWN_USER },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OWN_USER }],
    });
    Api::<ClusterRole>::all(client.clone()).patch(OWN_USER, &how, &Patch::Apply(role)).await?;
    Api::<ClusterRoleBinding>::all(client.clone()).patch(OWN_USER, &how, &Patch::Apply(binding)).await?;
    Ok(())
}
