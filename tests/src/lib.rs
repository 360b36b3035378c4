//! The conformance and end-to-end suite; the tests are under `tests/`.
