//! Images and directories as other tools make them, and as an attacker would.

mod advisories;
mod hostile;
mod index;
mod layers;
mod mirror;
mod real;
mod sbom;
mod support;
