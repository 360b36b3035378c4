//! One file per command.

pub mod identity;
pub mod image;
pub mod why;
