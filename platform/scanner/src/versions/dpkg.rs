//! `[EPOCH:]UPSTREAM[-REVISION]` (deb-version(7)).

use std::cmp::Ordering;

use super::{digits, number, run};

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let ((ea, ua, ra), (eb, ub, rb)) = (split(a), split(b));
    digits(ea, eb).then_with(|| part(ua, ub)).then_with(|| part(ra, rb))
}

fn split(version: &str) -> (&str, &str, &str) {
    let is_epoch = |epoch: &str| !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit());
    let (epoch, rest) =
        version.trim().split_once(':').filter(|(e, _)| is_epoch(e)).unwrap_or(("0", version.trim()));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Runs of anything but digits, and of digits, in turns.
fn part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (ta, tb) = (run(&mut a, |c| !c.is_ascii_digit()), run(&mut b, |c| !c.is_ascii_digit()));
        let (na, nb) = (number(&mut a), number(&mut b));
        let order = text(ta, tb).then_with(|| digits(na, nb));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// `~` before the end, the end before letters, letters before all else.
fn text(a: &str, b: &str) -> Ordering {
    let weight = |byte: Option<u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(letter),
        Some(other) => i32::from(other) + 256,
    };
    let (mut a, mut b) = (a.bytes(), b.bytes());
    loop {
        let (x, y) = (a.next(), b.next());
        let order = weight(x).cmp(&weight(y));
        if order != Ordering::Equal || (x.is_none() && y.is_none()) {
            return order;
        }
    }
}
