//! The registry over a real socket: the protocol by hand, and unmodified clients. One suite, where blobs are files and
//! where they are on S3; and what is about S3 alone.

mod bucket;
mod support;

#[path = "suite"]
#[expect(clippy::duplicate_mod, reason = "the same suite on both")]
mod files {
    use crate::support::{Arc, Place, TestRegistry, open};

    mod advisories;
    mod archives;
    mod clients;
    mod conformance;
    mod kill;
    mod own_client;
    mod protocol;
    mod scans;
    mod signatures;

    const KILLS: usize = 5;

    fn place() -> Arc<Place> {
        Place::files()
    }

    fn new() -> TestRegistry {
        open(place(), |_| {})
    }
}

#[path = "suite"]
#[expect(clippy::duplicate_mod, reason = "the same suite on both")]
mod s3 {
    use crate::support::{Arc, Place, TestRegistry, open};

    mod advisories;
    mod archives;
    mod clients;
    mod conformance;
    mod kill;
    mod own_client;
    mod protocol;
    mod scans;
    mod signatures;

    /// Each takes ten times as long.
    const KILLS: usize = 2;

    fn place() -> Arc<Place> {
        Place::s3()
    }

    fn new() -> TestRegistry {
        open(place(), |_| {})
    }
}
