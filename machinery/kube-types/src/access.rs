//! The seams between the front door and those who know callers and rights.
//!
//! The front door owns the order (authenticate, authorise, hand on); the engine and the components
//! bring authenticators and authorisers to it and ask the same authoriser themselves (reviews,
//! registry scopes, impersonation).

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::{Explanation, RequestInfo, StatusError, UserInfo};

/// What is known of the connection a request came over.
#[derive(Clone, Debug, Default)]
pub struct ConnectionInfo {
    /// `None` for in-process callers.
    pub peer: Option<SocketAddr>,
    /// The client's certificate chain (DER, leaf first), verified against our client CA by TLS.
    pub client_certificates: Vec<Vec<u8>>,
    /// What an authenticator knows of the connection from an earlier request.
    pub memory: Memory,
}

/// Room for one value, as long as its connection: most connections are one caller's, who shows the same credential
/// with every request. What is remembered saves work and decides nothing.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>);

impl Memory {
    /// What was kept last, where it is of this type.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept?.downcast().ok()
    }

    pub fn keep<T: Any + Send + Sync>(&self, value: Arc<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }
}

impl fmt::Debug for Memory {
    /// Not what is in it: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

/// Recognises one kind of credential.
#[async_trait::async_trait]
pub trait Authenticator: Send + Sync {
    /// `Ok(None)`: no credential of this kind was shown, ask the next. `Err`: one was shown and is bad.
    async fn authenticate(
        &self,
        headers: &http::HeaderMap,
        connection: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError>;
}

/// Knows whether what callers once showed is still good: asked about answers that go on for long.
pub trait Standing: Send + Sync {
    /// While this number stays, so does every answer.
    fn version(&self) -> u64;

    /// Is the credential that `caller` showed at that time still good? Of callers it does not know: true.
    fn is_good(&self, caller: &UserInfo, since: Timestamp) -> bool;
}

/// In the extensions of an answer that goes on until somebody ends it, where the request does not show it (a watch, a
/// followed log and a terminal do).
#[derive(Clone, Copy, Debug)]
pub struct GoesOn;

/// One question: may `user` do this?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub user: UserInfo,
    pub verb: String,
    /// False: `path` is what is asked for; the fields below are empty.
    pub is_resource_request: bool,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub path: String,
}

impl Attributes {
    pub fn of(user: &UserInfo, request: &RequestInfo) -> Self {
        Self {
            user: user.clone(),
            verb: request.verb.clone(),
            is_resource_request: request.is_resource_request,
            group: request.group.clone(),
            version: request.version.clone(),
            resource: request.resource.clone(),
            subresource: request.subresource.clone(),
            namespace: request.namespace.clone(),
            // A list or watch of one object is a question about that object, as upstream has it.
            name: if request.name.is_empty() { &request.selected_name } else { &request.name }.clone(),
            path: request.path.clone(),
        }
    }
}

/// The answer, with the sentence that goes to reviews, audit and the `Forbidden` message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Why: the binding and role that grant it.
    Allow(String),
    /// No authoriser may overrule it.
    Deny(String),
    /// Nothing grants it; refused when every authoriser says so.
    NoOpinion(String),
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// Decides on rights from what is in memory; never waits for I/O.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, attributes: &Attributes) -> Decision;

    /// While this number stays, a question of this user that was answered has the same answer. `None`: answers depend
    /// on more, and each question has to be asked.
    fn decisions_version(&self, _user: &UserInfo) -> Option<u64> {
        None
    }

    /// Why, told to `listener`, where the right does not come from RBAC's bindings alone. `None`: it does, or somebody
    /// else knows. Asked by people now and then, so it may cost more than a decision; it names nothing that `listener`
    /// may not see.
    ///
    /// Whoever stands around another authoriser passes on what is not theirs.
    fn explain(&self, _attributes: &Attributes, _listener: &UserInfo) -> Option<Explanation> {
        None
    }
}
