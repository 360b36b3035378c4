//! The controllers of the built-in kinds. Each is a reconciler over shared informers: it takes a key,
//! reads the world from memory, plans with a pure function, acts through the API, and may be run again
//! at any time without changing anything.

mod aggregation;
mod deployment;
mod endpoints;
mod events;
mod garbage;
mod namespace;
mod node_lifecycle;
mod owned;
mod pod_gc;
mod replica_set;
mod resource_quota;
mod resources;
mod service_account;
mod shared;
mod tally;

use gantry_host::Host;

pub use shared::Config;

/// Starts every controller; they end when the host's tasks drain.
pub fn start(host: Host, config: Config) {
    let shared = shared::Shared::new(host, config);
    namespace::start(&shared);
    // Before the garbage collector, whose lists it hears of.
    resource_quota::start(&shared);
    garbage::start(&shared);
    replica_set::start(&shared);
    deployment::start(&shared);
    endpoints::start(&shared);
    service_account::start(&shared);
    node_lifecycle::start(&shared);
    pod_gc::start(&shared);
    aggregation::start(&shared);
    events::start(&shared);
}
