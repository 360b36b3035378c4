//! What hangs on what: what goes with an object, by whatever door the object goes. Found by pure functions; the
//! Keystone API does it before it answers, tenancy does it for everybody else.

use std::collections::BTreeSet;

use gantry_identity_api::KeystoneRecord;

use crate::directory::State;
use crate::directory::assignments::{Actor, Assignment, Target};
use crate::directory::table::Entry;
use crate::keystone::collections;
use crate::vault::SecretKey;

/// An object, or a part of one, that hangs on another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hanging {
    Assignment(String),
    ApplicationCredential(String),
    Trust(String),
    /// A record, by the name of its object; its secrets go before it, so that none is left without what tells of it.
    Record {
        name: String,
        secrets: Vec<SecretKey>,
    },
    /// The user's membership in the group.
    Membership {
        user: String,
        group: String,
    },
    /// That one role implies another.
    Implication {
        role: String,
        implied: String,
    },
    User(String),
    Group(String),
    Role(String),
    Project(String),
    Provider(String),
}

/// Rights first, then what they hung on.
pub fn of_user(state: &State, id: &str) -> Vec<Hanging> {
    let mut all = assignments(state, |a| *a.actor == Actor::User(id.into()));
    let credentials = state.application_credentials.iter().filter(|c| c.spec.user == id);
    all.extend(credentials.map(|c| Hanging::ApplicationCredential(c.id())));
    let trusts = state.trusts.iter().filter(|t| t.spec.trustor == id || t.spec.trustee == id);
    all.extend(trusts.map(|t| Hanging::Trust(t.id())));
    all.extend(records(state, |r| collections::user_of(r) == Some(id)));
    all
}

/// The members, too: a group that is made again with this id does not have them.
pub fn of_group(state: &State, id: &str) -> Vec<Hanging> {
    let mut all = assignments(state, |a| *a.actor == Actor::Group(id.into()));
    let members = state.users.iter().filter(|u| u.spec.groups.iter().any(|g| g == id));
    all.extend(members.map(|u| Hanging::Membership { user: u.id(), group: id.to_owned() }));
    all
}

/// That others imply it, too: a role that is made again with this id comes with none of them.
pub fn of_role(state: &State, id: &str) -> Vec<Hanging> {
    let mut all = assignments(state, |a| a.role.as_ref() == id);
    let implying = state.roles.iter().filter(|r| r.spec.implies.iter().any(|i| i == id));
    all.extend(implying.map(|r| Hanging::Implication { role: r.id(), implied: id.to_owned() }));
    all
}

/// Not the projects below it: a project goes after them.
pub fn of_project(state: &State, id: &str) -> Vec<Hanging> {
    let mut all = assignments(state, |a| *a.target == Target::Project(id.into()));
    let credentials = state.application_credentials.iter().filter(|c| c.spec.project == id);
    all.extend(credentials.map(|c| Hanging::ApplicationCredential(c.id())));
    let trusts = state.trusts.iter().filter(|t| t.spec.project.as_deref() == Some(id));
    all.extend(trusts.map(|t| Hanging::Trust(t.id())));
    all.extend(records(state, |r| collections::project_of(r) == Some(id)));
    all
}

/// What goes first. Each user, project, … takes along what hangs on itself; projects with projects below them come
/// later, since their deletion would be refused.
pub fn of_domain(state: &State, id: &str) -> Vec<Hanging> {
    let mut all = within(state, id);
    all.retain(|one| match one {
        Hanging::Project(project) => state.children(project).next().is_none(),
        _ => true,
    });
    all
}

/// Everything, in an order in which nothing is left with rights: each after what hangs on it, children before parents.
pub fn of_whole_domain(state: &State, id: &str) -> Vec<Hanging> {
    let mut all = Vec::new();
    for one in within(state, id) {
        match &one {
            Hanging::User(user) => all.extend(of_user(state, user)),
            Hanging::Group(group) => all.extend(of_group(state, group)),
            Hanging::Role(role) => all.extend(of_role(state, role)),
            Hanging::Project(project) => all.extend(of_project(state, project)),
            _ => {}
        }
        all.push(one);
    }
    // The domain's own users have gone by then.
    let goes = |user: &str| state.users.get(user).is_some_and(|u| u.spec.domain == id);
    all.retain(|one| !matches!(one, Hanging::Membership { user, .. } if goes(user)));
    let mut seen = BTreeSet::new();
    all.retain(|one| seen.insert(one.clone()));
    all
}

/// A project with all below it, children before parents; not the project itself.
pub fn of_whole_project(state: &State, id: &str) -> Vec<Hanging> {
    let mut all = Vec::new();
    for project in state.below(id).iter().rev() {
        all.extend(of_project(state, &project.id()));
        all.push(Hanging::Project(project.id()));
    }
    all.extend(of_project(state, id));
    all
}

