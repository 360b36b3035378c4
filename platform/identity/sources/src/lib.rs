//! Users from outside: LDAP, OpenID Connect, another Keystone.
