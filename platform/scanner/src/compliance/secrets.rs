//! Secrets by their known shapes, and by names that say so with values that look random. A secret is never repeated:
//! what is shown is how it begins and how long it is.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexSet};

/// What a shape is called, and its expression; the first group, or all of it, is the secret.
const SHAPES: &[(&str, &str)] = &[
    ("private key", r"-----BEGIN (?:[A-Z]{2,10} )?PRIVATE KEY(?: BLOCK)?-----\s*[A-Za-z0-9+/=:\-]"),
    ("AWS access key", r"\b((?:AKIA|ASIA)[0-9A-Z]{16})\b"),
    ("AWS secret key", r#"(?i)aws_?secret_?access_?key["']?\s*[:=]\s*["']?([A-Za-z0-9/+]{40})\b"#),
    ("GitHub token", r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82})\b"),
    ("GitLab token", r"\b(glpat-[A-Za-z0-9_\-]{20})\b"),
    ("Slack token", r"\b(xox[abprs]-[0-9A-Za-z\-]{20,200})\b"),
    ("Google API key", r"\b(AIza[0-9A-Za-z_\-]{35})\b"),
    ("Stripe key", r"\b([rs]k_live_[0-9A-Za-z]{24,200})\b"),
    ("npm token", r"\b(npm_[A-Za-z0-9]{36})\b"),
    ("PyPI token", r"\b(pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_\-]{50,300})\b"),
    ("JSON Web Token", r"\b(eyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,})"),
    ("password in a URL", r"\b[a-z][a-z0-9+.\-]{1,20}://[^\s:/@]{1,64}:([^\s:/@$<{%]{6,128})@[A-Za-z0-9]"),
];
/// A name that says so, and its value.
const NAMED: &str = r#"(?i)(?:passw(?:or)?d|passphrase|secret|token|api_?-?key|credential)s?["']?\s{0,4}[:=]\s{0,4}["']?([^\s"'#,;]{8,128})"#;
/// Bits per character. English words have fewer, random ones more.
const ENTROPY_MIN: f64 = 3.3;
const PLACEHOLDERS: &[&str] = &[
    "${",
    "$(",
    "{{",
    "<",
    "%",
    "xxxx",
    "****",
    "changeme",
    "example",
    "placeholder",
    "your",
    "/run/secrets",
    "file:",
];
const MATCHES_MAX: usize = 20;
const FILE_MAX_BYTES: u64 = 1 << 20;

/// What is delivered there is not the user's, and has keys of tests and examples.
const SKIPPED: &[&str] = &[
    "usr/share/",
    "usr/lib/",
    "usr/lib64/",
    "usr/include/",
    "lib/",
    "lib64/",
    "var/lib/dpkg/",
    "var/lib/rpm/",
];
const SETTINGS: &[&str] = &[
    "env",
    "properties",
    "yaml",
    "yml",
    "ini",
    "conf",
    "cfg",
    "json",
    "toml",
    "npmrc",
    "netrc",
    "pgpass",
    "pypirc",
    "credentials",
    "xml",
    "sh",
];

/// A line with a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Secret {
    pub rule: &'static str,
    pub line: u64,
    pub shown: String,
}

// The expressions are constants, which a test compiles.
static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(SHAPES.iter().map(|(_, shape)| format!("(?-u){shape}"))).expect("constants")
});
static EACH: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    SHAPES.iter().map(|(_, shape)| Regex::new(&format!("(?-u){shape}")).expect("a constant")).collect()
});
static ASSIGNED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&format!("(?-u){NAMED}")).expect("a constant"));

/// Is a file worth looking into?
pub(super) fn wants(path: &str, size_bytes: u64) -> bool {
    (16..=FILE_MAX_BYTES).contains(&size_bytes) && !SKIPPED.iter().any(|prefix| path.starts_with(prefix))
}

/// The secrets of a file; none in what is no text.
pub(super) fn in_file(path: &str, bytes: &[u8]) -> Vec<Secret> {
    if bytes.iter().take(8192).any(|byte| *byte == 0) {
        return Vec::new();
    }
    let mut found = shapes(bytes);
    let name = path.rsplit('/').next().unwrap_or(path);
    let ending = name.rsplit('.').next().unwrap_or(name).to_ascii_lowercase();
    if SETTINGS.contains(&ending.as_str()) {
        for captures in ASSIGNED.captures_iter(bytes).take(MATCHES_MAX) {
            let Some(value) = captures.get(1) else { continue };
            let line = line_of(bytes, value.start());
            if is_random(value.as_bytes()) && !found.iter().any(|known| known.line == line) {
                found.push(Secret { rule: "password", line, shown: hidden(value.as_bytes(), 0) });
            }
        }
    }
    found.truncate(MATCHES_MAX);
    found
}

