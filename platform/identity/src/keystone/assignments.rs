//! `/role_assignments`: who has which role where, as assigned or in effect.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_identity_api::Named;
use serde_json::{Value, json};

use super::call::{Answer, Call, object};
use super::errors::ApiError;
use super::query::Query;
use super::schema::Json;
use super::users::{brief, domain_brief};
use crate::directory::State;
use crate::directory::assignments::{Actor, Assignment, Target};
use crate::directory::table::Entry;
use crate::policy::{Act, Subject};

/// One line of the list: an assignment, or what follows from one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    source: Arc<Assignment>,
    actor: Actor,
    role: Arc<str>,
    target: Target,
    /// The role that implies `role`.
    prior: Option<Arc<str>>,
}

/// What a list is limited to.
#[derive(Debug, Default)]
struct Filter {
    user: Option<String>,
    group: Option<String>,
    role: Option<String>,
    projects: Option<BTreeSet<String>>,
    domain: Option<String>,
    system: bool,
    inherited: bool,
    effective: bool,
}

impl Filter {
    fn of(state: &State, query: &Query) -> Result<Self, ApiError> {
        let get = |name: &str| query.get(name).map(str::to_owned);
        let wrong = |what: &str| Err(ApiError::invalid(what));
        let project = get("scope.project.id");
        let filter = Self {
            user: get("user.id"),
            group: get("group.id"),
            role: get("role.id"),
            domain: get("scope.domain.id"),
            system: query.get("scope.system").is_some(),
            inherited: query.get("scope.OS-INHERIT:inherited_to").is_some_and(|to| to == "projects"),
            effective: query.flag("effective"),
            projects: None,
        };
        if filter.user.is_some() && filter.group.is_some() {
            return wrong("Specify a user or group, not both");
        }
        if filter.domain.is_some() && project.is_some() {
            return wrong("Specify a domain or project, not both");
        }
        if filter.system && (filter.domain.is_some() || project.is_some()) {
            return wrong("Specify system or a domain or project, not both");
        }
        if filter.effective && filter.group.is_some() {
            return wrong("Combining effective and group filter will always result in an empty list.");
        }
        if filter.effective && filter.inherited && filter.domain.is_some() {
            return wrong(
                "Combining effective, domain and inherited filters will always result in an empty list.",
            );
        }
        let subtree = query.flag("include_subtree");
        let Some(project) = project else {
            return if subtree {
                wrong("'scope.project.id' is a dependency of 'include_subtree'")
            } else {
                Ok(filter)
            };
        };
        let mut projects = BTreeSet::from([project.clone()]);
        if subtree {
            projects.extend(state.below(&project).iter().map(|p| p.id()));
        }
        Ok(Self { projects: Some(projects), ..filter })
    }

    fn shows(&self, line: &Line) -> bool {
        let actor = match &line.actor {
            Actor::User(id) => {
                self.group.is_none() && self.user.as_deref().is_none_or(|wanted| wanted == id.as_ref())
            }
            Actor::Group(id) => {
                self.user.is_none() && self.group.as_deref().is_none_or(|wanted| wanted == id.as_ref())
            }
        };
        let unlimited = self.projects.is_none() && self.domain.is_none() && !self.system;
        let target = unlimited
            || match &line.target {
                Target::System => self.system,
                Target::Domain(id) => self.domain.as_deref() == Some(id.as_ref()),
                Target::Project(id) => self.projects.as_ref().is_some_and(|p| p.contains(id.as_ref())),
            };
        let role = self.role.as_deref().is_none_or(|wanted| wanted == line.role.as_ref());
        let inherited = !self.inherited || line.source.inherited;
        actor && target && role && inherited
    }
}

/// The assignments as they are, or everything that follows from them: members for groups, projects below for
/// inherited ones, implied roles for roles.
fn lines(state: &State, filter: &Filter) -> Vec<Line> {
    let as_is = |a: &Arc<Assignment>| Line {
        source: a.clone(),
        actor: Actor::clone(&a.actor),
        role: a.role.clone(),
        target: Target::clone(&a.target),
        prior: None,
    };
    if !filter.effective {
        return state.assignments.iter().map(as_is).filter(|line| filter.shows(line)).collect();
    }
    let mut found = Vec::new();
    for assignment in state.assignments.iter() {
        let line = as_is(assignment);
        for actor in members(state, &line.actor) {
            if filter.user.as_deref().is_some_and(|u| actor != Actor::User(u.into())) {
                continue;
            }
            for target in targets(state, assignment) {
                for (role, prior) in with_implied(state, &line.role) {
                    let line =
                        Line { actor: actor.clone(), target: target.clone(), role, prior, ..line.clone() };
                    if filter.shows(&line) {
                        found.push(line);
                    }
                }
            }
        }
    }
    found
}

