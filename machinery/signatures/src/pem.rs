//! Blocks of PEM text (RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::Pem;

/// Longest PEM text that is looked at: keys and chains are a few kilobytes.
pub(crate) const PEM_BYTES_MAX: usize = 256 << 10;
const LINE_CHARACTERS: usize = 64;

/// The blocks of a text; what is not well-formed ends it.
pub(crate) fn blocks(text: &str) -> Vec<Pem> {
    if text.len() > PEM_BYTES_MAX {
        return Vec::new();
    }
    Pem::iter_from_buffer(text.as_bytes()).map_while(Result::ok).collect()
}

pub(crate) fn write(label: &str, bytes: &[u8]) -> String {
    let encoded = STANDARD.encode(bytes);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(LINE_CHARACTERS) {
        // Base64 is ASCII.
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
