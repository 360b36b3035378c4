//! The seam between those who do things and the audit trail that keeps them.
//!
//! The front door, the identity component and everybody else who sees a deed that matters hand
//! [`AuditEvent`]s to one [`AuditSink`]. An event is shaped as `audit.k8s.io/v1` `Event`; the sink writes
//! it down in that form, on its own thread: what is handed over here is as cheap to make as it can be.
//!
//! A deed is acknowledged only after its event is in the sink's queue. To hold that even when the caller
//! goes away or a handler panics, a place in the queue is taken *before* the deed ([`AuditPlace`]).

use std::any::Any;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Uri};
use jiff::Timestamp;

use crate::{Attributes, RequestInfo, UserInfo};

/// How much of a request is written down.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum AuditLevel {
    /// Nothing at all.
    None,
    /// Who, what, when, from where, and how it ended.
    #[default]
    Metadata,
    /// And what was sent.
    Request,
    /// And what was answered.
    RequestResponse,
}

impl AuditLevel {
    /// As policies and records have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// The moment of a request that an event is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum AuditStage {
    /// The caller is known; nothing is decided yet.
    RequestReceived,
    /// The head of an answer that goes on for long is about to be sent.
    ResponseStarted,
    /// The end.
    #[default]
    ResponseComplete,
    /// The handler panicked.
    Panic,
}

impl AuditStage {
    /// Its name in records and policy files.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

/// What the policy wants of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditPlan {
    pub level: AuditLevel,
    /// Leaves `metadata.managedFields` out of recorded objects.
    pub omit_managed_fields: bool,
    omitted: u8,
}

impl AuditPlan {
    /// A request that leaves no record.
    pub const NOTHING: Self = Self { level: AuditLevel::None, omit_managed_fields: false, omitted: 0 };

    /// A plan of every stage.
    pub fn of(level: AuditLevel) -> Self {
        Self { level, ..Self::default() }
    }

    /// The same without this stage.
    #[must_use]
    pub fn without(mut self, stage: AuditStage) -> Self {
        self.omitted |= stage.bit();
        self
    }

    /// Whether the stage is to be recorded.
    pub fn wants(self, stage: AuditStage) -> bool {
        self.level > AuditLevel::None && self.omitted & stage.bit() == 0
    }
}

/// What a request is about: `objectRef` of the record. All empty: a path and not an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditObject {
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

impl AuditObject {
    /// A cluster-wide object of a group.
    pub fn new(group: &str, resource: &str, name: &str) -> Self {
        Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// The same in a namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditStatus {
    /// The HTTP status; 0 where the caller went away before there was one.
    pub code: u16,
    /// CamelCase, as in `Status`.
    pub reason: String,
    pub message: String,
    /// The body of a refusal, which names reason and message; read by the sink.
    pub refusal: Option<Bytes>,
}

/// A request's or an answer's body, as far as the level asks for it and the bound allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditBody {
    /// Not asked for, or there is none.
    #[default]
    Absent,
    /// All of it, secrets included: the sink removes them.
    Whole(Bytes),
    /// It has more bytes than are recorded.
    TooLarge,
    /// It is no object (a stream, an archive, a form).
    Opaque,
}

impl AuditBody {
    /// Bytes held in memory.
    pub fn len_bytes(&self) -> usize {
        if let Self::Whole(bytes) = self { bytes.len() } else { 0 }
    }
}

/// A deed that matters to security, beside being a request. The name stands in the record's annotation
/// [`annotations::EVENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecurityEvent {
    Login,
    LoginFailed,
    Logout,
    /// A user or an address is locked out after too many failures.
    LockedOut,
    Unlocked,
    TokenIssued,
    TokenRevoked,
    PasswordChanged,
    PasswordReset,
    SecondFactorChanged,
    CredentialCreated,
    CredentialDeleted,
    /// An assignment, a role, a binding or a membership.
    RightChanged,
    UserCreated,
    UserDisabled,
    UserDeleted,
    /// exec, attach or port-forward.
    ExecOpened,
    SecretRead,
    /// A recorded terminal session ended and its file is closed.
    SessionRecorded,
    /// Users or groups of an external source were reconciled.
    SourceReconciled,
    SigningKeyRotated,
    /// An image was looked through for the first time.
    ImageScanned,
    /// New advisories changed the grade of an image.
    ImageRated,
    /// An image of an archive that somebody uploaded was stored.
    ImageUploaded,
    /// A rule copied images of a repository to another registry or from it.
    ImagesReplicated,
    /// The audit trail itself: settings, expiry, damage found.
    TrailChanged,
}

