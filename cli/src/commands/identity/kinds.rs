//! What the commands need to know of each kind: its words, its columns.

use std::collections::BTreeMap;
use std::fmt::Debug;

use gantry_identity_api::{
    ApplicationCredential, Domain, Group, IdentityProvider, Named as _, Project, Quota, Role, User,
};
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rules;

/// A kind that the commands list, show and delete.
pub trait Kind:
    kube::Resource<DynamicType = (), Scope = ClusterResourceScope>
    + ResourceExt
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// `user`
    const WORD: &'static str;
    /// Kinds whose names its columns show.
    const RELATED: &'static [Related] = &[];

    /// What people call it, without its domain.
    fn called(&self) -> String;

    /// Id of the domain it is in.
    fn domain_id(&self) -> Option<&str>;

    /// The columns between NAME and AGE.
    fn headers(wide: bool) -> Vec<&'static str>;

    fn cells(&self, known: &Known, wide: bool) -> Vec<String>;

    /// `user.identity.gantry.dev`
    fn resource_word() -> String {
        format!("{}.{}", Self::kind(&()).to_lowercase(), Self::group(&()))
    }
}

/// Kinds that others refer to.
#[derive(Clone, Copy, Debug)]
pub enum Related {
    Projects,
    Groups,
    Users,
    Roles,
}

/// Names of objects by id: people read names.
#[derive(Clone, Debug, Default)]
pub struct Known {
    domains: BTreeMap<String, String>,
    others: BTreeMap<String, String>,
}

impl Known {
    pub fn with_domains(domains: &[Domain]) -> Self {
        Self {
            domains: domains.iter().map(|d| (d.name_any(), d.called())).collect(),
            others: BTreeMap::new(),
        }
    }

    pub fn add<K: Kind>(&mut self, objects: &[K]) {
        let named = objects.iter().map(|o| (o.name_any(), self.full_name(o))).collect::<Vec<_>>();
        self.others.extend(named);
    }

    /// `acme/alice`
    pub fn full_name<K: Kind>(&self, object: &K) -> String {
        match object.domain_id() {
            Some(id) => format!("{}/{}", self.domain(id), object.called()),
            None => object.called(),
        }
    }

    /// The domain's name, or its id where the caller may not see it.
    pub fn domain<'a>(&'a self, id: &'a str) -> &'a str {
        self.domains.get(id).map_or(id, String::as_str)
    }

    /// The full name of what has the id, or the id.
    pub fn other<'a>(&'a self, id: &'a str) -> &'a str {
        self.others.get(id).map_or(id, String::as_str)
    }

    fn others<'a>(&'a self, ids: impl IntoIterator<Item = &'a String>) -> String {
        ids.into_iter().map(|id| self.other(id)).collect::<Vec<_>>().join(",")
    }
}

/// `cpu=8,memory=16Gi`
pub fn quota(quota: &Quota) -> String {
    quota.entries().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// The status of the condition `Ready`.
fn ready<'a>(conditions: impl IntoIterator<Item = &'a Condition>) -> String {
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready");
    ready.map_or_else(|| "Unknown".to_owned(), |c| c.status.clone())
}

impl Kind for Domain {
    const WORD: &'static str = "domain";

    fn called(&self) -> String {
        self.display_name()
    }

    fn domain_id(&self) -> Option<&str> {
        None
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        if wide { vec!["ENABLED", "QUOTA", "TAGS", "DESCRIPTION"] } else { vec!["ENABLED"] }
    }

    fn cells(&self, _: &Known, wide: bool) -> Vec<String> {
        let mut cells = vec![self.spec.enabled.to_string()];
        if wide {
            cells.extend([quota(&self.spec.quota), self.spec.tags.join(","), self.spec.description.clone()]);
        }
        cells
    }
}

impl Kind for Project {
    const WORD: &'static str = "project";
    const RELATED: &'static [Related] = &[Related::Projects];

    fn called(&self) -> String {
        self.display_name()
    }

    fn domain_id(&self) -> Option<&str> {
        Some(&self.spec.domain)
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["PARENT", "ENVIRONMENTS", "ENABLED", "READY"];
        if wide {
            headers.extend(["POD-SECURITY", "QUOTA", "DESCRIPTION"]);
        }
        headers
    }

    fn cells(&self, known: &Known, wide: bool) -> Vec<String> {
        let spec = &self.spec;
        let environments: Vec<&str> = spec.environments.iter().map(|e| e.name.as_str()).collect();
        let mut cells = vec![
            spec.parent.as_deref().map(|id| known.other(id).to_owned()).unwrap_or_default(),
            environments.join(","),
            spec.enabled.to_string(),
            ready(self.status.iter().flat_map(|status| &status.conditions)),
        ];
        if wide {
            cells.extend([
                spec.pod_security.as_str().to_owned(),
                quota(&spec.quota),
                spec.description.clone(),
            ]);
        }
        cells
    }
}

