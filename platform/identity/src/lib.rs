//! The identity component: organisations, users, rights, tokens.
