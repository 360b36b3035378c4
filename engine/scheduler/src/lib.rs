//! Which node a pod runs on, and why.
//!
//! The core is a pure library: [`Snapshot`] (what the nodes have and hold) and a pod go in, a
//! [`Decision`] comes out, with what every plugin said of every node. [`start`] drives it: it follows
//! nodes and pods, keeps the snapshot by increments, binds, and writes conditions, events and the
//! explanation that `gantry why` prints.

mod decide;
mod driver;
pub mod explanation;
mod labels;
mod plugins;
mod pod;
mod resources;
mod snapshot;

pub use decide::{Decision, NodeVerdict, PluginScore, decide};
pub use driver::{Config, start};
pub use pod::PodInfo;
pub use resources::Resources;
pub use snapshot::{NodeInfo, Snapshot};
