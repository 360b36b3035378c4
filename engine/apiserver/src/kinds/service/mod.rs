//! Services and what they are given.

mod defaults;

pub(crate) use defaults::default_service;