impl SecurityEvent {
    /// Its name in records and searches.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::LoginFailed => "login-failed",
            Self::Logout => "logout",
            Self::LockedOut => "locked-out",
            Self::Unlocked => "unlocked",
            Self::TokenIssued => "token-issued",
            Self::TokenRevoked => "token-revoked",
            Self::PasswordChanged => "password-changed",
            Self::PasswordReset => "password-reset",
            Self::SecondFactorChanged => "second-factor-changed",
            Self::CredentialCreated => "credential-created",
            Self::CredentialDeleted => "credential-deleted",
            Self::RightChanged => "right-changed",
            Self::UserCreated => "user-created",
            Self::UserDisabled => "user-disabled",
            Self::UserDeleted => "user-deleted",
            Self::ExecOpened => "exec-opened",
            Self::SecretRead => "secret-read",
            Self::SessionRecorded => "session-recorded",
            Self::SourceReconciled => "source-reconciled",
            Self::SigningKeyRotated => "signing-key-rotated",
            Self::ImageScanned => "image-scanned",
            Self::ImageRated => "image-rated",
            Self::ImageUploaded => "image-uploaded",
            Self::ImagesReplicated => "images-replicated",
            Self::TrailChanged => "trail-changed",
        }
    }
}

/// Keys of the annotations that Gantry adds to records.
pub mod annotations {
    /// A [`super::SecurityEvent`]'s name.
    pub const EVENT: &str = "audit.gantry.dev/event";
    /// How the caller proved who it is.
    pub const CREDENTIAL: &str = "audit.gantry.dev/credential";
    /// The id of the caller's domain.
    pub const DOMAIN: &str = "audit.gantry.dev/domain";
    /// The id of the project that the object, else the caller's token, belongs to.
    pub const PROJECT: &str = "audit.gantry.dev/project";
    /// The id of the domain that the object is, or belongs to itself: what belongs to a project does not.
    pub const OBJECT_DOMAIN: &str = "audit.gantry.dev/object-domain";
    /// Microseconds from the request's head to its answer's head.
    pub const LATENCY_US: &str = "audit.gantry.dev/latency-us";
    /// The recording of a terminal session.
    pub const SESSION: &str = "audit.gantry.dev/session";
    /// The caller went away before it was answered.
    pub const ABANDONED: &str = "audit.gantry.dev/abandoned";
    /// What went on for long was ended, because its credential or its right was gone.
    pub const ENDED: &str = "audit.gantry.dev/ended";
    /// `allow` or `forbid`.
    pub const DECISION: &str = "authorization.k8s.io/decision";
    /// The binding that grants, or what is missing.
    pub const REASON: &str = "authorization.k8s.io/reason";
}

