//! Bills of materials, as CycloneDX 1.5 and SPDX 2.3 in JSON.

mod cyclonedx;
mod spdx;

pub use cyclonedx::cyclonedx;
pub use spdx::spdx;

use sha2::Digest as _;

use crate::Report;

const TOOL: &str = "gantry";
const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A UUID (RFC 9562, version 8) that says what was found where and when: the same report gives the same one.
fn uuid(report: &Report) -> String {
    let mut hasher = sha2::Sha256::new();
    hasher.update(&report.target.name);
    hasher.update(report.scanned_at.to_string());
    for layer in &report.target.layers {
        hasher.update(layer.to_string());
    }
    for found in &report.packages {
        hasher.update(&found.purl);
        hasher.update([0]);
    }
    let mut bytes: [u8; 32] = hasher.finalize().into();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = |range: std::ops::Range<usize>| {
        bytes[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    format!("{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
}
