//! The trail on a real disk: written, killed, tampered with, searched, sent on.

mod api;
mod kill;
mod likes;
mod retention;
mod search;
mod sessions;
mod support;
mod syslog;
mod tamper;