/// One thing that happened. Made with [`AuditEvent::security`] outside the front door.
#[derive(Clone, Debug, Default)]
pub struct AuditEvent {
    /// `auditID`: the request's id.
    pub id: String,
    pub level: AuditLevel,
    pub stage: AuditStage,
    pub received: Timestamp,
    /// From `received` to this stage.
    pub latency: Duration,
    /// Who really asked.
    pub user: UserInfo,
    /// As whom it asked.
    pub impersonated: Option<Box<UserInfo>>,
    /// The peer of the connection; `None` in this process.
    pub source: Option<IpAddr>,
    /// `X-Forwarded-For` as it came: anybody can write it.
    pub forwarded_for: Option<HeaderValue>,
    pub user_agent: Option<HeaderValue>,
    pub uri: Uri,
    pub verb: String,
    pub object: AuditObject,
    pub status: AuditStatus,
    pub request: AuditBody,
    pub response: AuditBody,
    pub omit_managed_fields: bool,
    /// `client-certificate`, `bearer`, `password`, …
    pub credential: Cow<'static, str>,
    /// The authoriser's answer and its reason, where it was asked.
    pub decision: Option<(bool, String)>,
    /// What kind of security event it is, where the maker knows; requests are classified by the sink.
    pub security: Option<SecurityEvent>,
    pub annotations: Vec<(Cow<'static, str>, String)>,
}

impl AuditEvent {
    /// A security event of `user` that happened now and went well.
    ///
    /// ```
    /// use gantry_kube_types::{AuditEvent, AuditObject, SecurityEvent, UserInfo};
    /// let who = UserInfo::authenticated("acme/alice", &[]);
    /// let event = AuditEvent::security(SecurityEvent::LoginFailed, who)
    ///     .about(AuditObject::new("identity.gantry.dev", "users", "5f0c"))
    ///     .from_address("192.0.2.7".parse().ok())
    ///     .failed(401, "Unauthorized", "wrong password")
    ///     .with("identity.gantry.dev/method", "password");
    /// assert_eq!(event.verb, "login-failed");
    /// ```
    pub fn security(kind: SecurityEvent, user: UserInfo) -> Self {
        Self {
            received: Timestamp::now(),
            verb: kind.name().to_owned(),
            user,
            security: Some(kind),
            status: AuditStatus { code: 200, ..AuditStatus::default() },
            ..Self::default()
        }
    }

    /// Names the object it is about.
    #[must_use]
    pub fn about(mut self, object: AuditObject) -> Self {
        self.object = object;
        self
    }

    /// Where the request came from.
    #[must_use]
    pub fn from_address(mut self, source: Option<IpAddr>) -> Self {
        self.source = source;
        self
    }

    /// The request it was part of, so that both records are found by one id.
    #[must_use]
    pub fn in_request(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    /// How it failed. Never put a credential into the message.
    #[must_use]
    pub fn failed(mut self, code: u16, reason: &str, message: &str) -> Self {
        self.status =
            AuditStatus { code, reason: reason.to_owned(), message: message.to_owned(), refusal: None };
        self
    }

    /// One more annotation. Never put a credential into it.
    #[must_use]
    pub fn with(mut self, key: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.annotations.push((key.into(), value.into()));
        self
    }

    /// Takes who and what from the question that the authoriser was asked.
    pub fn describe(&mut self, asked: Attributes) {
        self.user = asked.user;
        self.verb = asked.verb;
        if asked.is_resource_request {
            self.object = AuditObject {
                group: asked.group,
                version: asked.version,
                resource: asked.resource,
                subresource: asked.subresource,
                namespace: asked.namespace,
                name: asked.name,
            };
        }
    }

    /// Bytes of bodies it holds in memory.
    pub fn body_bytes(&self) -> usize {
        self.request.len_bytes() + self.response.len_bytes()
    }
}

/// What a handler adds to the record of the request it answers: put into the *response's* extensions.
/// For handlers that authenticate callers themselves (a password in a form) or whose protocol names its
/// objects otherwise than by Kubernetes paths.
#[derive(Clone, Debug, Default)]
pub struct AuditNotes {
    /// Who the handler found the caller to be.
    pub user: Option<UserInfo>,
    pub credential: Option<Cow<'static, str>>,
    pub verb: Option<String>,
    pub object: Option<AuditObject>,
    /// The name of the object, where the path has none: of what is created.
    pub name: Option<String>,
    pub security: Option<SecurityEvent>,
    pub annotations: Vec<(Cow<'static, str>, String)>,
}

/// The trail takes no more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit trail is closed")]
pub struct AuditClosed;

/// What a request meets when the queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// It waits for a place.
    #[default]
    Wait,
    /// It is answered 503.
    Fail,
}

/// An event of which a sink keeps the like. Of another one that is like it, only [`AuditOwn`] has to be told.
pub struct AuditLike {
    pub event: Box<AuditEvent>,
    /// The sink's own.
    pub kept: Arc<dyn Any + Send + Sync>,
}

/// What an event has of its own, where everything else is as in one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditOwn<'a> {
    pub id: &'a str,
    pub received: Timestamp,
    pub latency: Duration,
}

/// Takes events and writes them down, in the order they were committed.
///
/// `reserve` and `commit` come in pairs: use [`AuditPlace`] or [`AuditSink::record`].
#[async_trait::async_trait]
pub trait AuditSink: Send + Sync {
    /// What the policy wants of a request; asked once per request at most, never waits.
    fn plan(&self, user: &UserInfo, request: &RequestInfo) -> AuditPlan;

