//! The matrix user × credential × verb × resource × scope: what the platform answers, against [`model`].
//!
//! The users are made from the roles: one for each role and each way to have it. Their credentials are sessions, as
//! tokens make them, from before some of what they rest on was disabled. The platform's part is all of it: what the
//! reconcilers would bind, RBAC over that, and identity's rules around it.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_identity_api::{
    ApplicationCredential, ApplicationCredentialSpec, Domain, DomainSpec, Environment, Group, GroupSpec,
    IdentityProvider, IdentityProviderSpec, KeystoneRecord, KeystoneRecordSpec, Project, ProjectSpec, Role,
    RoleAssignment, RoleAssignmentSpec, RoleSpec, Trust, TrustSpec, User, UserSpec,
};
use gantry_kube_types::{Attributes, UserInfo};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::PolicyRule;

use self::model::{Assignment, Credential, Facts, Place, Record, Robot, Who};
use crate::bootstrap::{default_roles, system_rules};
use crate::directory::State;
use crate::directory::tests::put;
use crate::rights::rule;
use crate::session::Session;
use crate::tenancy::Tenancy;
use crate::tenancy::tests::{Engine, ask, world};
use crate::token::{Claims, TokenScope};

const DEFAULT_ROLES: [&str; 6] = ["reader", "member", "manager", "admin", "operator", "auditor"];
/// Roles of somebody's own: two of the organisation acme, one of the platform.
const CUSTOM_ROLES: [&str; 3] = ["puller", "deployer", "keeper"];

/// Where and how a role is had; see [`everybody_with`].
const WAYS: [&str; 8] = ["system", "domain", "tree", "web", "below", "old", "lab", "group"];

const VERBS: &str =
    "get list watch create update patch delete deletecollection pull push escalate bind impersonate";
const NAMESPACES: &str =
    "web-dev shop-dev old-dev attic-dev lab-dev admin-dev cave-dev kube-system default -";
const IN_NAMESPACES: &str = "-/pods -/pods/exec -/pods/log -/secrets -/serviceaccounts -/resourcequotas \
    apps/deployments rbac.authorization.k8s.io/roles rbac.authorization.k8s.io/rolebindings \
    audit.gantry.dev/records audit.gantry.dev/sessions logs.gantry.dev/logs";
const IN_CLUSTER: &str = "-/nodes -/nodes/proxy -/namespaces -/persistentvolumes -/users -/groups \
    rbac.authorization.k8s.io/clusterroles storage.k8s.io/storageclasses \
    apiextensions.k8s.io/customresourcedefinitions registry.gantry.dev/blobs";
/// Each is asked about by id, and the kinds without one.
const OBJECTS: &str = "domains/acme1 domains/globex1 domains/dark1 \
    projects/web1 projects/shop1 projects/old1 projects/lab1 projects/admin projects/gone \
    users/reader-web users/locked users/visitor users/manager-lab users/root groups/reader-crew groups/guests \
    roles/reader roles/admin roles/puller \
    roleassignments/admin-user-root-system roleassignments/manager-user-manager-domain-acme1 \
    roleassignments/member-user-shopper-shop1 roleassignments/admin-user-admin-web-web1 \
    roleassignments/reader-group-reader-crew-web1 roleassignments/member-group-guests-lab1 \
    roleassignments/puller-user-puller-web-web1 roleassignments/admin-user-chief-admin \
    applicationcredentials/looks applicationcredentials/roots trusts/entrusted identityproviders/people \
    keystonerecords/here keystonerecords/key keystonerecords/hidden";
/// Of whom and called what.
const REPOSITORIES: &str = "project:web1/acme/web/front project:shop1/acme/web/back project:old1/x \
    project:lab1/globex/lab/x project:gone/x domain:acme1/acme/x domain:globex1/globex/x domain:dark1/x \
    platform/hello nonsense/x -/acme/web/front -/acme/shop/x -/globex/lab/x -/acme/web -/hello -/";

/// Whose records.
const OWNERS: &str = "project:admin project:web1 project:shop1 project:old1 project:lab1 project:gone \
    domain:default domain:acme1 domain:globex1 domain:dark1 platform nonsense:x";

