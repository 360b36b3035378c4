//! What somebody who signs in shows and asks for, whatever protocol it came by.

use gantry_identity_api::{DEFAULT_DOMAIN, Domain, Project, User};
use std::sync::Arc;

use crate::directory::State;
use crate::password::Password;

/// A domain, as clients name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainRef {
    Id(String),
    Name(String),
}

impl DomainRef {
    pub fn find<'a>(&self, state: &'a State) -> Option<&'a Arc<Domain>> {
        match self {
            Self::Id(id) => state.domains.get(id),
            Self::Name(name) => state.domains.by_name(None, name),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Id(text) | Self::Name(text) => text,
        }
    }
}

/// A user, as clients name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRef {
    Id(String),
    Name { name: String, domain: DomainRef },
}

impl UserRef {
    /// `acme/alice`; a bare name is one of the default domain.
    pub fn parse(text: &str) -> Self {
        match text.split_once('/') {
            Some((domain, name)) => {
                Self::Name { name: name.to_owned(), domain: DomainRef::Name(domain.to_owned()) }
            }
            None => Self::Name { name: text.to_owned(), domain: DomainRef::Id(DEFAULT_DOMAIN.to_owned()) },
        }
    }

    pub fn find<'a>(&self, state: &'a State) -> Option<&'a Arc<User>> {
        match self {
            Self::Id(id) => state.users.get(id),
            Self::Name { name, domain } => {
                let domain = domain.find(state)?;
                state.users.by_name(domain.metadata.name.as_deref(), name)
            }
        }
    }

    /// For the record and for counting failures: what was asked for, not who it is.
    pub fn text(&self) -> String {
        match self {
            Self::Id(id) => id.clone(),
            Self::Name { name, domain } => format!("{}/{name}", domain.text()),
        }
    }
}

/// A project, as clients name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProjectRef {
    Id(String),
    Name { name: String, domain: DomainRef },
}

impl ProjectRef {
    pub fn find<'a>(&self, state: &'a State) -> Option<&'a Arc<Project>> {
        match self {
            Self::Id(id) => state.projects.get(id),
            Self::Name { name, domain } => {
                let domain = domain.find(state)?;
                state.projects.by_name(domain.metadata.name.as_deref(), name)
            }
        }
    }
}

/// An application credential, as clients name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialRef {
    Id(String),
    Name { name: String, user: UserRef },
}

/// One thing that proves who somebody is.
#[derive(Debug)]
pub enum Method {
    Password {
        user: UserRef,
        password: Password,
    },
    Token {
        token: String,
    },
    ApplicationCredential {
        credential: CredentialRef,
        secret: Password,
    },
    Totp {
        user: UserRef,
        passcode: String,
    },
    /// An outside provider has said who it is: [`crate::login`] is told the user's id.
    Federated {
        user: String,
        protocol: &'static str,
    },
}

impl Method {
    /// Keystone's word, as it stands in tokens and in the users' multi-factor rules.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Password { .. } => "password",
            Self::Token { .. } => "token",
            Self::ApplicationCredential { .. } => "application_credential",
            Self::Totp { .. } => "totp",
            Self::Federated { protocol, .. } => protocol,
        }
    }
}

/// What the token is to be good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ScopeRequest {
    /// The user's default project where they have a role in it, else nothing.
    #[default]
    Default,
    Unscoped,
    System,
    Domain(DomainRef),
    Project(ProjectRef),
    Trust(String),
}

/// A whole request.
#[derive(Debug, Default)]
pub struct LoginRequest {
    pub methods: Vec<Method>,
    pub scope: ScopeRequest,
    /// Of a sign-in that was not complete: its methods count with these.
    pub receipt: Option<String>,
    /// Whom else the token is for, instead of this platform: clusters that take us as their OpenID issuer.
    pub audiences: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::two_organisations;

    #[test]
    fn users_are_found_by_id_and_by_name_in_their_domain() {
        let state = two_organisations();
        for (reference, found) in [
            (UserRef::parse("acme/alice"), true),
            (UserRef::parse("globex/alice"), false),
            (UserRef::parse("alice"), false),
            (UserRef::parse("acme/alice/x"), false),
            (UserRef::Id("alice".to_owned()), true),
            (UserRef::Name { name: "alice".to_owned(), domain: DomainRef::Id("acme".to_owned()) }, true),
        ] {
            assert_eq!(reference.find(&state).is_some(), found, "{reference:?}");
        }
    }
}