/// What is of the domain, the deepest projects first.
fn within(state: &State, id: &str) -> Vec<Hanging> {
    let mut all = assignments(state, |a| *a.target == Target::Domain(id.into()));
    all.extend(state.users.iter().filter(|u| u.spec.domain == id).map(|u| Hanging::User(u.id())));
    all.extend(state.groups.iter().filter(|g| g.spec.domain == id).map(|g| Hanging::Group(g.id())));
    let mut projects: Vec<_> = state.projects.iter().filter(|p| p.spec.domain == id).collect();
    projects.sort_by_key(|p| std::cmp::Reverse(state.ancestry(&p.id()).len()));
    all.extend(projects.iter().map(|p| Hanging::Project(p.id())));
    let roles = state.roles.iter().filter(|r| r.spec.domain.as_deref() == Some(id));
    all.extend(roles.map(|r| Hanging::Role(r.id())));
    let providers = state.providers.iter().filter(|p| p.spec.domain == id);
    all.extend(providers.map(|p| Hanging::Provider(p.id())));
    all.extend(records(state, |r| collections::domain_of(state, r) == Some(id)));
    all
}

fn assignments(state: &State, which: impl Fn(&Assignment) -> bool) -> Vec<Hanging> {
    let found = state.assignments.iter().filter(|a| which(a));
    found.map(|a| Hanging::Assignment(a.id.to_string())).collect()
}

fn records(state: &State, which: impl Fn(&KeystoneRecord) -> bool) -> Vec<Hanging> {
    state.records.iter().filter(|r| which(r)).map(|r| record(r)).collect()
}

/// A record with its secrets.
pub fn record(record: &KeystoneRecord) -> Hanging {
    Hanging::Record { name: record.id(), secrets: collections::secrets_of(record) }
}

