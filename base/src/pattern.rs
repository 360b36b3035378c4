//! Patterns of names and tags: `*` stands for any characters, `?` for one.

/// Does the whole text fit the pattern? Goes back to the last `*` alone: users write the patterns, and many stars must
/// not take time that grows with their number.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut next, mut at, mut last) = (0, 0, None);
    while at < text.len() {
        match pattern.get(next) {
            Some(b'*') => {
                last = Some((next, at));
                next += 1;
            }
            Some(b'?') => (next, at) = (next + 1, at + 1),
            Some(c) if *c == text[at] => (next, at) = (next + 1, at + 1),
            _ => match &mut last {
                Some((star, from)) => {
                    *from += 1;
                    (next, at) = (*star + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[next..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("*", "1.2", true),
            ("v*", "v1.0", true),
            ("v*", "1.0", false),
            ("v?.?", "v1.0", true),
            ("v?.?", "v10.0", false),
            ("*-rc*", "1.0-rc1", true),
            ("*-rc", "1.0-rc1", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("latest", "latest", true),
            ("latest", "latest2", false),
            ("", "x", false),
            ("a**", "a", true),
            ("demo/*", "demo/hello:1", true),
            ("*:1", "demo/hello:1", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
        let hostile = "*a".repeat(100) + "b";
        assert!(!matches(&hostile, &"a".repeat(128)));
    }
}
