//! Workloads.

mod defaults;

pub(crate) use defaults::*;
