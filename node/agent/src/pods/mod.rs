//! Pods: one worker per pod, a pure plan, and the acts that carry it out.

mod act;
mod admission;
mod backoff;
mod conditions;
mod container;
pub(crate) mod env;
mod hooks;
mod messages;
mod observe;
mod plan;
pub(crate) mod sandbox;
mod security;
pub mod sink;
pub(crate) mod spec;
mod start;
mod status;
mod terminate;
mod worker;

pub(crate) use status::whole_seconds;
pub(crate) use worker::{Desired, Handle};
