//! One file per command.

pub mod advisories;
pub mod audit;
pub mod bundle;
pub mod can;
pub mod identity;
pub mod image;
pub mod registry;
pub mod repository;
pub mod why;
