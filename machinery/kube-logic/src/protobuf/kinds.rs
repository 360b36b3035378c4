//! Messages: which numbers are which fields.

use super::workloads;

/// How one field becomes JSON.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// One that may be zero.
    Number,
    /// One that is always sent; zero is none.
    Count,
    /// One that may be false.
    Flag,
    /// One that is always sent; false is none.
    Switch,
    IntOrString,
    Message(&'static [Field]),
    /// A message whose fields are the outer one's in JSON.
    Inline(&'static [Field]),
    /// `map<string, string>`
    TextMap,
    /// `map<string, ExtraValue>`: lists of text.
    ListMap,
    /// `map<string, bytes>`: base64 in JSON.
    BytesMap,
    /// `map<string, Quantity>`
    QuantityMap,
    /// What the server sets itself.
    Skip,
}

pub(super) struct Field {
    pub(super) number: u64,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
}

pub(super) const fn one(number: u64, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, repeated: false }
}

pub(super) const fn many(number: u64, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, repeated: true }
}

const OWNER: &[Field] = &[
    one(1, "kind", Kind::Text),
    one(3, "name", Kind::Text),
    one(4, "uid", Kind::Text),
    one(5, "apiVersion", Kind::Text),
    one(6, "controller", Kind::Flag),
    one(7, "blockOwnerDeletion", Kind::Flag),
];
pub(super) const OBJECT_META: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "generateName", Kind::Text),
    one(3, "namespace", Kind::Text),
    one(5, "uid", Kind::Text),
    one(6, "resourceVersion", Kind::Text),
    one(11, "labels", Kind::TextMap),
    one(12, "annotations", Kind::TextMap),
    many(13, "ownerReferences", Kind::Message(OWNER)),
    many(14, "finalizers", Kind::Text),
    // selfLink, generation, creationTimestamp, managedFields
    one(4, "", Kind::Skip),
    one(7, "", Kind::Skip),
    one(8, "", Kind::Skip),
    one(17, "", Kind::Skip),
];
const CONFIG_MAP: &[Field] = &[
    one(1, "metadata", Kind::Message(OBJECT_META)),
    one(2, "data", Kind::TextMap),
    one(3, "binaryData", Kind::BytesMap),
    one(4, "immutable", Kind::Flag),
];
const SECRET: &[Field] = &[
    one(1, "metadata", Kind::Message(OBJECT_META)),
    one(2, "data", Kind::BytesMap),
    one(3, "type", Kind::Text),
    one(4, "stringData", Kind::TextMap),
    one(5, "immutable", Kind::Flag),
];
const NAMESPACE: &[Field] =
    &[one(1, "metadata", Kind::Message(OBJECT_META)), one(2, "", Kind::Skip), one(3, "", Kind::Skip)];
const SERVICE_ACCOUNT: &[Field] = &[one(1, "metadata", Kind::Message(OBJECT_META))];
const POLICY_RULE: &[Field] = &[
    many(1, "verbs", Kind::Text),
    many(2, "apiGroups", Kind::Text),
    many(3, "resources", Kind::Text),
    many(4, "resourceNames", Kind::Text),
    many(5, "nonResourceURLs", Kind::Text),
];
const ROLE: &[Field] =
    &[one(1, "metadata", Kind::Message(OBJECT_META)), many(2, "rules", Kind::Message(POLICY_RULE))];
const SUBJECT: &[Field] = &[
    one(1, "kind", Kind::Text),
    one(2, "apiGroup", Kind::Text),
    one(3, "name", Kind::Text),
    one(4, "namespace", Kind::Text),
];
const ROLE_REF: &[Field] =
    &[one(1, "apiGroup", Kind::Text), one(2, "kind", Kind::Text), one(3, "name", Kind::Text)];
