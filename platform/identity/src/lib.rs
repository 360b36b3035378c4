//! The identity component: organisations, users, rights, tokens.

pub mod directory;
pub mod errors;
pub mod keys;
pub mod lockout;
pub mod objects;
pub mod password;
pub mod policy;
pub mod revocation;
pub mod token;
pub mod totp;
pub mod vault;
pub mod core;
pub mod login;
pub mod session;
mod sessions;
mod revocation_shim;
