//! Object keys and the prefixes that lists and watches select by.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Below every character of a valid part, so that text order is the order of the parts.
const SEPARATOR: char = '\0';

/// Names one object, ordered by group, resource, namespace, name.
///
/// One shared string: a clone costs a reference count. The group is empty for the core group and the
/// namespace is empty for cluster-scoped objects.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Builds a key. NUL is never valid in a part; it becomes U+FFFD so that it cannot move a boundary.
    pub fn new(group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        Self(join(&[group, resource, namespace, name]).into())
    }

    /// From the two ends of [`Key::kind`] and [`Key::within_kind`].
    pub(crate) fn of(kind: &str, within_kind: &str) -> Self {
        Self([kind, within_kind].join("\0").into())
    }

    /// Reads back what [`Key::as_str`] gave; `None` unless it has exactly four parts.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.split(SEPARATOR).count() == 4).then(|| Self(text.into()))
    }

    /// The API group, empty for the core group.
    pub fn group(&self) -> &str {
        self.part(0)
    }

    /// The plural resource name, for example `pods`.
    pub fn resource(&self) -> &str {
        self.part(1)
    }

    /// The namespace, empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.part(2)
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.part(3)
    }

    fn part(&self, index: usize) -> &str {
        self.0.split(SEPARATOR).nth(index).unwrap_or("")
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The group and resource with their separator: what maps and watches are divided by.
    pub(crate) fn kind(&self) -> &str {
        let end = self.0.match_indices(SEPARATOR).nth(1).map_or(self.0.len(), |(at, _)| at);
        &self.0[..end]
    }

    /// What is behind the kind: namespace and name with their separator.
    pub(crate) fn within_kind(&self) -> &str {
        &self.0[self.kind().len() + 1..]
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace(SEPARATOR, "/"))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a list or watch selects: one resource, optionally one namespace, optionally one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The API group, empty for the core group.
    pub group: Arc<str>,
    /// The plural resource name.
    pub resource: Arc<str>,
    /// Only this namespace (empty: cluster-scoped objects); every namespace when `None`.
    pub namespace: Option<Arc<str>>,
    /// Only objects of this name.
    pub name: Option<Arc<str>>,
}

impl Prefix {
    /// Every object of a resource.
    pub fn resource(group: &str, resource: &str) -> Self {
        Self { group: group.into(), resource: resource.into(), namespace: None, name: None }
    }

    /// Narrows to one namespace.
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Narrows to one name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether the prefix selects the key.
    pub fn matches(&self, key: &Key) -> bool {
        let mut parts = key.0.split(SEPARATOR);
        parts.next() == Some(&self.group)
            && parts.next() == Some(&self.resource)
            && parts.next().is_some_and(|it| self.namespace.as_deref().is_none_or(|want| want == it))
            && parts.next().is_some_and(|it| self.name.as_deref().is_none_or(|want| want == it))
    }

    pub(crate) fn kind(&self) -> String {
        join(&[&self.group, &self.resource])
    }

    /// What [`Key::within_kind`] of every selected key begins with.
    pub(crate) fn within_kind(&self) -> String {
        self.namespace.as_deref().map_or_else(String::new, |namespace| join(&[namespace, ""]))
    }
}

fn join(parts: &[&str]) -> String {
    let mut text = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            text.push(SEPARATOR);
        }
        text.extend(part.chars().map(|c| if c == SEPARATOR { char::REPLACEMENT_CHARACTER } else { c }));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_by_parts_and_prefixes_match() {
        let a = Key::new("", "pods", "a", "z");
        let ab = Key::new("", "pods", "a-b", "a");
        assert!(a < ab, "a namespace that is a prefix of another comes first as a whole");
        assert!(ab < Key::new("apps", "deployments", "", "x"));
        assert_eq!((a.group(), a.resource(), a.namespace(), a.name()), ("", "pods", "a", "z"));
        let pods = Prefix::resource("", "pods");
        for (prefix, matches) in [
            (pods.clone(), true),
            (pods.clone().in_namespace("a"), true),
            (pods.clone().in_namespace("a-b"), false),
            (pods.clone().in_namespace("a").named("z"), true),
            (pods.clone().named("y"), false),
            (Prefix::resource("", "pod"), false),
        ] {
            assert_eq!(prefix.matches(&a), matches, "{prefix:?}");
        }
        assert_eq!(Key::new("", "pods", "a\0b", "c").name(), "c");
        assert_eq!(Key::of(a.kind(), a.within_kind()), a);
        assert!(a.within_kind().starts_with(&pods.clone().in_namespace("a").within_kind()));
        assert!(!ab.within_kind().starts_with(&pods.in_namespace("a").within_kind()));
    }
}
