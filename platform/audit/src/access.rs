//! Who may see which records: an auditor all, who has the right in a namespace that namespace's, everybody
//! else their own deeds.

use gantry_audit_api::{GROUP, RESOURCE, VERSION};
use gantry_kube_types::{Attributes, StatusError, UserInfo};

use crate::Inner;
use crate::search::{Own, Scope};

/// Who looks at what for long.
pub(crate) struct Viewer {
    user: UserInfo,
    verb: &'static str,
    versions: Option<(u64, u64)>,
    pub(crate) scope: Scope,
}

impl Viewer {
    /// Of what the scope was made from; `None`: each question has to be asked anew.
    pub(crate) fn versions(&self) -> Option<(u64, u64)> {
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
            (Scope::Some { namespaces: before, .. }, Scope::Some { namespaces: now, .. }) => {
                before.is_empty() || !now.is_empty()
            }
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

    /// What the caller may `list` or `get`. A project is the caller's when each of its namespaces is.
    pub(crate) fn scope(&self, user: &UserInfo, verb: &str) -> Scope {
        if self.may(user, verb, "") {
            return Scope::All;
        }
        let all = self.namespaces.all();
        let all = &all.facts;
        let mut namespaces: Vec<String> =
            all.keys().filter(|name| self.may(user, verb, name)).cloned().collect();
        namespaces.sort();
        let mut projects: Vec<String> = namespaces
            .iter()
            .filter_map(|name| all.get(name)?.project.clone())
            .filter(|project| {
                let mut of_it = all.iter().filter(|(_, facts)| facts.project.as_ref() == Some(project));
                of_it.all(|(name, _)| namespaces.binary_search(name).is_ok())
            })
            .collect();
        projects.sort();
        projects.dedup();
        let own = Own { name: user.username.clone(), uid: user.uid.clone() };
        Scope::Some { own, namespaces, projects }
    }

    /// [`Inner::scope`], to be looked at again while an answer goes on.
    pub(crate) fn viewer(&self, user: UserInfo, verb: &'static str) -> Viewer {
        // As of before: the scope is at least as new.
        let versions = self.scope_versions(&user);
        let scope = self.scope(&user, verb);
        Viewer { user, verb, versions, scope }
    }

    /// As long as they stay, so does the scope; `None`: who decides does not say.
    fn scope_versions(&self, user: &UserInfo) -> Option<(u64, u64)> {
        Some((self.authorizer.decisions_version(user)?, self.namespaces.version()))
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
    use gantry_kube_types::{AuditEvent, Authorizer, Decision, audit_annotations};

    use super::*;
    use crate::Config;
    use crate::namespaces::Facts;
    use crate::search::search;

    /// `manager` has the right in two of three namespaces.
    struct Rules;

    impl Authorizer for Rules {
        fn authorize(&self, asked: &Attributes) -> Decision {
            let allowed = match asked.user.username.as_str() {
                "auditor" => true,
                "manager" => ["shop-dev", "shop-prod", "bank-dev"].contains(&asked.namespace.as_str()),
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
            }
        );
        assert_eq!(
            scope("alice"),
            Scope::Some { own: own("alice"), namespaces: Vec::new(), projects: Vec::new() }
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
