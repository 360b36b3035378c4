//! Recorded terminal sessions: asciicast version 2, one JSON value per line.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CastHeader {
    pub version: u32,
    pub width: u16,
    pub height: u16,
    /// Unix seconds.
    pub timestamp: i64,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub command: String,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub title: String,
}

/// Any further line.
#[derive(Clone, Debug, PartialEq)]
pub struct CastEvent {
    /// Seconds since the start.
    pub seconds: f64,
    /// `o` output, `i` input, `r` resize (`80x24`), `m` marker.
    pub code: char,
    pub data: String,
}

impl CastEvent {
    /// Reads a line.
    pub fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let [seconds, code, data] = value.as_array()?.as_slice() else { return None };
        let code = code.as_str()?.chars().next()?;
        Some(Self { seconds: seconds.as_f64()?, code, data: data.as_str()?.to_owned() })
    }

    /// The line, with its end.
    pub fn line(&self) -> String {
        // Microseconds, without the digits that a float would add.
        let data = Value::from(self.data.as_str());
        format!("[{:.6}, \"{}\", {data}]\n", self.seconds, self.code)
    }
}

/// A recording's file as text.
pub fn decompressed(file: std::fs::File) -> std::io::Result<impl std::io::Read> {
    zstd::Decoder::new(file)
}

/// Splits off the longest beginning of `bytes` that is text; a character that is cut off stays for the next
/// piece, what is no UTF-8 is replaced.
pub fn take_text(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest: &[u8] = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                rest = after;
                if let Some(length) = error.error_len() {
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[length..];
                    continue;
                }
            }
        }
        *bytes = rest.to_vec();
        return text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let event = CastEvent { seconds: 1.5, code: 'o', data: "a\"b\r\n\u{1b}[0m".to_owned() };
        assert_eq!(event.line(), "[1.500000, \"o\", \"a\\\"b\\r\\n\\u001b[0m\"]\n");
        assert_eq!(CastEvent::parse(&event.line()), Some(event));
        assert_eq!(CastEvent::parse("[1, 2]"), None);
    }

    #[test]
    fn a_character_in_two_pieces_is_one_character() {
        let mut bytes = b"gr\xc3".to_vec();
        assert_eq!(take_text(&mut bytes), "gr");
        bytes.extend_from_slice(b"\xbc\xff!");
        assert_eq!(take_text(&mut bytes), "ü\u{fffd}!");
        assert!(bytes.is_empty());
    }
}