    /// While this number stays, a request of the same user has the same plan. `None`: each has to be asked for.
    fn plans_version(&self) -> Option<u64> {
        None
    }

    /// What a new request meets when the queue is full.
    fn when_full(&self) -> WhenFull {
        WhenFull::Wait
    }

    /// Takes a place in the queue; false when there is none.
    fn try_reserve(&self) -> bool;

    /// Waits for a place in the queue.
    async fn reserve(&self) -> Result<(), AuditClosed>;

    /// Puts the event into the place that was reserved; gives it back where its like is kept.
    fn commit(&self, event: Box<AuditEvent>) -> Option<AuditLike>;

    /// Puts an event into the place that was reserved that differs from one before in nothing but its own. False where
    /// that cannot be told of it any more: nothing was put, and all of it is to be committed.
    fn commit_again(&self, _like: &AuditLike, _own: AuditOwn<'_>) -> bool {
        false
    }

    /// Gives a reserved place back unused.
    fn release(&self);

    /// Reserves and commits: for security events. Returns once the event is queued.
    async fn record(&self, event: AuditEvent) -> Result<(), AuditClosed> {
        if !self.try_reserve() {
            self.reserve().await?;
        }
        self.commit(Box::new(event));
        Ok(())
    }
}

/// A place in the sink's queue, given back when it is dropped unused.
pub struct AuditPlace {
    sink: Arc<dyn AuditSink>,
    /// Nothing has been put there.
    is_free: bool,
}

impl AuditPlace {
    /// A place, if there is one at once.
    pub fn try_take(sink: &Arc<dyn AuditSink>) -> Option<Self> {
        sink.try_reserve().then(|| Self { sink: sink.clone(), is_free: true })
    }

    /// A place, as soon as there is one.
    pub async fn take(sink: &Arc<dyn AuditSink>) -> Result<Self, AuditClosed> {
        if !sink.try_reserve() {
            sink.reserve().await?;
        }
        Ok(Self { sink: sink.clone(), is_free: true })
    }

    /// The sink it is a place of.
    pub fn sink(&self) -> &Arc<dyn AuditSink> {
        &self.sink
    }

    /// Queues the event; never waits. Given back where the sink keeps its like.
    pub fn put(mut self, event: Box<AuditEvent>) -> Option<AuditLike> {
        self.is_free = false;
        self.sink.commit(event)
    }

    /// Queues an event that differs from one before in nothing but its own; never waits. Where that cannot be told any
    /// more, the place is given back for all of it.
    pub fn put_again(mut self, like: &AuditLike, own: AuditOwn<'_>) -> Result<(), Self> {
        if !self.sink.commit_again(like, own) {
            return Err(self);
        }
        self.is_free = false;
        Ok(())
    }
}

impl std::fmt::Debug for AuditPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuditPlace")
    }
}

impl Drop for AuditPlace {
    fn drop(&mut self) {
        if self.is_free {
            self.sink.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_leaves_out_the_stages_it_names() {
        let plan = AuditPlan::of(AuditLevel::Request).without(AuditStage::RequestReceived);
        assert!(!plan.wants(AuditStage::RequestReceived));
        assert!(plan.wants(AuditStage::ResponseComplete) && plan.wants(AuditStage::Panic));
        assert!(!AuditPlan::NOTHING.wants(AuditStage::ResponseComplete));
    }
}
