//! One file per command.

pub mod audit;
pub mod identity;
pub mod image;
pub mod why;
