//! A domain's tree of projects as quotas look at it.
//!
//! Who has a bound answers for everything below. A project below that has a bound of its own takes that bound, used
//! or not; what the others below use counts together. Whoever counts something (pods in identity, bytes of images in
//! the registry) asks here what counts together: two answers would be two quotas.

use std::collections::{BTreeMap, BTreeSet};

/// The domain itself, or a project by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place<'a> {
    Domain,
    Project(&'a str),
}

/// The projects of one domain by their ids, with what is known of each.
#[derive(Clone, Debug)]
pub struct ProjectTree<T> {
    nodes: BTreeMap<String, Node<T>>,
    /// Those directly below the domain.
    top: Vec<String>,
}

#[derive(Clone, Debug)]
struct Node<T> {
    parent: Option<String>,
    children: Vec<String>,
    known: T,
}

/// What lies below a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below<'a> {
    /// Projects with bounds of their own. What is below them is theirs to answer for, and not here.
    pub bounded: Vec<&'a str>,
    /// Projects without, up to the bounded ones.
    pub open: Vec<&'a str>,
}

impl<T> Default for ProjectTree<T> {
    fn default() -> Self {
        Self { nodes: BTreeMap::new(), top: Vec::new() }
    }
}

impl<T> ProjectTree<T> {
    /// Of ids, ids of the projects above, and what is known. One whose parent is not there is directly below the
    /// domain.
    pub fn new(projects: impl IntoIterator<Item = (String, Option<String>, T)>) -> Self {
        let node = |(id, parent, known)| (id, Node { parent, children: Vec::new(), known });
        let mut nodes: BTreeMap<String, Node<T>> = projects.into_iter().map(node).collect();
        let edges: Vec<(String, Option<String>)> =
            nodes.iter().map(|(id, node)| (id.clone(), node.parent.clone())).collect();
        let mut top = Vec::new();
        for (id, parent) in edges {
            match parent.and_then(|parent| nodes.get_mut(&parent)) {
                Some(parent) => parent.children.push(id),
                None => top.push(id),
            }
        }
        Self { nodes, top }
    }

    pub fn get(&self, project: &str) -> Option<&T> {
        self.nodes.get(project).map(|node| &node.known)
    }

    /// The place, what it lies in, and the domain at last. A project that is not there lies in the domain.
    pub fn up<'a>(&'a self, from: Place<'a>) -> impl Iterator<Item = Place<'a>> {
        let mut next = match from {
            Place::Domain => None,
            Place::Project(id) => self.nodes.contains_key(id).then_some(id),
        };
        // A cycle, which the API refuses to make, is not longer than the tree is big.
        let mut steps = self.nodes.len();
        let projects = std::iter::from_fn(move || {
            let id = next.filter(|_| steps > 0)?;
            steps -= 1;
            next = self.nodes[id].parent.as_deref().filter(|parent| self.nodes.contains_key(*parent));
            Some(Place::Project(id))
        });
        projects.chain([Place::Domain])
    }

    /// What is below the place; `without`, and what is below that, is taken as absent.
    pub fn below(
        &self,
        place: Place<'_>,
        without: Option<&str>,
        is_bounded: impl Fn(&T) -> bool,
    ) -> Below<'_> {
        let mut below = Below::default();
        let mut seen = BTreeSet::new();
        let mut next: Vec<&str> = self.children(place).collect();
        while let Some(id) = next.pop() {
            // In a cycle, which the API refuses to make, the place is below itself.
            if without == Some(id) || place == Place::Project(id) || !seen.insert(id) {
                continue;
            }
            if is_bounded(&self.nodes[id].known) {
                below.bounded.push(id);
            } else {
                below.open.push(id);
                next.extend(self.children(Place::Project(id)));
            }
        }
        below
    }

    fn children(&self, place: Place<'_>) -> impl Iterator<Item = &str> {
        let children = match place {
            Place::Domain => self.top.as_slice(),
            Place::Project(id) => self.nodes.get(id).map(|node| node.children.as_slice()).unwrap_or_default(),
        };
        children.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `web shop<web=4`: a project, and one below it with a bound.
    fn tree(text: &str) -> ProjectTree<Option<u64>> {
        ProjectTree::new(text.split(' ').map(|project| {
            let (path, bound) = project.split_once('=').map_or((project, None), |(p, b)| (p, b.parse().ok()));
            let (id, parent) = path.split_once('<').map_or((path, None), |(id, parent)| (id, Some(parent)));
            (id.to_owned(), parent.map(str::to_owned), bound)
        }))
    }

    fn ids(mut ids: Vec<&str>) -> String {
        ids.sort_unstable();
        ids.join(" ")
    }

    #[test]
    fn what_is_below_ends_at_bounds() {
        let all = "web=8 shop<web cart<shop=2 van<cart lab ghost<gone";
        for (place, without, bounded, open) in [
            (Place::Domain, None, "web", "ghost lab"),
            (Place::Domain, Some("lab"), "web", "ghost"),
            (Place::Project("web"), None, "cart", "shop"),
            (Place::Project("web"), Some("shop"), "", ""),
            (Place::Project("cart"), None, "", "van"),
            (Place::Project("van"), None, "", ""),
            (Place::Project("nothing"), None, "", ""),
        ] {
            let tree = tree(all);
            let below = tree.below(place, without, Option::is_some);
            assert_eq!((ids(below.bounded), ids(below.open)), (bounded.into(), open.into()), "{place:?}");
        }
    }

    #[test]
    fn up_ends_with_the_domain() {
        let tree = tree("web shop<web cart<shop ghost<gone a<b b<a");
        for (from, wanted) in [
            ("cart", vec!["cart", "shop", "web"]),
            ("web", vec!["web"]),
            ("ghost", vec!["ghost"]),
            ("nothing", vec![]),
        ] {
            let mut wanted: Vec<Place<'_>> = wanted.into_iter().map(Place::Project).collect();
            wanted.push(Place::Domain);
            assert_eq!(tree.up(Place::Project(from)).collect::<Vec<_>>(), wanted, "{from}");
        }
        assert_eq!(tree.up(Place::Domain).collect::<Vec<_>>(), [Place::Domain]);
        // A cycle, which the server refuses to make, ends.
        assert_eq!(tree.up(Place::Project("a")).last(), Some(Place::Domain));
        assert_eq!(ids(tree.below(Place::Project("a"), None, Option::is_some).open), "b");
    }
}
