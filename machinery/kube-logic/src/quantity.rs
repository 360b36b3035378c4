//! Kubernetes resource quantities (`k8s.io/apimachinery/pkg/api/resource`), exact to a billionth.

use std::cmp::Ordering;
use std::fmt;

const NANO: i128 = 1_000_000_000;
/// Upstream caps at 2^63-1 units.
const NANO_MAX: i128 = (i64::MAX as i128) * NANO;

/// An exact amount with the format family it was written in. Comparison is by amount.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QuantityError(pub &'static str);

const WRONG: QuantityError = QuantityError(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
);

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

/// Format, base and exponent of a suffix.
fn suffix(text: &str) -> Option<(Format, u32, i32)> {
    let decimal = |e| Some((Format::DecimalSi, 10, e));
    let binary = |e| Some((Format::BinarySi, 2, e));
    match text {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent: i32 = text.strip_prefix(['e', 'E'])?.parse().ok()?;
            Some((Format::DecimalExponent, 10, exponent))
        }
    }
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, unit) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(WRONG);
        }
        let (format, base, exponent) =
            suffix(unit).ok_or(QuantityError("unable to parse quantity's suffix"))?;
        let nano = scale(whole, fraction, base, exponent);
        let nano = if negative { -nano } else { nano };
        Ok(Self { nano, format })
    }

    /// Reads a JSON string or number.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, QuantityError> {
        match value {
            serde_json::Value::String(text) => Self::parse(text),
            serde_json::Value::Number(number) => Self::parse(&number.to_string()),
            _ => Err(WRONG),
        }
    }

    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nano: i128::from(units) * NANO, format }
    }

    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self { nano: i128::from(milli) * (NANO / 1000), format }
    }

    fn rounded_up(&self, unit: i128) -> i64 {
        let away = if self.nano < 0 { -(unit - 1) } else { unit - 1 };
        let whole = (self.nano + away) / unit;
        whole.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// Whole units, rounded up (away from zero).
    pub fn value(&self) -> i64 {
        self.rounded_up(NANO)
    }

    /// Thousandths, rounded up (away from zero).
    pub fn milli_value(&self) -> i64 {
        self.rounded_up(NANO / 1000)
    }

    pub fn nano(&self) -> i128 {
        self.nano
    }

    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let format = if self.nano == 0 { other.format } else { self.format };
        let nano = self.nano.checked_add(other.nano).filter(|n| n.abs() <= NANO_MAX)?;
        Some(Self { nano, format })
    }

    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        self.checked_add(&Self { nano: -other.nano, format: other.format })
    }

    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    pub fn format(&self) -> Format {
        self.format
    }
}

/// Billionths of `whole.fraction × base^exponent`, rounded up and capped as upstream does.
fn scale(whole: &str, fraction: &str, base: u32, exponent: i32) -> i128 {
    let whole = whole.trim_start_matches('0');
    let decimal_exponent = if base == 10 { exponent } else { 0 };
    // What is past the cap anyway needs no exact arithmetic (and could not have it).
    if i64::try_from(whole.len()).unwrap_or(i64::MAX) + i64::from(decimal_exponent) > 20 && !whole.is_empty()
    {
        return NANO_MAX;
    }
    let fraction = &fraction[..fraction.len().min(24)];
    let digits: i128 = format!("0{whole}{fraction}").parse().unwrap_or(NANO_MAX);
    if digits == 0 {
        return 0;
    }
    let shift = decimal_exponent.saturating_add(9).saturating_sub(fraction.len() as i32);
    let scaled = if base == 2 { digits.checked_mul(1 << exponent) } else { Some(digits) };
    let scaled = match (scaled, shift) {
        (None, _) => None,
        (Some(n), 0..) => 10i128.checked_pow(shift.unsigned_abs()).and_then(|p| n.checked_mul(p)),
        (Some(n), _) => Some(10i128.checked_pow(shift.unsigned_abs()).map_or(1, |p| (n + p - 1) / p)),
    };
    scaled.unwrap_or(NANO_MAX).min(NANO_MAX)
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that loses nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.nano % NANO == 0 && (self.nano / NANO).abs() >= 1024 {
            let mut number = self.nano / NANO;
            let mut power = 0;
            while number % 1024 == 0 && power < 6 {
                number /= 1024;
                power += 1;
            }
            return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut number, mut power) = (self.nano, 0);
        while number % 1000 == 0 && power < 9 {
            number /= 1000;
            power += 1;
        }
        if self.format == Format::DecimalExponent {
            let exponent = power as i32 * 3 - 9;
            return if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") };
        }
        write!(f, "{number}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms_are_upstreams() {
        for (text, want, value, milli) in [
            ("1.5", "1500m", 2, 1500),
            ("1.5Gi", "1536Mi", 1_610_612_736, 1_610_612_736_000),
            ("100m", "100m", 1, 100),
            ("0.1m", "100u", 1, 1),
            ("1000k", "1M", 1_000_000, 1_000_000_000),
            ("1e3", "1e3", 1000, 1_000_000),
            ("12E", "9223372036854775807", i64::MAX, i64::MAX),
            ("-2", "-2", -2, -2000),
            ("1024", "1024", 1024, 1_024_000),
            (".5", "500m", 1, 500),
            ("0Mi", "0", 0, 0),
            ("512Mi", "512Mi", 536_870_912, 536_870_912_000),
        ] {
            let quantity = Quantity::parse(text).expect(text);
            assert_eq!(
                (quantity.to_string().as_str(), quantity.value(), quantity.milli_value()),
                (want, value, milli),
                "{text}"
            );
        }
        for bad in ["", "x", "1.2.3", "1x", "Mi", "--1", "1 Gi", "1K"] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(nano in -1_000_000_000_000_000_000i128..1_000_000_000_000_000_000, f in 0..3) {
            let format = [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent][f as usize];
            let quantity = Quantity { nano, format };
            prop_assert_eq!(Quantity::parse(&quantity.to_string()), Ok(quantity));
        }

        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = Quantity::parse(&text);
        }
    }
}
