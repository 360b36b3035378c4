//! PEP 440, with its normalisation: case, separators and spellings do not count.

use std::cmp::Ordering;

use super::{digits, number};

/// What is written of a version, in parts.
struct Version {
    epoch: String,
    release: Vec<String>,
    /// `a`, `b` or `rc`, and its number.
    pre: Option<(u8, String)>,
    post: Option<String>,
    dev: Option<String>,
    local: Option<Vec<String>>,
}

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    match (Version::parse(a), Version::parse(b)) {
        (Some(x), Some(y)) => x.cmp(&y),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.cmp(b),
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (public, local) = match text.split_once('+') {
            Some((public, local)) => (public, Some(local)),
            None => (text.as_str(), None),
        };
        let mut rest = public.strip_prefix('v').unwrap_or(public);
        let mut epoch = "0";
        if let Some((before, behind)) = rest.split_once('!') {
            (epoch, rest) = (before, behind);
        }
        let first = number(&mut rest);
        if first.is_empty() || epoch.is_empty() || !epoch.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut release = vec![first.to_owned()];
        while let Some(mut tail) = rest.strip_prefix('.') {
            let next = number(&mut tail);
            if next.is_empty() {
                break;
            }
            release.push(next.to_owned());
            rest = tail;
        }
        let pre = word(
            &mut rest,
            &[("alpha", 0), ("beta", 1), ("preview", 2), ("pre", 2), ("rc", 2), ("a", 0), ("b", 1), ("c", 2)],
        );
        let post = match rest.strip_prefix('-').filter(|tail| tail.starts_with(|c: char| c.is_ascii_digit()))
        {
            Some(tail) => {
                rest = tail;
                Some(number(&mut rest).to_owned())
            }
            None => word(&mut rest, &[("post", 0), ("rev", 0), ("r", 0)]).map(|(_, number)| number),
        };
        let dev = word(&mut rest, &[("dev", 0)]).map(|(_, number)| number);
        let local = match local {
            None => None,
            Some(local) => {
                let parts: Vec<String> = local.split(['.', '-', '_']).map(str::to_owned).collect();
                let good =
                    |part: &String| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
                if !parts.iter().all(good) {
                    return None;
                }
                Some(parts)
            }
        };
        let version = Self { epoch: epoch.to_owned(), release, pre, post, dev, local };
        rest.is_empty().then_some(version)
    }

    fn cmp(&self, other: &Self) -> Ordering {
        digits(&self.epoch, &other.epoch)
            .then_with(|| releases(&self.release, &other.release))
            .then_with(|| pre(self, other))
            .then_with(|| optional(self.post.as_ref(), other.post.as_ref(), Ordering::Less))
            .then_with(|| optional(self.dev.as_ref(), other.dev.as_ref(), Ordering::Greater))
            .then_with(|| match (&self.local, &other.local) {
                (None, None) => Ordering::Equal,
                (None, Some(_)) => Ordering::Less,
                (Some(_), None) => Ordering::Greater,
                (Some(a), Some(b)) => locals(a, b),
            })
    }

    /// Where it stands before its release: development alone, a named stage, or not at all.
    fn stage(&self) -> u8 {
        match &self.pre {
            Some(_) => 1,
            None if self.post.is_none() && self.dev.is_some() => 0,
            None => 2,
        }
    }
}

/// One of `words`, with any separator before it and before its number, which is 0 if it is missing.
fn word(rest: &mut &str, words: &[(&str, u8)]) -> Option<(u8, String)> {
    let tail = rest.strip_prefix(['.', '-', '_']).unwrap_or(rest);
    let (name, rank) = words.iter().find(|(name, _)| tail.starts_with(name))?;
    let tail = &tail[name.len()..];
    let mut behind = tail.strip_prefix(['.', '-', '_']).unwrap_or(tail);
    let found = number(&mut behind);
    *rest = if found.is_empty() { tail } else { behind };
    Some((*rank, if found.is_empty() { "0".to_owned() } else { found.to_owned() }))
}

fn releases(a: &[String], b: &[String]) -> Ordering {
    let at = |list: &[String], n: usize| list.get(n).cloned().unwrap_or_default();
    let orders = (0..a.len().max(b.len())).map(|n| digits(&at(a, n), &at(b, n)));
    orders.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn pre(a: &Version, b: &Version) -> Ordering {
    a.stage().cmp(&b.stage()).then_with(|| match (&a.pre, &b.pre) {
        (Some((ra, na)), Some((rb, nb))) => ra.cmp(rb).then_with(|| digits(na, nb)),
        _ => Ordering::Equal,
    })
}

/// Numbers, where having none is `absent` than having one.
fn optional(a: Option<&String>, b: Option<&String>, absent: Ordering) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => absent,
        (Some(_), None) => absent.reverse(),
        (Some(a), Some(b)) => digits(a, b),
    }
}

/// Numbers after words, fewer before more.
fn locals(a: &[String], b: &[String]) -> Ordering {
    let numeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let pairs = a.iter().zip(b).map(|(x, y)| match (numeric(x), numeric(y)) {
        (true, true) => digits(x, y),
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => x.cmp(y),
    });
    pairs.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
}
