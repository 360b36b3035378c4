//! Environments stay in their namespaces when their project gets another name: a namespace cannot be renamed, and one
//! that is no environment's any more goes with everything in it.

use gantry_identity_api::Project;
use serde_json::Value;

use crate::tenancy::names;

/// Gives each environment of the new object that names no namespace the one that it has in the old, where that is
/// not the one it would have by its name.
pub fn keep_namespaces(old: &Value, new: &mut Value) {
    let parsed = |value: &Value| serde_json::from_value::<Project>(value.clone()).ok();
    // What cannot be read is refused later, with the reason.
    let (Some(old), Some(now)) = (parsed(old), parsed(new)) else { return };
    let Some(environments) = new.pointer_mut("/spec/environments").and_then(Value::as_array_mut) else {
        return;
    };
    for (environment, at) in now.spec.environments.iter().zip(environments) {
        let before = old.spec.environments.iter().find(|e| e.name == environment.name);
        let Some(before) = before.filter(|_| environment.namespace.is_none()) else { continue };
        let kept = names::namespace(&old, before);
        if kept != names::namespace(&now, environment) {
            at["namespace"] = kept.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_environment_stays_where_it_is_until_another_place_is_named() {
        let project = |name: &str, environments: Value| {
            json!({"apiVersion": "identity.gantry.dev/v1alpha1", "kind": "Project", "metadata": {"name": "1"},
                "spec": {"name": name, "domain": "acme", "environments": environments}})
        };
        for (old_name, old, name, new, wanted) in [
            ("web", json!([{"name": "dev"}]), "web", json!([{"name": "dev"}]), json!([null])),
            ("web", json!([{"name": "dev"}]), "shop", json!([{"name": "dev"}]), json!(["web-dev"])),
            // Made anew under the new name, or somewhere else on purpose.
            ("web", json!([{"name": "dev"}]), "shop", json!([{"name": "test"}]), json!([null])),
            (
                "web",
                json!([{"name": "dev"}]),
                "shop",
                json!([{"name": "dev", "namespace": "x"}]),
                json!(["x"]),
            ),
            // Applied again from a file that does not name what was kept.
            (
                "shop",
                json!([{"name": "dev", "namespace": "web-dev"}]),
                "shop",
                json!([{"name": "dev"}]),
                json!(["web-dev"]),
            ),
            (
                "shop",
                json!([{"name": "dev", "namespace": "web-dev"}]),
                "web",
                json!([{"name": "dev"}]),
                json!([null]),
            ),
        ] {
            let (old, mut new) = (project(old_name, old), project(name, new));
            keep_namespaces(&old, &mut new);
            let environments = new["spec"]["environments"].as_array().expect("a list").iter();
            let kept: Vec<Value> = environments.map(|environment| environment["namespace"].clone()).collect();
            assert_eq!(Value::from(kept), wanted, "{old} {new}");
        }
    }
}
