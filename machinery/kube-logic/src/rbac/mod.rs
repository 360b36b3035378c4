//! Role-based access control without I/O, with the semantics of upstream's RBAC authoriser:
//! [`matching`] says what one rule grants, [`RuleIndex`] decides for a caller, [`escalation`] compares
//! rights, [`aggregation`] unions roles and [`defaults`] lists what every cluster begins with.

pub mod aggregation;
mod compact;
pub mod defaults;
pub mod escalation;
mod explain;
mod grants;
mod index;
pub mod matching;
mod role;

pub use escalation::{confirm_no_escalation, covers, parts};
pub use index::{RbacKind, RuleIndex};
pub use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};

/// The group of all RBAC kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
