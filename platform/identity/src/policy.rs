//! Who may do what with identity's own objects: one table, asked by the Keystone API, by the Kubernetes API's
//! authorisation and admission, and so by every client.
//!
//! | who | may |
//! |---|---|
//! | admin of the system | everything |
//! | reader of the system | see everything |
//! | admin of a domain | everything inside the domain; not the domain's own quota |
//! | manager of a domain | users, groups, projects inside it; assignments of roles up to its own |
//! | reader of a domain | see what is inside it |
//! | admin of a project | the project's tree below it; assignments of roles up to its own in the tree |
//! | manager of a project | the project's environments; assignments of roles up to its own in it; nothing below it |
//! | reader of a project | see it and what is below it |
//! | anybody | see themselves, change their password, keep their own credentials and trusts |

use gantry_identity_api::roles;

use crate::directory::State;
use crate::directory::assignments::{Actor, Target};
use crate::directory::resolve::{Grants, Roles};
use crate::directory::table::Entry;

/// Who asks, and with which of their rights: all of them, or those of one scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authority {
    /// Id of the user; empty for callers that are no users of identity.
    pub user: String,
    pub grants: Grants,
    /// May do everything: the platform's administrators by certificate and the component itself.
    pub unlimited: bool,
    /// Made with an application credential that may not make others.
    pub restricted: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Read,
    Create,
    Update,
    Delete,
}

/// What it is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject<'a> {
    Domain(&'a str),
    /// An existing project, or a new one below `parent`.
    Project {
        id: Option<&'a str>,
        domain: &'a str,
        parent: Option<&'a str>,
    },
    User {
        id: &'a str,
        domain: &'a str,
    },
    Group {
        domain: &'a str,
    },
    /// A role of a domain, or of the platform.
    Role {
        domain: Option<&'a str>,
    },
    Assignment {
        role: &'a str,
        actor: &'a Actor,
        target: &'a Target,
    },
    /// An application credential, access rule or credential of the user.
    Credential {
        user: &'a str,
    },
    Trust {
        trustor: &'a str,
        trustee: &'a str,
    },
    Provider {
        domain: &'a str,
    },
    /// The catalogue and whatever else belongs to the platform; readable by every user.
    Platform,
    /// What belongs to the platform and is not everybody's to see.
    Private,
}

impl Authority {
    /// Everything the user may.
    pub fn whole(user: &str, grants: Grants) -> Self {
        Self { user: user.to_owned(), grants, ..Self::default() }
    }

    fn system(&self, role: &str) -> bool {
        self.unlimited || self.grants.system.contains(role)
    }

    fn in_domain(&self, domain: &str, role: &str) -> bool {
        self.grants.domains.get(domain).is_some_and(|roles| roles.contains(role))
    }

    /// In the project or in one above it.
    fn in_tree(&self, state: &State, project: &str, role: &str) -> bool {
        let has = |id: &str| self.grants.projects.get(id).is_some_and(|roles| roles.contains(role));
        state.ancestry(project).iter().any(|p| has(&p.id()))
    }

    /// In the project as its manager, or in it or above it as an administrator.
    fn manages(&self, state: &State, project: &str) -> bool {
        let here = self.grants.projects.get(project).is_some_and(|roles| roles.contains(roles::MANAGER));
        here || self.in_tree(state, project, roles::ADMIN)
    }

    /// The roles the caller may give away in a scope: those they have there, or everything.
    fn own_roles<'a>(&'a self, state: &State, target: &'a Target) -> Vec<&'a Roles> {
        let grants = &self.grants;
        match target {
            Target::System => vec![&grants.system],
            Target::Domain(id) => grants.domains.get(id.as_ref()).into_iter().collect(),
            Target::Project(id) => {
                let domain = state.projects.get(id).map(|p| p.spec.domain.clone()).unwrap_or_default();
                let chain = state.ancestry(id);
                let above = chain.iter().filter_map(|p| grants.projects.get(&p.id()));
                above.chain(grants.domains.get(&domain)).collect()
            }
        }
    }
}

/// Is it the project whose admins are the platform's? Its rights are the platform's rights, and whoever rules over
/// the domain that it stands in does not rule over the platform.
pub(crate) fn is_platforms(project: &str) -> bool {
    project == crate::session::ADMIN_PROJECT
}

