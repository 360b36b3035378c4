//! Users from outside: LDAP, OpenID Connect, another Keystone.

mod errors;
mod http;
mod keystone;
mod ldap;
mod oidc;
mod secret;
mod tls;
mod user;

pub use errors::SourceError;
pub use http::HttpConfig;
pub use keystone::{
    KeystoneAccount, KeystoneConfig, KeystoneIdentity, KeystoneLimits, KeystoneListing, KeystoneSource,
};
pub use ldap::{
    EnabledRule, IdFormat, LdapConfig, LdapGroups, LdapLimits, LdapListing, LdapScope, LdapServerHealth,
    LdapSource, LdapUsers, MemberValue, Nesting,
};
pub use oidc::{
    OidcBegun, OidcCallback, OidcClaims, OidcConfig, OidcDevice, OidcDevicePoll, OidcEndpoints, OidcLimits,
    OidcLogin, OidcSecrets, OidcSource, SigningAlgorithm,
};
pub use user::{ExternalGrant, ExternalGroup, ExternalScope, ExternalUser, Named};
