//! The files of configMap, secret, downwardAPI and projected volumes: pure.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume};

use super::atomic::{File, Payload};
use super::sources::{Data, Lookup, Objects};
use crate::pods::{env, spec};
use crate::quantity;
use crate::resources;

/// Permission bits of files whose volume names none.
const MODE_DEFAULT: i32 = 0o644;

/// What the content depends on beside the volume.
pub(crate) struct ContentContext<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) objects: &'a Objects,
    /// Allocatable thousandths of cores and bytes of memory of the node.
    pub(crate) allocatable: (i64, i64),
    pub(crate) host_ips: &'a [String],
    /// Tokens by their place among the projected volume's sources.
    pub(crate) tokens: &'a [(usize, String)],
}

fn mode(value: Option<i32>, default: Option<i32>) -> u32 {
    u32::try_from(value.or(default).unwrap_or(MODE_DEFAULT)).unwrap_or(0o644) & 0o7777
}

/// The files of `volume`; `None` for a volume that has no managed content.
pub(crate) fn payload(volume: &Volume, context: &ContentContext<'_>) -> Result<Option<Payload>, String> {
    let mut files = Payload::new();
    if let Some(source) = &volume.config_map {
        let optional = source.optional.unwrap_or(false);
        let lookup = context.objects.config_map(&source.name, optional);
        keys(&mut files, lookup, source.items.as_deref(), source.default_mode, optional)?;
    } else if let Some(source) = &volume.secret {
        let optional = source.optional.unwrap_or(false);
        let lookup = context.objects.secret(source.secret_name.as_deref().unwrap_or_default(), optional);
        keys(&mut files, lookup, source.items.as_deref(), source.default_mode, optional)?;
    } else if let Some(source) = &volume.downward_api {
        downward(&mut files, source.items.as_deref(), source.default_mode, context)?;
    } else if let Some(source) = &volume.projected {
        for (index, part) in source.sources.iter().flatten().enumerate() {
            if let Some(map) = &part.config_map {
                let optional = map.optional.unwrap_or(false);
                let lookup = context.objects.config_map(&map.name, optional);
                keys(&mut files, lookup, map.items.as_deref(), source.default_mode, optional)?;
            }
            if let Some(secret) = &part.secret {
                let optional = secret.optional.unwrap_or(false);
                let lookup = context.objects.secret(&secret.name, optional);
                keys(&mut files, lookup, secret.items.as_deref(), source.default_mode, optional)?;
            }
            if let Some(api) = &part.downward_api {
                downward(&mut files, api.items.as_deref(), source.default_mode, context)?;
            }
            if let Some(token) = &part.service_account_token {
                let value = context.tokens.iter().find(|(at, _)| *at == index).map(|(_, t)| t.clone());
                let content = value.ok_or("the service account token is missing")?.into_bytes();
                files.insert(token.path.clone(), File { content, mode: mode(None, source.default_mode) });
            }
        }
    } else {
        return Ok(None);
    }
    Ok(Some(files))
}

/// Adds an object's keys, all of them or those that `items` picks.
fn keys(
    files: &mut Payload,
    lookup: Lookup,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
) -> Result<(), String> {
    let data: std::sync::Arc<Data> = match lookup {
        Lookup::Found(data) => data,
        Lookup::Absent => return Ok(()),
        Lookup::Missing(message) => return Err(message),
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let mode = mode(None, default_mode);
        files
            .extend(data.iter().map(|(key, content)| (key.clone(), File { content: content.clone(), mode })));
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(content) => {
                let mode = mode(item.mode, default_mode);
                files.insert(item.path.clone(), File { content: content.clone(), mode });
            }
            None if optional => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(())
}

fn downward(
    files: &mut Payload,
    items: Option<&[DownwardAPIVolumeFile]>,
    default_mode: Option<i32>,
    context: &ContentContext<'_>,
) -> Result<(), String> {
    for item in items.unwrap_or_default() {
        let text = if let Some(field) = &item.field_ref {
            match field.field_path.as_str() {
                "status.hostIP" => context.host_ips.first().cloned().unwrap_or_default(),
                "status.hostIPs" => context.host_ips.join(","),
                path => env::pod_field(context.pod, path)
                    .ok_or_else(|| format!("unsupported fieldPath: {path}"))?,
            }
        } else if let Some(field) = &item.resource_field_ref {
            let name = field.container_name.as_deref().unwrap_or_default();
            let member =
                spec::member(context.pod, name).ok_or_else(|| format!("container {name} not found"))?;
            let value = resources::field(&member.container, &field.resource, context.allocatable)
                .ok_or_else(|| format!("unsupported container resource : {}", field.resource))?;
            let one = k8s_openapi::apimachinery::pkg::api::resource::Quantity("1".into());
            quantity::divided(value, field.divisor.as_ref().unwrap_or(&one)).to_string()
        } else {
            continue;
        };
        files.insert(
            item.path.clone(),
            File { content: text.into_bytes(), mode: mode(item.mode, default_mode) },
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn downward_files_show_the_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "1", "b": "x\"y"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m"}}}]}}))
        .expect("a pod");
        let volume: Volume = serde_json::from_value(json!({"name": "v", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}, "mode": 256},
            {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}}]}}))
        .expect("a volume");
        let objects = Objects::default();
        let context =
            ContentContext { pod: &pod, objects: &objects, allocatable: (0, 0), host_ips: &[], tokens: &[] };
        let files = payload(&volume, &context).expect("valid").expect("managed");
        assert_eq!(files["labels"].content, b"a=\"1\"\nb=\"x\\\"y\"");
        assert_eq!((files["labels"].mode, files["cpu"].mode), (0o400, 0o644));
        assert_eq!(files["cpu"].content, b"500");
    }

    #[test]
    fn a_missing_object_is_an_error_unless_optional() {
        let pod = Pod::default();
        let objects = Objects::default();
        let context =
            ContentContext { pod: &pod, objects: &objects, allocatable: (0, 0), host_ips: &[], tokens: &[] };
        let volume = |optional: bool| -> Volume {
            serde_json::from_value(json!({"name": "v", "secret": {"secretName": "s", "optional": optional}}))
                .expect("a volume")
        };
        assert_eq!(payload(&volume(true), &context), Ok(Some(Payload::new())));
        assert_eq!(payload(&volume(false), &context), Err("secret \"s\" not found".into()));
    }
}
