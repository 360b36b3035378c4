use super::*;
use gantry_kube_types::Scope;

fn info(
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    kind: &'static str,
) -> ResourceInfo {
    ResourceInfo {
        group: group.into(),
        version: version.into(),
        resource: resource.into(),
        singular: kind.to_lowercase().into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        scope: Scope::Namespaced,
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: vec!["status".into(), "scale".into()],
    }
}

/// Every `$ref` in `value` leads somewhere in `document`.
fn check_references(value: &Value, document: &Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if key == "$ref" => {
                        let pointer = text.strip_prefix('#').expect("local");
                        assert!(document.pointer(pointer).is_some(), "{text} leads nowhere");
                    }
                    _ => check_references(value, document),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(item, document)),
        _ => {}
    }
}

#[test]
fn v3_describes_a_group() {
    let (deployments, pods) =
        (info("apps", "v1", "deployments", "Deployment"), info("", "v1", "pods", "Pod"));
    let entries = [Entry { info: &deployments, custom: None }, Entry { info: &pods, custom: None }];
    let document = v3("apps", "v1", &entries);
    check_references(&document, &document);
    let schemas = &document["components"]["schemas"];
    assert_eq!(
        schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "kind": "Deployment", "version": "v1"}])
    );
    assert!(
        schemas.get("io.k8s.api.apps.v1.DeploymentList").is_some()
            && schemas.get("io.k8s.api.core.v1.Pod").is_none()
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
    let spec = &schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
    assert_eq!(spec["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    let named = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let queries: Vec<&str> = named["patch"]["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| p["name"].as_str())
        .collect();
    assert_eq!(queries, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(named["patch"]["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(named["patch"]["x-kubernetes-action"], "patch");
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert!(document["paths"].get("/apis/apps/v1/deployments").is_some());
    let turned = [entries[1], entries[0]];
    assert_eq!(v3("apps", "v1", &turned).to_string(), document.to_string());
}

#[test]
fn v2_describes_everything_custom_resources_too() {
    let pods = info("", "v1", "pods", "Pod");
    let tabs = info("stable.example.com", "v1", "crontabs", "CronTab");
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}}}});
    let document = v2(&[Entry { info: &tabs, custom: Some(&schema) }, Entry { info: &pods, custom: None }]);
    check_references(&document, &document);
    let tab = &document["definitions"]["com.example.stable.v1.CronTab"];
    assert_eq!(tab["properties"]["spec"]["properties"]["port"], json!({"x-kubernetes-int-or-string": true}));
    assert_eq!(
        tab["properties"]["metadata"]["$ref"],
        "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    let port = &document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(
        (port["type"].as_str(), port["format"].as_str(), port.get("oneOf")),
        (Some("string"), Some("int-or-string"), None)
    );
    let create = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs"]["post"];
    assert_eq!(create["operationId"], "createStableExampleComV1NamespacedCronTab");
    assert_eq!(create["tags"], json!(["stableExampleCom_v1"]));
    let bytes = v2_protobuf(&document);
    assert_eq!(&bytes[..5], b"\x0a\x032.0");
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("com.example.stable.v1.CronTab") && text.contains("x-kubernetes-patch-merge-key"));
}

#[test]
fn protobuf_is_written_as_gnostic_reads_it() {
    let document = json!({"swagger": "2.0", "info": {"title": "t", "version": "v"}, "paths": {},
        "definitions": {"D": {"type": "string", "x-a": 1}}});
    // Definitions (9) > NamedSchema (1): name "D", Schema: type (22) ["string"], extension (31) x-a = "1".
    let schema = b"\xb2\x01\x08\x0a\x06string\xfa\x01\x0a\x0a\x03x-a\x12\x03\x12\x011";
    let mut named = b"\x0a\x01D\x12".to_vec();
    named.push(u8::try_from(schema.len()).expect("short"));
    named.extend_from_slice(schema);
    let mut want = b"\x0a\x032.0\x12\x06\x0a\x01t\x12\x01v\x42\x00\x4a".to_vec();
    want.push(u8::try_from(named.len() + 2).expect("short"));
    want.push(0x0a);
    want.push(u8::try_from(named.len()).expect("short"));
    want.extend_from_slice(&named);
    assert_eq!(v2_protobuf(&document), want);
}
