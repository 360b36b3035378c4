//! The words the whole workspace shares about the Kubernetes API: who asks ([`UserInfo`]), what they
//! ask ([`RequestInfo`]), what went wrong ([`StatusError`]) and which resources exist
//! ([`ResourceInfo`]). Nothing here does I/O or makes a decision.

mod access;
mod admission;
mod audit;
mod browser;
mod explanation;
mod request;
mod resource;
mod session;
mod status;
mod user;

pub use access::{Attributes, Authenticator, Authorizer, ConnectionInfo, Decision, GoesOn, Memory, Standing};
pub use admission::{
    Admission, AdmissionAttributes, AdmissionOperation, AdmissionOutcome, AdmissionPhase, OutcomeListener,
    Visibility,
};
pub use audit::{
    AuditBody, AuditClosed, AuditEvent, AuditLevel, AuditLike, AuditNotes, AuditObject, AuditOwn, AuditPlace,
    AuditPlan, AuditSink, AuditStage, AuditStatus, SecurityEvent, WhenFull, annotations as audit_annotations,
};
pub use browser::{Cookie, SESSION_COOKIE, is_foreign_page, is_own_page, remove_cookie};
pub use explanation::{EXPLAINED_MAX, Explanation, Grants, Missing, Place};
pub use request::{AUDIT_ID, RequestId, RequestInfo};
pub use resource::{GroupVersionKind, GroupVersionResource, ResourceInfo, Scope};
pub use session::{SESSION_NOTICE, SessionRecorder, SessionStart, SessionTape};
pub use status::{FieldError, FieldErrorKind, StatusCause, StatusDetails, StatusError};
pub use user::{UserFields, UserInfo, groups, users};
