//! What things may be called.

/// In characters, as Keystone counts.
const NAME_CHARS_MAX: usize = 255;

/// Why a project, user, group or role cannot be called so; `None`: it can.
pub fn name_problem(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        return Some("must not be empty");
    }
    if name.chars().count() > NAME_CHARS_MAX {
        return Some("must not be longer than 255 characters");
    }
    if name.trim() != name {
        return Some("must not begin or end with white space");
    }
    name.chars()
        .any(|c| c.is_control() || is_invisible(c))
        .then_some("must not contain control characters or characters that cannot be seen")
}

/// Why a domain cannot be called so. Its name begins the Kubernetes names of its users (`acme/alice`), which must
/// never be taken for the cluster's own (`system:…`).
pub fn domain_name_problem(name: &str) -> Option<&'static str> {
    if let Some(problem) = name_problem(name) {
        return Some(problem);
    }
    if name.contains(['/', ':']) {
        return Some("must not contain '/' or ':'");
    }
    name.to_lowercase().starts_with("system").then_some("must not begin with \"system\"")
}

/// Characters that make two names look like one: joiners, direction marks, variation selectors, tags.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_they_look_like() {
        for (name, good) in [
            ("web", true),
            ("Web Shop 2", true),
            ("北京", true),
            ("a/b:c", true),
            ("", false),
            ("  ", false),
            (" web", false),
            ("a\nb", false),
            ("a\u{0}b", false),
            ("a\u{200b}b", false),
            ("a\u{202e}b", false),
        ] {
            assert_eq!(name_problem(name).is_none(), good, "{name:?}");
        }
        assert!(name_problem(&"x".repeat(255)).is_none());
        assert!(name_problem(&"x".repeat(256)).is_some());
    }

    #[test]
    fn no_domain_makes_users_of_the_cluster() {
        for (name, good) in [
            ("acme", true),
            ("Acme Ltd.", true),
            ("system", false),
            ("System", false),
            ("system:masters", false),
            ("systems", false),
            ("acme/x", false),
            ("acme:x", false),
        ] {
            assert_eq!(domain_name_problem(name).is_none(), good, "{name:?}");
        }
    }
}
