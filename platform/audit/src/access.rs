//! Who may see which records: an auditor all, who has the right in a namespace, a project or a domain what is about that,
//! everybody else their own deeds.

use std::collections::HashSet;

use gantry_audit_api::{GROUP, RESOURCE, VERSION};
use gantry_kube_types::{Attributes, StatusError, UserInfo};

use crate::Inner;
use crate::namespaces::Owned;
use crate::search::{Own, Scope};

/// Of rights, of namespaces, and of projects and domains.
type Versions = (u64, u64, u64);

/// Who looks at what for long.
pub(crate) struct Viewer {
    user: UserInfo,
    verb: &'static str,
    versions: Option<Versions>,
    pub(crate) scope: Scope,
}

impl Viewer {
    /// Of what the scope was made from; `None`: each question has to be asked anew.
    pub(crate) fn versions(&self) -> Option<Versions> {
        self.versions
    }

    /// Brings the scope up to the rights as they are. False: nothing is left of what it began with but own deeds.
    /// That the token by which the caller came has ended is not seen.
    pub(crate) fn refresh(&mut self, inner: &Inner) -> bool {
        let versions = inner.scope_versions(&self.user);
        if versions.is_some() && versions == self.versions {
            return true;
        }
        let scope = inner.scope(&self.user, self.verb);
        let holds = match (&self.scope, &scope) {
            (_, Scope::All) => true,
            (Scope::All, Scope::Some { .. }) => false,
            (before, now) => before.is_own() || !now.is_own(),
        };
        (self.versions, self.scope) = (versions, scope);
        holds
    }
}

impl Inner {
    fn may(&self, user: &UserInfo, verb: &str, namespace: &str) -> bool {
        let attributes = Attributes {
            user: user.clone(),
            verb: verb.to_owned(),
            is_resource_request: true,
            group: GROUP.to_owned(),
            version: VERSION.to_owned(),
            resource: RESOURCE.to_owned(),
            namespace: namespace.to_owned(),
            ..Attributes::default()
        };
        self.authorizer.authorize(&attributes).is_allowed()
    }

    /// What the caller may `list` or `get`. A project is the caller's when they have the right in it, or in each of its
    /// namespaces.
    pub(crate) fn scope(&self, user: &UserInfo, verb: &str) -> Scope {
        if self.may(user, verb, "") {
            return Scope::All;
        }
        let all = self.namespaces.all();
        let all = &all.facts;
        let mut namespaces: Vec<String> =
            all.keys().filter(|name| self.may(user, verb, name)).cloned().collect();
        namespaces.sort();
        let seen = |name: &String| namespaces.binary_search(name).is_ok();
        let unseen: HashSet<&String> = all
            .iter()
            .filter(|(name, _)| !seen(name))
            .filter_map(|(_, facts)| facts.project.as_ref())
            .collect();
        let touched = namespaces.iter().filter_map(|name| all.get(name)?.project.as_ref());
        let mut projects: Vec<String> =
            touched.filter(|project| !unseen.contains(project)).cloned().collect();
        let mut domains = Vec::new();
        for owned in self.owners.all().iter().filter(|owned| self.may(user, verb, &owned.to_string())) {
            match owned {
                Owned::Project(id) => projects.push(id.clone()),
                Owned::Domain(id) => domains.push(id.clone()),
            }
        }
        projects.sort();
        projects.dedup();
        let own = Own { name: user.username.clone(), uid: user.uid.clone() };
        Scope::Some { own, namespaces, projects, domains }
    }

    /// [`Inner::scope`], to be looked at again while an answer goes on.
    pub(crate) fn viewer(&self, user: UserInfo, verb: &'static str) -> Viewer {
        // As of before: the scope is at least as new.
        let versions = self.scope_versions(&user);
        let scope = self.scope(&user, verb);
        Viewer { user, verb, versions, scope }
    }

    /// As long as they stay, so does the scope; `None`: who decides does not say.
    fn scope_versions(&self, user: &UserInfo) -> Option<Versions> {
        let rights = self.authorizer.decisions_version(user)?;
        Some((rights, self.namespaces.version(), self.owners.version()))
    }

