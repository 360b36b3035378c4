//! Messages of the Container Runtime Interface, `runtime.v1`, as far as the node uses them. Field numbers are
//! those of the published CRI v1 protocol; unknown fields of a newer runtime are skipped by the decoder.

mod common;
mod container;
mod image;
mod sandbox;
mod stats;

pub use common::*;
pub use container::*;
pub use image::*;
pub use sandbox::*;
pub use stats::*;
