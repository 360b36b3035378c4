//! Every parser of bytes from outside, as a function of bytes: for `fuzz/`, and for a bounded run of random input in
//! the tests. None of them may panic, run on, or take memory beyond its bounds.

use std::io::Write as _;

use crate::{Bundle, Manifest};

/// A name, an example that gets past the first check, and the parser.
pub struct Target {
    pub name: &'static str,
    pub seeds: fn() -> Vec<Vec<u8>>,
    pub run: fn(&[u8]),
}

const EMPTY: &str = r#"{"mediaType":"application/vnd.gantry.bundle.v1+json","created":"2026-11-26T00:00:00Z","repositories":[],"entries":[]}"#;

pub const TARGETS: &[Target] = &[
    Target { name: "manifest", seeds: || vec![EMPTY.into()], run: |bytes| drop(Manifest::parse(bytes)) },
    Target { name: "bundle", seeds: bundles, run: bundle },
];

fn bundles() -> Vec<Vec<u8>> {
    let written = Manifest::parse(EMPTY.as_bytes()).and_then(|manifest| {
        let mut tar = tar::Builder::new(Vec::new());
        let bytes = manifest.to_bytes()?;
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, crate::MANIFEST, &bytes[..])?;
        Ok(tar.into_inner()?)
    });
    written.into_iter().collect()
}

fn bundle(bytes: &[u8]) {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(bytes).is_err() {
        return;
    }
    if let Ok(bundle) = Bundle::open(file.path()) {
        let _ = bundle.check(&mut |_| {});
        assert!(bundle.signed_by(&[]).is_err());
    }
}
