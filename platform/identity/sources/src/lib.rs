//! Users from outside: LDAP, OpenID Connect, another Keystone.

mod errors;
mod ldap;
mod tls;
mod user;

pub use errors::SourceError;
pub use ldap::{
    EnabledRule, IdFormat, LdapConfig, LdapGroups, LdapLimits, LdapListing, LdapScope, LdapServerHealth,
    LdapSource, LdapUsers, MemberValue, Nesting,
};
pub use user::{ExternalGrant, ExternalGroup, ExternalScope, ExternalUser, Named};
