//! End to end: real clients against the built binary, with real containers. Every test has an instance of
//! its own, and dropping it checks that nothing is left on the host.

#![expect(
    clippy::disallowed_methods,
    reason = "tests write plain files for client programs; nothing here needs durability"
)]

mod audit;
mod bundles;
mod clients;
mod closed;
mod controllers;
mod crashes;
mod failures;
mod identity_browser;
mod identity_commands;
mod identity_flags;
mod identity_guide;
mod identity_keystone;
mod identity_oidc;
mod identity_other_keystone;
mod identity_sources;
mod images;
mod kubelet;
mod open_streams;
mod people;
mod polling;
mod receiver;
mod recorded;
mod refusals;
mod registry;
mod registry_anonymous;
mod registry_archives;
mod registry_artifacts;
mod registry_platforms;
mod registry_replication;
mod registry_repositories;
mod registry_s3;
mod registry_signatures;
mod registry_upstream;
mod registry_webhooks;
mod scrape;
mod secrets;
mod settings;
mod support;
mod survival;
mod tenancy;
mod tour;
mod tour_edit;
mod tour_streams;
mod upstream_clusters;
mod walks;
mod workloads;
