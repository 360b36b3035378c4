//! `NUMBER{.NUMBER}[LETTER]{_SUFFIX[NUMBER]}[~HASH][-rNUMBER]` (apk-package(5)).

use std::cmp::Ordering;

use super::{digits, number, run};

const BEFORE: &[&str] = &["alpha", "beta", "pre", "rc"];
const BEHIND: &[&str] = &["cvs", "svn", "git", "hg", "p"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// By its place among those before a release.
    Before(usize),
    End,
    /// What is no part of a version.
    Rest(&'a str),
    Revision(&'a str),
    Hash(&'a str),
    SuffixNumber(&'a str),
    Behind(usize),
    Letter(&'a str),
    Number(&'a str),
    First(&'a str),
}

impl Token<'_> {
    /// What is greater where two versions go on differently.
    fn rank(self) -> usize {
        match self {
            Self::Before(_) => 0,
            Self::End => 1,
            Self::Rest(_) => 2,
            Self::Revision(_) => 3,
            Self::Hash(_) => 4,
            Self::SuffixNumber(_) => 5,
            Self::Behind(_) => 6,
            Self::Letter(_) => 7,
            Self::Number(_) => 8,
            Self::First(_) => 9,
        }
    }
}

pub(super) fn compare(mut a: &str, mut b: &str) -> Ordering {
    let (mut last_a, mut last_b) = (None, None);
    loop {
        let (x, y) = (next(&mut a, last_a), next(&mut b, last_b));
        let order = match (x, y) {
            (Token::End, Token::End) => return Ordering::Equal,
            (Token::Before(x), Token::Before(y)) | (Token::Behind(x), Token::Behind(y)) => x.cmp(&y),
            // Behind the first, numbers with zeros in front are digits of a fraction.
            (Token::Number(x), Token::Number(y)) if x.starts_with('0') || y.starts_with('0') => x.cmp(y),
            (Token::Number(x), Token::Number(y))
            | (Token::First(x), Token::First(y))
            | (Token::SuffixNumber(x), Token::SuffixNumber(y))
            | (Token::Revision(x), Token::Revision(y)) => digits(x, y),
            (Token::Letter(x), Token::Letter(y))
            | (Token::Hash(x), Token::Hash(y))
            | (Token::Rest(x), Token::Rest(y)) => x.cmp(y),
            _ => x.rank().cmp(&y.rank()),
        };
        if order != Ordering::Equal {
            return order;
        }
        (last_a, last_b) = (Some(x), Some(y));
    }
}

fn next<'a>(rest: &mut &'a str, last: Option<Token<'a>>) -> Token<'a> {
    let whole = *rest;
    if whole.is_empty() {
        return Token::End;
    }
    let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let numeric = matches!(last, Some(Token::First(_) | Token::Number(_)));
    if last.is_none() && digit(whole) {
        return Token::First(number(rest));
    }
    if numeric && whole.starts_with('.') && digit(&whole[1..]) {
        *rest = &whole[1..];
        return Token::Number(number(rest));
    }
    if numeric && whole.starts_with(|c: char| c.is_ascii_lowercase()) {
        *rest = &whole[1..];
        return Token::Letter(&whole[..1]);
    }
    if matches!(last, Some(Token::Before(_) | Token::Behind(_))) && digit(whole) {
        return Token::SuffixNumber(number(rest));
    }
    if let Some(tail) = whole.strip_prefix('_') {
        *rest = tail;
        let suffix = run(rest, |c| c.is_ascii_lowercase());
        let place = |names: &[&str]| names.iter().position(|name| *name == suffix);
        if let Some(at) = place(BEFORE) {
            return Token::Before(at);
        }
        if let Some(at) = place(BEHIND) {
            return Token::Behind(at);
        }
    } else if let Some(tail) = whole.strip_prefix('~') {
        *rest = tail;
        return Token::Hash(run(rest, |c| c.is_ascii_hexdigit()));
    } else if let Some(tail) = whole.strip_prefix("-r").filter(|tail| digit(tail)) {
        *rest = tail;
        return Token::Revision(number(rest));
    }
    *rest = "";
    Token::Rest(whole)
}
