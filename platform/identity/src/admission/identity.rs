//! Writes of identity's own kinds.

use std::sync::Arc;
use std::time::Duration;

use gantry_identity_api::{
    ApplicationCredential, Domain, GROUP, Group, IdentityProvider, KeystoneRecord, Project, Role,
    RoleAssignment, Trust, User,
};
use gantry_kube_types::{
    Admission, AdmissionAttributes, AdmissionOperation, AdmissionOutcome, AdmissionPhase, Attributes,
    StatusError, UserInfo, audit_annotations, groups,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::pending::{Claim, Name, Pending};
use super::refusal::{Refusal, Verdict};
use super::renamed::keep_namespaces;
use super::{assignments, credentials, organisations, providers, roles};
use crate::authorizer::subject;
use crate::directory::State;
use crate::policy::{Act, Authority, Subject, may};
use crate::providers::DISABLED_BY_SOURCE;
use crate::rights::OWN_USER;
use crate::tenancy::World;
use crate::tenancy::callers::Caller;
use crate::tenancy::ledger::Entry;
use crate::tenancy::names::FINALIZER;

/// How long a write waits for the directory to show what it refers to.
const SHOWN_WAIT: Duration = Duration::from_secs(2);
/// Kinds on which others hang: they leave when those are gone.
const CASCADING: [&str; 6] = ["domains", "projects", "users", "groups", "roles", "applicationcredentials"];

/// Refuses what makes no sense and what the policy does not allow.
pub struct IdentityKinds {
    world: Arc<World>,
    pending: Pending,
}

/// One write, as the checks see it.
pub(super) struct Write<'a> {
    pub world: &'a World,
    pub state: &'a State,
    pub pending: &'a Pending,
    pub user: &'a UserInfo,
    pub caller: &'a Caller,
    /// `metadata.name`.
    pub id: &'a str,
    /// What was taken for this write, to be settled with it.
    pub held: Held,
}

/// What a write holds until its outcome is known.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub claims: Vec<Claim>,
    pub entries: Vec<Entry>,
}

impl Write<'_> {
    pub fn authority(&self) -> &Authority {
        &self.caller.authority
    }

    /// Refused unless the policy allows it.
    pub fn allowed(&self, act: Act, subject: &Subject<'_>) -> Verdict {
        if may(self.state, self.authority(), act, subject) {
            return Ok(());
        }
        Err(Refusal::forbidden(format!("{:?} may not {} it", self.user.username, verb(act))))
    }

    /// Takes the name; `taken` is the id of the object that has it in the directory.
    pub fn claim(
        &mut self,
        kind: &'static str,
        within: Option<&str>,
        name: &str,
        taken: Option<String>,
    ) -> Verdict {
        let place = within.map(|within| format!(" in {within:?}")).unwrap_or_default();
        let refusal = || Refusal::Taken(format!("{kind} {name:?} exists already{place}"));
        if taken.is_some_and(|id| id != self.id) {
            return Err(refusal());
        }
        let name = Name { kind, within: within.map(str::to_owned), name: name.to_owned() };
        self.held.claims.push(self.pending.claim(name, self.id).ok_or_else(refusal)?);
        Ok(())
    }
}

fn verb(act: Act) -> &'static str {
    match act {
        Act::Read => "see",
        Act::Create => "create",
        Act::Update => "change",
        Act::Delete => "delete",
    }
}

impl IdentityKinds {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world, pending: Pending::default() }
    }

    /// The caller with the rights that count here: the platform's own parts, and whoever holds every right there is,
    /// are not limited by the policy.
    fn caller(&self, user: &UserInfo) -> Caller {
        let mut caller = (*self.world.caller(user)).clone();
        if !caller.of_platform && !caller.authority.unlimited {
            caller.authority.unlimited = is_part(user) || self.holds_everything(user);
        }
        caller
    }

    fn holds_everything(&self, user: &UserInfo) -> bool {
        let asked = Attributes {
            user: user.clone(),
            verb: "*".to_owned(),
            is_resource_request: true,
            group: "*".to_owned(),
            version: "*".to_owned(),
            resource: "*".to_owned(),
            ..Attributes::default()
        };
        self.world.authorizer().is_some_and(|authorizer| authorizer.authorize(&asked).is_allowed())
    }

    fn check(&self, request: &AdmissionAttributes<'_>, caller: &Caller) -> Result<Held, Refusal> {
        let state = self.world.directory.read();
        let mut write = Write {
            world: &self.world,
            state: &state,
            pending: &self.pending,
            user: request.user,
            caller,
            id: request.name,
            held: Held::default(),
        };
        let verdict = decide(&mut write, request);
        let held = std::mem::take(&mut write.held);
        match verdict {
            Ok(()) => Ok(held),
            Err(refusal) => {
                settle(&self.world, &self.pending, &held, AdmissionOutcome::Abandoned);
                Err(refusal)
            }
        }
    }

    /// [`IdentityKinds::check`], again for a moment when something is not there: the directory runs behind the store
    /// by a little, and whoever made a project expects to be able to use it.
    async fn settled_check(&self, request: &AdmissionAttributes<'_>) -> Result<Held, Refusal> {
        let caller = self.caller(request.user);
        let mut changes = self.world.directory.changes();
        let deadline = tokio::time::Instant::now() + SHOWN_WAIT;
        loop {
            changes.mark_unchanged();
            match self.check(request, &caller) {
                Err(Refusal::Missing(error)) => {
                    match tokio::time::timeout_at(deadline, changes.changed()).await {
                        Ok(Ok(())) => {}
                        _ => return Err(Refusal::Missing(error)),
                    }
                }
                decided => return decided,
            }
        }
    }
}

