//! Names of repositories as names of objects.

use sha2::{Digest, Sha256};

/// Longest name that is kept readable as a whole; objects' names have 253 characters at most.
const PLAIN_MAX: usize = 220;
/// Hexadecimal digits of the hash that stands at the end of names which cannot be kept as they are.
const HASH_DIGITS: usize = 20;

/// The name of the object of a repository: `acme/web/front` is `acme.web.front`.
///
/// Dots stand for slashes. A name that has dots or underscores of its own, or is too long, keeps its beginning and
/// ends in a hash of the whole, so that no two repositories have one object. A name made to look like such a one is
/// treated as one.
pub fn object_name(repository: &str) -> String {
    let plain =
        repository.len() <= PLAIN_MAX && !repository.contains(['.', '_']) && !ends_in_hash(repository);
    if plain {
        return repository.replace('/', ".");
    }
    let mut shown: String =
        repository.chars().map(|c| if c.is_ascii_alphanumeric() || c == '/' { c } else { '-' }).collect();
    shown.truncate(PLAIN_MAX);
    let shown = shown.replace('/', ".");
    let shown = shown.trim_end_matches(['-', '.']);
    let hash = hex::encode(Sha256::digest(repository.as_bytes()));
    format!("{shown}.{}", &hash[..HASH_DIGITS])
}

fn ends_in_hash(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.len() == HASH_DIGITS && last.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable_and_nobody_elses() {
        assert_eq!(object_name("hello"), "hello");
        assert_eq!(object_name("acme/web/front-end"), "acme.web.front-end");
        let dotted = object_name("acme/web.front");
        assert!(dotted.starts_with("acme.web-front."), "{dotted}");
        // Each pair would be one object if only characters were replaced.
        for (one, other) in [
            ("acme/web.front", "acme/web/front"),
            ("a_b/c", "a-b/c"),
            ("a__b", "a_b"),
            (dotted.replace('.', "/").as_str(), "acme/web.front"),
        ] {
            assert_ne!(object_name(one), object_name(other), "{one} {other}");
        }
        let long = "a/".repeat(126) + "b_c";
        assert!(object_name(&long).len() <= 253);
        assert_ne!(object_name(&long), object_name(&(long.clone() + "d")));
    }

    #[test]
    fn names_are_good_names_of_objects() {
        for name in ["a", "a-b/c", "a__b/c.d", "a/0123456789abcdef0123", &("x".repeat(219) + "._y")] {
            let object = object_name(name);
            let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            for label in object.split('.') {
                assert!(ends(label.chars().next()) && ends(label.chars().last()), "{name}: {object}");
            }
        }
    }
}
