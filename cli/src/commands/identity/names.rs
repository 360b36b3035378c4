//! Names as people write them: `acme/alice`, or `alice` for one of the caller's own domain.

use gantry_identity_api::Domain;
use kube::ResourceExt as _;

use super::kinds::Kind;

/// `acme/alice`: a domain, where one was given, and a name in it. Either may be an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub domain: Option<String>,
    pub name: String,
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{0:?} is no name: write DOMAIN/NAME, or NAME alone for your own domain")]
    Shape(String),
    #[error("{0:?} is no name of a domain: it has no '/' or ':' in it and does not begin with \"system\"")]
    Domain(String),
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (domain, name) = match text.split_once('/') {
            Some((domain, name)) => (Some(domain), name),
            None => (None, text),
        };
        let bad =
            |part: &str| part.trim().is_empty() || part.contains('/') || part.chars().any(char::is_control);
        if bad(name) || domain.is_some_and(bad) {
            return Err(NameError::Shape(text.to_owned()));
        }
        Ok(Self { domain: domain.map(str::to_owned), name: name.to_owned() })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.domain {
            Some(domain) => write!(f, "{domain}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The name of a new domain, as the server will take it: users are called `DOMAIN/NAME`, and none of them may
/// look like one of the system's own.
pub fn domain_name(text: &str) -> Result<String, NameError> {
    let bad = text.trim().is_empty() || text.contains(['/', ':']) || text.chars().any(char::is_control);
    if bad || text.to_ascii_lowercase().starts_with("system") {
        return Err(NameError::Domain(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// The domain called so; names go before ids, which nobody chooses to look like a name.
pub fn pick_domain<'a>(domains: &'a [Domain], text: &str) -> Option<&'a Domain> {
    let by_name = domains.iter().find(|d| d.called() == text);
    by_name.or_else(|| domains.iter().find(|d| d.name_any() == text))
}

/// The object called `name` in the first of the domains (by their ids; `None`: in no domain) that has one, else one
/// with that id. Ids come last: somebody in another domain may have chosen one that looks like a name of ours.
pub fn pick<'a, K: Kind>(objects: &'a [K], domains: &[Option<&str>], name: &str) -> Option<&'a K> {
    let named =
        |domain: &Option<&str>| objects.iter().find(|o| o.domain_id() == *domain && o.called() == name);
    domains.iter().find_map(named).or_else(|| objects.iter().find(|o| o.name_any() == name))
}

/// A new id. Never made from the name: what is deleted and made again under its old name must not come
/// into the rights, the password or the tokens of what was there before.
pub fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_identity_api::{User, UserSpec};

    #[test]
    fn names_have_a_domain_or_none() {
        for (text, want) in [
            ("acme/alice", Some((Some("acme"), "alice"))),
            ("alice", Some((None, "alice"))),
            ("公司/小明", Some((Some("公司"), "小明"))),
            ("alice@example.com", Some((None, "alice@example.com"))),
            ("", None),
            (" ", None),
            ("acme/", None),
            ("/alice", None),
            ("acme/web/dev", None),
            ("acme/al\nice", None),
        ] {
            let parsed = text.parse::<Name>().ok();
            let want = want.map(|(domain, name): (Option<&str>, &str)| Name {
                domain: domain.map(str::to_owned),
                name: name.to_owned(),
            });
            assert_eq!(parsed, want, "{text:?}");
            if let Some(name) = parsed {
                assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn no_domain_is_called_like_the_system() {
        for (text, good) in [
            ("acme", true),
            ("Acme Corp.", true),
            ("system", false),
            ("System-x", false),
            ("a:b", false),
            ("a/b", false),
            ("", false),
        ] {
            assert_eq!(domain_name(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn names_are_looked_for_in_one_domain_and_ids_everywhere() {
        let user = |id: &str, domain: &str, name: &str| {
            let spec =
                UserSpec { name: Some(name.to_owned()), domain: domain.to_owned(), ..UserSpec::default() };
            User::new(id, spec)
        };
        let all = [user("1", "a", "alice"), user("2", "b", "alice"), user("3", "b", "1")];
        for (domain, name, want) in [
            ("a", "alice", Some("1")),
            ("b", "alice", Some("2")),
            ("c", "alice", None),
            ("b", "1", Some("3")),
            ("a", "1", Some("1")),
            ("c", "2", Some("2")),
        ] {
            let found = pick(&all, &[None, Some(domain)], name).map(|u| u.name_any());
            assert_eq!(found.as_deref(), want, "{domain}/{name}");
        }
    }
}
