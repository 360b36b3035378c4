//! JSON, a value after the other. Every record is made on one thread, and most of its time would go into looking at
//! each byte of texts that have nothing to escape.

use jiff::Timestamp;

/// Bytes looked at together.
const WORD: usize = 8;
const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES * 0x80;

/// Appends a text in quotes, escaped as `serde_json` escapes.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    let mut at = 0;
    while at < bytes.len() {
        if let Some(word) = bytes.get(at..at + WORD).and_then(|eight| eight.try_into().ok())
            && !has_special(u64::from_le_bytes(word))
        {
            at += WORD;
            continue;
        }
        let end = bytes.len().min(at + WORD);
        for (place, byte) in bytes[at..end].iter().enumerate().filter(|(_, byte)| is_special(**byte)) {
            out.extend_from_slice(&bytes[written..at + place]);
            escaped(out, *byte);
            written = at + place + 1;
        }
        at = end;
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Is one of the eight bytes special? Those above 0x7f are not, and may be taken for one: then each is looked at.
fn has_special(word: u64) -> bool {
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    below(word, 0x20) | equal(b'"') | equal(b'\\') != 0
}

fn escaped(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend([b'\\', short]);
}

/// Appends `"name":`, behind a comma where something stands before it.
pub(crate) fn name(out: &mut Vec<u8>, plain: &str) {
    if !matches!(out.last(), None | Some(b'{')) {
        out.push(b',');
    }
    text(out, plain);
    out.push(b':');
}

/// Appends `"name":"value"`.
pub(crate) fn field(out: &mut Vec<u8>, plain: &str, value: &str) {
    name(out, plain);
    text(out, value);
}

/// Appends an array of texts.
pub(crate) fn list<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = &'a str>) {
    out.push(b'[');
    for (place, value) in values.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        text(out, value);
    }
    out.push(b']');
}

/// Of the largest number.
const DIGITS_MAX: usize = 39;

/// Appends a number in quotes.
pub(crate) fn digits(out: &mut Vec<u8>, mut number: u128) {
    let (mut digits, mut at) = ([b'0'; DIGITS_MAX], DIGITS_MAX - 1);
    while number >= 10 {
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
    }
    digits[at] = b'0' + number as u8;
    out.push(b'"');
    out.extend_from_slice(&digits[at..]);
    out.push(b'"');
}

/// Times with six digits behind the second, of which most are of the second before.
#[derive(Default)]
pub(crate) struct Times {
    second: i64,
    text: String,
}

impl Times {
    /// Appends the time in quotes.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, time: Timestamp) {
        let second = time.as_second();
        if second <= 0 {
            return text(out, &format!("{time:.6}"));
        }
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text = format!("{time:.0}");
            self.text.pop();
        }
        out.push(b'"');
        out.extend_from_slice(self.text.as_bytes());
        let mut micros = time.subsec_microsecond().unsigned_abs();
        let mut digits = *b".000000Z\"";
        for digit in digits[1..7].iter_mut().rev() {
            *digit = b'0' + (micros % 10) as u8;
            micros /= 10;
        }
        out.extend_from_slice(&digits);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_are_as_serde_json_writes_them(given in r#"([ -~]|\PC|["\\\x00-\x1f\x7f]){0,40}"#) {
            let mut out = Vec::new();
            text(&mut out, &given);
            prop_assert_eq!(String::from_utf8(out).expect("text"), serde_json::to_string(&given).expect("JSON"));
        }

        #[test]
        fn numbers_are_as_they_are_shown(number in prop_oneof![any::<u128>(), 0..1000_u128, Just(u128::MAX)]) {
            let mut out = Vec::new();
            digits(&mut out, number);
            prop_assert_eq!(String::from_utf8(out).expect("text"), format!("\"{number}\""));
        }

        #[test]
        fn times_are_as_jiff_writes_them(micros in proptest::collection::vec(
            prop_oneof![0..4_000_000_i64, -3_000_000..0_i64, 1_790_000_000_000_000..1_790_000_003_000_000_i64], 1..20
        )) {
            let mut times = Times::default();
            for micros in micros {
                let time = Timestamp::from_microsecond(micros).expect("in range");
                let mut out = Vec::new();
                times.write(&mut out, time);
                prop_assert_eq!(String::from_utf8(out).expect("text"), format!("\"{time:.6}\""));
            }
        }
    }
}
