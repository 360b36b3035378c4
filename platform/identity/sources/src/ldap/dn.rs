//! Distinguished names, made comparable (RFC 4514).

/// A form in which two spellings of one name are equal: types and values in lower case, escapes undone,
/// spaces around separators and runs of spaces gone, the parts of a multi-valued RDN in order.
///
/// Case folding fits the attributes that name people and groups (`cn`, `uid`, `ou`, `dc`), all of which match
/// without regard to case.
pub(super) fn normalised(dn: &str) -> String {
    let rdns = rdns(dn).into_iter().map(|mut parts| {
        for (_, value) in &mut parts {
            *value = value.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
        }
        parts.sort();
        let parts = parts.iter().map(|(kind, value)| format!("{kind}={}", quoted(value)));
        parts.collect::<Vec<_>>().join("+")
    });
    rdns.collect::<Vec<_>>().join(",")
}

/// The value of `attribute` in the first RDN.
pub(super) fn leading_value(dn: &str, attribute: &str) -> Option<String> {
    let first = rdns(dn).into_iter().next()?;
    first.into_iter().find(|(kind, _)| kind.eq_ignore_ascii_case(attribute)).map(|(_, value)| value)
}

/// Separators inside of values must stay different from separators between them.
fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, ',' | '+' | '\\' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Types (lower case) and values, unescaped, RDN by RDN.
fn rdns(dn: &str) -> Vec<Vec<(String, String)>> {
    split(dn, &[',', ';'])
        .into_iter()
        .map(|rdn| {
            let parts = split(rdn, &['+']).into_iter().filter_map(|part| {
                let (kind, value) = part.split_once('=')?;
                Some((kind.trim().to_lowercase(), unescaped(value)))
            });
            parts.collect::<Vec<_>>()
        })
        .filter(|parts: &Vec<_>| !parts.is_empty())
        .collect()
}

/// Cuts at separators that no backslash stands before and no quotes (RFC 2253's old form) stand around.
fn split<'a>(text: &'a str, separators: &[char]) -> Vec<&'a str> {
    let (mut parts, mut start, mut escaped, mut quotes) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quotes = !quotes,
            c if !quotes && separators.contains(&c) => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescaped(value: &str) -> String {
    let trimmed = trimmed(value);
    let bytes = trimmed.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| (*b as char).to_digit(16));
        match bytes[at] {
            b'\\' => match (hex(at + 1), hex(at + 2)) {
                // Two hexadecimal digits are below 256.
                (Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    at += 3;
                }
                _ => {
                    out.extend(bytes.get(at + 1));
                    at += 2;
                }
            },
            byte => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Without the spaces around it (an escaped space at the end is part of the value) and without quotes.
fn trimmed(value: &str) -> &str {
    let value = value.trim_start();
    let mut end = value.trim_end();
    if end.len() < value.len() && ends_in_escape(end) {
        end = &value[..=end.len()];
    }
    end.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(end)
}

fn ends_in_escape(text: &str) -> bool {
    text.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_equal() {
        let same = [
            ("uid=Alice,ou=People,dc=example", "UID=alice, OU=people,DC=Example"),
            ("cn=Smith\\, John,dc=x", "CN=smith\\2c john,dc=x"),
            ("cn=a+uid=b,dc=x", "uid=B + cn=A,dc=x"),
            ("cn=\"Smith, John\",dc=x", "cn=Smith\\, John,dc=x"),
            ("cn=J\u{f6}rg,dc=x", "cn=J\\c3\\b6rg,dc=x"),
            ("cn=two  spaces,dc=x", "cn=two spaces,dc=x"),
            ("cn=a;dc=x", "cn=a,dc=x"),
        ];
        for (left, right) in same {
            assert_eq!(normalised(left), normalised(right), "{left} and {right}");
        }
    }

    #[test]
    fn different_names_stay_different() {
        let different = [
            ("cn=a,cn=b", "cn=a\\,cn=b"),
            ("cn=a+cn=b", "cn=a\\+cn=b"),
            ("cn=a\\\\,dc=x", "cn=a,dc=x"),
            ("uid=a,dc=x", "cn=a,dc=x"),
            ("uid=a,dc=x", "uid=a,dc=x,dc=y"),
        ];
        for (left, right) in different {
            assert_ne!(normalised(left), normalised(right), "{left} and {right}");
        }
    }

    #[test]
    fn the_leading_value_is_found() {
        assert_eq!(leading_value("uid=al\\2cice+cn=x,dc=y", "UID").as_deref(), Some("al,ice"));
        assert_eq!(leading_value("cn=x,uid=y", "uid"), None);
        assert_eq!(leading_value("", "uid"), None);
        assert_eq!(leading_value("uid=end\\ ,dc=y", "uid").as_deref(), Some("end "));
    }
}
