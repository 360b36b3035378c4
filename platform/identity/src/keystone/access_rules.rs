//! What an application credential with access rules may call: what one of its rules names, and nothing else.

use super::call::text;
use super::records::find;
use crate::directory::State;
use crate::session::Session;

/// The collection of rules; the user stands where others have the parent.
pub(crate) const RULES: &str = "access_rules";
/// What rules call this service.
const SERVICE: &str = "identity";

/// May the session make this call? `path` is below `/identity`, as `/v3/users`.
pub(crate) fn allow(state: &State, session: &Session, method: &str, path: &str) -> bool {
    let credential = session.claims.application_credential.as_deref();
    let Some(credential) = credential.and_then(|id| state.application_credentials.get(id)) else {
        return true;
    };
    let rules = &credential.spec.access_rules;
    let mut found = rules.iter().filter_map(|id| find(state, RULES, Some(&credential.spec.user), id));
    // Rules that are gone allow nothing: a credential that was limited does not become unlimited.
    rules.is_empty()
        || found.any(|rule| {
            let is = |name: &str, wanted: &str| text(&rule.spec.attributes, name) == Some(wanted);
            let fits = text(&rule.spec.attributes, "path").is_some_and(|pattern| matches(pattern, path));
            is("service", SERVICE) && is("method", method) && fits
        })
}

/// `*` and `{name}` stand for one part of a path, `**` for any number.
fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.trim_matches('/').split('/').collect();
    let path: Vec<&str> = path.trim_matches('/').split('/').collect();
    parts(&pattern, &path)
}

fn parts(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|skipped| parts(rest, &path[skipped..])),
        (Some((part, pattern)), Some((at, path))) => {
            let any = *part == "*" || (part.starts_with('{') && part.ends_with('}'));
            (any || part == at) && parts(pattern, path)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_parts() {
        for (pattern, path, want) in [
            ("/v3/users", "/v3/users", true),
            ("/v3/users", "/v3/users/1", false),
            ("/v3/users/*", "/v3/users/1", true),
            ("/v3/users/{user_id}", "/v3/users/1", true),
            ("/v3/users/*", "/v3/users/1/groups", false),
            ("/v3/users/*/groups", "/v3/users/1/groups", true),
            ("/v3/**", "/v3/users/1/groups", true),
            ("/v3/**", "/v3", true),
            ("/v3/**/groups", "/v3/users/1/groups", true),
            ("/v3/**/roles", "/v3/users/1/groups", false),
            ("**", "/v3/users", true),
            ("/", "/v3", false),
        ] {
            assert_eq!(matches(pattern, path), want, "{pattern} {path}");
        }
    }
}
