//! CycloneDX 1.5 (ECMA-424's predecessor).

use serde_json::{Value, json};

use crate::{Found, Kind, Report, TargetKind};

/// The report's packages as a CycloneDX document.
pub fn cyclonedx(report: &Report) -> Value {
    let mut components: Vec<Value> = Vec::new();
    if let Some(system) = &report.operating_system {
        let mut component = json!({ "type": "operating-system", "bom-ref": "os", "name": system.id });
        if !system.version_id.is_empty() {
            component["version"] = json!(system.version_id);
        }
        if !system.name.is_empty() {
            component["description"] = json!(system.name);
        }
        components.push(component);
    }
    components.extend(report.packages.iter().map(component));
    let kind = match report.target.kind {
        TargetKind::Image => "container",
        TargetKind::Directory => "file",
    };
    let mut target = json!({ "type": kind, "bom-ref": "target", "name": report.target.name });
    if let Some(digest) = &report.target.digest {
        target["version"] = json!(digest);
    }
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": format!("urn:uuid:{}", super::uuid(report)),
        "version": 1,
        "metadata": {
            "timestamp": report.scanned_at,
            "tools": { "components": [
                { "type": "application", "name": super::TOOL, "version": super::TOOL_VERSION }
            ] },
            "component": target,
        },
        "components": components,
    })
}

fn component(found: &Found) -> Value {
    let package = &found.package;
    let (group, name) = match package.kind {
        Kind::Maven => package.name.rsplit_once(':'),
        Kind::Npm | Kind::Composer => package.name.rsplit_once('/'),
        _ => None,
    }
    .map_or((None, package.name.as_str()), |(group, name)| (Some(group), name));
    let mut component = json!({
        "type": "library", "bom-ref": reference(found), "name": name, "version": package.version,
        "purl": found.purl,
    });
    if let Some(group) = group {
        component["group"] = json!(group);
    }
    if !package.licenses.is_empty() {
        // Names, as what metadata holds is often no SPDX expression.
        let licenses = package.licenses.iter().map(|name| json!({ "license": { "name": name } }));
        component["licenses"] = licenses.collect();
    }
    component["evidence"] = json!({
        "occurrences": found.locations.iter().map(|at| json!({ "location": at.path })).collect::<Vec<_>>(),
    });
    let mut properties = Vec::new();
    let mut property = |name: &str, value: &str| properties.push(json!({ "name": name, "value": value }));
    let mut layers: Vec<String> =
        found.locations.iter().filter_map(|at| at.layer.as_ref()).map(ToString::to_string).collect();
    layers.sort();
    layers.dedup();
    layers.iter().for_each(|layer| property("gantry:layer", layer));
    if let Some(source) = &package.source {
        property("gantry:source", &format!("{}@{}", source.name, source.version));
    }
    if let Some(owner) = &found.owner {
        property("gantry:owner", owner);
    }
    if !properties.is_empty() {
        component["properties"] = Value::Array(properties);
    }
    component
}

/// Unique also where two packages have the same URL, as those of two sources can.
fn reference(found: &Found) -> String {
    match &found.package.source {
        Some(source) => format!("{}#{}@{}", found.purl, source.name, source.version),
        None => found.purl.clone(),
    }
}