fn members(state: &State, actor: &Actor) -> Vec<Actor> {
    match actor {
        Actor::User(_) => vec![actor.clone()],
        Actor::Group(group) => {
            let members = state.users.iter().filter(|u| state.groups_of(u).any(|g| g.id() == group.as_ref()));
            members.map(|u| Actor::User(u.id().as_str().into())).collect()
        }
    }
}

fn targets(state: &State, assignment: &Arc<Assignment>) -> Vec<Target> {
    if !assignment.inherited {
        return vec![Target::clone(&assignment.target)];
    }
    let all = state.projects.iter().map(|p| Target::Project(p.id().as_str().into()));
    all.filter(|target| state.holds(assignment, target)).collect()
}

/// The role itself and each that it implies, with the one it comes from.
fn with_implied(state: &State, role: &Arc<str>) -> Vec<(Arc<str>, Option<Arc<str>>)> {
    let mut found: Vec<(Arc<str>, Option<Arc<str>>)> = vec![(role.clone(), None)];
    let mut at = 0;
    while at < found.len() {
        let prior = found[at].0.clone();
        for implied in state.roles.get(&prior).map(|r| r.spec.implies.clone()).unwrap_or_default() {
            if !found.iter().any(|(seen, _)| seen.as_ref() == implied) {
                found.push((implied.as_str().into(), Some(prior.clone())));
            }
        }
        at += 1;
    }
    found
}

/// The path of the grant that a line comes from.
fn path(assignment: &Assignment) -> String {
    let target = match &*assignment.target {
        Target::System => "system".to_owned(),
        Target::Domain(id) => format!("domains/{id}"),
        Target::Project(id) => format!("projects/{id}"),
    };
    let actor = match &*assignment.actor {
        Actor::User(id) => format!("users/{id}"),
        Actor::Group(id) => format!("groups/{id}"),
    };
    let plain = format!("{target}/{actor}/roles/{}", assignment.role);
    if assignment.inherited { format!("OS-INHERIT/{plain}/inherited_to_projects") } else { plain }
}

fn show(call: &Call, state: &State, line: &Line, names: bool) -> Json {
    let mut links = json!({ "assignment": call.url(&path(&line.source)) });
    if let (Actor::User(user), Actor::Group(group)) = (&line.actor, &*line.source.actor) {
        links["membership"] = json!(call.url(&format!("groups/{group}/users/{user}")));
    }
    if let Some(prior) = &line.prior {
        links["prior_role"] = json!(call.url(&format!("prior_role/{prior}/implies/{}", line.role)));
    }
    let mut scope = match &line.target {
        Target::System => json!({ "system": { "all": true } }),
        Target::Domain(id) if names => json!({ "domain": domain_brief(state, id) }),
        Target::Domain(id) => json!({ "domain": { "id": id.as_ref() } }),
        Target::Project(id) if names => json!({ "project": project_brief(state, id) }),
        Target::Project(id) => json!({ "project": { "id": id.as_ref() } }),
    };
    if line.source.inherited {
        scope["OS-INHERIT:inherited_to"] = json!("projects");
    }
    let (word, actor) = match &line.actor {
        Actor::User(id) => ("user", if names { user_brief(state, id) } else { json!({ "id": id.as_ref() }) }),
        Actor::Group(id) => {
            ("group", if names { group_brief(state, id) } else { json!({ "id": id.as_ref() }) })
        }
    };
    let role = if names { role_brief(state, &line.role) } else { json!({ "id": line.role.as_ref() }) };
    object(json!({ "links": links, "role": role, "scope": scope, word: actor }))
}

fn user_brief(state: &State, id: &str) -> Value {
    state.users.get(id).map_or_else(|| json!({ "id": id }), |user| brief(state, user))
}

fn group_brief(state: &State, id: &str) -> Value {
    let Some(group) = state.groups.get(id) else { return json!({ "id": id }) };
    json!({ "id": id, "name": group.display_name(), "domain": domain_brief(state, &group.spec.domain) })
}

