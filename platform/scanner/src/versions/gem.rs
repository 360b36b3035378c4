//! RubyGems' `Gem::Version`: numbers and words; a word makes it a prerelease.

use std::cmp::Ordering;

use super::{digits, number, run};

#[derive(Clone, Copy)]
enum Segment<'a> {
    Number(&'a str),
    Word(&'a str),
}

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (segments(a), segments(b));
    for at in 0..a.len().max(b.len()) {
        let zero = Segment::Number("0");
        let order = match (a.get(at).copied().unwrap_or(zero), b.get(at).copied().unwrap_or(zero)) {
            (Segment::Number(x), Segment::Number(y)) => digits(x, y),
            (Segment::Word(x), Segment::Word(y)) => x.cmp(y),
            (Segment::Word(_), Segment::Number(_)) => Ordering::Less,
            (Segment::Number(_), Segment::Word(_)) => Ordering::Greater,
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Zeros before the first word and at the end do not count; a dash is `.pre.`.
fn segments(version: &str) -> Vec<Segment<'_>> {
    let mut rest = version.trim();
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let segment = match rest.as_bytes()[0] {
            b'0'..=b'9' => Segment::Number(number(&mut rest)),
            letter if letter.is_ascii_alphabetic() => {
                Segment::Word(run(&mut rest, |c| c.is_ascii_alphabetic()))
            }
            b'-' => {
                rest = &rest[1..];
                Segment::Word("pre")
            }
            _ => {
                run(&mut rest, |c| !c.is_ascii_alphanumeric() && c != '-');
                continue;
            }
        };
        if tail.is_empty() && matches!(segment, Segment::Number(_)) {
            head.push(segment);
        } else {
            tail.push(segment);
        }
    }
    for part in [&mut head, &mut tail] {
        while let Some(Segment::Number(text)) = part.last()
            && text.bytes().all(|byte| byte == b'0')
        {
            part.pop();
        }
    }
    head.append(&mut tail);
    head
}
