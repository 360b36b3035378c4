//! Records that are like one before: what is their own, and where the rest is.
//!
//! Whoever polls asks the same again and again, and the same comes of it: of such a record only id, times and latency are
//! new. It is kept as these, with a reference to a record of the same segment, in which they stand somewhere else.
//!
//! ```text
//! like = back(u32) ranges received_us(i64) completed_us(i64) latency_us(u64) id
//! ranges = (start(u16) length(u8))×4      of id, times and latency in the JSON of the record it is like, quotes included
//! ```
//!
//! `back` is the distance between the two frames; the id is text and goes on to the end. Numbers are little-endian.

use std::io::Write as _;
use std::ops::Range;

use jiff::Timestamp;

use crate::frame::{u32_at, u64_at};

/// Bytes before the id.
const FIXED_BYTES: usize = 4 + 4 * 3 + 3 * 8;

/// What a record has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own<'a> {
    pub id: &'a str,
    pub received_us: i64,
    pub completed_us: i64,
    pub latency_us: u64,
}

/// Where it stands in a record's JSON: id, time of arrival, time of the end, latency; in this order, quotes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges([(u16, u8); 4]);

impl Ranges {
    /// `None`: they are further behind, or longer, than can be said.
    pub fn new(ranges: [Range<usize>; 4]) -> Option<Self> {
        let mut out = [(0, 0); 4];
        for (out, range) in out.iter_mut().zip(ranges) {
            *out = (u16::try_from(range.start).ok()?, u8::try_from(range.len()).ok()?);
        }
        Some(Self(out))
    }
}

/// A record that is like one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Like<'a> {
    /// How far before it the other one's frame begins.
    pub back: u32,
    pub ranges: Ranges,
    pub own: Own<'a>,
}

impl<'a> Like<'a> {
    /// Replaces `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self { back, ranges, own } = self;
        out.clear();
        out.extend_from_slice(&back.to_le_bytes());
        for (start, length) in ranges.0 {
            out.extend_from_slice(&start.to_le_bytes());
            out.push(length);
        }
        out.extend_from_slice(&own.received_us.to_le_bytes());
        out.extend_from_slice(&own.completed_us.to_le_bytes());
        out.extend_from_slice(&own.latency_us.to_le_bytes());
        out.extend_from_slice(own.id.as_bytes());
    }

    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut ranges = [(0, 0); 4];
        for (place, range) in ranges.iter_mut().enumerate() {
            let at = 4 + place * 3;
            *range = (u16::from_le_bytes(payload.get(at..at + 2)?.try_into().ok()?), *payload.get(at + 2)?);
        }
        let own = Own {
            id: std::str::from_utf8(payload.get(FIXED_BYTES..)?).ok()?,
            received_us: u64_at(payload, FIXED_BYTES - 24)?.cast_signed(),
            completed_us: u64_at(payload, FIXED_BYTES - 16)?.cast_signed(),
            latency_us: u64_at(payload, FIXED_BYTES - 8)?,
        };
        Some(Self { back: u32_at(payload, 0)?, ranges: Ranges(ranges), own })
    }

    /// Replaces `out` with the record, made of the one that it is like; false where that cannot be it.
    pub fn expand(&self, base: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let [id, received, completed, latency] = self.ranges.0;
        let mut rest = 0;
        let mut until = |(start, length): (u16, u8), out: &mut Vec<u8>| {
            let start = usize::from(start);
            let before = base.get(rest..start);
            rest = start + usize::from(length);
            before.map(|before| {
                out.extend_from_slice(before);
                rest
            })
        };
        let made = (|| {
            until(id, out)?;
            serde_json::to_writer(&mut *out, self.own.id).ok()?;
            until(received, out)?;
            time(self.own.received_us, out)?;
            until(completed, out)?;
            time(self.own.completed_us, out)?;
            let rest = until(latency, out)?;
            write!(out, "\"{}\"", self.own.latency_us).ok()?;
            out.extend_from_slice(base.get(rest..)?);
            Some(())
        })();
        made.is_some()
    }
}

fn time(micros: i64, out: &mut Vec<u8>) -> Option<()> {
    write!(out, "\"{:.6}\"", Timestamp::from_microsecond(micros).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: &str = r#"{"id":"a","from":"2026-01-01T00:00:00.000000Z","to":"2026-01-01T00:00:00.000001Z","took":"1","x":1}"#;

    fn ranges(base: &str) -> Ranges {
        let find = |text: &str| {
            let start = base.find(text).expect("it is there");
            start..start + text.len()
        };
        let times = [find("\"2026-01-01T00:00:00.000000Z\""), find("\"2026-01-01T00:00:00.000001Z\"")];
        let [from, to] = times;
        Ranges::new([find("\"a\""), from, to, find("\"1\"")]).expect("they are short")
    }

    #[test]
    fn a_record_is_made_of_another() {
        let own = Own {
            id: "b\"c",
            received_us: 1_790_000_000_000_000,
            completed_us: 1_790_000_000_000_250,
            latency_us: 250,
        };
        let like = Like { back: 1000, ranges: ranges(BASE), own };
        let (mut payload, mut out) = (Vec::new(), Vec::new());
        like.encode(&mut payload);
        assert_eq!(Like::decode(&payload), Some(like));
        assert!(like.expand(BASE.as_bytes(), &mut out));
        assert_eq!(
            String::from_utf8(out).expect("text"),
            r#"{"id":"b\"c","from":"2026-09-21T14:13:20.000000Z","to":"2026-09-21T14:13:20.000250Z","took":"250","x":1}"#
        );
        assert_eq!(Ranges::new([70_000..70_001, 0..1, 0..1, 0..1]), None);
        assert_eq!(Ranges::new([0..300, 0..1, 0..1, 0..1]), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(id in ".{0,60}", back: u32, received_us: i64, completed_us: i64, latency_us: u64) {
            let own = Own { id: &id, received_us, completed_us, latency_us };
            let like = Like { back, ranges: ranges(BASE), own };
            let mut payload = Vec::new();
            like.encode(&mut payload);
            prop_assert_eq!(Like::decode(&payload), Some(like));
            like.expand(BASE.as_bytes(), &mut Vec::new());
        }

        /// Whatever the bytes are: a record or none, and never a panic.
        #[test]
        fn no_bytes_are_too_strange(payload in proptest::collection::vec(any::<u8>(), 0..100), base in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(like) = Like::decode(&payload) {
                like.expand(&base, &mut Vec::new());
            }
        }
    }
}
