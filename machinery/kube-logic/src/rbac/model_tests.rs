//! The index against a second, slow reading of the rules.
//!
//! The model knows nothing of indices, matching functions or order: it writes down every single thing
//! every binding lets every user do, in a small world, and a decision is whether the question stands in
//! that book. It follows the words of the Kubernetes documentation alone, and what our own says of logs.

use std::collections::BTreeSet;

use gantry_kube_types::{Attributes, UserInfo};
use proptest::prelude::*;

use super::{PolicyRule, RoleRef, RuleIndex, Subject};

const VERBS: [&str; 5] = ["get", "list", "create", "update", "delete"];
const NAMESPACES: [&str; 3] = ["", "red", "blue"];
const NAMES: [&str; 3] = ["", "one", "two"];
/// Group, resource, subresource.
const RESOURCES: [(&str, &str, &str); 8] = [
    ("", "pods", ""),
    ("", "pods", "log"),
    ("", "secrets", ""),
    ("apps", "deployments", ""),
    ("apps", "deployments", "scale"),
    ("apps", "statefulsets", "scale"),
    ("registry.gantry.dev", "repositories", ""),
    ("logs.gantry.dev", "logs", ""),
];
const PATHS: [&str; 4] = ["/healthz", "/healthz/ping", "/api", "/"];

fn users() -> Vec<UserInfo> {
    vec![
        UserInfo::authenticated("alice", &["devs"]),
        UserInfo::authenticated("bob", &["devs", "ops"]),
        // Not in any group, with the name of one.
        UserInfo::authenticated("ops", &[]),
        UserInfo::service_account("red", "bot", "1"),
    ]
}

/// One thing somebody does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Object { verb: String, resource: (String, String, String), namespace: String, name: String },
    Path { verb: String, path: String },
}

#[derive(Clone, Debug)]
struct Rule {
    verbs: Vec<&'static str>,
    groups: Vec<&'static str>,
    resources: Vec<&'static str>,
    names: Vec<&'static str>,
    paths: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Bound {
    /// Empty: a ClusterRoleBinding.
    namespace: &'static str,
    cluster_role: bool,
    role: usize,
    subject: (&'static str, &'static str),
}

#[derive(Clone, Debug)]
struct World {
    /// By namespace (0: cluster), each role's rules.
    roles: Vec<Vec<Vec<Rule>>>,
    bindings: Vec<Bound>,
}

/// Every deed that one rule allows; `scope`: in which namespaces ("" is outside of all).
fn deeds(rule: &Rule, scope: &[&str]) -> BTreeSet<Deed> {
    let mut all = BTreeSet::new();
    for verb in VERBS.into_iter().filter(|verb| rule.verbs.contains(&"*") || rule.verbs.contains(verb)) {
        if scope.contains(&"") {
            for path in PATHS {
                let covered = rule.paths.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(start) => path.starts_with(start),
                    None => *pattern == path,
                });
                if covered {
                    all.insert(Deed::Path { verb: verb.to_owned(), path: path.to_owned() });
                }
            }
        }
        for (group, resource, subresource) in RESOURCES {
            let whole = if subresource.is_empty() {
                resource.to_owned()
            } else {
                format!("{resource}/{subresource}")
            };
            let any_with = format!("*/{subresource}");
            let wanted = rule.resources.iter().any(|named| {
                *named == "*" || *named == whole || (!subresource.is_empty() && *named == any_with)
            });
            let grouped = rule.groups.contains(&"*") || rule.groups.contains(&group);
            for name in NAMES.into_iter().filter(|name| rule.names.is_empty() || rule.names.contains(name)) {
                for namespace in scope.iter().filter(|_| wanted && grouped) {
                    let deed = |group: &str, resource: &str, subresource: &str| Deed::Object {
                        verb: verb.to_owned(),
                        resource: (group.to_owned(), resource.to_owned(), subresource.to_owned()),
                        namespace: (*namespace).to_owned(),
                        name: name.to_owned(),
                    };
                    all.insert(deed(group, resource, subresource));
                    if (verb, group) == ("get", "logs.gantry.dev") {
                        all.insert(deed("", "pods", "log"));
                    }
                }
            }
        }
    }
    all
}

/// Everything the user may do.
fn book(world: &World, user: &UserInfo) -> BTreeSet<Deed> {
    let mut all = BTreeSet::new();
    for binding in &world.bindings {
        let is_me = match binding.subject {
            ("User", name) => user.username == name,
            ("Group", name) => user.groups.iter().any(|group| group == name),
            (_, name) => user.username == format!("system:serviceaccount:red:{name}"),
        };
        // A ClusterRoleBinding to a Role is invalid and grants nothing.
        if !is_me || (binding.namespace.is_empty() && !binding.cluster_role) {
            continue;
        }
        let place = if binding.cluster_role { "" } else { binding.namespace };
        let place = NAMESPACES.iter().position(|n| *n == place).expect("a known namespace");
        let scope: &[&str] =
            if binding.namespace.is_empty() { &NAMESPACES } else { std::slice::from_ref(&binding.namespace) };
        for rule in world.roles[place].get(binding.role).into_iter().flatten() {
            all.extend(deeds(rule, scope));
        }
    }
    all
}

