//! `[EPOCH:]VERSION[-RELEASE]`, compared segment by segment as `rpmvercmp` does.

use std::cmp::Ordering;

use super::{digits, number, run};

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let ((ea, va, ra), (eb, vb, rb)) = (split(a), split(b));
    digits(ea, eb).then_with(|| part(va, vb)).then_with(|| part(ra, rb))
}

fn split(version: &str) -> (&str, &str, &str) {
    let is_epoch = |epoch: &str| epoch.bytes().all(|byte| byte.is_ascii_digit());
    let (epoch, rest) = version.split_once(':').filter(|(e, _)| is_epoch(e)).unwrap_or(("0", version));
    let (version, release) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, version, release)
}

fn part(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let separator = |c: char| !c.is_ascii_alphanumeric() && c != '~' && c != '^';
        run(&mut a, separator);
        run(&mut b, separator);
        // `~` is before everything, also the end; `^` is behind the end and before the rest.
        let rank = |rest: &str| match rest.as_bytes().first() {
            Some(b'~') => 0,
            None => 1,
            Some(b'^') => 2,
            Some(byte) if byte.is_ascii_alphabetic() => 3,
            Some(_) => 4,
        };
        let (kind, order) = (rank(a), rank(a).cmp(&rank(b)));
        if order != Ordering::Equal {
            return order;
        }
        let order = match kind {
            1 => return Ordering::Equal,
            0 | 2 => {
                (a, b) = (&a[1..], &b[1..]);
                Ordering::Equal
            }
            3 => {
                let letter = |c: char| c.is_ascii_alphabetic();
                run(&mut a, letter).cmp(run(&mut b, letter))
            }
            _ => digits(number(&mut a), number(&mut b)),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}
