//! Every pod runs as a service account and finds its token where client libraries look for it.

use gantry_kube_types::StatusError;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::admission::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::kinds::value::{child, default_string, field, is_set, items, items_mut, put, string, text};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// One hour and a little, so that kubelets refresh before the hour is over.
const TOKEN_SECONDS: i64 = 3607;

pub(super) struct ServiceAccount;

#[async_trait::async_trait]
impl AdmissionPlugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        let mirror = request.object.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
        if !request.is("", "pods") || request.operation != Operation::Create || mirror {
            return Ok(());
        }
        if let Some(spec) = child(request.object, "spec") {
            default_string(spec, "serviceAccountName", "default");
            let name = string(spec, "serviceAccountName").to_owned();
            put(spec, "serviceAccount", name);
        }
        let name = text(request.object, "/spec/serviceAccountName").to_owned();
        let Some(account) = request.reader.get("", "serviceaccounts", request.namespace, &name) else {
            let account = format!("{}/{name}", request.namespace);
            return Err(request.forbidden(format!(
                "error looking up service account {account}: serviceaccount \"{name}\" not found"
            )));
        };
        if wants_token(request.object, &account) {
            mount_token(request.object);
        }
        if !is_set(&request.object["spec"], "imagePullSecrets")
            && let Some(secrets) = field(&account, "imagePullSecrets").cloned()
            && let Some(spec) = child(request.object, "spec")
        {
            put(spec, "imagePullSecrets", secrets);
        }
        Ok(())
    }
}

/// The pod's own word counts before the account's; the default is yes.
fn wants_token(pod: &Value, account: &Value) -> bool {
    let said = |from: &Value| from.get("automountServiceAccountToken").and_then(Value::as_bool);
    pod.get("spec").and_then(said).or_else(|| said(account)).unwrap_or(true)
}

fn mount_token(pod: &mut Value) {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let Some(spec) = child(pod, "spec") else { return };
    let existing =
        items(spec, "/volumes").iter().map(|v| string(v, "name")).find(|n| n.starts_with("kube-api-access-"));
    let name = existing.map(str::to_owned).unwrap_or_else(|| {
        let mut random = rand::rng();
        let letters: String =
            (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
        format!("kube-api-access-{letters}")
    });
    let mut used = false;
    for list in ["/initContainers", "/containers"] {
        for container in items_mut(spec, list) {
            let mut mounts = items(container, "/volumeMounts").to_vec();
            if mounts.iter().any(|m| string(m, "mountPath") == MOUNT_PATH) {
                continue;
            }
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            put(container, "volumeMounts", mounts);
            used = true;
        }
    }
    if !used || items(spec, "/volumes").iter().any(|v| string(v, "name") == name) {
        return;
    }
    let mut volumes = items(spec, "/volumes").to_vec();
    volumes.push(json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}}));
    put(spec, "volumes", volumes);
}