/// Everything that is there, and where it is from.
fn facts() -> Facts {
    let domain = |id, name, enabled| model::Domain { id, name, enabled };
    let project = |id, name, domain, parent, enabled, namespace| model::Project {
        id,
        name,
        domain,
        parent,
        enabled,
        namespace,
    };
    let mut facts = Facts {
        domains: vec![
            domain("default", "Default", true),
            domain("acme1", "acme", true),
            domain("globex1", "globex", true),
            domain("dark1", "dark", false),
        ],
        projects: vec![
            project("admin", "admin", "default", None, true, "admin-dev"),
            project("web1", "web", "acme1", None, true, "web-dev"),
            project("shop1", "shop", "acme1", Some("web1"), true, "shop-dev"),
            project("old1", "old", "acme1", None, false, "old-dev"),
            project("attic1", "attic", "acme1", Some("old1"), true, "attic-dev"),
            project("lab1", "lab", "globex1", None, true, "lab-dev"),
            project("cave1", "cave", "dark1", None, true, "cave-dev"),
        ],
        roles: all_roles(),
        ..Facts::default()
    };
    for role in DEFAULT_ROLES.into_iter().chain(CUSTOM_ROLES) {
        everybody_with(&mut facts, role);
    }
    singular(&mut facts);
    kept(&mut facts);
    facts
}

fn all_roles() -> Vec<model::Role> {
    let defaults = default_roles().into_iter().map(|(id, spec)| model::Role {
        id,
        domain: None,
        implies: spec.implies,
        rules: spec.rules,
        system_rules: system_rules(id),
    });
    let named = |verbs: &[&str], group: &str, resources: &[&str], names: &[&str]| PolicyRule {
        resource_names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..rule(verbs, group, resources)
    };
    let paths = PolicyRule {
        verbs: vec!["get".to_owned()],
        non_resource_urls: Some(vec!["/gantry/*".to_owned()]),
        ..PolicyRule::default()
    };
    let custom = |id, domain, implies: &[&str], rules| model::Role {
        id,
        domain,
        implies: implies.iter().map(|id| (*id).to_owned()).collect(),
        rules,
        system_rules: Vec::new(),
    };
    defaults
        .chain([
            custom(
                "puller",
                Some("acme1"),
                &[],
                vec![rule(&["pull"], "registry.gantry.dev", &["repositories"])],
            ),
            custom(
                "deployer",
                Some("acme1"),
                &["reader"],
                vec![rule(&["get", "patch"], "apps", &["deployments"])],
            ),
            custom(
                "keeper",
                None,
                &[],
                vec![
                    rule(&["escalate", "bind"], "rbac.authorization.k8s.io", &["roles", "clusterroles"]),
                    rule(&["impersonate"], "", &["users", "groups", "serviceaccounts"]),
                    rule(&["*"], "", &["*/exec"]),
                    rule(&["get", "delete"], "identity.gantry.dev", &["groups", "projects/status"]),
                    named(&["get", "update"], "", &["secrets"], &["key"]),
                    named(&["pull"], "registry.gantry.dev", &["repositories"], &["acme/web/front"]),
                    paths,
                ],
            ),
        ])
        .collect()
}

fn user(facts: &mut Facts, id: &str, domain: &'static str, groups: &[&str]) {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    facts.users.push(model::User { id: id.to_owned(), domain, groups, enabled: true });
}

fn give(facts: &mut Facts, role: &'static str, who: &str, place: Place, inherited: bool) {
    facts.assignments.push(Assignment { role, who: Who::User(who.to_owned()), place, inherited });
}

/// A user for each way to have the role.
fn everybody_with(facts: &mut Facts, role: &'static str) {
    for (way, domain, place, inherited) in [
        ("system", "acme1", Place::System, false),
        ("domain", "acme1", Place::Domain("acme1"), false),
        ("tree", "acme1", Place::Domain("acme1"), true),
        ("web", "acme1", Place::Project("web1"), false),
        ("below", "acme1", Place::Project("web1"), true),
        ("old", "acme1", Place::Project("old1"), false),
        ("lab", "globex1", Place::Project("lab1"), false),
    ] {
        let id = format!("{role}-{way}");
        user(facts, &id, domain, &[]);
        give(facts, role, &id, place, inherited);
    }
    let crew = format!("{role}-crew");
    facts.groups.push(model::Group { id: crew.clone(), domain: "acme1" });
    user(facts, &format!("{role}-group"), "acme1", &[&crew]);
    let who = Who::Group(crew);
    facts.assignments.push(Assignment { role, who, place: Place::Project("web1"), inherited: false });
}