fn settle(world: &World, pending: &Pending, held: &Held, outcome: AdmissionOutcome) {
    held.claims.iter().for_each(|claim| pending.settle(claim, outcome));
    held.entries.iter().for_each(|entry| world.ledger.settle(entry, outcome));
}

/// A part of the cluster itself: its controllers collect garbage and empty namespaces.
pub(super) fn is_part(user: &UserInfo) -> bool {
    let name = user.username.as_str();
    let own = name.starts_with("system:") && !name.starts_with("system:serviceaccount:");
    let known = !user.is_anonymous() && !user.in_group(groups::UNAUTHENTICATED);
    known
        && (own && !name.starts_with("system:node:")
            || name.starts_with("system:serviceaccount:kube-system:"))
}

#[async_trait::async_trait]
impl Admission for IdentityKinds {
    fn name(&self) -> &'static str {
        "IdentityKinds"
    }

    async fn review(&self, request: &mut AdmissionAttributes<'_>) -> Result<(), StatusError> {
        if request.group != GROUP || !request.subresource.is_empty() {
            return Ok(());
        }
        match (request.phase, request.operation) {
            (AdmissionPhase::Mutate, AdmissionOperation::Create) => {
                if CASCADING.contains(&request.resource) {
                    add_finalizer(request.object_mut());
                }
                return Ok(());
            }
            (AdmissionPhase::Mutate, AdmissionOperation::Update) => {
                if request.resource == "projects"
                    && let Some(old) = request.old_object
                {
                    keep_namespaces(old, request.object_mut());
                }
                return Ok(());
            }
            (AdmissionPhase::Mutate, _) | (_, AdmissionOperation::Connect) => return Ok(()),
            (AdmissionPhase::Validate, _) => {}
        }
        if let Some(project) = project_of(request) {
            request.audit_annotations.push((audit_annotations::PROJECT.into(), project));
        }
        if let Some(domain) = domain_of(request) {
            request.audit_annotations.push((audit_annotations::OBJECT_DOMAIN.into(), domain));
        }
        let held = self.settled_check(request).await;
        let held = held.map_err(|refusal| refusal.status(request.kind, request.resource, request.name))?;
        let (world, pending) = (self.world.clone(), self.pending.clone());
        let deleted = (request.operation == AdmissionOperation::Delete).then(|| request.name.to_owned());
        request.on_outcome(move |outcome| {
            settle(&world, &pending, &held, outcome);
            if let Some(id) = deleted.filter(|_| outcome == AdmissionOutcome::Written) {
                for kind in ["domain", "project", "user", "group", "role", "identity provider"] {
                    pending.release(kind, &id);
                }
            }
        });
        Ok(())
    }
}

/// The id of the project that the object is, or in which it gives rights: its managers see the record.
fn project_of(request: &AdmissionAttributes<'_>) -> Option<String> {
    match request.resource {
        "projects" => Some(request.name.to_owned()),
        "roleassignments" | "applicationcredentials" | "trusts" => said(request, "project"),
        _ => None,
    }
}

/// The id of the domain that the object is, or is in: who manages that sees the record.
fn domain_of(request: &AdmissionAttributes<'_>) -> Option<String> {
    match request.resource {
        "domains" => Some(request.name.to_owned()),
        "projects" | "users" | "groups" | "roles" | "identityproviders" | "roleassignments" => {
            said(request, "domain")
        }
        _ => None,
    }
}

