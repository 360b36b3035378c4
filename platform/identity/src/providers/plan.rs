//! The comparison of what is known with what the source lists: pure.

use std::collections::{BTreeMap, BTreeSet};

use gantry_identity_sources::{ExternalGroup, ExternalUser};

use super::shadow::{group_id, user_id};

/// So few users may all go at once: a small team does leave.
const FEW: usize = 10;

/// A shadow user, as it is known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KnownUser {
    pub enabled: bool,
    /// It was disabled because the source said so, and not by an operator.
    pub disabled_by_source: bool,
    /// What a change would be seen by; see [`wanted`].
    pub shape: Shape,
}

/// What the source says of a user, in this platform's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub name: String,
    pub email: Option<String>,
    /// Ids of the groups here that the source puts the user into, sorted.
    pub groups: Vec<String>,
}

/// What is known of one provider before it is asked.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub users: BTreeMap<String, KnownUser>,
    /// Id and name.
    pub groups: BTreeMap<String, String>,
    /// Ids of the groups that users can be in.
    pub usable: BTreeSet<String>,
}

/// What the source says, complete.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub users: Vec<ExternalUser>,
    pub groups: Vec<ExternalGroup>,
}

/// Outside group name → ids of groups here; empty: groups appear under their own names.
pub(super) type Mapping = BTreeMap<String, Vec<String>>;

/// One thing to do with a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Create(Box<ExternalUser>),
    /// Name, address or groups are others now.
    Update(Box<ExternalUser>),
    /// Listed as enabled again, and an operator has not disabled it.
    Enable(Box<ExternalUser>),
    /// Listed as disabled, or not at all.
    Disable,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Groups to make or rename.
    pub groups: Vec<ExternalGroup>,
    /// Each user once. Those that lose access come first.
    pub users: Vec<(String, Change)>,
}

impl Plan {
    pub fn disables(&self) -> usize {
        self.users.iter().filter(|(_, change)| *change == Change::Disable).count()
    }
}

/// More would lose access than is believed without asking.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the listing would disable {disables} of {users} users: nothing was changed; if that is right, say so with \
     `gantry identity-provider confirm-disable NAME {disables}`, or annotate the provider with \
     identity.gantry.dev/confirm-disable={disables}"
)]
pub(super) struct Doubt {
    pub disables: usize,
    pub users: usize,
}

/// The ids of the groups here that outside groups mean.
pub(super) fn groups_of(provider: &str, mapping: &Mapping, user: &ExternalUser) -> Vec<String> {
    let ids: BTreeSet<String> = if mapping.is_empty() {
        user.groups.iter().map(|group| group_id(provider, &group.id)).collect()
    } else {
        user.groups.iter().filter_map(|group| mapping.get(&group.name)).flatten().cloned().collect()
    };
    ids.into_iter().collect()
}

/// What a user should look like.
pub(super) fn wanted(provider: &str, mapping: &Mapping, user: &ExternalUser) -> Shape {
    let groups = groups_of(provider, mapping, user);
    Shape { name: user.name.clone(), email: user.email.clone(), groups }
}

fn usable(mut shape: Shape, known: &Known) -> Shape {
    shape.groups.retain(|id| known.usable.contains(id));
    shape
}

/// `known` was read before the source was asked: who came meanwhile is not taken for gone. `confirmed`: so many may
/// lose access because an operator said so.
pub(super) fn plan(
    provider: &str,
    known: &Known,
    listing: &Listing,
    mapping: &Mapping,
    create_users: bool,
    confirmed: usize,
) -> Result<Plan, Doubt> {
    let mut rest: BTreeSet<&String> = known.users.keys().collect();
    let (mut disables, mut changes) = (Vec::new(), Vec::new());
    for user in &listing.users {
        let id = user_id(provider, &user.id);
        let Some(had) = known.users.get(&id) else {
            if create_users && user.enabled {
                changes.push((id, Change::Create(Box::new(user.clone()))));
            }
            continue;
        };
        if !rest.remove(&id) {
            // Twice in one listing: pages overlap when entries move.
            continue;
        }
        if !user.enabled {
            if had.enabled {
                disables.push((id, Change::Disable));
            }
        } else if !had.enabled && had.disabled_by_source {
            changes.push((id, Change::Enable(Box::new(user.clone()))));
        } else if had.shape != usable(wanted(provider, mapping, user), known) {
            changes.push((id, Change::Update(Box::new(user.clone()))));
        }
    }
    let gone = rest.into_iter().filter(|id| known.users.get(*id).is_some_and(|user| user.enabled));
    disables.extend(gone.map(|id| (id.clone(), Change::Disable)));
    let enabled = known.users.values().filter(|user| user.enabled).count();
    if enabled > FEW && disables.len() * 2 > enabled && disables.len() > confirmed {
        return Err(Doubt { disables: disables.len(), users: enabled });
    }
    disables.append(&mut changes);
    let differs =
        |group: &&ExternalGroup| known.groups.get(&group_id(provider, &group.id)) != Some(&group.name);
    let groups = match mapping.is_empty() {
        true => listing.groups.iter().filter(differs).cloned().collect(),
        false => Vec::new(),
    };
    Ok(Plan { groups, users: disables })
}

#[cfg(test)]
mod tests {
    use gantry_identity_sources::Named;

    use super::*;

    const IDP: &str = "ldap";

    fn person(text: &str) -> ExternalUser {
        // `name[!][:group,group]`; `!`: disabled there.
        let (name, groups) = text.split_once(':').unwrap_or((text, ""));
        let enabled = !name.ends_with('!');
        let name = name.trim_end_matches('!').to_owned();
        let named = |g: &str| Named { id: format!("g-{g}"), name: g.to_owned() };
        let groups = groups.split(',').filter(|g| !g.is_empty()).map(named).collect();
        let id = format!("u-{name}");
        ExternalUser {
            id,
            name,
            display_name: None,
            email: None,
            domain: None,
            enabled,
            groups,
            grants: Vec::new(),
        }
    }

