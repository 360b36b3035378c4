//! Taints of nodes and tolerations of pods.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Does this toleration cover this taint, as `k8s.io/api/core/v1` `Toleration.ToleratesTaint` says? How
/// long it does (`tolerationSeconds`) is the caller's business.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && ((key.is_empty() && exists) || key == taint.key)
        && (exists
            || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}