/// Secrets of known shapes in any text.
pub(super) fn shapes(bytes: &[u8]) -> Vec<Secret> {
    let mut found = Vec::new();
    for n in SET.matches(bytes) {
        for captures in EACH[n].captures_iter(bytes).take(MATCHES_MAX) {
            let Some(secret) = captures.get(1).or_else(|| captures.get(0)) else { continue };
            // Private keys are told by their first line, which is no secret.
            let shown = match SHAPES[n].0 {
                "private key" => String::new(),
                "password in a URL" => hidden(secret.as_bytes(), 0),
                _ => hidden(secret.as_bytes(), 4),
            };
            found.push(Secret { rule: SHAPES[n].0, line: line_of(bytes, secret.start()), shown });
        }
    }
    found
}

/// Does a variable's name say that its value is a secret, and may the value be one?
pub(super) fn is_named(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let says = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "CREDENTIAL"];
    // `…_FILE` and `…_PATH` say where it is.
    says.iter().any(|word| name.contains(word))
        && !["_FILE", "_PATH", "_DIR", "_URL", "_NAME"].iter().any(|end| name.ends_with(end))
        && value.len() >= 4
        && !value.starts_with('/')
        && !is_placeholder(value.as_bytes())
}

/// How it begins and how long it is.
pub(super) fn hidden(secret: &[u8], shown: usize) -> String {
    let start = String::from_utf8_lossy(&secret[..shown.min(secret.len() / 4)]);
    format!("{start}… ({} characters)", secret.len())
}

fn line_of(bytes: &[u8], at: usize) -> u64 {
    1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count() as u64
}

fn is_placeholder(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    PLACEHOLDERS.iter().any(|placeholder| text.contains(placeholder))
}

/// Letters and digits in an order that no word has.
fn is_random(value: &[u8]) -> bool {
    let has = |is: fn(&u8) -> bool| value.iter().any(is);
    has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
        && !is_placeholder(value)
        && entropy(value) >= ENTROPY_MIN
}

/// Shannon's, in bits per byte.
fn entropy(value: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in value {
        counts[usize::from(*byte)] += 1;
    }
    let length = value.len() as f64;
    let parts = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / length);
    -parts.map(|share| share * share.log2()).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts, so that no scanner of repositories takes the test for a leak.
    fn join(parts: &[&str]) -> String {
        parts.concat()
    }

    #[test]
    fn known_shapes_are_found_and_not_repeated() {
        for (rule, text, secret) in [
            ("AWS access key", join(&["key = AK", "IAQ3EGDK2V7WXJ5TZR\n"]), "Q3EGDK2V7WXJ5TZR"),
            ("GitHub token", join(&["gh", "p_", &"a1B2".repeat(9)]), "B2a1B2a1"),
            ("private key", join(&["-----BEGIN RSA PRIV", "ATE KEY-----\nMIIEabc"]), "MIIEabc"),
            ("password in a URL", "postgres://app:hunter2hunter2@db/x".to_owned(), "hunter2"),
            ("JSON Web Token", format!("eyJ{0}.eyJ{0}.{0}", "abcdefghij0"), "abcdefghij0."),
        ] {
            let found = in_file("opt/app/notes.txt", format!("first\n{text}").as_bytes());
            let [one] = &found[..] else { panic!("{rule}: {found:?}") };
            assert_eq!((one.rule, one.line), (rule, 2));
            assert!(!one.shown.contains(secret), "{}", one.shown);
        }
    }

    #[test]
    fn names_that_say_so_want_random_values() {
        for (path, text, want) in [
            ("app/.env", "DB_PASSWORD=q8Zt3LmPw0Xc9R", 1),
            ("app/config.yaml", "password: 'q8Zt3LmPw0Xc9R'", 1),
            ("app/config.yaml", "password: ${DB_PASSWORD_12345}", 0),
            ("app/config.yaml", "password: correcthorse", 0),
            ("app/config.yaml", "secretName: database-credentials", 0),
            ("app/config.yaml", "token: changeme12345678", 0),
            ("app/readme.md", "password: q8Zt3LmPw0Xc9R", 0),
        ] {
            assert_eq!(in_file(path, text.as_bytes()).len(), want, "{path}: {text}");
        }
        assert!(in_file("a.env", b"\0PASSWORD=q8Zt3LmPw0Xc9R").is_empty(), "no text");
        for (name, value, want) in [
            ("MYSQL_ROOT_PASSWORD", "root", true),
            ("MYSQL_ROOT_PASSWORD", "", false),
            ("MYSQL_ROOT_PASSWORD_FILE", "/run/secrets/x", false),
            ("TOKEN", "/var/run/token", false),
            ("PATH", "/usr/bin:/bin", false),
        ] {
            assert_eq!(is_named(name, value), want, "{name}={value}");
        }
    }
}
