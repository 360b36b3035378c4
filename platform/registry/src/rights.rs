//! Who may do what with a repository: its owner, whom it is shared with, and everybody where it is public.
//!
//! The registry knows whose a repository is, identity who has which role where. So each question is asked again of
//! identity with the owner in the place of a namespace, and then with each project or domain that it is shared with.

use std::sync::{Arc, OnceLock};

use gantry_kube_types::{
    Attributes, Authorizer, Decision, Explanation, UserInfo, Visibility as Seen, groups,
};
use gantry_registry_api::{Access, GROUP, Owner, RESOURCE, Visibility};

use crate::catalogue::{Catalogue, Facts};

/// What may be done with a repository, as rules name it.
const VERBS: [&str; 4] = ["delete", "pull", "push", "update"];

/// Answers questions about repositories, and passes all others on.
pub struct RepositoryRights {
    catalogue: Catalogue,
    inner: Arc<dyn Authorizer>,
    anonymous_pull: bool,
}

impl RepositoryRights {
    /// Around `inner`, which knows roles. `anonymous_pull`: who is not signed in may pull what is public.
    pub fn new(catalogue: Catalogue, inner: Arc<dyn Authorizer>, anonymous_pull: bool) -> Self {
        Self { catalogue, inner, anonymous_pull }
    }
}

impl Authorizer for RepositoryRights {
    fn authorize(&self, asked: &Attributes) -> Decision {
        if !is_ours(asked) {
            return self.inner.authorize(asked);
        }
        let verb = meant(&asked.verb);
        if verb != asked.verb {
            let all = self.inner.authorize(&Attributes { namespace: platform(), ..asked.clone() });
            if !matches!(all, Decision::NoOpinion(_)) {
                return all;
            }
        }
        match self.facts(asked) {
            Some(facts) => self.decide(asked, verb, &facts),
            // Before the registry knows owners, names do not stand for them.
            None => self.inner.authorize(&Attributes { namespace: platform(), ..asked.clone() }),
        }
    }

    /// Both only grow, and so does their sum.
    fn decisions_version(&self, user: &UserInfo) -> Option<u64> {
        Some(self.inner.decisions_version(user)? + self.catalogue.version())
    }

    fn explain(&self, asked: &Attributes, listener: &UserInfo) -> Option<Explanation> {
        if !is_ours(asked) {
            return self.inner.explain(asked, listener);
        }
        match self.facts(asked) {
            Some(facts) => Some(self.explained(asked, &facts, listener)),
            None => self.inner.explain(&Attributes { namespace: platform(), ..asked.clone() }, listener),
        }
    }
}

/// Is it about one repository?
fn is_ours(asked: &Attributes) -> bool {
    let ours = asked.is_resource_request && asked.group == GROUP && asked.resource == RESOURCE;
    ours && !asked.name.is_empty() && asked.namespace.is_empty() && asked.subresource.is_empty()
}

/// Who may pull sees the object, and nobody else but who may see all of them.
fn meant(verb: &str) -> &str {
    if matches!(verb, "get" | "list" | "watch") { "pull" } else { verb }
}

fn platform() -> String {
    Owner::default().to_string()
}

impl RepositoryRights {
    /// `None` before the registry is started.
    fn facts(&self, asked: &Attributes) -> Option<Facts> {
        match asked.verb.as_str() {
            "pull" | "push" => self.catalogue.facts(&asked.name),
            // The name is an object's, or, for `delete`, perhaps a repository's.
            _ => self.catalogue.facts_of_object(&asked.name).or_else(|| self.catalogue.facts(&asked.name)),
        }
    }

    /// What identity says of each place that the right may come from. With whom it is shared hears who may pull it.
    fn explained(&self, asked: &Attributes, facts: &Facts, listener: &UserInfo) -> Explanation {
        let verb = meant(&asked.verb);
        let question = Attributes { verb: verb.to_owned(), name: facts.name.clone(), ..asked.clone() };
        let pull = Attributes { verb: "pull".to_owned(), user: listener.clone(), ..question.clone() };
        let sees = self.decide(&pull, "pull", facts).is_allowed();
        let mut all = Explanation::default();
        for (number, place) in places(facts, verb).into_iter().enumerate() {
            let there = Attributes { namespace: place.to_string(), ..question.clone() };
            let Some(mut part) = self.inner.explain(&there, listener) else { continue };
            if number > 0 {
                let because = || "the repository is shared with it".to_owned();
                part.grants.iter_mut().for_each(|grant| grant.because = because());
                if !sees {
                    part.nearest.clear();
                }
            }
            all.add(part);
        }
        // What a role has in the place of a share is more than the share lets through.
        let may = |verb: &&str| {
            let asked = Attributes { verb: (*verb).to_owned(), ..question.clone() };
            self.decide(&asked, verb, facts).is_allowed()
        };
        all.held_verbs = VERBS.into_iter().filter(may).map(str::to_owned).collect();
        all
    }

