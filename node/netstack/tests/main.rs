//! The network on a real kernel: namespaces, the plugin as a container runtime calls it, traffic.
//! Needs root; every test has its own instance, names and ranges, and removes them.

mod api;
mod bed;
mod dns;
mod lifecycle;
mod services;
