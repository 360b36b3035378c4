//! The one HTTPS listener of a Gantry instance and the only way into it, also for callers in the same
//! process.
//!
//! A request passes, in this order: TLS → request id → authentication → audit → impersonation →
//! in-flight limits → authorisation → the handler its path names. Handlers find [`gantry_kube_types::UserInfo`],
//! [`gantry_kube_types::RequestInfo`], [`gantry_kube_types::RequestId`] and
//! [`gantry_kube_types::ConnectionInfo`] in the request's extensions.
//!
//! The front door knows no credential and no rule: the engine and the components bring
//! [`gantry_kube_types::Authenticator`]s, one [`gantry_kube_types::Authorizer`] and routes to it.

mod audit;
mod authentication;
mod builder;
mod capture;
mod congestion;
mod connection;
mod health;
mod impersonation;
mod in_flight;
mod in_process;
mod io;
mod limits;
mod listener;
mod pipeline;
mod responses;
mod session;
mod streams;
mod tls;
mod unread;

pub use authentication::AuthenticationFailed;
pub use builder::{AuthPolicy, FrontDoor, FrontDoorBuilder};
pub use health::{HealthCheck, HealthChecks};
pub use impersonation::ImpersonatedBy;
pub use in_process::InProcess;
pub use limits::Limits;
pub use listener::{Draining, ServeError, TlsSource};
pub use responses::{forbidden, status_response};
pub use tls::{TlsError, server_config};