/// People who are one of a kind.
fn singular(facts: &mut Facts) {
    let project = Place::Project;
    user(facts, "nobody", "acme1", &[]);
    // Whom an operator has locked out.
    user(facts, "locked", "acme1", &[]);
    give(facts, "admin", "locked", Place::Domain("acme1"), false);
    give(facts, "member", "locked", project("web1"), false);
    // In a group of another organisation, past all checks: no member.
    facts.groups.push(model::Group { id: "guests".to_owned(), domain: "globex1" });
    let who = Who::Group("guests".to_owned());
    facts.assignments.push(Assignment { role: "member", who, place: project("lab1"), inherited: false });
    user(facts, "stray", "acme1", &["guests"]);
    user(facts, "guest", "globex1", &["guests"]);
    // Of another organisation, on purpose.
    user(facts, "visitor", "globex1", &[]);
    give(facts, "manager", "visitor", project("web1"), false);
    // Of an organisation that is disabled, and with a role in one.
    user(facts, "caver", "dark1", &[]);
    give(facts, "admin", "caver", Place::Domain("dark1"), false);
    give(facts, "member", "caver", project("web1"), false);
    user(facts, "delver", "acme1", &[]);
    give(facts, "member", "delver", project("cave1"), false);
    user(facts, "shopper", "acme1", &[]);
    give(facts, "member", "shopper", project("shop1"), false);
    // Two roles in two places.
    user(facts, "both", "acme1", &[]);
    give(facts, "operator", "both", Place::System, false);
    give(facts, "admin", "both", project("web1"), false);
    // Of the platform: its administrator, who administers its project alone, and who rules the domain it stands in.
    user(facts, "root", "default", &[]);
    give(facts, "admin", "root", Place::System, false);
    give(facts, "admin", "root", project("admin"), false);
    user(facts, "chief", "default", &[]);
    give(facts, "admin", "chief", project("admin"), false);
    user(facts, "landlord", "default", &[]);
    give(facts, "admin", "landlord", Place::Domain("default"), false);
    give(facts, "admin", "landlord", Place::Domain("default"), true);
    // A role of acme's, elsewhere: past all checks.
    give(facts, "puller", "both", project("lab1"), false);
    if let Some(locked) = facts.users.iter_mut().find(|u| u.id == "locked") {
        locked.enabled = false;
    }
}

/// What people keep, and what belongs to nobody.
fn kept(facts: &mut Facts) {
    let robot = |id, user, project, roles: &[&'static str], unrestricted| Robot {
        id,
        user,
        project,
        roles: roles.to_vec(),
        unrestricted,
    };
    facts.robots = vec![
        robot("looks", "admin-web", "web1", &["reader"], false),
        robot("works", "manager-tree", "shop1", &["member", "auditor"], false),
        robot("free", "admin-web", "web1", &["manager"], true),
        robot("pulls", "puller-web", "web1", &["puller"], false),
        robot("out", "locked", "web1", &["member"], false),
        robot("roots", "root", "admin", &["admin"], false),
        robot("roots-eye", "root", "admin", &["reader"], false),
    ];
    facts.trusts = vec![model::Trust { id: "entrusted", trustor: "admin-web", trustee: "visitor" }];
    facts.providers = vec![model::Provider { id: "people", domain: "acme1" }];
    let record = |id, collection, parent| Record { id, collection, parent };
    facts.records = vec![
        record("here", "regions", None),
        record("key", "credentials", Some("admin-web")),
        record("hidden", "mappings", None),
    ];
}

