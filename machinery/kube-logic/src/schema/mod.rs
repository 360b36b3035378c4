//! Schemas of built-in kinds and of custom resources in one compact form.
//!
//! Built-in definitions come from `k8s-openapi`; what those leave out (how lists merge) is the table
//! in `lists`. Descriptions are not kept: OpenAPI generation makes them anew when asked.

mod catalog;
mod kinds;
mod lists;
mod read;

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

pub use catalog::{Catalog, catalog, raw_definitions};
pub use read::SchemaError;

/// A shared schema.
pub type SchemaRef = Arc<Schema>;

/// What JSON type a value must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    /// Anything.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    /// A Kubernetes quantity: a string or number, kept in canonical form.
    Quantity,
}

/// How writes of several managers (and strategic merge patches) combine in a list or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Replaced as a whole.
    Atomic,
    /// A list of distinct scalars.
    Set,
    /// A list of objects told apart by these fields; the first one is the strategic merge key.
    Keyed(&'static [&'static str]),
    /// A map or object merged by field.
    Granular,
}

/// One node of a schema.
#[derive(Debug, Default)]
pub struct Schema {
    pub kind: Type,
    pub format: Option<Box<str>>,
    pub nullable: bool,
    /// Sorted by name.
    properties: Vec<(Box<str>, Schema)>,
    items: Option<Box<Schema>>,
    /// Of a map's values.
    additional: Option<Box<Schema>>,
    /// How writers combine below this node, where the schema says so.
    merge: Option<Merge>,
    /// Strategic merge strategy `retainKeys`.
    pub retain_keys: bool,
    pub preserve_unknown: bool,
    pub embedded_resource: bool,
    pub default: Option<Value>,
    reference: Option<Arc<Definition>>,
    /// What a custom resource's schema node holds beside structure: value validations.
    pub(crate) rules: Option<Box<Map<String, Value>>>,
}

#[derive(Debug)]
struct Definition {
    schema: OnceLock<Schema>,
}

/// What a schema says of one field of an object.
#[derive(Clone, Copy, Debug)]
pub enum Field<'s> {
    Known(&'s Schema),
    /// Kept, with nothing known about it.
    Free,
    Unknown,
}

impl Schema {
    /// A schema that knows nothing and keeps everything.
    pub fn any() -> Schema {
        Schema { preserve_unknown: true, ..Schema::default() }
    }

    fn set(&mut self, name: &str, schema: Schema) {
        match self.properties.binary_search_by(|(n, _)| n.as_ref().cmp(name)) {
            Ok(at) => self.properties[at].1 = schema,
            Err(at) => self.properties.insert(at, (name.into(), schema)),
        }
    }

    /// Follows a reference.
    pub fn target(&self) -> &Schema {
        self.reference.as_ref().and_then(|d| d.schema.get()).unwrap_or(self)
    }

    pub fn properties(&self) -> impl Iterator<Item = (&str, &Schema)> {
        self.target().properties.iter().map(|(n, s)| (n.as_ref(), s))
    }

    pub fn field(&self, name: &str) -> Field<'_> {
        let node = self.target();
        if let Ok(at) = node.properties.binary_search_by(|(n, _)| n.as_ref().cmp(name)) {
            return Field::Known(&node.properties[at].1);
        }
        let free_object = node.kind == Type::Object && node.properties.is_empty() && node.rules.is_none();
        match &node.additional {
            Some(additional) => Field::Known(additional),
            None if node.preserve_unknown || node.kind == Type::Any || free_object => Field::Free,
            None => Field::Unknown,
        }
    }

    pub fn items(&self) -> Option<&Schema> {
        self.target().items.as_deref()
    }

    pub fn additional(&self) -> Option<&Schema> {
        self.target().additional.as_deref()
    }

    /// How writers combine in a value of this schema.
    pub fn merge(&self) -> Merge {
        let node = self.target();
        match self.merge.or(node.merge) {
            Some(merge) => merge,
            None if node.kind == Type::Array => Merge::Atomic,
            None => Merge::Granular,
        }
    }
}
