//! Maven's `ComparableVersion`: numbers, qualifiers and lists of them, nested at every dash and at every change
//! between digits and letters.

use std::cmp::Ordering;

use super::digits;

const QUALIFIERS: &[&str] = &["alpha", "beta", "milestone", "rc", "snapshot", "", "sp"];
/// Deeper nesting than any version has is read as one word.
const DEPTH_MAX: usize = 64;

#[derive(Clone, Debug)]
enum Item {
    Number(String),
    Word(String),
    List(Vec<Item>),
}

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    lists(&parse(a), &parse(b))
}

fn parse(version: &str) -> Vec<Item> {
    let text = version.trim().to_ascii_lowercase();
    // The innermost list is the last one; each becomes the last item of the one before.
    let mut open: Vec<Vec<Item>> = vec![Vec::new()];
    let mut word = String::new();
    let mut numeric = false;
    for c in text.chars() {
        match c {
            '.' | '-' => {
                flush(&mut open, &mut word, numeric, false);
                if c == '-' {
                    descend(&mut open);
                }
            }
            _ => {
                let digit = c.is_ascii_digit();
                if digit != numeric && !word.is_empty() {
                    flush(&mut open, &mut word, numeric, digit);
                    descend(&mut open);
                }
                numeric = digit;
                word.push(c);
            }
        }
    }
    if !word.is_empty() {
        flush(&mut open, &mut word, numeric, false);
    }
    let mut inner: Option<Vec<Item>> = None;
    while let Some(mut list) = open.pop() {
        list.extend(inner.take().map(Item::List));
        inner = Some(normalise(list));
    }
    inner.unwrap_or_default()
}

fn descend(open: &mut Vec<Vec<Item>>) {
    if open.len() < DEPTH_MAX {
        open.push(Vec::new());
    }
}

/// Ends a part; an empty one is 0. A word that is not the first stands in a list of its own: `.x` is `-x`.
fn flush(open: &mut Vec<Vec<Item>>, word: &mut String, numeric: bool, before_digit: bool) {
    let text = std::mem::take(word);
    let item = if text.is_empty() {
        Item::Number("0".to_owned())
    } else if numeric {
        Item::Number(text)
    } else {
        if open.last().is_some_and(|list| !list.is_empty()) {
            descend(open);
        }
        Item::Word(qualifier(&text, before_digit).to_owned())
    };
    if let Some(list) = open.last_mut() {
        list.push(item);
    }
}

fn qualifier(text: &str, before_digit: bool) -> &str {
    match text {
        "a" if before_digit => "alpha",
        "b" if before_digit => "beta",
        "m" if before_digit => "milestone",
        "cr" => "rc",
        "ga" | "final" | "release" => "",
        other => other,
    }
}

/// Zeros and empty words at the end of a list, or before a word, do not count.
fn normalise(mut list: Vec<Item>) -> Vec<Item> {
    for at in (0..list.len()).rev() {
        let null = match &list[at] {
            Item::Number(text) => text.bytes().all(|byte| byte == b'0'),
            Item::Word(text) => text.is_empty(),
            Item::List(items) => items.is_empty(),
        };
        let removable = match list.get(at + 1) {
            None | Some(Item::Word(_)) => true,
            Some(Item::List(items)) => matches!(items.first(), Some(Item::Word(_))),
            Some(Item::Number(_)) => false,
        };
        if null && removable {
            list.remove(at);
        }
    }
    list
}

fn lists(a: &[Item], b: &[Item]) -> Ordering {
    for at in 0..a.len().max(b.len()) {
        let order = match (a.get(at), b.get(at)) {
            (Some(x), Some(y)) => items(x, y),
            (Some(x), None) => with_nothing(x),
            (None, Some(y)) => with_nothing(y).reverse(),
            (None, None) => Ordering::Equal,
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// An item beside the end of the other version.
fn with_nothing(item: &Item) -> Ordering {
    match item {
        Item::Number(text) => digits(text, "0"),
        Item::Word(text) => words(text, ""),
        Item::List(items) => {
            items.iter().map(with_nothing).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        }
    }
}

fn items(a: &Item, b: &Item) -> Ordering {
    let rank = |item: &Item| match item {
        Item::Word(_) => 0,
        Item::List(_) => 1,
        Item::Number(_) => 2,
    };
    match (a, b) {
        (Item::Number(x), Item::Number(y)) => digits(x, y),
        (Item::Word(x), Item::Word(y)) => words(x, y),
        (Item::List(x), Item::List(y)) => lists(x, y),
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Known qualifiers by their place, others behind them by name.
fn words(a: &str, b: &str) -> Ordering {
    let place = |word: &str| QUALIFIERS.iter().position(|known| *known == word).unwrap_or(QUALIFIERS.len());
    let (x, y) = (place(a), place(b));
    x.cmp(&y).then_with(|| if x == QUALIFIERS.len() { a.cmp(b) } else { Ordering::Equal })
}