/// The facts as the directory has them.
fn state(facts: &Facts) -> State {
    let mut state = State::default();
    let text = |value: &str| Some(value.to_owned());
    for domain in &facts.domains {
        let spec = DomainSpec { name: text(domain.name), enabled: domain.enabled, ..DomainSpec::default() };
        put(&mut state, Domain::new(domain.id, spec));
    }
    for project in &facts.projects {
        let spec = ProjectSpec {
            name: text(project.name),
            domain: project.domain.to_owned(),
            parent: project.parent.map(str::to_owned),
            enabled: project.enabled,
            environments: vec![Environment { name: "dev".to_owned(), ..Environment::default() }],
            ..ProjectSpec::default()
        };
        put(&mut state, Project::new(project.id, spec));
    }
    for group in &facts.groups {
        let spec = GroupSpec { domain: group.domain.to_owned(), ..GroupSpec::default() };
        put(&mut state, Group::new(&group.id, spec));
    }
    for user in &facts.users {
        let spec = UserSpec {
            domain: user.domain.to_owned(),
            groups: user.groups.clone(),
            enabled: user.enabled,
            ..UserSpec::default()
        };
        put(&mut state, User::new(&user.id, spec));
    }
    for role in &facts.roles {
        let spec = RoleSpec {
            domain: role.domain.map(str::to_owned),
            rules: role.rules.clone(),
            implies: role.implies.clone(),
            ..RoleSpec::default()
        };
        put(&mut state, Role::new(role.id, spec));
    }
    put_assignments(&mut state, facts);
    put_kept(&mut state, facts);
    state
}

fn put_assignments(state: &mut State, facts: &Facts) {
    for assignment in &facts.assignments {
        let (inherited, role) = (assignment.inherited, assignment.role.to_owned());
        let mut spec = RoleAssignmentSpec { role, inherited, ..RoleAssignmentSpec::default() };
        match &assignment.who {
            Who::User(id) => spec.user = Some(id.clone()),
            Who::Group(id) => spec.group = Some(id.clone()),
        }
        match assignment.place {
            Place::System => spec.system = true,
            Place::Domain(id) => spec.domain = Some(id.to_owned()),
            Place::Project(id) => spec.project = Some(id.to_owned()),
        }
        put(state, RoleAssignment::new(&assignment.id(), spec));
    }
}

fn put_kept(state: &mut State, facts: &Facts) {
    for robot in &facts.robots {
        let spec = ApplicationCredentialSpec {
            user: robot.user.to_owned(),
            project: robot.project.to_owned(),
            roles: robot.roles.iter().map(|role| (*role).to_owned()).collect(),
            unrestricted: robot.unrestricted,
            ..ApplicationCredentialSpec::default()
        };
        put(state, ApplicationCredential::new(robot.id, spec));
    }
    for trust in &facts.trusts {
        let (trustor, trustee) = (trust.trustor.to_owned(), trust.trustee.to_owned());
        put(state, Trust::new(trust.id, TrustSpec { trustor, trustee, ..TrustSpec::default() }));
    }
    for provider in &facts.providers {
        let spec =
            IdentityProviderSpec { domain: provider.domain.to_owned(), ..IdentityProviderSpec::default() };
        put(state, IdentityProvider::new(provider.id, spec));
    }
    for record in &facts.records {
        let spec = KeystoneRecordSpec {
            collection: record.collection.to_owned(),
            parent: record.parent.map(str::to_owned),
            id: record.id.to_owned(),
            ..KeystoneRecordSpec::default()
        };
        put(state, KeystoneRecord::new(record.id, spec));
    }
}

/// The caller that a token with the credential makes; `None`: nobody gets such a token.
fn session(state: &State, facts: &Facts, credential: &Credential) -> Option<UserInfo> {
    let scope = match &credential.scope {
        None => TokenScope::Unscoped,
        Some(Place::System) => TokenScope::System,
        Some(Place::Domain(id)) => TokenScope::Domain((*id).to_owned()),
        Some(Place::Project(id)) => {
            TokenScope::Project { id: (*id).to_owned(), domain: facts.project(id)?.domain.to_owned() }
        }
    };
    let domain = facts.user(&credential.user)?.domain;
    let lives = Timestamp::UNIX_EPOCH..Timestamp::MAX;
    let claims = Claims {
        scope,
        application_credential: credential.robot.as_ref().map(|robot| robot.id.to_owned()),
        ..Claims::unscoped("AAAAAAAAAAAAAAAAAAAAAA", &credential.user, domain, lives)
    };
    Session::of(state, Arc::new(claims), Timestamp::UNIX_EPOCH).map(|session| session.info)
}

