//! A second reading of who may do what: the words of the guide (`docs/guides/identity.md`), of the decision records 13,
//! 16 and 18 and of the table of the policy, as plain loops over plain facts.
//!
//! It shares the rules of the roles with the platform, as data, and nothing else: neither the resolver nor the policy,
//! the bindings, the index of RBAC or what matches a rule.

use std::collections::{BTreeMap, BTreeSet};

use gantry_kube_types::Attributes;
use k8s_openapi::api::rbac::v1::PolicyRule;

const IDENTITY: &str = "identity.gantry.dev";
const REGISTRY: &str = "registry.gantry.dev";
const AUDIT: &str = "audit.gantry.dev";
/// The project whose administrators are the platform's.
const PLATFORMS: &str = "admin";

/// Where a role holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    System,
    Domain(&'static str),
    Project(&'static str),
}

/// Who has a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    User(String),
    Group(String),
}

#[derive(Clone, Debug)]
pub struct Domain {
    pub id: &'static str,
    pub name: &'static str,
    pub enabled: bool,
}

#[derive(Clone, Debug)]
pub struct Project {
    pub id: &'static str,
    pub name: &'static str,
    pub domain: &'static str,
    pub parent: Option<&'static str>,
    pub enabled: bool,
    pub namespace: &'static str,
}

#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub domain: &'static str,
    pub groups: Vec<String>,
    pub enabled: bool,
}

#[derive(Clone, Debug)]
pub struct Group {
    pub id: String,
    pub domain: &'static str,
}

#[derive(Clone, Debug)]
pub struct Role {
    pub id: &'static str,
    /// `None`: the platform's.
    pub domain: Option<&'static str>,
    pub implies: Vec<String>,
    pub rules: Vec<PolicyRule>,
    /// What it permits besides where it is assigned on the whole platform.
    pub system_rules: Vec<PolicyRule>,
}

#[derive(Clone, Debug)]
pub struct Assignment {
    pub role: &'static str,
    pub who: Who,
    pub place: Place,
    pub inherited: bool,
}

impl Assignment {
    pub fn id(&self) -> String {
        let (kind, who) = match &self.who {
            Who::User(id) => ("user", id),
            Who::Group(id) => ("group", id),
        };
        let place = match &self.place {
            Place::System => "system",
            Place::Domain(id) | Place::Project(id) => id,
        };
        let inherited = if self.inherited { "-inherited" } else { "" };
        format!("{}-{kind}-{who}-{place}{inherited}", self.role)
    }
}

/// An application credential.
#[derive(Clone, Debug)]
pub struct Robot {
    pub id: &'static str,
    pub user: &'static str,
    pub project: &'static str,
    pub roles: Vec<&'static str>,
    pub unrestricted: bool,
}

#[derive(Clone, Debug)]
pub struct Trust {
    pub id: &'static str,
    pub trustor: &'static str,
    pub trustee: &'static str,
}

#[derive(Clone, Debug)]
pub struct Provider {
    pub id: &'static str,
    pub domain: &'static str,
}

/// Something of Keystone's that is kept and not acted on.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: &'static str,
    pub collection: &'static str,
    pub parent: Option<&'static str>,
}

/// A world.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub domains: Vec<Domain>,
    pub projects: Vec<Project>,
    pub users: Vec<User>,
    pub groups: Vec<Group>,
    pub roles: Vec<Role>,
    pub assignments: Vec<Assignment>,
    pub robots: Vec<Robot>,
    pub trusts: Vec<Trust>,
    pub providers: Vec<Provider>,
    pub records: Vec<Record>,
}

/// What somebody shows.
#[derive(Clone, Debug)]
pub struct Credential {
    pub user: String,
    /// `None`: it is good for everything that is assigned to its user.
    pub scope: Option<Place>,
    pub robot: Option<Robot>,
}

type Roles = BTreeSet<String>;

impl Facts {
    fn domain(&self, id: &str) -> Option<&Domain> {
        self.domains.iter().find(|d| d.id == id)
    }

    pub fn project(&self, id: &str) -> Option<&Project> {
        self.projects.iter().find(|p| p.id == id)
    }

