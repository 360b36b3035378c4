//! Tests of the crate as a whole, against real peers: slapd, oidc-provider, Keystone.

mod guide;
mod keystone;
mod ldap;
mod oidc;
mod oidc_provider;
mod peers;
mod slapd;
