//! The node agent: a kubelet over containerd's CRI. Pods bound to this node run here, and their objects tell how
//! they are.
//!
//! Pods come from a watch ([`dispatch`]); each has a worker that observes the runtime, plans with a pure function and
//! acts ([`pods`]). Nothing is kept that the runtime or the API server does not know too, so the agent may be killed
//! at any moment and continues where it was. containerd is a child of ours that outlives us ([`containerd`]).

mod agent;
pub mod api;
mod cgroups;
pub mod config;
mod containerd;
mod dispatch;
pub mod errors;
mod events;
mod files;
mod images;
mod logs;
mod node;
mod pause;
mod pods;
mod probes;
mod quantity;
mod resources;
mod shared;
pub mod stats;
pub mod streaming;
mod volumes;

pub use agent::{Agent, PodSource, purge_without_runtime};
pub use dispatch::PodNews;
pub use pause::PAUSE;
pub use pods::sink;
