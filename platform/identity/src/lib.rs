//! The identity component: organisations, users, rights, tokens.

mod access_rules;
pub mod admin;
pub mod admission;
pub mod authenticator;
pub mod authorizer;
pub mod bootstrap;
mod browser;
mod catalogue;
mod component;
pub mod core;
pub mod directory;
pub mod errors;
mod explain;
pub mod hanging;
pub mod issuer;
pub mod keys;
pub mod keystone;
pub mod lockout;
pub mod login;
pub mod narrowed;
pub mod objects;
pub mod password;
pub mod policy;
pub mod providers;
pub mod pull;
pub mod revocation;
pub mod rights;
pub mod session;
mod sessions;
pub mod tenancy;
pub mod token;
pub mod totp;
pub mod vault;
pub mod visibility;
#[cfg(test)]
mod work;

pub use component::{Identity, SELDOM_READ, StartError, installer, own_user};
