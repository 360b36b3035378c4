//! Where to look: for each segment, which of its frames have which terms.
//!
//! A term is 64 bits of a hash over a field and its value. Two values may share one: what is found is
//! compared with the record itself before it is shown, so a term narrows and never decides.

mod bits;
mod file;
mod fresh;
mod memory;
pub(crate) mod terms;

pub(crate) use bits::Bits;
pub(crate) use file::IndexFile;
pub(crate) use fresh::{Fresh, Waiting};
pub(crate) use memory::MemoryIndex;
pub(crate) use terms::{Field, Term, of_query, term};
