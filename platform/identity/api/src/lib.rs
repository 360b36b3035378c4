//! The kinds and words of the identity component.
