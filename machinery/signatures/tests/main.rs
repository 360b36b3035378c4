//! Signatures against each other and against what other tools write.

mod certificates;
mod fuzz;
mod keys;