fn index(world: &World) -> RuleIndex {
    let owned = |values: &[&str]| Some(values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
    let mut index = RuleIndex::new();
    for (place, roles) in world.roles.iter().enumerate() {
        for (number, rules) in roles.iter().enumerate() {
            let rules = rules.iter().map(|rule| PolicyRule {
                verbs: owned(&rule.verbs).unwrap_or_default(),
                api_groups: owned(&rule.groups),
                resources: owned(&rule.resources),
                resource_names: owned(&rule.names),
                non_resource_urls: owned(&rule.paths),
            });
            index.set_role(NAMESPACES[place], &format!("role{number}"), rules.collect());
        }
    }
    for (number, binding) in world.bindings.iter().enumerate() {
        let kind = if binding.cluster_role { "ClusterRole" } else { "Role" };
        let role = RoleRef { api_group: None, kind: kind.to_owned(), name: format!("role{}", binding.role) };
        let (kind, name) = binding.subject;
        let subject = Subject {
            api_group: None,
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: (kind == "ServiceAccount").then(|| "red".to_owned()),
        };
        index.set_binding(binding.namespace, &format!("b{number}"), role, vec![subject]);
    }
    index
}

fn some(of: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(of, 0..=most)
}

fn any_rule() -> impl Strategy<Value = Rule> {
    const RESOURCE_WORDS: [&str; 10] = [
        "*",
        "pods",
        "pods/log",
        "pods/*",
        "secrets",
        "deployments",
        "deployments/scale",
        "*/scale",
        "repositories",
        "logs",
    ];
    const VERB_WORDS: [&str; 6] = ["*", "get", "list", "create", "update", "delete"];
    const GROUP_WORDS: [&str; 5] = ["*", "", "apps", "registry.gantry.dev", "logs.gantry.dev"];
    const NAME_WORDS: [&str; 2] = ["one", "two"];
    const PATH_WORDS: [&str; 4] = ["*", "/healthz", "/healthz/*", "/api"];
    (
        some(&VERB_WORDS, 3),
        some(&GROUP_WORDS, 2),
        some(&RESOURCE_WORDS, 3),
        prop_oneof![3 => Just(Vec::new()), 1 => some(&NAME_WORDS, 2)],
        prop_oneof![4 => Just(Vec::new()), 1 => some(&PATH_WORDS, 2)],
    )
        .prop_map(|(verbs, groups, resources, names, paths)| Rule {
            verbs,
            groups,
            resources,
            names,
            paths,
        })
}

fn any_world() -> impl Strategy<Value = World> {
    let roles = proptest::collection::vec(proptest::collection::vec(any_rule(), 0..3), 0..3);
    let subject = proptest::sample::select(vec![
        ("User", "alice"),
        ("User", "ops"),
        ("User", "devs"),
        ("Group", "devs"),
        ("Group", "ops"),
        ("Group", "system:authenticated"),
        ("Group", "alice"),
        ("ServiceAccount", "bot"),
        ("User", "system:serviceaccount:red:bot"),
    ]);
    let binding = (proptest::sample::select(&NAMESPACES[..]), any::<bool>(), 0..3_usize, subject).prop_map(
        |(namespace, cluster_role, role, subject)| Bound { namespace, cluster_role, role, subject },
    );
    (proptest::collection::vec(roles, 3), proptest::collection::vec(binding, 0..8))
        .prop_map(|(roles, bindings)| World { roles, bindings })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// The whole matrix user × verb × resource × scope × name, in generated worlds.
    #[test]
    fn the_index_decides_as_the_book_says(world in any_world()) {
        let index = index(&world);
        for user in users() {
            let book = book(&world, &user);
            for verb in VERBS {
                for path in PATHS {
                    let asked = Attributes {
                        user: user.clone(), verb: verb.into(), path: path.into(), ..Attributes::default()
                    };
                    let want = book.contains(&Deed::Path { verb: verb.into(), path: path.into() });
                    prop_assert_eq!(index.decide(&asked).is_allowed(), want, "{} {} {}", user.username, verb, path);
                }
                for (group, resource, subresource) in RESOURCES {
                    for namespace in NAMESPACES {
                        for name in NAMES {
                            let asked = Attributes {
                                user: user.clone(), verb: verb.into(), is_resource_request: true,
                                group: group.into(), resource: resource.into(), subresource: subresource.into(),
                                namespace: namespace.into(), name: name.into(), ..Attributes::default()
                            };
                            let deed = Deed::Object {
                                verb: verb.into(),
                                resource: (group.into(), resource.into(), subresource.into()),
                                namespace: namespace.into(), name: name.into(),
                            };
                            let want = book.contains(&deed);
                            let decided = index.decide(&asked).is_allowed();
                            prop_assert_eq!(decided, want, "{} {:?}", user.username, deed);
                            let why = index.explain(&asked, &|_, _, _| true);
                            prop_assert_eq!(!why.grants.is_empty(), want, "an explanation agrees");
                        }
                    }
                }
            }
        }
    }
}