impl Kind for User {
    const WORD: &'static str = "user";
    const RELATED: &'static [Related] = &[Related::Groups, Related::Projects];

    fn called(&self) -> String {
        self.display_name()
    }

    fn domain_id(&self) -> Option<&str> {
        Some(&self.spec.domain)
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["ENABLED", "GROUPS", "EMAIL"];
        if wide {
            headers.extend(["DEFAULT-PROJECT", "PROVIDER", "DESCRIPTION"]);
        }
        headers
    }

    fn cells(&self, known: &Known, wide: bool) -> Vec<String> {
        let spec = &self.spec;
        let mut cells = vec![
            spec.enabled.to_string(),
            known.others(&spec.groups),
            spec.email.clone().unwrap_or_default(),
        ];
        if wide {
            cells.extend([
                spec.default_project.as_deref().map(|id| known.other(id).to_owned()).unwrap_or_default(),
                spec.provider.clone().unwrap_or_default(),
                spec.description.clone(),
            ]);
        }
        cells
    }
}

impl Kind for Group {
    const WORD: &'static str = "group";

    fn called(&self) -> String {
        self.display_name()
    }

    fn domain_id(&self) -> Option<&str> {
        Some(&self.spec.domain)
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        if wide { vec!["PROVIDER", "DESCRIPTION"] } else { vec!["DESCRIPTION"] }
    }

    fn cells(&self, _: &Known, wide: bool) -> Vec<String> {
        let provider = self.spec.provider.clone().unwrap_or_default();
        let provider = wide.then_some(provider);
        provider.into_iter().chain([self.spec.description.clone()]).collect()
    }
}

impl Kind for Role {
    const WORD: &'static str = "role";
    const RELATED: &'static [Related] = &[Related::Roles];

    fn called(&self) -> String {
        self.display_name()
    }

    fn domain_id(&self) -> Option<&str> {
        self.spec.domain.as_deref()
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let rules = "RULES";
        if wide { vec!["IMPLIES", rules, "DESCRIPTION"] } else { vec!["IMPLIES", rules] }
    }

    fn cells(&self, known: &Known, wide: bool) -> Vec<String> {
        let spec = &self.spec;
        let implies = known.others(&spec.implies);
        if wide {
            let shown = spec.rules.iter().map(rules::show).collect::<Vec<_>>().join("; ");
            return vec![implies, shown, spec.description.clone()];
        }
        vec![implies, spec.rules.len().to_string()]
    }
}

impl Kind for ApplicationCredential {
    const WORD: &'static str = "application credential";
    const RELATED: &'static [Related] = &[Related::Users, Related::Projects, Related::Roles];

    fn called(&self) -> String {
        self.spec.name.clone()
    }

    fn domain_id(&self) -> Option<&str> {
        None
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["USER", "PROJECT", "ROLES", "EXPIRES"];
        if wide {
            headers.push("DESCRIPTION");
        }
        headers
    }

    fn cells(&self, known: &Known, wide: bool) -> Vec<String> {
        let spec = &self.spec;
        let mut cells = vec![
            known.other(&spec.user).to_owned(),
            known.other(&spec.project).to_owned(),
            known.others(&spec.roles),
            spec.expires_at.as_ref().map_or_else(|| "never".to_owned(), |at| at.0.to_string()),
        ];
        if wide {
            cells.push(spec.description.clone());
        }
        cells
    }
}

impl Kind for IdentityProvider {
    const WORD: &'static str = "identity provider";

    fn called(&self) -> String {
        self.display_name()
    }

    /// Its name is unique on the platform: the domain is whose people come by it.
    fn domain_id(&self) -> Option<&str> {
        None
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["TYPE", "DOMAIN", "ENABLED", "READY", "SYNCED"];
        if wide {
            headers.extend(["USERS", "GROUPS", "SECRET", "DESCRIPTION"]);
        }
        headers
    }

    fn cells(&self, known: &Known, wide: bool) -> Vec<String> {
        let (spec, status) = (&self.spec, self.status.clone().unwrap_or_default());
        let mut cells = vec![
            spec.provider_type.as_str().to_owned(),
            known.domain(&spec.domain).to_owned(),
            spec.enabled.to_string(),
            ready(&status.conditions),
            status.synced_at.map_or_else(|| "never".to_owned(), |at| at.0.to_string()),
        ];
        if wide {
            cells.extend([
                status.users.to_string(),
                status.groups.to_string(),
                spec.secret.clone().unwrap_or_default(),
                spec.description.clone(),
            ]);
        }
        cells
    }
}