/// May the caller do it?
pub fn may(state: &State, who: &Authority, act: Act, subject: &Subject<'_>) -> bool {
    if who.system(roles::ADMIN) || (act == Act::Read && who.system(roles::READER)) {
        // Even an administrator's application credential does not make further credentials.
        return !(who.restricted && act != Act::Read && makes_rights(subject));
    }
    if who.user.is_empty() {
        return false;
    }
    if who.restricted && act != Act::Read && makes_rights(subject) {
        return false;
    }
    match subject {
        Subject::Domain(id) => act == Act::Read && in_or_of_domain(state, who, id),
        Subject::Project { id, domain, parent } => project(state, who, act, *id, domain, *parent),
        Subject::User { id, domain } => {
            (act == Act::Read && *id == who.user) || of_domain(who, act, domain, roles::MANAGER)
        }
        Subject::Group { domain } => of_domain(who, act, domain, roles::MANAGER),
        Subject::Role { domain: Some(domain) } => of_domain(who, act, domain, roles::ADMIN),
        // Every user may see what roles there are: one needs them to ask for one.
        Subject::Role { domain: None } | Subject::Platform => act == Act::Read,
        Subject::Assignment { role, actor, target } => assignment(state, who, act, role, actor, target),
        Subject::Credential { user } => *user == who.user,
        Subject::Trust { trustor, trustee } => {
            *trustor == who.user || (act == Act::Read && *trustee == who.user)
        }
        Subject::Provider { domain } => of_domain(who, act, domain, roles::ADMIN),
        Subject::Private => false,
    }
}

/// Would the caller, by making it, get rights that outlive the credential they came with?
pub(crate) fn makes_rights(subject: &Subject<'_>) -> bool {
    matches!(subject, Subject::Credential { .. } | Subject::Trust { .. })
}

fn of_domain(who: &Authority, act: Act, domain: &str, needed: &str) -> bool {
    who.in_domain(domain, if act == Act::Read { roles::READER } else { needed })
}

/// A domain is seen by who has a role in it or is a user of it.
fn in_or_of_domain(state: &State, who: &Authority, domain: &str) -> bool {
    let of = state.users.get(&who.user).is_some_and(|u| u.spec.domain == domain);
    let roles_in = who.grants.projects.keys().filter_map(|id| state.projects.get(id));
    of || who.grants.domains.contains_key(domain) || roles_in.into_iter().any(|p| p.spec.domain == domain)
}

fn project(
    state: &State,
    who: &Authority,
    act: Act,
    id: Option<&str>,
    domain: &str,
    parent: Option<&str>,
) -> bool {
    if act != Act::Read && id.is_some_and(is_platforms) {
        return false;
    }
    if of_domain(who, act, domain, roles::MANAGER) {
        return true;
    }
    let above = |role: &str| parent.is_some_and(|parent| who.in_tree(state, parent, role));
    match (act, id) {
        (Act::Read, Some(id)) => {
            who.in_tree(state, id, roles::READER) || who.grants.projects.contains_key(id)
        }
        // What of it may change is admission's to say: a manager changes environments, not quotas.
        (Act::Update, Some(id)) => who.manages(state, id),
        (Act::Create | Act::Delete, _) => above(roles::ADMIN),
        (Act::Read | Act::Update, None) => false,
    }
}

