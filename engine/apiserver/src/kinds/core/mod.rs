//! The small kinds.

mod defaults;

pub(crate) use defaults::*;
