//! Why somebody may or may not, in the shape the explain API tells it in.
//!
//! RBAC explains by bindings; whoever decides by something else (assignments of roles, owners of repositories) says it
//! in the same words: a binding of another kind, of a role, to a subject, somewhere.

use serde::Serialize;

/// Entries in each list of an explanation.
pub const EXPLAINED_MAX: usize = 16;

/// Where an assignment holds that is no binding in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// `Project`, `Domain` or `System`.
    pub kind: &'static str,
    /// As users write it: `acme/web`, `acme`; empty for the system.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// One binding that grants what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Grants {
    /// `RoleBinding`, `ClusterRoleBinding` or `RoleAssignment`.
    pub binding_kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Of an assignment: where it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Place>,
    /// Holds in every project below its scope, and not in the scope itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub inherited: bool,
    /// The object's name.
    pub binding: String,
    pub role_kind: String,
    pub role: String,
    /// The role that comes with `role` and grants it, where `role` itself does not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub implied: String,
    pub subject_kind: String,
    pub subject: String,
    /// What makes the grant count for the object, where that is not its place: a share.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub because: String,
}

/// A role that grants what was asked for, and the binding the caller lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    pub role_kind: &'static str,
    pub role: String,
    /// The kind that would be enough.
    pub binding_kind: &'static str,
    /// Where it would have to be; empty for the whole cluster, or where there is a `scope`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Of an assignment: where it would have to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Place>,
    /// Where the caller is bound to this very role, if it is somewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bound_in: Vec<String>,
}

/// What there is to say to one question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Every binding that grants it.
    pub grants: Vec<Grants>,
    /// Where none does: the roles that would, the narrowest first.
    pub nearest: Vec<Missing>,
    /// Where none does: what the caller may do with the same objects.
    pub held_verbs: Vec<String>,
    /// A sentence for what bindings do not say; empty where they say it all.
    #[serde(skip)]
    pub note: String,
}

impl Explanation {
    /// Adds what `other` knows: each grant and each lack once, ours first.
    pub fn add(&mut self, other: Self) {
        let Self { grants, nearest, held_verbs, note } = other;
        extend(&mut self.grants, grants);
        extend(&mut self.nearest, nearest);
        self.held_verbs.extend(held_verbs);
        self.held_verbs.sort();
        self.held_verbs.dedup();
        if self.note.is_empty() {
            self.note = note;
        }
    }
}

fn extend<T: PartialEq>(own: &mut Vec<T>, more: Vec<T>) {
    for one in more {
        if own.len() < EXPLAINED_MAX && !own.contains(&one) {
            own.push(one);
        }
    }
}