/// `{"id", "name", "domain"}`
pub(crate) fn project_brief(state: &State, id: &str) -> Value {
    let Some(project) = state.projects.get(id) else { return json!({ "id": id }) };
    json!({ "id": id, "name": project.display_name(), "domain": domain_brief(state, &project.spec.domain) })
}

fn role_brief(state: &State, id: &str) -> Value {
    let Some(role) = state.roles.get(id) else { return json!({ "id": id }) };
    let mut brief = json!({ "id": id, "name": role.display_name() });
    if let Some(domain) = &role.spec.domain {
        brief["domain"] = domain_brief(state, domain);
    }
    brief
}

/// `GET /role_assignments`
pub(crate) async fn list(call: Call) -> Answer {
    let items = {
        let state = call.state();
        let filter = Filter::of(&state, &call.query)?;
        let names = call.query.flag("include_names");
        check_allowed(&call, &state, &filter)?;
        let seen = |line: &Line| {
            let subject = Subject::Assignment { role: &line.role, actor: &line.actor, target: &line.target };
            call.may(&state, Act::Read, &subject)
        };
        let lines = lines(&state, &filter);
        lines.iter().filter(|line| seen(line)).map(|line| show(&call, &state, line, names)).collect()
    };
    call.list("role_assignments", &[], items)
}

/// Who is no reader of the system or a domain may ask for their own, and for those of a project they manage.
fn check_allowed(call: &Call, state: &State, filter: &Filter) -> Result<(), ApiError> {
    let own = filter.user.as_deref() == Some(call.user());
    let manages = |id: &String| {
        let target = Target::Project(id.as_str().into());
        let nobody = Actor::User("".into());
        call.may(state, Act::Read, &Subject::Assignment { role: "", actor: &nobody, target: &target })
    };
    let projects = filter.projects.as_ref().is_some_and(|p| !p.is_empty() && p.iter().all(manages));
    if own || projects || call.may_list(state) {
        Ok(())
    } else {
        Err(ApiError::forbidden("list_role_assignments"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::{assign, two_organisations};

    fn table(assignments: &[&str], query: &str) -> Result<Vec<String>, String> {
        let mut state = two_organisations();
        assignments.iter().for_each(|text| assign(&mut state, text));
        let query = Query::of(&format!("/x?{query}").parse().expect("a path"));
        let filter = Filter::of(&state, &query).map_err(|error| error.message().to_owned())?;
        let mut found: Vec<String> = lines(&state, &filter)
            .iter()
            .map(|line| {
                let (Actor::User(actor) | Actor::Group(actor)) = &line.actor;
                let target = match &line.target {
                    Target::System => "system",
                    Target::Domain(id) | Target::Project(id) => id.as_ref(),
                };
                format!("{} {actor} {target}", line.role)
            })
            .collect();
        found.sort();
        Ok(found)
    }

    #[test]
    fn lists_are_as_assigned_or_in_effect() {
        let assignments = [
            "member alice project:web",
            "reader group:acme-devs project:ops",
            "manager bob domain:acme inherited",
            "admin eve system",
        ];
        for (query, want) in [
            ("", vec!["admin eve system", "manager bob acme", "member alice web", "reader acme-devs ops"]),
            ("user.id=alice", vec!["member alice web"]),
            ("user.id=alice&effective", vec!["member alice web", "reader alice ops", "reader alice web"]),
            ("group.id=acme-devs", vec!["reader acme-devs ops"]),
            ("scope.project.id=ops&effective&role.id=reader", vec!["reader alice ops", "reader bob ops"]),
            (
                "scope.project.id=web&include_subtree&effective&role.id=manager",
                vec!["manager bob cart", "manager bob shop", "manager bob web"],
            ),
            ("scope.system=all", vec!["admin eve system"]),
            ("scope.domain.id=acme", vec!["manager bob acme"]),
            ("scope.OS-INHERIT:inherited_to=projects", vec!["manager bob acme"]),
            ("user.id=nobody", vec![]),
        ] {
            let want: Vec<String> = want.into_iter().map(str::to_owned).collect();
            assert_eq!(table(&assignments, query), Ok(want), "{query}");
        }
    }

    #[test]
    fn filters_that_contradict_are_refused() {
        for query in [
            "user.id=a&group.id=b",
            "scope.project.id=a&scope.domain.id=b",
            "scope.system=all&scope.domain.id=b",
            "effective&group.id=b",
            "include_subtree",
        ] {
            assert!(table(&[], query).is_err(), "{query}");
        }
    }
}
