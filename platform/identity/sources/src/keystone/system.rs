//! Roles on the system. Keystone leaves them out of effective assignments, so that groups and implied roles are
//! ours to follow here.

use std::collections::{HashMap, HashSet};

use super::KeystoneSource;
use super::wire::{Assignment, Inference};
use crate::{ExternalGrant, ExternalScope, Named, SourceError};

/// Who has which roles on the system.
#[derive(Default)]
pub(super) struct SystemRoles {
    by_user: HashMap<String, Vec<Named>>,
    by_group: HashMap<String, Vec<Named>>,
}

/// Asks for them.
pub(super) async fn roles(source: &KeystoneSource) -> Result<SystemRoles, SourceError> {
    let assignments = source.assignments(&[("scope.system", "all"), ("include_names", "")]).await?;
    if assignments.is_empty() {
        return Ok(SystemRoles::default());
    }
    let inferences: Vec<Inference> = source.get_list("role_inferences", &[]).await?;
    Ok(SystemRoles::new(assignments, inferences))
}

impl SystemRoles {
    fn new(assignments: Vec<Assignment>, inferences: Vec<Inference>) -> Self {
        let implied: HashMap<String, Vec<Named>> =
            inferences.into_iter().map(|i| (i.prior_role.id, i.implies)).collect();
        let mut all = Self::default();
        for assignment in assignments {
            let (user, group) = (assignment.user, assignment.group);
            let roles = with_implied(assignment.role, &implied);
            if let Some(user) = user {
                all.by_user.entry(user.id).or_default().extend(roles);
            } else if let Some(group) = group {
                all.by_group.entry(group.id).or_default().extend(roles);
            }
        }
        all
    }

    /// What the person has, by themselves and by their groups; a role may come twice.
    pub(super) fn of(&self, user_id: &str, groups: &[Named]) -> impl Iterator<Item = ExternalGrant> {
        let by_group = groups.iter().filter_map(|group| self.by_group.get(&group.id));
        let roles = self.by_user.get(user_id).into_iter().chain(by_group).flatten();
        roles.map(|role| ExternalGrant { scope: ExternalScope::System, role: role.clone() })
    }
}

fn with_implied(role: Named, implied: &HashMap<String, Vec<Named>>) -> Vec<Named> {
    let mut seen = HashSet::from([role.id.clone()]);
    let mut all = vec![role];
    let mut next = 0;
    while let Some(role) = all.get(next) {
        let more: Vec<Named> = implied.get(&role.id).into_iter().flatten().cloned().collect();
        all.extend(more.into_iter().filter(|role| seen.insert(role.id.clone())));
        next += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn roles_come_by_person_by_group_and_by_implication() {
        let assignments = json!([
            {"role": {"id": "1", "name": "admin"}, "user": {"id": "u"}, "scope": {"system": {"all": true}}},
            {"role": {"id": "9", "name": "audit"}, "group": {"id": "g"}, "scope": {"system": {"all": true}}},
        ]);
        let inferences = json!([
            {"prior_role": {"id": "1"}, "implies": [{"id": "2", "name": "member"}]},
            {"prior_role": {"id": "2"}, "implies": [{"id": "3", "name": "reader"}, {"id": "1", "name": "admin"}]},
        ]);
        let roles = SystemRoles::new(
            from_value(assignments).expect("assignments"),
            from_value(inferences).expect("inferences"),
        );
        let group = Named { id: "g".into(), name: "devs".into() };
        let names =
            |user: &str, groups: &[Named]| roles.of(user, groups).map(|g| g.role.name).collect::<Vec<_>>();
        assert_eq!(names("u", &[]), ["admin", "member", "reader"]);
        assert_eq!(names("u", std::slice::from_ref(&group)), ["admin", "member", "reader", "audit"]);
        assert_eq!(names("v", &[group]), ["audit"]);
        assert!(names("v", &[]).is_empty());
    }
}
