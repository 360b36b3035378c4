//! Every parser of bytes from outside, as a function of bytes: for `fuzz/`, and for a bounded run of random input in
//! the tests. None of them may panic, run on, or take memory beyond its bounds.

use gantry_oci::Digest;
use jiff::Timestamp;

use crate::payload::Payload;
use crate::{Authority, PrivateKey, PublicKey, Signature, Trust, attachment, verify};

/// A name, an example that gets past the first check, and the parser.
pub struct Target {
    pub name: &'static str,
    pub seeds: &'static [&'static [u8]],
    pub run: fn(&[u8]),
}

/// A root for signing, which is no longer valid and need not be.
const ROOT: &str = include_str!("../tests/data/root.pem");

pub const TARGETS: &[Target] = &[
    Target {
        name: "payload",
        seeds: &[br#"{"critical":{"identity":{"docker-reference":"a"},"image":{"docker-manifest-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"type":"cosign container image signature"},"optional":null}"#],
        run: |bytes| drop(Payload::parse(bytes)),
    },
    Target {
        name: "attachment",
        seeds: &[br#"{"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1,"annotations":{"dev.cosignproject.cosign/signature":"YQ=="}}]}"#],
        run: |bytes| drop(attachment::entries(bytes)),
    },
    Target { name: "public-key", seeds: &[include_bytes!("../tests/data/cosign.pub")], run: |bytes| drop(PublicKey::from_pem(&text(bytes))) },
    Target {
        name: "private-key",
        seeds: &[b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"],
        run: |bytes| drop(PrivateKey::from_pem(&text(bytes), Some(b""))),
    },
    Target { name: "certificate", seeds: &[ROOT.as_bytes()], run: certificate },
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// As an authority of its own, and as the certificate of a signature.
fn certificate(bytes: &[u8]) {
    let text = text(bytes);
    let authorities = [ROOT, &text].into_iter().filter_map(|pem| Authority::from_pem(pem).ok()).collect();
    let trust = Trust { keys: Vec::new(), authorities };
    let signature = Signature {
        payload: bytes.to_vec().into(),
        signature: "YQ==".to_owned(),
        certificate: Some(text.clone()),
        chain: Some(text),
    };
    assert!(verify(&signature, &Digest::of(bytes), &trust, Timestamp::UNIX_EPOCH).is_err());
}
