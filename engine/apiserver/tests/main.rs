//! The router over a store, as a client behind the front door sees it.

mod connecting;
mod harness;
mod objects;
mod patching;
mod paths;
mod reading;
mod serving;
mod views;
mod watching;
