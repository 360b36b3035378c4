//! The administrator's kubeconfig, with everything in it, as `kubectl --kubeconfig` wants it.

use std::path::Path;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_base::fs as durable;
use gantry_base::pki::KeyedCertificate;

/// Writes `path` (0600) for `user` at `server`.
pub fn write(
    path: &Path,
    instance: &str,
    server: &str,
    ca_pem: &str,
    user: &KeyedCertificate,
) -> anyhow::Result<()> {
    let name = if instance == gantry_base::settings::DEFAULT_INSTANCE {
        "gantry".to_owned()
    } else {
        format!("gantry-{instance}")
    };
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "preferences": {},
        "clusters": [{"name": name, "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(ca_pem),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": format!("{name}-admin")}}],
        "users": [{"name": format!("{name}-admin"), "user": {
            "client-certificate-data": STANDARD.encode(&user.certificate_pem),
            "client-key-data": STANDARD.encode(user.key_pem.expose()),
        }}],
    });
    // JSON is YAML; kubectl reads it and rewrites it as YAML when it changes something.
    let text = serde_json::to_vec_pretty(&config)?;
    durable::write_atomic(path, &text, 0o600).with_context(|| path.display().to_string())
}
