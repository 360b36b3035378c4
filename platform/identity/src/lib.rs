//! The identity component: organisations, users, rights, tokens.

pub mod directory;
pub mod errors;
pub mod objects;
pub mod policy;
pub mod vault;
