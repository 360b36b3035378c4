//! A real instance of Gantry for one end-to-end test: the built binary, a containerd of its own, real
//! clients. Every instance has its own name, directories, port, bridge, address ranges and nft table, so
//! tests run side by side; dropping it runs `gantry down --purge` and looks for anything left on the host.
//! [`Keystone`], [`DockerRegistry`] and [`S3Server`] are real peers that several tests ask; [`fuzz`] is for parsers.
//!
//! ```no_run
//! use gantry_testkit::Instance;
//! let Some(gantry) = Instance::start() else { return };
//! gantry.kubectl(&["get", "nodes"]).ok();
//! ```

mod command;
mod docker_registry;
pub mod fuzz;
mod host;
mod image;
mod instance;
mod keystone;
mod s3_server;
mod skip;
mod wait;

pub use command::{Output, Running, run, run_with_input, spawn};
pub use docker_registry::DockerRegistry;
pub use host::{leftovers, ownerless_bridges};
pub use instance::{
    Builder, Instance, binary, free_node_port, free_port, helm_program, kubectl_program, python_program,
    spdy_kubectl_program, unused_name,
};
pub use keystone::Keystone;
pub use s3_server::S3Server;
pub use skip::skip;
pub use wait::{eventually, eventually_some, pause};
