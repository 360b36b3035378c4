//! Images and directories as other tools make them, and as an attacker would.

mod advisories;
mod fuzz;
mod hostile;
mod index;
mod judged;
mod layers;
mod mirror;
mod real;
mod rpm;
mod sbom;
mod support;
mod transfer;