    /// The right to the trail as a whole.
    pub(crate) fn require_all(&self, user: &UserInfo, verb: &str) -> Result<(), StatusError> {
        if self.may(user, verb, "") {
            return Ok(());
        }
        let who = &user.username;
        let why = format!(
            "User {who:?} cannot {verb} resource {RESOURCE:?} in API group {GROUP:?} at the cluster scope"
        );
        Err(StatusError::forbidden(GROUP, RESOURCE, "", why))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use gantry_audit_api::query::Query;
    use gantry_kube_types::{AuditEvent, AuditObject, Authorizer, Decision, audit_annotations};

    use super::*;
    use crate::Config;
    use crate::namespaces::Facts;
    use crate::search::search;

    /// `manager` has the right in two of three namespaces, `keeper` in a project and `head` in a domain.
    struct Rules;

    impl Authorizer for Rules {
        fn authorize(&self, asked: &Attributes) -> Decision {
            let allowed = match asked.user.username.as_str() {
                "auditor" => true,
                "manager" => ["shop-dev", "shop-prod", "bank-dev"].contains(&asked.namespace.as_str()),
                "keeper" => asked.namespace == "project:bare",
                "head" => asked.namespace == "domain:acme",
                _ => false,
            };
            if allowed { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) }
        }
    }

