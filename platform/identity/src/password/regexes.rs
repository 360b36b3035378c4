//! Password patterns as Keystone's documentation has them: `^(?=.*\d)(?=.*[a-zA-Z]).{7,}$`.
//!
//! The regex crate has no look-ahead, since it promises linear time. The patterns people write use it at
//! the beginning only, where it is a conjunction: each look-ahead and the rest are matched by themselves.

use regex::Regex;

const PATTERN_BYTES_MAX: usize = 1024;
const COMPILED_BYTES_MAX: usize = 256 << 10;

/// A pattern that a whole password is matched with, from its first character as Python's `re.match`.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    wanted: Vec<Regex>,
    unwanted: Vec<Regex>,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("it is longer than {PATTERN_BYTES_MAX} bytes"));
        }
        let mut rest = text.strip_prefix('^').unwrap_or(text);
        let mut pattern = Self { wanted: Vec::new(), unwanted: Vec::new() };
        let mut looks_ahead = false;
        loop {
            let (list, inner) = if let Some(inner) = rest.strip_prefix("(?=") {
                (&mut pattern.wanted, inner)
            } else if let Some(inner) = rest.strip_prefix("(?!") {
                (&mut pattern.unwanted, inner)
            } else {
                break;
            };
            let end = scan(inner, ')').ok_or("a parenthesis is not closed")?;
            list.push(compile(&inner[..end])?);
            rest = &inner[end + 1..];
            looks_ahead = true;
        }
        if looks_ahead && scan(rest, '|').is_some() {
            return Err("put an alternative behind look-aheads in parentheses".to_owned());
        }
        pattern.wanted.push(compile(rest)?);
        Ok(pattern)
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.wanted.iter().all(|it| it.is_match(text)) && !self.unwanted.iter().any(|it| it.is_match(text))
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    if text.contains("(?=") || text.contains("(?!") || text.contains("(?<") {
        return Err("look-around is understood at the beginning only".to_owned());
    }
    let anchored = format!("^(?:{text})");
    let built = regex::RegexBuilder::new(&anchored).size_limit(COMPILED_BYTES_MAX).build();
    // The crate draws where it is wrong, over several lines; the last says what.
    built.map_err(|error| {
        let all = error.to_string();
        all.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// Where `wanted` stands outside of groups, classes and escapes.
fn scan(text: &str, wanted: char) -> Option<usize> {
    let (mut depth, mut class, mut escaped) = (0_usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' if class => class = false,
            _ if class => {}
            '[' => class = true,
            c if c == wanted && depth == 0 => return Some(at),
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_keystone_are_understood() {
        for (pattern, good, bad) in [
            (
                r"^(?=.*\d)(?=.*[a-zA-Z]).{7,}$",
                vec!["abcdef1", "1234567a"],
                vec!["abc1", "abcdefgh", "12345678"],
            ),
            (r"^(?=.*[A-Z])(?!.*password).{4,}$", vec!["Secret"], vec!["secret", "Apassword", "Abc"]),
            (r"(?=.*[)(|\]])(?:ab|c).+", vec!["ab|", "c)"], vec!["abx", "d)"]),
            (r"[a-z]+", vec!["abc", "abc1"], vec!["1abc", ""]),
            (r"\(?a|b", vec!["(a", "b"], vec!["c"]),
            ("", vec!["", "anything"], vec![]),
        ] {
            let parsed = Pattern::parse(pattern).expect(pattern);
            for password in good {
                assert!(parsed.matches(password), "{pattern} {password}");
            }
            for password in bad {
                assert!(!parsed.matches(password), "{pattern} {password}");
            }
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_at_start() {
        for pattern in
            ["(", "(?=a", "a(?=b)", "(?=a)b|c", "(?<=a)b", r"(a)\1", "a{1000}{1000}", &"a".repeat(2000)]
        {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