/// A text of the specification, of what goes where it is deleted.
fn said(request: &AdmissionAttributes<'_>, field: &str) -> Option<String> {
    let deleted = request.old_object.filter(|_| request.operation == AdmissionOperation::Delete);
    deleted.unwrap_or(&request.object)["spec"][field].as_str().map(str::to_owned)
}

fn add_finalizer(object: &mut Value) {
    let list = &mut object["metadata"]["finalizers"];
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut()
        && !list.iter().any(|f| f == FINALIZER)
    {
        list.push(FINALIZER.into());
    }
}

/// One write of one kind.
fn decide(write: &mut Write<'_>, request: &AdmissionAttributes<'_>) -> Verdict {
    if request.operation == AdmissionOperation::Delete {
        return delete(write, request);
    }
    let new = request.object.as_ref();
    if let Some(old) = request.old_object {
        metadata_stays(write, old, new)?;
        // Labels, annotations and the end of a deletion: who may is known, and nothing else changes.
        if old["spec"] == new["spec"] {
            return Ok(());
        }
    }
    match request.resource {
        "domains" => organisations::domain(write, parse::<Domain>(request.old_object)?.as_ref(), &own(new)?),
        "projects" => {
            organisations::project(write, parse::<Project>(request.old_object)?.as_ref(), &own(new)?)
        }
        "users" => organisations::user(write, parse::<User>(request.old_object)?.as_ref(), &own(new)?),
        "groups" => organisations::group(write, parse::<Group>(request.old_object)?.as_ref(), &own(new)?),
        "roles" => roles::role(write, parse::<Role>(request.old_object)?.as_ref(), &own(new)?),
        "roleassignments" => match request.old_object {
            Some(_) => Err(unchangeable("a role assignment")),
            None => assignments::assignment(write, &own::<RoleAssignment>(new)?),
        },
        "applicationcredentials" => match request.old_object {
            Some(_) => Err(unchangeable("an application credential")),
            None => credentials::credential(write, &own::<ApplicationCredential>(new)?),
        },
        "trusts" => match request.old_object {
            Some(_) => Err(unchangeable("a trust")),
            None => credentials::trust(write, &own::<Trust>(new)?),
        },
        "identityproviders" => {
            let old = parse::<IdentityProvider>(request.old_object)?;
            providers::provider(write, old.as_ref(), &own(new)?)
        }
        "keystonerecords" => {
            credentials::record(write, parse::<KeystoneRecord>(request.old_object)?.as_ref(), &own(new)?)
        }
        _ => Ok(()),
    }
}

fn unchangeable(what: &str) -> Refusal {
    Refusal::forbidden(format!("{what} does not change: delete it and make another"))
}

fn own<K: DeserializeOwned>(object: &Value) -> Result<K, Refusal> {
    K::deserialize(object).map_err(|error| Refusal::invalid("spec", Value::Null, error.to_string()))
}

fn parse<K: DeserializeOwned>(object: Option<&Value>) -> Result<Option<K>, Refusal> {
    object.map(own).transpose()
}

/// What keeps an object, and what it goes with, is the component's to say: whoever may change an object must not be
/// able to delete it through its owner, nor to let it go before what hangs on it is gone.
fn metadata_stays(write: &Write<'_>, old: &Value, new: &Value) -> Verdict {
    if write.caller.is_unlimited() {
        return Ok(());
    }
    for field in ["finalizers", "ownerReferences"] {
        if old["metadata"][field] != new["metadata"][field] {
            return Err(Refusal::forbidden(format!("metadata.{field} is not yours to change")));
        }
    }
    // With it, a source enables a user whom an operator has disabled.
    let by_source = |object: &Value| object["metadata"]["annotations"][DISABLED_BY_SOURCE].clone();
    if by_source(old) != by_source(new) {
        return Err(Refusal::forbidden(format!(
            "annotation {DISABLED_BY_SOURCE} is the identity provider's"
        )));
    }
    Ok(())
}

fn delete(write: &Write<'_>, request: &AdmissionAttributes<'_>) -> Verdict {
    // What the directory does not know (any more) can be deleted by who may delete anything.
    match subject(write.state, request.resource, request.name) {
        Some(subject) => write.allowed(Act::Delete, &subject)?,
        None if write.caller.is_unlimited() => {}
        None => return Err(Refusal::forbidden("it is not yours to delete")),
    }
    // A second delete of what is going already asks for nothing new.
    if request.old_object.is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null()) {
        return Ok(());
    }
    let own = write.user.username == OWN_USER;
    match request.resource {
        "domains" => organisations::delete_domain(write),
        "projects" => organisations::delete_project(write),
        "roles" => roles::delete(write, own),
        _ => Ok(()),
    }
}