fn assignment(state: &State, who: &Authority, act: Act, role: &str, actor: &Actor, target: &Target) -> bool {
    if act == Act::Read {
        let own = match actor {
            Actor::User(id) => id.as_ref() == who.user,
            Actor::Group(id) => {
                let user = state.users.get(&who.user);
                user.is_some_and(|user| state.groups_of(user).any(|group| group.id() == id.as_ref()))
            }
        };
        return own
            || match target {
                Target::System => false,
                Target::Domain(id) => who.in_domain(id, roles::READER),
                Target::Project(id) => {
                    let domain = state.projects.get(id).map(|p| p.spec.domain.clone()).unwrap_or_default();
                    who.in_domain(&domain, roles::READER) || who.manages(state, id)
                }
            };
    }
    let rules_here = match target {
        Target::System => false,
        Target::Domain(id) => who.in_domain(id, roles::MANAGER),
        Target::Project(id) if is_platforms(id) => false,
        Target::Project(id) => {
            let domain = state.projects.get(id).map(|p| p.spec.domain.clone()).unwrap_or_default();
            who.in_domain(&domain, roles::MANAGER) || who.manages(state, id)
        }
    };
    // Nobody gives more than they have, nor takes away what is above them: the role and all it implies must be
    // among the caller's own here.
    let given = state.implied([role.to_owned()]);
    let own: Roles = who.own_roles(state, target).into_iter().flatten().cloned().collect();
    let domain_role = state.roles.get(role).and_then(|r| r.spec.domain.clone());
    let domain_admin = domain_role.is_some_and(|domain| who.in_domain(&domain, roles::ADMIN));
    rules_here && !given.is_empty() && (given.is_subset(&own) || domain_admin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::{assign, two_organisations};

    fn authority(state: &State, user: &str) -> Authority {
        let found = state.users.get(user).expect("a user of the table").clone();
        Authority::whole(user, state.grants(&found))
    }

    fn check(assignments: &[&str], user: &str, act: Act, subject: &Subject<'_>, want: bool) {
        let mut state = two_organisations();
        assignments.iter().for_each(|text| assign(&mut state, text));
        let who = authority(&state, user);
        assert_eq!(may(&state, &who, act, subject), want, "{assignments:?}: {user} {act:?} {subject:?}");
    }

    #[test]
    fn domains_do_not_see_each_other() {
        let lab = Subject::Project { id: Some("lab"), domain: "globex", parent: None };
        let eve = Subject::User { id: "eve", domain: "globex" };
        for act in [Act::Read, Act::Create, Act::Update, Act::Delete] {
            for role in
                ["admin alice domain:acme", "admin alice project:web", "admin alice domain:acme inherited"]
            {
                check(&[role], "alice", act, &lab, false);
                check(&[role], "alice", act, &eve, false);
                check(&[role], "alice", act, &Subject::Domain("globex"), false);
                check(&[role], "alice", act, &Subject::Private, false);
            }
        }
    }

    #[test]
    fn nobody_gives_more_than_they_have() {
        let bob = Actor::User("bob".into());
        let web = Target::Project("web".into());
        let acme = Target::Domain("acme".into());
        for (own, role, target, want) in [
            ("manager alice project:web", "member", &web, true),
            ("manager alice project:web", "manager", &web, true),
            ("manager alice project:web", "admin", &web, false),
            ("member alice project:web", "reader", &web, false),
            ("admin alice project:web", "admin", &Target::Project("cart".into()), true),
            ("manager alice project:web", "member", &Target::Project("cart".into()), false),
            ("admin alice project:web", "reader", &acme, false),
            ("manager alice domain:acme", "member", &web, true),
            ("manager alice domain:acme", "admin", &web, false),
            ("admin alice domain:acme", "admin", &acme, true),
            ("admin alice domain:acme", "reader", &Target::System, false),
            ("admin alice domain:acme", "reader", &Target::Project("lab".into()), false),
            ("admin alice domain:acme", "unknown", &web, false),
            ("admin alice system", "admin", &Target::System, true),
            ("manager alice system", "reader", &Target::System, false),
        ] {
            let subject = Subject::Assignment { role, actor: &bob, target };
            for act in [Act::Create, Act::Delete] {
                check(&[own], "alice", act, &subject, want);
            }
        }
    }

    #[test]
    fn everybody_has_their_own() {
        check(&[], "alice", Act::Read, &Subject::User { id: "alice", domain: "acme" }, true);
        check(&[], "alice", Act::Update, &Subject::User { id: "alice", domain: "acme" }, false);
        check(&[], "alice", Act::Create, &Subject::Credential { user: "alice" }, true);
        check(&[], "alice", Act::Read, &Subject::Credential { user: "bob" }, false);
        check(&[], "alice", Act::Read, &Subject::Trust { trustor: "bob", trustee: "alice" }, true);
        check(&[], "alice", Act::Delete, &Subject::Trust { trustor: "bob", trustee: "alice" }, false);
        check(&[], "alice", Act::Read, &Subject::Domain("acme"), true);
    }

    #[test]
    fn a_restricted_credential_makes_no_rights() {
        let mut state = two_organisations();
        assign(&mut state, "admin alice system");
        let mut who = authority(&state, "alice");
        who.restricted = true;
        assert!(!may(&state, &who, Act::Create, &Subject::Credential { user: "alice" }));
        assert!(may(&state, &who, Act::Create, &Subject::Domain("new")));
    }
}