    pub fn user(&self, id: &str) -> Option<&User> {
        self.users.iter().find(|u| u.id == id)
    }

    fn role(&self, id: &str) -> Option<&Role> {
        self.roles.iter().find(|r| r.id == id)
    }

    /// The projects above one, not itself.
    fn above(&self, project: &Project) -> Vec<&Project> {
        let mut found = Vec::new();
        let mut next = project.parent;
        while let Some(project) = next.and_then(|id| self.project(id)) {
            found.push(project);
            next = project.parent;
        }
        found
    }

    /// What is disabled, or is in or below what is disabled, has no rights and gives none.
    fn is_open(&self, place: &Place) -> bool {
        match place {
            Place::System => true,
            Place::Domain(id) => self.domain(id).is_some_and(|d| d.enabled),
            Place::Project(id) => self.project(id).is_some_and(|project| {
                let above = self.above(project).iter().all(|p| p.enabled);
                project.enabled && above && self.is_open(&Place::Domain(project.domain))
            }),
        }
    }

    fn is_member(&self, user: &User, group: &str) -> bool {
        let theirs = user.groups.iter().any(|id| id == group);
        theirs && self.groups.iter().any(|g| g.id == group && g.domain == user.domain)
    }

    /// The domain that a place is or is in.
    fn domain_of(&self, place: &Place) -> Option<&'static str> {
        match place {
            Place::System => None,
            Place::Domain(id) => Some(id),
            Place::Project(id) => self.project(id).map(|p| p.domain),
        }
    }

    /// `--inherited` means: not there itself, but in every project below.
    fn reaches(&self, assignment: &Assignment, place: &Place) -> bool {
        if !assignment.inherited {
            return assignment.place == *place;
        }
        let Place::Project(id) = place else { return false };
        let Some(project) = self.project(id) else { return false };
        match &assignment.place {
            Place::System => false,
            // Administrators of the domain `Default` give nobody a role in the platform's own project.
            Place::Domain(domain) => project.domain == *domain && project.id != PLATFORMS,
            Place::Project(over) => self.above(project).iter().any(|p| p.id == *over),
        }
    }

    /// The roles, and those that come with them.
    fn with_implied(&self, roles: Roles) -> Roles {
        let mut all = roles;
        loop {
            let more: Roles =
                all.iter().filter_map(|id| self.role(id)).flat_map(|r| r.implies.clone()).collect();
            let before = all.len();
            all.extend(more);
            if all.len() == before {
                return all;
            }
        }
    }

    fn roles_at(&self, user: &User, place: &Place) -> Roles {
        let mut found = Roles::new();
        if !self.is_open(place) {
            return found;
        }
        for assignment in &self.assignments {
            let theirs = match &assignment.who {
                Who::User(id) => *id == user.id,
                Who::Group(id) => self.is_member(user, id),
            };
            let Some(role) = self.role(assignment.role) else { continue };
            // A domain's role is good inside that domain only.
            let fits = role.domain.is_none() || role.domain == self.domain_of(place);
            if theirs && fits && self.reaches(assignment, place) {
                found.insert(role.id.to_owned());
            }
        }
        self.with_implied(found)
    }

    /// What a credential is good for at this moment.
    pub fn rights(&self, credential: &Credential) -> Rights<'_> {
        let mut at = BTreeMap::new();
        let user = self.user(&credential.user).filter(|u| u.enabled);
        let Some(user) = user.filter(|u| self.is_open(&Place::Domain(u.domain))) else {
            return Rights { facts: self, user: None, at, restricted: false };
        };
        let mut places = vec![Place::System];
        places.extend(self.domains.iter().map(|d| Place::Domain(d.id)));
        places.extend(self.projects.iter().map(|p| Place::Project(p.id)));
        for place in places {
            let mut roles = self.roles_at(user, &place);
            if let Some(scope) = &credential.scope {
                let platforms = *scope == Place::Project(PLATFORMS);
                if platforms && place == Place::System {
                    // A token of the platform's own project is one of the platform.
                    let there = self.roles_at(user, scope);
                    roles.retain(|role| there.contains(role));
                } else if platforms || place != *scope {
                    continue;
                }
            }
            if let Some(robot) = &credential.robot {
                let given = robot.roles.iter().map(|role| (*role).to_owned()).collect();
                let given = self.with_implied(given);
                roles.retain(|role| given.contains(role));
            }
            at.insert(place, roles);
        }
        let restricted = credential.robot.as_ref().is_some_and(|robot| !robot.unrestricted);
        Rights { facts: self, user: Some(user), at, restricted }
    }
}

