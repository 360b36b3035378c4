//! Which kinds are served now. Immutable: a change (a CRD) makes a new one.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_kube_types::ResourceInfo;

use crate::kind::Kind;

/// A resource as discovery tells of it, with its verbs.
pub type Discovered = (ResourceInfo, Vec<&'static str>);

/// One API group version served by another router (`metrics.k8s.io/v1beta1`).
pub trait ResourceExtension: Send + Sync {
    fn group(&self) -> &str;
    fn version(&self) -> &str;
    fn resources(&self) -> Vec<Discovered>;
    /// Serves every path under `/apis/GROUP/VERSION/`; requests carry the same extensions.
    fn router(&self) -> axum::Router;
}

type Id = (String, String, String);

/// All served kinds.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    /// By group, version, resource.
    kinds: BTreeMap<Id, Arc<Kind>>,
    /// Those of custom resources.
    custom: BTreeMap<Id, Arc<Kind>>,
    /// Grows with every change; part of ETags.
    pub(crate) generation: u64,
}

impl Registry {
    pub(crate) fn new(kinds: Vec<Kind>) -> Self {
        let mut registry = Self::default();
        for mut kind in kinds {
            if kind.schema.is_none() {
                kind.schema = gantry_kube_logic::schema::catalog().for_kind(&kind.info.gvk());
            }
            registry.kinds.insert(id(&kind.info), Arc::new(kind));
        }
        registry
    }

    /// The same built-in kinds with these custom ones. A built-in kind is never hidden.
    pub(crate) fn with_custom(&self, custom: Vec<Arc<Kind>>) -> Self {
        let custom = custom
            .into_iter()
            .map(|kind| (id(&kind.info), kind))
            .filter(|(id, _)| !self.kinds.contains_key(id))
            .collect();
        Self { kinds: self.kinds.clone(), custom, generation: self.generation + 1 }
    }

    pub(crate) fn get(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Kind>> {
        let id = (group.to_owned(), version.to_owned(), resource.to_owned());
        self.kinds.get(&id).or_else(|| self.custom.get(&id))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values().chain(self.custom.values())
    }

    pub(crate) fn in_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Kind>> {
        self.all().filter(move |k| k.info.group == group && k.info.version == version)
    }
}

fn id(info: &ResourceInfo) -> Id {
    (info.group.to_string(), info.version.to_string(), info.resource.to_string())
}
