//! One file per command.

pub mod image;
pub mod why;
