//! Semantic versioning 2.0.0, read leniently: a `v` in front, any number of numbers, missing ones are 0.

use std::cmp::Ordering;

use super::{digits, run};

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let ((na, pa), (nb, pb)) = (split(a), split(b));
    numbers(na, nb).then_with(|| match (pa, pb) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => prerelease(a, b),
    })
}

/// Numbers and what is behind the first `-`; build metadata does not count.
fn split(version: &str) -> (&str, Option<&str>) {
    let version = version.trim().trim_start_matches(['v', 'V', '=']);
    let mut rest = version.split('+').next().unwrap_or_default();
    let numbers = run(&mut rest, |c| c.is_ascii_digit() || c == '.');
    // Composer and npm of old write `1.0RC1` as well.
    let behind = rest.strip_prefix('-').unwrap_or(rest);
    (numbers, (!behind.is_empty()).then_some(behind))
}

fn numbers(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let (x, y) = (a.next(), b.next());
        if x.is_none() && y.is_none() {
            return Ordering::Equal;
        }
        let order = digits(x.unwrap_or_default(), y.unwrap_or_default());
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Identifiers one by one: numbers before words, fewer before more.
fn prerelease(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let (x, y) = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => (x, y),
        };
        let numeric = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let order = match (numeric(x), numeric(y)) {
            (true, true) => digits(x, y),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => x.cmp(y),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}
