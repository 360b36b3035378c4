//! The logic of the Kubernetes API without I/O: no client, no clock, no environment. Everything
//! works on [`serde_json::Value`] and is driven by [`schema::Schema`], so built-in kinds and custom
//! resources take the same paths.

pub mod apply;
pub mod fields;
pub mod jsonpath;
pub mod limits;
pub mod meta;
pub mod names;
pub mod negotiate;
pub mod openapi;
pub mod patch;
pub mod pod_resources;
pub mod pod_security;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod rbac;
pub mod schema;
pub mod selector;
pub mod structural;
pub mod taints;
