//! Who is in which group, groups of groups included. Pure: a listing's arithmetic.

use std::collections::{HashMap, HashSet};

use super::config::MemberValue;
use super::dn;
use crate::{ExternalGroup, Named};

/// A group with its direct members as the directory writes them.
#[derive(Clone, Debug)]
pub(super) struct RawGroup {
    pub dn: String,
    pub group: ExternalGroup,
    pub members: Vec<String>,
}

/// All groups of a directory, indexed by their members.
pub(super) struct Membership {
    groups: Vec<Named>,
    /// By member (normalised name of an entry, or user name): the groups that name it.
    of_member: HashMap<String, Vec<u32>>,
    /// By group: the groups it is a member of.
    parents: Vec<Vec<u32>>,
    value: MemberValue,
    depth_max: usize,
}

impl Membership {
    /// `depth_max`: how many levels of groups in groups are followed; 0: none.
    pub(super) fn new(groups: Vec<RawGroup>, value: MemberValue, depth_max: usize) -> Self {
        let mut of_member: HashMap<String, Vec<u32>> = HashMap::new();
        for (index, group) in (0_u32..).zip(&groups) {
            for member in &group.members {
                of_member.entry(key(value, member)).or_default().push(index);
            }
        }
        let parents = match value {
            MemberValue::Name => vec![Vec::new(); groups.len()],
            MemberValue::Dn => {
                let own = groups.iter().map(|group| of_member.get(&dn::normalised(&group.dn)).cloned());
                own.map(Option::unwrap_or_default).collect()
            }
        };
        let groups = groups.into_iter().map(|g| Named { id: g.group.id, name: g.group.name }).collect();
        Self { groups, of_member, parents, value, depth_max }
    }

    /// The groups of the person at `dn` who is called `name`. Circles are walked once.
    pub(super) fn of(&self, dn: &str, name: &str) -> Vec<Named> {
        let member = match self.value {
            MemberValue::Dn => dn,
            MemberValue::Name => name,
        };
        let direct = self.of_member.get(&key(self.value, member));
        let mut level: Vec<u32> = direct.cloned().unwrap_or_default();
        let mut seen: HashSet<u32> = level.iter().copied().collect();
        for _ in 0..self.depth_max {
            let above = level.iter().flat_map(|index| &self.parents[*index as usize]);
            level = above.copied().filter(|index| seen.insert(*index)).collect();
            if level.is_empty() {
                break;
            }
        }
        seen.into_iter().map(|index| self.groups[index as usize].clone()).collect()
    }

    /// Every group.
    pub(super) fn groups(&self) -> impl Iterator<Item = ExternalGroup> {
        self.groups.iter().map(|g| ExternalGroup { id: g.id.clone(), name: g.name.clone() })
    }
}

/// User names in `memberUid` match exactly (RFC 2307), names of entries do not.
fn key(value: MemberValue, member: &str) -> String {
    match value {
        MemberValue::Dn => dn::normalised(member),
        MemberValue::Name => member.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, members: &[&str]) -> RawGroup {
        RawGroup {
            dn: format!("cn={name},ou=groups"),
            group: ExternalGroup { id: format!("id-{name}"), name: name.to_owned() },
            members: members.iter().map(|m| (*m).to_owned()).collect(),
        }
    }

    fn names(membership: &Membership, dn: &str, name: &str) -> Vec<String> {
        let mut names: Vec<String> = membership.of(dn, name).into_iter().map(|g| g.name).collect();
        names.sort();
        names
    }

    #[test]
    fn nested_groups_are_followed_to_the_bound_and_around_circles() {
        let groups = || {
            vec![
                group("a", &["uid=x,ou=people", "cn=c,ou=groups"]),
                group("b", &["cn=a,ou=groups"]),
                group("c", &["CN=B, OU=Groups"]),
                group("self", &["cn=self,ou=groups", "uid=y,ou=people"]),
            ]
        };
        let table: Vec<(usize, &str, Vec<&str>)> = vec![
            (0, "uid=x,ou=people", vec!["a"]),
            (1, "uid=x,ou=people", vec!["a", "b"]),
            (2, "UID=X,ou=People", vec!["a", "b", "c"]),
            (50, "uid=x,ou=people", vec!["a", "b", "c"]),
            (50, "uid=y,ou=people", vec!["self"]),
            (50, "uid=z,ou=people", vec![]),
        ];
        for (depth, dn, expected) in table {
            let membership = Membership::new(groups(), MemberValue::Dn, depth);
            assert_eq!(names(&membership, dn, "unused"), expected, "{dn} at depth {depth}");
        }
    }

    #[test]
    fn members_by_name_match_exactly() {
        let membership = Membership::new(
            vec![group("posix", &["alice"]), group("other", &["Alice"])],
            MemberValue::Name,
            0,
        );
        assert_eq!(names(&membership, "uid=alice", "alice"), ["posix"]);
        assert_eq!(names(&membership, "uid=alice", "Alice"), ["other"]);
    }
}
