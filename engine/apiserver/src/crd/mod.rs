//! Custom resources: definitions in the store become served kinds.

mod accept;
mod check;
mod definition;
mod end;
mod strategy;

pub(crate) use accept::refresh;
pub use accept::run;
pub(crate) use check::check;

pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const RESOURCE: &str = "customresourcedefinitions";
/// Keeps a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
