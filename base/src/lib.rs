//! What everything stands on and what knows nothing of Kubernetes: durable files, secrets that do
//! not print, supervised tasks with drain, telemetry, metrics, certificates.
//!
//! Nothing here reads the environment except [`settings`].

pub mod fs;
pub mod health;
pub mod metrics;
pub mod pattern;
pub mod pki;
pub mod secret;
pub mod settings;
pub mod tasks;
pub mod telemetry;
pub mod threads;