    /// `!`: disabled by the source; `?`: by an operator.
    fn known(users: &[&str], mapping: &Mapping) -> Known {
        let one = |text: &&str| {
            let by_operator = text.contains('?');
            let user = person(&text.replace('?', ""));
            let shadow = KnownUser {
                enabled: user.enabled && !by_operator,
                disabled_by_source: !user.enabled,
                shape: wanted(IDP, mapping, &user),
            };
            (user_id(IDP, &user.id), shadow)
        };
        let usable = ["x", "y"].map(|g| group_id(IDP, &format!("g-{g}")));
        let users = users.iter().map(one).collect();
        Known { users, groups: BTreeMap::new(), usable: usable.into() }
    }

    fn told(result: Result<Plan, Doubt>, all: &[&str]) -> String {
        let names: BTreeMap<String, String> =
            all.iter().map(|t| person(&t.replace('?', ""))).map(|u| (user_id(IDP, &u.id), u.name)).collect();
        match result {
            Err(doubt) => format!("doubt {}/{}", doubt.disables, doubt.users),
            Ok(plan) => {
                let word = |change: &Change| match change {
                    Change::Create(_) => "create",
                    Change::Update(_) => "update",
                    Change::Enable(_) => "enable",
                    Change::Disable => "disable",
                };
                let lines = plan.users.iter().map(|(id, change)| format!("{} {}", word(change), names[id]));
                lines.collect::<Vec<_>>().join(", ")
            }
        }
    }

    #[test]
    fn users_follow_the_listing() {
        for (had, listed, create, want) in [
            (vec!["a", "b"], vec!["a", "b"], false, ""),
            (vec!["a", "b"], vec!["a"], false, "disable b"),
            (vec!["a", "b"], vec!["a", "b!"], false, "disable b"),
            (vec!["a!"], vec!["a!"], false, ""),
            (vec!["a!"], vec![], false, ""),
            (vec!["a!"], vec!["a"], false, "enable a"),
            // An operator's word stands.
            (vec!["a?"], vec!["a"], false, ""),
            (vec!["a?"], vec!["a:x"], false, "update a"),
            (vec!["a:x"], vec!["a:x,y"], false, "update a"),
            (vec!["a:x"], vec!["a"], false, "update a"),
            // A group that is not to be had here.
            (vec!["a:x"], vec!["a:x,z"], false, ""),
            (vec!["a:x", "b"], vec!["a"], false, "disable b, update a"),
            (vec![], vec!["a"], false, ""),
            (vec![], vec!["a", "b!"], true, "create a"),
            (vec!["a"], vec!["a", "a!"], false, ""),
        ] {
            let all: Vec<&str> = had.iter().chain(&listed).copied().collect();
            let listing = Listing { users: listed.iter().map(|t| person(t)).collect(), groups: Vec::new() };
            let mapping = Mapping::new();
            let result = plan(IDP, &known(&had, &mapping), &listing, &mapping, create, 0);
            assert_eq!(told(result, &all), want, "{had:?} -> {listed:?}");
        }
    }

    #[test]
    fn a_listing_that_would_disable_most_is_doubted() {
        let names: Vec<String> = (0..20).map(|n| format!("u{n}")).collect();
        for (had, left, confirmed, doubted) in [
            (20, 10, 0, None),
            (20, 9, 0, Some(11)),
            (20, 0, 0, Some(20)),
            (20, 0, 19, Some(20)),
            (20, 0, 20, None),
            (11, 5, 0, Some(6)),
            (10, 0, 0, None),
        ] {
            let texts: Vec<&str> = names.iter().take(had).map(String::as_str).collect();
            let listing =
                Listing { users: texts.iter().take(left).map(|t| person(t)).collect(), groups: Vec::new() };
            let mapping = Mapping::new();
            let result = plan(IDP, &known(&texts, &mapping), &listing, &mapping, false, confirmed);
            assert_eq!(result.err().map(|doubt| doubt.disables), doubted, "{had} -> {left}, {confirmed}");
        }
    }

    #[test]
    fn groups_are_the_mapped_ones_or_the_source_s_own() {
        let user = person("a:admins,devs");
        let own = groups_of(IDP, &Mapping::new(), &user);
        assert_eq!(own.len(), 2);
        assert!(own.contains(&group_id(IDP, "g-devs")));
        let mapping = Mapping::from([("devs".to_owned(), vec!["local-1".to_owned(), "local-2".to_owned()])]);
        assert_eq!(groups_of(IDP, &mapping, &user), ["local-1", "local-2"]);
        let listing = Listing {
            users: Vec::new(),
            groups: vec![ExternalGroup { id: "g-devs".to_owned(), name: "devs".to_owned() }],
        };
        let made = |mapping: &Mapping, known: &Known| {
            plan(IDP, known, &listing, mapping, false, 0).expect("nobody is disabled").groups.len()
        };
        assert_eq!(made(&Mapping::new(), &Known::default()), 1);
        assert_eq!(made(&mapping, &Known::default()), 0, "mapped groups are made by hand");
        let same = BTreeMap::from([(group_id(IDP, "g-devs"), "devs".to_owned())]);
        assert_eq!(made(&Mapping::new(), &Known { groups: same, ..Known::default() }), 0);
    }

    #[test]
    fn nobody_is_somebody_else() {
        assert_ne!(user_id("a", "bc"), user_id("ab", "c"));
        assert_ne!(user_id("a", "x"), group_id("a", "x"));
        assert_eq!(user_id("a", "x").len(), 32);
    }
}