/// Everybody with everything they could sign in with while all was enabled.
fn callers(facts: &Facts) -> Vec<(Credential, UserInfo)> {
    let mut before = facts.clone();
    before.domains.iter_mut().for_each(|d| d.enabled = true);
    before.projects.iter_mut().for_each(|p| p.enabled = true);
    before.users.iter_mut().for_each(|u| u.enabled = true);
    let state = state(&before);
    let mut credentials = Vec::new();
    for user in &facts.users {
        let places = [
            Place::System,
            Place::Domain("acme1"),
            Place::Domain("default"),
            Place::Project("admin"),
            Place::Project("web1"),
            Place::Project("shop1"),
            Place::Project("old1"),
            Place::Project("lab1"),
        ];
        for scope in std::iter::once(None).chain(places.map(Some)) {
            credentials.push(Credential { user: user.id.clone(), scope, robot: None });
        }
    }
    for robot in &facts.robots {
        let (user, scope) = (robot.user.to_owned(), Some(Place::Project(robot.project)));
        credentials.push(Credential { user, scope, robot: Some(robot.clone()) });
    }
    let signed_in = |credential: Credential| {
        let info = session(&state, &before, &credential)?;
        Some((credential, info))
    };
    credentials.into_iter().filter_map(signed_in).collect()
}

/// Every question, of nobody yet. Verbs about many objects and about new ones have no name.
fn questions() -> Vec<Attributes> {
    let nobody = UserInfo::default();
    let mut all = Vec::new();
    let mut add = |verb: &str, resource: &str, namespace: &str, name: &str| {
        all.push(ask(&nobody, format!("{verb} {resource} {namespace} {name}").trim_end()));
    };
    for verb in VERBS.split(' ') {
        let about_one = !["list", "watch", "create", "deletecollection"].contains(&verb);
        let name = |name: &'static str| if about_one { name } else { "" };
        for resource in IN_NAMESPACES.split_whitespace() {
            NAMESPACES.split(' ').for_each(|namespace| add(verb, resource, namespace, name("key")));
        }
        add(verb, "-/secrets", "web-dev", "another");
        for resource in IN_CLUSTER.split_whitespace() {
            add(verb, resource, "-", name("key"));
        }
        for namespace in NAMESPACES.split(' ').filter(|_| about_one) {
            add(verb, "-/namespaces", namespace, namespace);
        }
        let mut kinds = BTreeSet::new();
        for object in OBJECTS.split_whitespace() {
            let (kind, id) = object.split_once('/').expect("a kind and an id");
            let kind = format!("identity.gantry.dev/{kind}");
            if about_one || verb == "list" || verb == "watch" {
                add(verb, &kind, "-", id);
            }
            kinds.insert(kind);
        }
        kinds.iter().for_each(|kind| add(verb, kind, "-", ""));
        add(verb, "identity.gantry.dev/projects/status", "-", name("web1"));
        for repository in REPOSITORIES.split_whitespace() {
            let (owner, repository) = repository.split_once('/').expect("an owner and a name");
            add(verb, "registry.gantry.dev/repositories", owner, repository);
        }
        OWNERS.split_whitespace().for_each(|owner| add(verb, "audit.gantry.dev/records", owner, ""));
    }
    let path = |verb: &str, path: &str| Attributes {
        verb: verb.to_owned(),
        path: path.to_owned(),
        ..Attributes::default()
    };
    let paths = ["/metrics", "/gantry/health", "/"];
    all.extend(VERBS.split(' ').flat_map(|verb| paths.map(|at| path(verb, at))));
    all
}

/// How often each answer comes at least, of each verb and with each sort of credential.
const OFTEN: usize = 100;

/// How often the answers were yes and no.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    allowed: usize,
    refused: usize,
}

impl Tally {
    fn count(&mut self, allowed: bool) {
        if allowed { self.allowed += 1 } else { self.refused += 1 }
    }
}