    fn decide(&self, asked: &Attributes, verb: &str, facts: &Facts) -> Decision {
        if verb == "pull" && facts.visibility == Visibility::Public && self.everybody(&asked.user) {
            return Decision::Allow(format!("registry: {} is public", facts.name));
        }
        let mut question = Attributes { verb: verb.to_owned(), name: facts.name.clone(), ..asked.clone() };
        let mut answer = Decision::NoOpinion(String::new());
        for place in places(facts, verb) {
            question.namespace = place.to_string();
            let decision = self.inner.authorize(&question);
            if !matches!(decision, Decision::NoOpinion(_)) {
                return decision;
            }
            // What the owner's place says is what matters to who is refused.
            if matches!(&answer, Decision::NoOpinion(why) if why.is_empty()) {
                answer = decision;
            }
        }
        answer
    }

    fn everybody(&self, user: &UserInfo) -> bool {
        user.in_group(groups::AUTHENTICATED) || (self.anonymous_pull && user.is_anonymous())
    }
}

/// Where the right may come from, the owner first.
fn places(facts: &Facts, verb: &str) -> Vec<Owner> {
    let shared = facts.shares.iter().filter(|share| match verb {
        "pull" => true,
        "push" => share.access == Access::Push,
        _ => false,
    });
    let shared = shared.map(|s| Owner { project: s.project.clone(), domain: s.domain.clone() });
    // One that names nobody would be the platform.
    let shared = shared.filter(|owner| *owner != Owner::default());
    std::iter::once(facts.owner.clone()).chain(shared).collect()
}

/// What users see in lists of repositories: those they may pull.
pub struct RepositoryVisibility {
    catalogue: Catalogue,
    /// All of the platform's rights; known when the engine is open. Not the engine's own
    /// authoriser, which lets everybody look at a list that is filtered here.
    authorizer: Arc<OnceLock<Arc<dyn Authorizer>>>,
    /// Changes of roles change what is seen here, too.
    roles: Arc<dyn Seen>,
}

impl RepositoryVisibility {
    /// `roles` is asked for its changes alone.
    pub fn new(
        catalogue: Catalogue,
        authorizer: Arc<OnceLock<Arc<dyn Authorizer>>>,
        roles: Arc<dyn Seen>,
    ) -> Self {
        Self { catalogue, authorizer, roles }
    }
}

#[async_trait::async_trait]
impl Seen for RepositoryVisibility {
    fn resources(&self) -> Vec<(String, String)> {
        vec![(GROUP.to_owned(), RESOURCE.to_owned())]
    }

