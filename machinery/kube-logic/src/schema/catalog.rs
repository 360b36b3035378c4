//! The schemas of all built-in kinds.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use gantry_kube_types::GroupVersionKind;
use serde_json::{Map, Value};

use super::read::Builder;
use super::{Definition, Merge, Schema, SchemaRef, Type, kinds, lists};

/// The schemas of all built-in kinds, built at first use.
pub struct Catalog {
    definitions: HashMap<String, Arc<Definition>>,
    kinds: HashMap<GroupVersionKind, String>,
}

/// The one catalog of this process.
pub fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(Catalog::build)
}

/// Every definition as `k8s-openapi` publishes it, with descriptions; references are
/// `#/components/schemas/NAME`. Made anew at each call.
pub fn raw_definitions() -> Map<String, Value> {
    generate().0
}

fn generate() -> (Map<String, Value>, Vec<kinds::Root>) {
    let mut generator =
        schemars::generate::SchemaSettings::openapi3().with(|s| s.transforms.clear()).into_generator();
    let roots = kinds::all(&mut generator);
    (generator.take_definitions(false), roots)
}

impl Catalog {
    fn build() -> Self {
        let (raw, roots) = generate();
        let empty = || Arc::new(Definition { schema: OnceLock::new() });
        let definitions: HashMap<_, _> = raw.keys().map(|n| (n.clone(), empty())).collect();
        let builder = Builder { definitions: &definitions, custom: false };
        for (name, schema) in &raw {
            // Definitions are compiled in; one that cannot be read is treated as free-form.
            let mut node = builder.node(schema, name, 0).unwrap_or_else(|_| Schema::any());
            annotate(name, &mut node);
            let _ = definitions[name].schema.set(node);
        }
        let kind = |r: kinds::Root| (GroupVersionKind::new(r.group, r.version, r.kind), r.definition);
        let kinds = roots.into_iter().map(kind).collect();
        Self { definitions, kinds }
    }

    pub fn for_kind(&self, kind: &GroupVersionKind) -> Option<SchemaRef> {
        self.definition(self.kinds.get(kind)?)
    }

    /// The definition's name of a kind, e.g. `io.k8s.api.apps.v1.Deployment`.
    pub fn definition_name(&self, kind: &GroupVersionKind) -> Option<&str> {
        self.kinds.get(kind).map(String::as_str)
    }

    /// By definition name, e.g. `io.k8s.api.core.v1.Container`.
    pub fn definition(&self, name: &str) -> Option<SchemaRef> {
        self.reference(name).map(Arc::new)
    }

    pub(super) fn reference(&self, name: &str) -> Option<Schema> {
        let reference = self.definitions.get(name)?.clone();
        let kind = reference.schema.get()?.kind;
        Some(Schema { kind, reference: Some(reference), ..Schema::default() })
    }
}

/// Adds what `k8s-openapi`'s schemas leave out.
fn annotate(name: &str, node: &mut Schema) {
    match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => node.kind = Type::Quantity,
        "io.k8s.apimachinery.pkg.runtime.RawExtension"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => {
            node.kind = Type::Any;
            node.preserve_unknown = true;
        }
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" => node.preserve_unknown = true,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps" => {
            node.merge = Some(Merge::Atomic);
        }
        _ => {}
    }
    if lists::ATOMIC_TYPES.contains(&name) {
        node.merge = Some(Merge::Atomic);
    }
    for (field, child) in &mut node.properties {
        let at = lists::FIELDS.iter().find(|(d, f, _)| *d == name && *f == field.as_ref());
        if let Some((_, _, merge)) = at {
            child.merge = Some(*merge);
        }
        child.retain_keys = matches!(
            (name, field.as_ref()),
            ("io.k8s.api.core.v1.PodSpec", "volumes") | ("io.k8s.api.apps.v1.DeploymentSpec", "strategy")
        );
    }
}
