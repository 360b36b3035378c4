//! Resource quantities as whole numbers. Rounds up, as the kubelet does.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths of the unit (`100m` → 100, `2` → 2000). 0 for text that is no quantity.
pub(crate) fn millis(quantity: &Quantity) -> i64 {
    nanos(&quantity.0).map_or(0, |n| ceil_div(n, 1_000_000))
}

/// Whole units (`1Ki` → 1024). 0 for text that is no quantity.
pub(crate) fn units(quantity: &Quantity) -> i64 {
    nanos(&quantity.0).map_or(0, |n| ceil_div(n, 1_000_000_000))
}

/// `quantity` divided by `divisor`, rounded up: the value of a `resourceFieldRef`.
pub(crate) fn divided(quantity_nanos: i128, divisor: &Quantity) -> i64 {
    match nanos(&divisor.0) {
        Some(divisor) if divisor > 0 => ceil_div(quantity_nanos, divisor),
        _ => ceil_div(quantity_nanos, 1_000_000_000),
    }
}

fn ceil_div(value: i128, by: i128) -> i64 {
    let result = value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0);
    i64::try_from(result).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// The quantity in billionths.
pub(crate) fn nanos(text: &str) -> Option<i128> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (multiplier, divisor) = scale(suffix)?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 || whole.len() > 19 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let value = digits.checked_mul(multiplier)?.checked_mul(1_000_000_000)?;
    let below = divisor.checked_mul(10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let value = value.div_euclid(below) + i128::from(value.rem_euclid(below) != 0);
    Some(if negative { -value } else { value })
}

/// Multiplier and divisor of a suffix.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_round_up() {
        for (text, want_millis, want_units) in [
            ("100m", 100, 1),
            ("1.5", 1500, 2),
            ("2", 2000, 2),
            ("128Mi", 134_217_728_000, 134_217_728),
            ("1k", 1_000_000, 1000),
            ("0.1u", 1, 1),
            ("1e3", 1_000_000, 1000),
            ("nonsense", 0, 0),
        ] {
            let quantity = Quantity(text.into());
            assert_eq!((millis(&quantity), units(&quantity)), (want_millis, want_units), "{text}");
        }
        assert_eq!(divided(nanos("250m").expect("valid"), &Quantity("1m".into())), 250);
        assert_eq!(divided(nanos("250m").expect("valid"), &Quantity("1".into())), 1);
        assert_eq!(divided(nanos("64Mi").expect("valid"), &Quantity("1Mi".into())), 64);
    }
}
