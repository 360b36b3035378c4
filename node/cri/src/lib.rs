//! The node's gRPC clients: the Container Runtime Interface (`runtime.v1`), containerd's own event stream, and
//! the standard health check (`grpc.health.v1`) for pod probes.
//!
//! The messages are written by hand for the subset the node uses, so that a build needs no protocol compiler.
//! Nothing here decides anything: a call goes out, an answer or a [`CriError`] comes back.

mod channel;
mod client;
pub mod events;
pub mod health;
mod types;

pub use client::{CriError, Runtime};
pub use types::*;
