//! What Keystone sends (Identity API v3), as far as it is read, and what it is sent.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ExternalGrant, ExternalScope, Named};

#[derive(Deserialize)]
pub(super) struct TokenDocument {
    pub token: Token,
}

#[derive(Deserialize)]
pub(super) struct Token {
    pub user: TokenUser,
    pub expires_at: Timestamp,
    #[serde(default)]
    pub methods: Vec<String>,
    #[serde(default)]
    pub roles: Vec<Named>,
    pub project: Option<InDomain>,
    pub domain: Option<Named>,
    pub system: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct TokenUser {
    pub id: String,
    pub name: String,
    pub domain: Named,
}

#[derive(Deserialize)]
pub(super) struct InDomain {
    pub id: String,
    pub name: String,
    pub domain: Named,
}

/// A user as lists hold them.
#[derive(Deserialize)]
pub(super) struct User {
    pub id: String,
    pub name: String,
    pub domain_id: String,
    #[serde(default = "yes")]
    pub enabled: bool,
    pub email: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct Domain {
    pub id: String,
    pub name: String,
    #[serde(default = "yes")]
    pub enabled: bool,
}

#[derive(Deserialize)]
pub(super) struct Group {
    pub id: String,
    pub name: String,
}

#[derive(Deserialize)]
pub(super) struct Assignment {
    pub role: Named,
    pub user: Option<Reference>,
    pub group: Option<Reference>,
    pub scope: AssignmentScope,
}

/// Which roles a role brings along.
#[derive(Deserialize)]
pub(super) struct Inference {
    pub prior_role: Reference,
    pub implies: Vec<Named>,
}

#[derive(Deserialize)]
pub(super) struct Reference {
    pub id: String,
}

#[derive(Deserialize)]
pub(super) struct AssignmentScope {
    project: Option<InDomain>,
    domain: Option<Named>,
    system: Option<Value>,
}

fn yes() -> bool {
    true
}

fn scope(project: Option<InDomain>, domain: Option<Named>, system: Option<&Value>) -> Option<ExternalScope> {
    if let Some(project) = project {
        let InDomain { id, name, domain } = project;
        return Some(ExternalScope::Project { project: Named { id, name }, domain });
    }
    if let Some(domain) = domain {
        return Some(ExternalScope::Domain(domain));
    }
    system.filter(|s| s.get("all") == Some(&Value::Bool(true))).map(|_| ExternalScope::System)
}

impl Token {
    /// Where the token holds; `None`: nowhere in particular.
    pub(super) fn scope(&mut self) -> Option<ExternalScope> {
        scope(self.project.take(), self.domain.take(), self.system.as_ref())
    }
}

impl Assignment {
    pub(super) fn grant(self) -> Option<ExternalGrant> {
        let AssignmentScope { project, domain, system } = self.scope;
        let scope = scope(project, domain, system.as_ref())?;
        Some(ExternalGrant { scope, role: self.role })
    }
}

/// The body of an authentication by password.
pub(super) fn password_body(user: &str, domain: &Value, password: &str, scope: &Value) -> Value {
    json!({"auth": {
        "identity": {
            "methods": ["password"],
            "password": {"user": {"name": user, "domain": domain, "password": password}},
        },
        "scope": scope,
    }})
}
