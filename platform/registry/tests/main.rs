//! The registry over a real socket: the protocol by hand, and unmodified clients.

mod archives;
mod clients;
mod conformance;
mod kill;
mod own_client;
mod protocol;
mod scans;
mod signatures;
mod support;