#[cfg(test)]
mod tests {
    use gantry_identity_api::{
        ApplicationCredential, ApplicationCredentialSpec, IdentityProvider, IdentityProviderSpec, Role,
        RoleSpec, Trust, TrustSpec, User,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::directory::tests::{assign, put, two_organisations};
    use crate::keystone::new_record;
    use crate::tenancy::tests::change;

    fn add(state: &mut State, collection: &str, parent: Option<&str>, id: &str, attributes: Value) {
        let attributes = attributes.as_object().cloned().expect("attributes");
        put(state, new_record(collection, parent, id, attributes));
    }

    /// Two organisations with something of every sort.
    fn everything() -> State {
        let mut state = two_organisations();
        for text in [
            "member alice project:web",
            "reader eve project:shop",
            "admin eve domain:globex",
            "reader group:acme-devs project:ops",
            "special alice domain:acme",
        ] {
            assign(&mut state, text);
        }
        let domain = Some("acme".to_owned());
        put(&mut state, Role::new("special", RoleSpec { domain, ..RoleSpec::default() }));
        change::<Role>(&mut state, "admin", |r| r.spec.implies.push("special".to_owned()));
        let credential = ApplicationCredentialSpec {
            user: "alice".to_owned(),
            project: "web".to_owned(),
            ..Default::default()
        };
        put(&mut state, ApplicationCredential::new("robot", credential));
        let trust = TrustSpec {
            trustor: "alice".to_owned(),
            trustee: "eve".to_owned(),
            project: Some("ops".to_owned()),
            ..TrustSpec::default()
        };
        put(&mut state, Trust::new("trust", trust));
        let provider = IdentityProviderSpec { domain: "acme".to_owned(), ..Default::default() };
        put(&mut state, IdentityProvider::new("dir", provider));
        let of = |user: &str, kind: &str, project: Option<&str>| json!({ "user_id": user, "type": kind, "project_id": project });
        add(&mut state, "credentials", None, "ec2", of("alice", "ec2", Some("web")));
        add(&mut state, "credentials", None, "totp", of("alice", "totp", None));
        add(&mut state, "credentials", None, "other", of("eve", "cert", None));
        add(&mut state, "access_rules", Some("alice"), "rule", json!({ "user_id": "alice" }));
        let token = json!({ "authorizing_user_id": "alice", "project_id": "ops", "consumer_id": "c" });
        add(&mut state, "access_tokens", Some("alice"), "token", token.clone());
        add(&mut state, "oauth_request_tokens", None, "request", token);
        add(&mut state, "limits", None, "of web", json!({ "project_id": "web" }));
        add(&mut state, "limits", None, "of acme", json!({ "domain_id": "acme" }));
        add(&mut state, "project_endpoints", Some("web"), "e", json!({}));
        add(&mut state, "project_endpoint_groups", Some("web"), "g", json!({ "project_id": "web" }));
        add(&mut state, "domain_config", None, "acme", json!({ "ldap": { "url": "x" } }));
        add(&mut state, "identity_providers", None, "idp", json!({ "domain_id": "acme" }));
        add(&mut state, "protocols", Some("idp"), "saml2", json!({}));
        // Ids of one kind say nothing of another's.
        add(&mut state, "protocols", Some("alice"), "saml2", json!({}));
        add(&mut state, "regions", None, "web", json!({}));
        state
    }

    /// `kind:id` of everything, sorted; records with `+` for each secret.
    fn names(state: &State, all: &[Hanging]) -> Vec<String> {
        let name = |one: &Hanging| match one {
            Hanging::Assignment(id) => format!("assignment:{id}"),
            Hanging::ApplicationCredential(id) => format!("credential:{id}"),
            Hanging::Trust(id) => format!("trust:{id}"),
            Hanging::Record { name, secrets } => {
                let spec = &state.records.get(name).expect("a record").spec;
                format!("{}:{}{}", spec.collection, spec.id, "+".repeat(secrets.len()))
            }
            Hanging::Membership { user, group } => format!("{user} in {group}"),
            Hanging::Implication { role, implied } => format!("{role} implies {implied}"),
            Hanging::User(id) => format!("user:{id}"),
            Hanging::Group(id) => format!("group:{id}"),
            Hanging::Role(id) => format!("role:{id}"),
            Hanging::Project(id) => format!("project:{id}"),
            Hanging::Provider(id) => format!("provider:{id}"),
        };
        let mut names: Vec<String> = all.iter().map(name).collect();
        names.sort();
        names
    }

    type Of = fn(&State, &str) -> Vec<Hanging>;

    /// How it is asked, of which object, and what hangs on that.
    fn table() -> Vec<(Of, &'static str, Vec<&'static str>)> {
        vec![
            (
                of_user,
                "alice",
                vec![
                    "access_rules:rule",
                    "access_tokens:token+",
                    "assignment:member-alice-project-web",
                    "assignment:special-alice-domain-acme",
                    "credential:robot",
                    "credentials:ec2+",
                    "credentials:totp++",
                    "oauth_request_tokens:request++",
                    "trust:trust",
                ],
            ),
            (
                of_group,
                "acme-devs",
                vec!["alice in acme-devs", "assignment:reader-group-acme-devs-project-ops"],
            ),
            (of_group, "globex-devs", vec!["bob in globex-devs"]),
            (of_role, "special", vec!["admin implies special", "assignment:special-alice-domain-acme"]),
            (
                of_project,
                "web",
                vec![
                    "assignment:member-alice-project-web",
                    "credential:robot",
                    "credentials:ec2+",
                    "limits:of web",
                    "project_endpoint_groups:g",
                    "project_endpoints:e",
                ],
            ),
            (
                of_project,
                "ops",
                vec![
                    "access_tokens:token+",
                    "assignment:reader-group-acme-devs-project-ops",
                    "oauth_request_tokens:request++",
                    "trust:trust",
                ],
            ),
            (
                of_domain,
                "acme",
                vec![
                    "assignment:special-alice-domain-acme",
                    "domain_config:acme+",
                    "group:acme-devs",
                    "identity_providers:idp",
                    "limits:of acme",
                    "project:cart",
                    "project:ops",
                    "protocols:saml2",
                    "provider:dir",
                    "role:special",
                    "user:alice",
                    "user:bob",
                ],
            ),
        ]
    }

    #[test]
    fn everything_that_hangs_on_an_object_is_found_and_nothing_else() {
        let state = everything();
        for (of, id, want) in table() {
            assert_eq!(names(&state, &of(&state, id)), want, "{id}");
        }
    }

    #[test]
    fn nothing_of_a_whole_domain_is_left_and_nothing_else_goes() {
        let mut state = everything();
        change::<User>(&mut state, "eve", |u| u.spec.groups.push("acme-devs".to_owned()));
        let doomed = of_whole_domain(&state, "acme");
        let all = names(&state, &doomed);
        for goes in
            ["user:alice", "trust:trust", "limits:of web", "eve in acme-devs", "admin implies special"]
        {
            assert!(all.iter().any(|name| name == goes), "{goes}: {all:?}");
        }
        for stays in ["user:eve", "assignment:admin-eve-domain-globex", "alice in acme-devs", "project:lab"] {
            assert!(!all.iter().any(|name| name == stays), "{stays}: {all:?}");
        }
        let at = |wanted: &Hanging| doomed.iter().position(|d| d == wanted).expect("goes");
        let project = |id: &str| at(&Hanging::Project(id.to_owned()));
        assert!(project("cart") < project("shop") && project("shop") < project("web"), "{doomed:?}");
        let mut seen = BTreeSet::new();
        assert!(doomed.iter().all(|one| seen.insert(one)), "each once");
        for (of, user) in [(of_user(&state, "alice"), "alice"), (of_user(&state, "bob"), "bob")] {
            assert!(of.iter().all(|one| at(one) < at(&Hanging::User(user.to_owned()))), "{user}");
        }
    }

    #[test]
    fn a_whole_project_goes_from_below() {
        let mut state = everything();
        assign(&mut state, "member bob project:cart");
        let all = of_whole_project(&state, "web");
        let projects: Vec<&str> = all
            .iter()
            .filter_map(|one| match one {
                Hanging::Project(id) => Some(id.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(projects, ["cart", "shop"]);
        let at = |name: &str| names(&state, &all).iter().any(|n| n == name);
        assert!(at("assignment:member-bob-project-cart") && at("limits:of web") && !at("trust:trust"));
    }
}
