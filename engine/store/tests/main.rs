//! The store against a model, and against SIGKILL.

mod crash;
mod model;