    #[tokio::test]
    async fn a_right_in_a_namespace_shows_that_namespace_and_whole_projects_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let audit = crate::build(Config::new(directory.path()), Arc::new(Rules)).expect("a trail");
        let facts = |project: &str| Facts { project: Some(project.to_owned()), sessions: None };
        audit.inner.namespaces.replace(HashMap::from([
            ("shop-dev".to_owned(), facts("shop")),
            ("shop-prod".to_owned(), facts("shop")),
            ("bank-dev".to_owned(), facts("bank")),
            ("bank-prod".to_owned(), facts("bank")),
            ("default".to_owned(), Facts::default()),
        ]));
        let scope = |name: &str| audit.inner.scope(&UserInfo::authenticated(name, &[]), "list");
        let own = |name: &str| Own { name: name.to_owned(), uid: String::new() };
        assert_eq!(scope("auditor"), Scope::All);
        let strings = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            scope("manager"),
            Scope::Some {
                own: own("manager"),
                namespaces: strings(&["bank-dev", "shop-dev", "shop-prod"]),
                projects: strings(&["shop"]),
                domains: Vec::new(),
            }
        );
        assert_eq!(
            scope("alice"),
            Scope::Some {
                own: own("alice"),
                namespaces: Vec::new(),
                projects: Vec::new(),
                domains: Vec::new()
            }
        );
        // What is about a project is in no namespace.
        let sink = audit.sink();
        for (id, project) in [("shops", "shop"), ("banks", "bank")] {
            let event = AuditEvent { id: id.to_owned(), verb: "push".to_owned(), ..AuditEvent::default() };
            sink.record(event.with(audit_annotations::PROJECT, project)).await.expect("recorded");
        }
        audit.flush().await.expect("durable");
        let finds = |name: &str, project: &str| {
            let query = Query { project: Some(project.to_owned()), ..Query::default() };
            let page = search(&audit.inner.catalog, &query, &scope(name)).expect("readable");
            page.hits.len()
        };
        for (name, project, want) in
            [("auditor", "bank", 1), ("manager", "shop", 1), ("manager", "bank", 0), ("alice", "shop", 0)]
        {
            assert_eq!(finds(name, project), want, "{name} in {project}");
        }
        assert!(audit.inner.require_all(&UserInfo::authenticated("manager", &[]), "list").is_err());
        audit.close().await;
    }

    /// What is about a project or a domain, and in no namespace.
    fn about_owners() -> Vec<AuditEvent> {
        let event =
            |id: &str| AuditEvent { id: id.to_owned(), verb: "get".to_owned(), ..AuditEvent::default() };
        let identity = |resource: &str, name: &str| AuditObject::new("identity.gantry.dev", resource, name);
        let mut by_token = event("by-a-token-of-bank");
        by_token.user.extra.insert("identity.gantry.dev/project".to_owned(), vec!["bank".to_owned()]);
        let mut of_bare = by_token.clone().about(identity("projects", "bare"));
        of_bare.id = "bare-itself-by-a-token-of-bank".to_owned();
        vec![
            event("assignment-in-bare").with(audit_annotations::PROJECT, "bare"),
            event("assignment-in-bank").with(audit_annotations::PROJECT, "bank"),
            of_bare,
            by_token,
            event("bank-itself").about(identity("projects", "bank")),
            event("user-of-acme").with(audit_annotations::OBJECT_DOMAIN, "acme"),
            event("user-of-globex").with(audit_annotations::OBJECT_DOMAIN, "globex"),
            event("acme-itself").about(identity("domains", "acme")),
            event("all-domains").about(identity("domains", "")),
            // An id of the other kind.
            event("project-called-acme").with(audit_annotations::PROJECT, "acme"),
        ]
    }

    #[tokio::test]
    async fn a_right_in_a_project_or_a_domain_shows_what_is_about_that_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let audit = crate::build(Config::new(directory.path()), Arc::new(Rules)).expect("a trail");
        let (inner, sink) = (&audit.inner, audit.sink());
        for event in about_owners() {
            sink.record(event).await.expect("recorded");
        }
        audit.flush().await.expect("durable");
        let sees = |name: &str| {
            let scope = inner.scope(&UserInfo::authenticated(name, &[]), "list");
            let page = search(&inner.catalog, &Query::default(), &scope).expect("readable");
            let id = |hit: &crate::search::Hit| {
                gantry_audit_api::record::Record::parse(&hit.payload).expect("a record").audit_id.into_owned()
            };
            let mut ids: Vec<String> = page.hits.iter().map(id).collect();
            ids.sort();
            ids.join(" ")
        };
        assert_eq!(sees("keeper"), "", "nobody knows of the project yet");
        let mut viewer = inner.viewer(UserInfo::authenticated("keeper", &[]), "list");
        for id in ["bare", "bank", "acme"] {
            inner.owners.set(Owned::Project(id.to_owned()), true);
        }
        for id in ["acme", "globex"] {
            inner.owners.set(Owned::Domain(id.to_owned()), true);
        }
        assert_eq!(sees("keeper"), "assignment-in-bare bare-itself-by-a-token-of-bank");
        assert_eq!(sees("head"), "acme-itself user-of-acme");
        assert_eq!(sees("alice"), "");
        assert_eq!(sees("auditor").split(' ').count(), about_owners().len());
        assert!(viewer.refresh(inner) && !viewer.scope.is_own());
        inner.owners.set(Owned::Project("bare".to_owned()), false);
        assert_eq!(sees("keeper"), "");
        assert!(!viewer.refresh(inner), "nothing is left of what was seen");
        audit.close().await;
    }

    #[tokio::test]
    async fn who_looks_on_sees_what_is_theirs_by_then() {
        let directory = tempfile::tempdir().expect("a directory");
        let audit = crate::build(Config::new(directory.path()), Arc::new(Rules)).expect("a trail");
        let inner = &audit.inner;
        let mut viewer = inner.viewer(UserInfo::authenticated("manager", &[]), "list");
        let mut sees = |names: &[&str]| {
            let facts = names.iter().map(|name| ((*name).to_owned(), Facts::default()));
            inner.namespaces.replace(facts.collect());
            let goes_on = viewer.refresh(inner);
            let Scope::Some { namespaces, .. } = &viewer.scope else { panic!("not all") };
            (goes_on, namespaces.join(","))
        };
        assert_eq!(sees(&["default"]), (true, String::new()), "own deeds, as from the beginning");
        assert_eq!(sees(&["shop-dev", "bank-dev"]), (true, "bank-dev,shop-dev".to_owned()));
        assert_eq!(sees(&["shop-dev", "default"]), (true, "shop-dev".to_owned()));
        assert_eq!(sees(&["default"]), (false, String::new()));
        audit.close().await;
    }
}
