//! Everything identity knows, as one value.

use std::borrow::Cow;
use std::sync::Arc;

use gantry_identity_api::{
    ApplicationCredential, Domain, Group, IdentityProvider, KeystoneRecord, Named, Project, Role, Trust, User,
};

use super::assignments::Assignments;
use super::by_id::Keyed;
use super::table::{Entry, Table, UniqueName};

/// The world of identity at one moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub domains: Table<Domain>,
    pub projects: Table<Project>,
    pub users: Table<User>,
    pub groups: Table<Group>,
    pub roles: Table<Role>,
    pub assignments: Assignments,
    pub application_credentials: Table<ApplicationCredential>,
    pub providers: Table<IdentityProvider>,
    pub trusts: Table<Trust>,
    pub records: Table<KeystoneRecord>,
}

impl State {
    /// The project, the one above it, and so on. Ends at a cycle, which the API refuses to make.
    pub fn ancestry<'a>(&'a self, project: &str) -> Vec<&'a Arc<Project>> {
        let mut chain: Vec<&Arc<Project>> = Vec::new();
        let mut next = self.projects.get(project);
        while let Some(project) = next {
            if chain.iter().any(|seen| seen.id() == project.id()) {
                break;
            }
            chain.push(project);
            next = project.spec.parent.as_deref().and_then(|parent| self.projects.get(parent));
        }
        chain
    }

    /// The projects directly below a project.
    pub fn children<'a>(&'a self, project: &'a str) -> impl Iterator<Item = &'a Arc<Project>> {
        self.projects.iter().filter(move |p| p.spec.parent.as_deref() == Some(project))
    }

    /// All projects below a project, nearest first.
    pub fn below(&self, project: &str) -> Vec<Arc<Project>> {
        let mut found: Vec<Arc<Project>> = self.children(project).cloned().collect();
        let mut at = 0;
        while at < found.len() {
            let next = found[at].id();
            for child in self.children(&next) {
                // A cycle, which the API refuses to make, would have no end.
                if !found.iter().any(|seen| seen.id() == child.id()) && child.id() != project {
                    found.push(child.clone());
                }
            }
            at += 1;
        }
        found
    }

    /// Enabled and not being deleted, with its domain and every project above it.
    pub fn project_enabled(&self, project: &Project) -> bool {
        let domain = self.domains.get(&project.spec.domain).is_some_and(|d| d.spec.enabled);
        domain && self.ancestry(&project.id()).iter().all(|p| p.spec.enabled && !leaving(&***p))
    }

    /// Enabled and not being deleted, with its domain.
    pub fn user_enabled(&self, user: &User) -> bool {
        let domain = self.domains.get(&user.spec.domain).is_some_and(|d| d.spec.enabled);
        domain && user.spec.enabled && !leaving(user)
    }

    /// Enabled and, where the user comes from elsewhere, still let in from there: what every use of a right asks.
    pub fn user_active(&self, user: &User) -> bool {
        self.user_enabled(user) && user.spec.provider.as_deref().is_none_or(|id| self.lets_in(id))
    }

    /// Is there an identity provider of that id, and do people come by it?
    pub fn lets_in(&self, provider: &str) -> bool {
        self.providers.get(provider).is_some_and(|p| p.spec.enabled && !leaving(&**p))
    }

    /// `acme/alice`; `None` where the domain does not exist.
    pub fn kubernetes_name(&self, user: &User) -> Option<String> {
        let domain = self.domains.get(&user.spec.domain)?;
        Some(format!("{}/{}", domain.display_name(), user.display_name()))
    }

    /// `acme/devs` for each group of the user that exists in the user's own domain.
    pub fn kubernetes_groups(&self, user: &User) -> Vec<String> {
        let Some(domain) = self.domains.get(&user.spec.domain) else { return Vec::new() };
        let own = self.groups_of(user);
        own.map(|group| format!("{}/{}", domain.display_name(), group.display_name())).collect()
    }

    /// The user's groups that exist and are of the user's own domain.
    pub fn groups_of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Arc<Group>> {
        let groups = user.spec.groups.iter().filter_map(|id| self.groups.get(id));
        groups.filter(|group| group.spec.domain == user.spec.domain)
    }

    /// The provider with this name or id. No two share one.
    pub fn provider_called(&self, name: &str) -> Option<&Arc<IdentityProvider>> {
        self.providers.by_name(None, name).or_else(|| self.providers.get(name))
    }

    /// The user called `acme/alice`.
    pub fn user_by_kubernetes_name(&self, name: &str) -> Option<&Arc<User>> {
        let (domain, user) = name.split_once('/')?;
        let domain = self.domains.by_name(None, domain)?;
        self.users.by_name(Some(&domain.id()), user)
    }
}

/// Its deletion has been asked for.
fn leaving<K: kube::Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

macro_rules! entries {
    ($($kind:ty => |$o:ident| $name:expr;)*) => {$(
        impl Keyed for $kind {
            fn key(&self) -> &str {
                self.metadata.name.as_deref().unwrap_or_default()
            }
        }

        impl Entry for $kind {
            fn unique_name(&self) -> Option<UniqueName<'_>> {
                let $o = self;
                $name
            }
        }
    )*};
}

entries! {
    Domain => |o| Some((None, called(o)));
    Project => |o| Some((Some(Cow::Borrowed(&o.spec.domain)), called(o)));
    User => |o| Some((Some(Cow::Borrowed(&o.spec.domain)), called(o)));
    Group => |o| Some((Some(Cow::Borrowed(&o.spec.domain)), called(o)));
    Role => |o| Some((o.spec.domain.as_deref().map(Cow::Borrowed), called(o)));
    IdentityProvider => |o| Some((None, called(o)));
    // A user's credentials have names of their own; the user stands where others have the domain.
    ApplicationCredential => |o| Some((Some(Cow::Borrowed(&o.spec.user)), &o.spec.name));
    Trust => |_o| None;
    // The collection and the parent stand where others have the domain.
    KeystoneRecord => |o| Some((
        Some(Cow::Owned(format!("{}/{}", o.spec.collection, o.spec.parent.as_deref().unwrap_or_default()))),
        &o.spec.id,
    ));
}

/// [`Named::display_name`], where it is.
fn called<K: Named + Entry>(object: &K) -> &str {
    object.given_name().unwrap_or_else(|| object.key())
}
