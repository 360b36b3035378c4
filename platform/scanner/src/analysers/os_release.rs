//! `etc/os-release` and `usr/lib/os-release` (os-release(5)).

use super::{Analyser, Candidate, Finding};
use crate::files::Content;
use crate::package::OperatingSystem;

const MAX_BYTES: u64 = 64 << 10;

pub(super) const ANALYSER: Analyser =
    Analyser { os: true, wants: |file| matches!(file.path, "etc/os-release" | "usr/lib/os-release"), read };

fn read(_: &Candidate<'_>, content: &Content) -> Result<Vec<Finding>, String> {
    let os = parse(&content.text(MAX_BYTES)?);
    Ok(if os.id.is_empty() { Vec::new() } else { vec![Finding::OperatingSystem(os)] })
}

fn parse(text: &str) -> OperatingSystem {
    let mut os = OperatingSystem::default();
    for line in text.lines() {
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        let value = unquote(value.trim());
        match key {
            "ID" => os.id = value.to_ascii_lowercase(),
            "ID_LIKE" => os.id_like = value.split_whitespace().map(str::to_owned).collect(),
            "VERSION_ID" => os.version_id = value,
            "PRETTY_NAME" => os.name = value,
            _ => {}
        }
    }
    os
}

/// A value as a shell reads it: one pair of quotes, backslashes before what they protect.
fn unquote(value: &str) -> String {
    let quoted = |q: char| value.strip_prefix(q).and_then(|rest| rest.strip_suffix(q));
    if let Some(single) = quoted('\'') {
        return single.to_owned();
    }
    let mut text = String::new();
    let mut escaped = false;
    for c in quoted('"').unwrap_or(value).chars() {
        if c == '\\' && !escaped {
            escaped = true;
            continue;
        }
        escaped = false;
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_a_shell_reads_them() {
        let os = parse(
            "# c\nPRETTY_NAME=\"Debian GNU/Linux 12 (\\\"bookworm\\\")\"\nID=debian\nVERSION_ID='12'\nID_LIKE=\"a b\"\nX\n",
        );
        assert_eq!(os.name, "Debian GNU/Linux 12 (\"bookworm\")");
        assert_eq!((os.id.as_str(), os.version_id.as_str()), ("debian", "12"));
        assert_eq!(os.id_like, ["a", "b"]);
    }
}
