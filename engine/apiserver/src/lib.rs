//! The generic Kubernetes API server of the embedded engine.
//!
//! [`ApiServer::router`] serves `/api`, `/apis`, `/openapi` and `/version` over a
//! [`gantry_store::Store`]. What a kind does beyond the generic rules is a [`kind::Strategy`]; what
//! decides on writes is an [`admission::AdmissionPlugin`]. Callers are authenticated and authorised
//! before they come here.

pub mod admission;
pub mod authn;
pub mod authz;
mod connect;
mod crd;
mod delete;
mod discovery;
mod encode;
mod eviction;
pub mod kind;
pub mod kinds;
pub mod metrics;
mod neutral;
pub mod node;
mod objects;
mod openapi;
mod patch;
mod query;
mod read;
pub mod reader;
mod registry;
mod request;
mod respond;
mod scale;
mod select;
mod server;
mod subresource;
mod table;
mod views;
mod watch;
mod write;

pub use crd::run as run_custom_resources;
pub use delete::{DeleteOptions, Preconditions};
pub use eviction::Eviction;
pub use neutral::Neutral;
pub use registry::{Discovered, ResourceExtension};
pub use request::BODY_BYTES_MAX;
pub use server::{ApiServer, Config, GIT_VERSION};
pub use table::{age, human_duration};
pub use views::{ViewAuthorizer, Views, run as run_views};