/// What a credential is called where answers are counted.
fn sort_of(credential: &Credential) -> &'static str {
    match (&credential.robot, &credential.scope) {
        (Some(robot), _) if robot.unrestricted => "unrestricted application credential",
        (Some(_), _) => "application credential",
        (None, None) => "whole user",
        (None, Some(Place::System)) => "token of the system",
        (None, Some(Place::Domain(_))) => "token of a domain",
        (None, Some(Place::Project(_))) => "token of a project",
    }
}

fn shown(asked: &Attributes) -> String {
    let Attributes { verb, group, resource, subresource, namespace, name, path, .. } = asked;
    format!("{verb} {group}/{resource}/{subresource} in {namespace:?} called {name:?} {path}")
}

/// Whether a user of [`everybody_with`] has more than somebody without any role.
fn has_something(role: &str, way: &str) -> bool {
    let of_acme = ["puller", "deployer"].contains(&role);
    match way {
        // The project is disabled.
        "old" => false,
        // A domain's role is good inside that domain only.
        "system" | "lab" => !of_acme,
        // Rights of a domain are on identity's own kinds, its repositories and its records.
        "domain" => !["operator", "keeper"].contains(&role),
        _ => true,
    }
}

/// The answers about everything, counted by who asks, with what, and for which verb.
#[derive(Default)]
struct Tallies(BTreeMap<String, Tally>);

impl Tallies {
    fn of(&self, key: &str) -> Tally {
        self.0.get(key).copied().unwrap_or_default()
    }

    fn count(&mut self, keys: &[&str], allowed: bool) {
        for key in keys {
            if let Some(tally) = self.0.get_mut(*key) {
                tally.count(allowed);
            } else {
                self.0.entry((*key).to_owned()).or_default().count(allowed);
            }
        }
    }

    /// A matrix that is all yes or all no would agree with anything.
    fn are_both_often(&self) {
        let sorts = [
            "whole user",
            "token of the system",
            "token of a domain",
            "token of a project",
            "application credential",
            "unrestricted application credential",
        ];
        for key in sorts.into_iter().chain(VERBS.split(' ')) {
            let tally = self.of(key);
            assert!(tally.allowed >= OFTEN && tally.refused >= OFTEN, "{key}: {tally:?}");
        }
        let nothing = self.of("nobody").allowed;
        for role in DEFAULT_ROLES.into_iter().chain(CUSTOM_ROLES) {
            for way in WAYS {
                let user = format!("{role}-{way}");
                let tally = self.of(&user);
                assert_eq!(tally.allowed > nothing, has_something(role, way), "{user}: {tally:?}, {nothing}");
                // An administrator of the platform is refused nothing.
                assert_eq!(tally.refused > 0, user != "admin-system", "{user}: {tally:?}");
            }
        }
        assert_eq!(self.of("locked").allowed, 0, "who is locked out");
        assert_eq!(self.of("caver").allowed, 0, "whose organisation is disabled");
    }
}

#[test]
fn the_platform_answers_as_the_model_does() {
    let facts = facts();
    let world = world(state(&facts));
    let authorizer = Tenancy(world.clone()).wrap(Arc::new(Engine::of(&world)));
    let (callers, mut questions) = (callers(&facts), questions());
    let (mut tallies, mut differences) = (Tallies::default(), Vec::new());
    for (credential, info) in &callers {
        let rights = facts.rights(credential);
        let whole = (credential.scope.is_none()).then_some(credential.user.as_str());
        for question in &mut questions {
            question.user = info.clone();
            let decided = authorizer.authorize(question);
            let (allowed, wanted) = (decided.is_allowed(), rights.may(question));
            if allowed != wanted {
                let Credential { user, scope, robot } = credential;
                let (robot, asked) = (robot.as_ref().map(|robot| robot.id), shown(question));
                differences.push(format!("{user} {scope:?} {robot:?}: {asked}: model {wanted}: {decided:?}"));
            }
            let verb = question.verb.as_str();
            tallies.count(&["all", sort_of(credential), verb, whole.unwrap_or("narrowed")], allowed);
        }
    }
    println!("{} questions of each of {} callers: {:?}", questions.len(), callers.len(), tallies.of("all"));
    let some: Vec<&String> = differences.iter().step_by(differences.len() / 40 + 1).collect();
    assert!(differences.is_empty(), "{} differences, some: {some:#?}", differences.len());
    tallies.are_both_often();
}