/// Who asks, with what they have where.
pub struct Rights<'a> {
    facts: &'a Facts,
    /// `None`: nobody who may do anything.
    user: Option<&'a User>,
    at: BTreeMap<Place, Roles>,
    restricted: bool,
}

impl Rights<'_> {
    pub fn may(&self, asked: &Attributes) -> bool {
        let Some(user) = self.user else { return false };
        if !asked.is_resource_request {
            return self.by_rules(&Place::System, asked);
        }
        let reading = ["get", "list", "watch"].contains(&asked.verb.as_str());
        if asked.group == IDENTITY {
            // No credential makes others that outlive it, unless it was made to.
            if self.restricted && !reading && self.outlives(asked) {
                return false;
            }
            let own = asked.subresource.is_empty() && self.of_identity(user, asked);
            return own || self.by_rules(&Place::System, asked);
        }
        if self.by_rules(&Place::System, asked) {
            return true;
        }
        if (asked.group.as_str(), asked.resource.as_str()) == (REGISTRY, "repositories") {
            return self.of_repository(asked);
        }
        if (asked.group.as_str(), asked.resource.as_str()) == (AUDIT, "records") {
            match asked.namespace.split_once(':') {
                Some(("project", id)) => {
                    return self
                        .facts
                        .project(id)
                        .is_some_and(|p| self.by_rules(&Place::Project(p.id), asked));
                }
                Some(("domain", id)) => {
                    return self.facts.domain(id).is_some_and(|d| self.by_rules(&Place::Domain(d.id), asked));
                }
                _ => {}
            }
        }
        let project = self.facts.projects.iter().find(|p| p.namespace == asked.namespace);
        project.is_some_and(|p| self.by_rules(&Place::Project(p.id), asked))
    }

    fn has(&self, place: &Place, role: &str) -> bool {
        self.at.get(place).is_some_and(|roles| roles.contains(role))
    }

    fn has_above(&self, project: &Project, role: &str) -> bool {
        self.facts.above(project).iter().any(|p| self.has(&Place::Project(p.id), role))
    }

    /// Does a rule of a role that is held there grant it?
    fn by_rules(&self, place: &Place, asked: &Attributes) -> bool {
        for id in self.at.get(place).into_iter().flatten() {
            let Some(role) = self.facts.role(id) else { continue };
            let more: &[PolicyRule] = if *place == Place::System { &role.system_rules } else { &[] };
            if role.rules.iter().chain(more).any(|rule| grants(rule, asked)) {
                return true;
            }
        }
        false
    }

    /// Does the object hand its user's rights on?
    fn outlives(&self, asked: &Attributes) -> bool {
        match asked.resource.as_str() {
            "applicationcredentials" | "trusts" => true,
            "keystonerecords" => {
                let found = self.facts.records.iter().find(|r| r.id == asked.name);
                found.is_some_and(|r| ["credentials", "access_rules"].contains(&r.collection))
            }
            _ => false,
        }
    }

    fn of_repository(&self, asked: &Attributes) -> bool {
        let project = |id: &str| {
            let found = self.facts.project(id);
            found.is_some_and(|p| self.by_rules(&Place::Project(p.id), asked))
        };
        match asked.namespace.split_once(':') {
            Some(("project", id)) => project(id),
            Some(("domain", id)) => {
                let Some(domain) = self.facts.domain(id) else { return false };
                let inside = || self.facts.projects.iter().filter(|p| p.domain == domain.id);
                // Pulled by whoever may pull in one of its projects; all else is for roles in the domain.
                self.by_rules(&Place::Domain(domain.id), asked)
                    || asked.verb == "pull" && inside().any(|p| project(p.id))
            }
            None if asked.namespace.is_empty() => {
                let parts: Vec<&str> = asked.name.split('/').collect();
                let [domain, name, rest @ ..] = parts.as_slice() else { return false };
                let named = !rest.is_empty() && !rest.concat().is_empty();
                let domain = self.facts.domains.iter().find(|d| d.name == *domain);
                let found = self.facts.projects.iter().find(|p| p.name == *name);
                let found = found.filter(|p| domain.is_some_and(|d| d.id == p.domain));
                named && found.is_some_and(|p| project(p.id))
            }
            // The platform's are a matter of cluster-wide rules.
            _ => false,
        }
    }

    fn of_identity(&self, user: &User, asked: &Attributes) -> bool {
        let (kind, id) = (asked.resource.as_str(), asked.name.as_str());
        match asked.verb.as_str() {
            "create" => self.creates_some(kind),
            "get" => self.sees(user, kind, id),
            "list" | "watch" => !id.is_empty() && self.sees(user, kind, id),
            "update" | "patch" => self.changes(user, kind, id, false),
            "delete" => self.changes(user, kind, id, true),
            _ => false,
        }
    }

    fn anywhere(&self, role: &str, fits: impl Fn(&Place) -> bool) -> bool {
        self.at.iter().any(|(place, roles)| fits(place) && roles.contains(role))
    }

    /// Is there an object of the kind that the caller could make?
    fn creates_some(&self, kind: &str) -> bool {
        let domain = |place: &Place| matches!(place, Place::Domain(_));
        let project = |place: &Place| matches!(place, Place::Project(_));
        let tenants = |place: &Place| project(place) && *place != Place::Project(PLATFORMS);
        match kind {
            "users" | "groups" => self.anywhere("manager", domain),
            "projects" => self.anywhere("manager", domain) || self.anywhere("admin", project),
            "roleassignments" => self.anywhere("manager", domain) || self.anywhere("manager", tenants),
            "roles" | "identityproviders" => self.anywhere("admin", domain),
            // Everybody keeps their own.
            "applicationcredentials" | "trusts" | "keystonerecords" => !self.restricted,
            _ => false,
        }
    }

    fn sees(&self, user: &User, kind: &str, id: &str) -> bool {
        let facts = self.facts;
        let in_domain = |domain: &'static str| self.has(&Place::Domain(domain), "reader");
        match kind {
            "domains" => facts.domain(id).is_some_and(|domain| {
                let roles_there = self.at.iter().any(|(place, roles)| {
                    !roles.is_empty() && facts.domain_of(place).is_some_and(|of| of == domain.id)
                });
                user.domain == domain.id || roles_there
            }),
            "projects" => facts.project(id).is_some_and(|project| {
                let here = self.at.get(&Place::Project(project.id)).is_some_and(|roles| !roles.is_empty());
                in_domain(project.domain) || here || self.has_above(project, "reader")
            }),
            "users" => facts.user(id).is_some_and(|other| other.id == user.id || in_domain(other.domain)),
            "groups" => facts.groups.iter().any(|g| g.id == id && in_domain(g.domain)),
            "roles" => facts.role(id).is_some_and(|role| role.domain.is_none_or(in_domain)),
            "roleassignments" => facts.assignments.iter().filter(|a| a.id() == id).any(|assignment| {
                let own = match &assignment.who {
                    Who::User(id) => *id == user.id,
                    Who::Group(id) => facts.is_member(user, id),
                };
                let domain = facts.domain_of(&assignment.place);
                own || domain.is_some_and(in_domain) || self.manages(&assignment.place)
            }),
            "identityproviders" => facts.providers.iter().any(|p| p.id == id && in_domain(p.domain)),
            "trusts" => {
                facts.trusts.iter().any(|t| t.id == id && (t.trustor == user.id || t.trustee == user.id))
            }
            "applicationcredentials" => facts.robots.iter().any(|r| r.id == id && r.user == user.id),
            "keystonerecords" => facts.records.iter().filter(|r| r.id == id).any(|record| {
                let everybodys = ["regions", "services", "endpoints", "limits", "registered_limits"];
                everybodys.contains(&record.collection) || is_of(record, user)
            }),
            _ => false,
        }
    }

    fn changes(&self, user: &User, kind: &str, id: &str, deletes: bool) -> bool {
        let facts = self.facts;
        let manages = |domain: &'static str| self.has(&Place::Domain(domain), "manager");
        let administers = |domain: &'static str| self.has(&Place::Domain(domain), "admin");
        match kind {
            "projects" => facts.project(id).filter(|p| p.id != PLATFORMS).is_some_and(|project| {
                let inside = !deletes && self.manages(&Place::Project(project.id));
                manages(project.domain) || inside || self.has_above(project, "admin")
            }),
            "users" => facts.user(id).is_some_and(|other| manages(other.domain)),
            "groups" => facts.groups.iter().any(|g| g.id == id && manages(g.domain)),
            "roles" => facts.role(id).and_then(|role| role.domain).is_some_and(administers),
            "roleassignments" => facts.assignments.iter().any(|a| a.id() == id && self.gives(a)),
            "identityproviders" => facts.providers.iter().any(|p| p.id == id && administers(p.domain)),
            "trusts" => facts.trusts.iter().any(|t| t.id == id && t.trustor == user.id),
            "applicationcredentials" => facts.robots.iter().any(|r| r.id == id && r.user == user.id),
            "keystonerecords" => facts.records.iter().any(|r| r.id == id && is_of(r, user)),
            // A domain is its operator's.
            _ => false,
        }
    }

    /// Who works there is theirs to arrange: managers of it, and administrators of what is above it.
    fn manages(&self, place: &Place) -> bool {
        match place {
            Place::System => false,
            Place::Domain(_) => self.has(place, "manager"),
            Place::Project(id) => self.facts.project(id).is_some_and(|project| {
                self.has(place, "manager")
                    || self.has_above(project, "admin")
                    || self.has(&Place::Domain(project.domain), "manager")
            }),
        }
    }

    /// Nobody gives or takes a role they do not have. A domain's own roles are its administrators'.
    fn gives(&self, assignment: &Assignment) -> bool {
        let Some(role) = self.facts.role(assignment.role) else { return false };
        if assignment.place == Place::Project(PLATFORMS) || !self.manages(&assignment.place) {
            return false;
        }
        let mut places = vec![assignment.place.clone()];
        if let Place::Project(id) = assignment.place
            && let Some(project) = self.facts.project(id)
        {
            places.push(Place::Domain(project.domain));
            places.extend(self.facts.above(project).iter().map(|p| Place::Project(p.id)));
        }
        let own: Roles = places.iter().filter_map(|place| self.at.get(place)).flatten().cloned().collect();
        let given = self.facts.with_implied([role.id.to_owned()].into());
        let of_domain = role.domain.is_some_and(|domain| self.has(&Place::Domain(domain), "admin"));
        given.iter().all(|role| own.contains(role)) || of_domain
    }
}

fn is_of(record: &Record, user: &User) -> bool {
    ["credentials", "access_rules"].contains(&record.collection) && record.parent == Some(user.id.as_str())
}

/// One rule of Kubernetes' RBAC, by the words of its documentation.
fn grants(rule: &PolicyRule, asked: &Attributes) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|word| word == "*" || word == wanted);
    if !has(&rule.verbs, &asked.verb) {
        return false;
    }
    let listed = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    if !asked.is_resource_request {
        return listed(&rule.non_resource_urls).iter().any(|url| match url.strip_suffix('*') {
            Some(start) => asked.path.starts_with(start),
            None => *url == asked.path,
        });
    }
    let mut wanted = vec![asked.resource.clone()];
    if !asked.subresource.is_empty() {
        wanted =
            vec![format!("{}/{}", asked.resource, asked.subresource), format!("*/{}", asked.subresource)];
    }
    let names = listed(&rule.resource_names);
    has(&listed(&rule.api_groups), &asked.group)
        && wanted.iter().any(|wanted| has(&listed(&rule.resources), wanted))
        && (names.is_empty() || names.contains(&asked.name))
}
