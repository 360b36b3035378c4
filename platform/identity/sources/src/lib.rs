//! Users from outside: LDAP and Active Directory ([`LdapSource`]), OpenID Connect ([`OidcSource`]), another
//! Keystone ([`KeystoneSource`]).
//!
//! Each source takes a configuration (serde, camelCase, so that it can stand in a kind's `spec`) and its secrets
//! beside it, and returns plain values: [`ExternalUser`] with groups and grants, or a [`SourceError`]. Nothing
//! here knows Gantry's kinds, stores anything, or reads the environment; clocks of tokens aside, the answers are
//! the other side's. What a source cannot say is never guessed: unreadable account flags count as disabled,
//! lists beyond their bound are errors, not shorter lists.
//!
//! # At a sign-in
//!
//! | source | call | who it is |
//! |---|---|---|
//! | LDAP | [`LdapSource::authenticate`] | name and password |
//! | OIDC, console | [`OidcSource::begin`], then [`OidcSource::finish`] with the cookie | browser |
//! | OIDC, command | [`OidcSource::endpoints`], then [`OidcSource::exchange`]; or [`OidcSource::device_begin`] and [`OidcSource::device_poll`] | loopback or other device |
//! | OIDC, token at hand | [`OidcSource::verify`] | ID token |
//! | Keystone | [`KeystoneSource::validate`], [`KeystoneSource::authenticate`] | its token, or name and password |
//!
//! The caller finds or makes the user by (source, [`ExternalUser::id`]), never by name: names are given to
//! others when people leave. It checks the name by its own rules: a source may hold `system:admin` or names with
//! `/`. Sources answer in the time the network takes; callers limit sign-ins by user and address *before* they
//! ask, or a guessing game here locks accounts there. Only [`SourceError::BadCredentials`] counts as a failed
//! attempt; [`SourceError::Unavailable`] must not lock anybody out, and `Misconfigured` texts are for operators.
//!
//! # The periodic comparison
//!
//! For each enabled provider, one loop, every interval (five minutes) with jitter, one run at a time, on the
//! leader alone:
//!
//! 1. *Read.* LDAP: [`LdapSource::list`], then [`LdapListing::next_page`] to its end. Keystone:
//!    [`KeystoneSource::list`]. OIDC has no list: [`OidcSource::refresh`] for each session kept, which says
//!    `BadCredentials` when the provider ended it; where there is no refresh token, sessions are short.
//! 2. *Plan*, purely, over (known users of the source, listed users): someone known and listed as disabled, or
//!    not listed, is disabled (and their tokens revoked); someone listed with other groups, name or grants is
//!    changed; someone listed again is enabled, unless an operator disabled them here (keep that mark apart).
//!    Unknown people are *not* made: that happens at their first sign-in, unless the provider says otherwise.
//! 3. *Doubt.* Any error ends the run with nothing changed and the provider's condition `Synchronised=False`.
//!    A listing that ended well but would disable more than a bound (say 20% and more than 10 people) is not
//!    acted upon either: a changed filter or a lost right to read looks just like that. The condition tells the
//!    numbers, and an operator confirms.
//! 4. *Act*, repeatably, and set the condition with counts, duration and [`LdapListing::skipped`].
//!
//! A disabled person thus loses access within the interval, and at once when they sign in again
//! ([`LdapSource::find_user`] looks at one person in between, for instance before a long-lived token is renewed).

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