const ROLE_BINDING: &[Field] = &[
    one(1, "metadata", Kind::Message(OBJECT_META)),
    many(2, "subjects", Kind::Message(SUBJECT)),
    one(3, "roleRef", Kind::Message(ROLE_REF)),
];
const PRECONDITIONS: &[Field] = &[one(1, "uid", Kind::Text), one(2, "resourceVersion", Kind::Text)];
const DELETE_OPTIONS: &[Field] = &[
    one(1, "gracePeriodSeconds", Kind::Number),
    one(2, "preconditions", Kind::Message(PRECONDITIONS)),
    one(3, "orphanDependents", Kind::Flag),
    one(4, "propagationPolicy", Kind::Text),
    many(5, "dryRun", Kind::Text),
];
const EVICTION: &[Field] =
    &[one(1, "metadata", Kind::Message(OBJECT_META)), one(2, "deleteOptions", Kind::Message(DELETE_OPTIONS))];
const RESOURCE_ATTRIBUTES: &[Field] = &[
    one(1, "namespace", Kind::Text),
    one(2, "verb", Kind::Text),
    one(3, "group", Kind::Text),
    one(4, "version", Kind::Text),
    one(5, "resource", Kind::Text),
    one(6, "subresource", Kind::Text),
    one(7, "name", Kind::Text),
];
const PATH_ATTRIBUTES: &[Field] = &[one(1, "path", Kind::Text), one(2, "verb", Kind::Text)];
const ACCESS_SPEC: &[Field] = &[
    one(1, "resourceAttributes", Kind::Message(RESOURCE_ATTRIBUTES)),
    one(2, "nonResourceAttributes", Kind::Message(PATH_ATTRIBUTES)),
    one(3, "user", Kind::Text),
    many(4, "groups", Kind::Text),
    one(5, "extra", Kind::ListMap),
    one(6, "uid", Kind::Text),
];
const RULES_SPEC: &[Field] = &[one(1, "namespace", Kind::Text)];
const TOKEN_REVIEW_SPEC: &[Field] = &[one(1, "token", Kind::Text), many(2, "audiences", Kind::Text)];
const BOUND_OBJECT: &[Field] = &[
    one(1, "kind", Kind::Text),
    one(2, "apiVersion", Kind::Text),
    one(3, "name", Kind::Text),
    one(4, "uid", Kind::Text),
];
const TOKEN_REQUEST_SPEC: &[Field] = &[
    many(1, "audiences", Kind::Text),
    one(3, "boundObjectRef", Kind::Message(BOUND_OBJECT)),
    one(4, "expirationSeconds", Kind::Number),
];

pub(super) const fn with_spec(spec: &'static [Field]) -> [Field; 3] {
    // The third is the status, which is the answer.
    [
        one(1, "metadata", Kind::Message(OBJECT_META)),
        one(2, "spec", Kind::Message(spec)),
        one(3, "", Kind::Skip),
    ]
}

const ACCESS_REVIEW: &[Field] = &with_spec(ACCESS_SPEC);
const RULES_REVIEW: &[Field] = &with_spec(RULES_SPEC);
const TOKEN_REVIEW: &[Field] = &with_spec(TOKEN_REVIEW_SPEC);
const TOKEN_REQUEST: &[Field] = &with_spec(TOKEN_REQUEST_SPEC);
const WHO_AM_I: &[Field] = &[one(1, "metadata", Kind::Message(OBJECT_META)), one(2, "", Kind::Skip)];

pub(super) fn message_of(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Namespace" => NAMESPACE,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "Role" | "ClusterRole" => ROLE,
        "RoleBinding" | "ClusterRoleBinding" => ROLE_BINDING,
        "DeleteOptions" => DELETE_OPTIONS,
        "Eviction" => EVICTION,
        "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectRulesReview" => RULES_REVIEW,
        "SelfSubjectReview" => WHO_AM_I,
        "TokenReview" => TOKEN_REVIEW,
        "TokenRequest" => TOKEN_REQUEST,
        _ => return workloads::message_of(kind),
    })
}