    fn visible(&self, user: &UserInfo, group: &str, resource: &str, name: &str) -> bool {
        let asked = Attributes {
            user: user.clone(),
            verb: "get".to_owned(),
            is_resource_request: true,
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        let ours = group == GROUP && resource == RESOURCE;
        ours && self.authorizer.get().is_some_and(|rights| rights.authorize(&asked).is_allowed())
    }

    fn generation(&self) -> u64 {
        // Both only grow, and so does their sum.
        self.catalogue.version() + self.roles.generation()
    }

    async fn changed(&self, seen: u64) {
        let mut own = self.catalogue.generation();
        loop {
            let now = self.generation();
            if now != seen {
                return;
            }
            let roles = self.roles.generation();
            // The sender lives as long as the catalogue, so waiting ends with a change.
            tokio::select! { _ = own.changed() => {}, () = self.roles.changed(roles) => {} }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube_types::{Grants, Missing};
    use gantry_registry_api::Share;

    /// Knows one user per role: `OWNER VERB`.
    struct Roles;

    impl Authorizer for Roles {
        fn authorize(&self, asked: &Attributes) -> Decision {
            let has = match asked.user.username.as_str() {
                "web" => asked.namespace == "project:web",
                "shop-reader" => asked.namespace == "project:shop" && asked.verb == "pull",
                "shop" => asked.namespace == "project:shop",
                "globex" => asked.namespace == "domain:globex",
                "admin" => true,
                _ => false,
            };
            if has { Decision::Allow(asked.namespace.clone()) } else { Decision::NoOpinion("no".to_owned()) }
        }

        fn decisions_version(&self, _: &UserInfo) -> Option<u64> {
            Some(7)
        }

        /// Names the place: as a grant, or as what is missing.
        fn explain(&self, asked: &Attributes, _: &UserInfo) -> Option<Explanation> {
            let place = asked.namespace.clone();
            Some(match self.authorize(asked).is_allowed() {
                true => Explanation {
                    grants: vec![Grants { binding: place, ..Grants::default() }],
                    ..Explanation::default()
                },
                false => Explanation {
                    nearest: vec![Missing { role: place, ..Missing::default() }],
                    ..Explanation::default()
                },
            })
        }
    }

    /// Owner and shares are explained in turn; whom it is shared with hears only who may pull.
    #[test]
    fn what_is_missing_and_what_grants_it_by_owner_and_share() {
        let share = Share { project: Some("shop".to_owned()), domain: None, access: Access::Pull };
        let facts = Facts {
            name: "acme/web/x".to_owned(),
            owner: Owner::of_project("web"),
            visibility: Visibility::Private,
            shares: vec![share],
            rules: gantry_registry_api::Rules::default(),
        };
        let rights = RepositoryRights::new(Catalogue::default(), Arc::new(Roles), false);
        let user = |name: &str| UserInfo::authenticated(name, &[]);
        for (about, listener, verb, grants, nearest) in [
            ("web", "web", "pull", "project:web()", "project:shop"),
            (
                "shop-reader",
                "shop-reader",
                "pull",
                "project:shop(the repository is shared with it)",
                "project:web",
            ),
            (
                "shop-reader",
                "shop-reader",
                "get",
                "project:shop(the repository is shared with it)",
                "project:web",
            ),
            ("shop-reader", "shop-reader", "push", "", "project:web"),
            ("stranger", "stranger", "pull", "", "project:web"),
            ("stranger", "web", "pull", "", "project:web project:shop"),
            ("stranger", "web", "push", "", "project:web"),
        ] {
            let asked = Attributes { user: user(about), verb: verb.to_owned(), ..Attributes::default() };
            let told = rights.explained(&asked, &facts, &user(listener));
            let granted: Vec<String> =
                told.grants.iter().map(|grant| format!("{}({})", grant.binding, grant.because)).collect();
            let missing: Vec<&str> = told.nearest.iter().map(|missing| missing.role.as_str()).collect();
            let pulls = told.held_verbs.contains(&"pull".to_owned());
            assert_eq!(pulls, about != "stranger", "{about} {verb}: {:?}", told.held_verbs);
            assert_eq!(
                (granted.join(" "), missing.join(" ")),
                (grants.to_owned(), nearest.to_owned()),
                "{about} {verb}, told to {listener}"
            );
        }
    }

    /// Whoever remembers a decision asks whether it may have changed.
    #[test]
    fn decisions_are_of_another_version_when_owners_change() {
        let catalogue = Catalogue::default();
        let rights = RepositoryRights::new(catalogue.clone(), Arc::new(Roles), false);
        let version = || rights.decisions_version(&UserInfo::authenticated("web", &[]));
        let before = version();
        assert!(before.is_some());
        assert_eq!(before, version());
        catalogue.changed();
        assert_ne!(before, version());
    }

    #[test]
    fn owners_shares_and_everybody() {
        let facts = |visibility, shares: &[(&str, Access)]| Facts {
            name: "acme/web/x".to_owned(),
            owner: Owner::of_project("web"),
            visibility,
            shares: shares
                .iter()
                .map(|(with, access)| {
                    let owner: Owner = with.parse().expect("an owner");
                    Share { project: owner.project, domain: owner.domain, access: *access }
                })
                .collect(),
            rules: gantry_registry_api::Rules::default(),
        };
        let private = facts(Visibility::Private, &[]);
        let public = facts(Visibility::Public, &[]);
        let pull = facts(Visibility::Private, &[("project:shop", Access::Pull)]);
        let push =
            facts(Visibility::Private, &[("project:shop", Access::Push), ("domain:globex", Access::Pull)]);
        let nobody = facts(Visibility::Private, &[("platform", Access::Push)]);
        for (facts, user, verb, want) in [
            (&private, "web", "pull", true),
            (&private, "web", "delete", true),
            (&private, "shop", "pull", false),
            (&private, "admin", "push", true),
            (&private, "stranger", "pull", false),
            (&public, "stranger", "pull", true),
            (&public, "stranger", "push", false),
            (&public, "anonymous", "pull", false),
            (&pull, "shop", "pull", true),
            (&pull, "shop", "push", false),
            (&push, "shop", "push", true),
            (&push, "shop-reader", "push", false),
            (&push, "shop-reader", "pull", true),
            (&push, "shop", "delete", false),
            (&push, "shop", "update", false),
            (&push, "globex", "pull", true),
            (&push, "globex", "push", false),
            (&nobody, "shop", "pull", false),
        ] {
            let user = match user {
                "anonymous" => UserInfo::anonymous(),
                name => UserInfo::authenticated(name, &[]),
            };
            let asked = Attributes { user, verb: verb.to_owned(), ..Attributes::default() };
            let rights = RepositoryRights::new(Catalogue::default(), Arc::new(Roles), false);
            let decision = rights.decide(&asked, verb, facts);
            assert_eq!(decision.is_allowed(), want, "{verb} {:?} {facts:?}", asked.user.username);
        }
        let open = RepositoryRights::new(Catalogue::default(), Arc::new(Roles), true);
        let asked = Attributes { user: UserInfo::anonymous(), ..Attributes::default() };
        assert!(open.decide(&asked, "pull", &public).is_allowed(), "where the operator allows it");
        assert!(!open.decide(&asked, "pull", &private).is_allowed());
        assert!(!open.decide(&asked, "push", &public).is_allowed());
    }
}
