//! The periodic comparison: every provider at its own interval, one run at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gantry_host::Host;
use gantry_identity_api::{
    CONFIRM_DISABLE, IdentityProvider, IdentityProviderSpec, IdentityProviderStatus, Named as _,
};
use gantry_identity_sources::{ExternalUser, Named, SourceError};
use gantry_kube_types::{AuditEvent, AuditObject, SecurityEvent};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ended::Ended;
use super::plan::{Change, Doubt, Known, Listing, Plan, plan};
use super::shadow::{
    create_user, disable_user, ensure_group, known, own_groups, own_info, update_user, usable_groups, user_id,
};
use super::{BuildError, Built, Source, grants};
use crate::core::Core;
use crate::directory::table::Entry;
use crate::errors::IdentityError;
use crate::login::Origin;

/// Changes of the directory come in bursts.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often the loop looks where nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// Starts the loop.
pub(crate) fn start(core: &Arc<Core>, host: &Host) {
    let (core, shutdown) = (core.clone(), host.tasks.shutdown().clone());
    host.tasks.supervise("identity/sources", move || {
        let (core, shutdown) = (core.clone(), shutdown.clone());
        async move {
            run(&core, &shutdown).await;
            Ok::<(), String>(())
        }
    });
}

/// What a provider was last compared with.
struct Turn {
    spec: IdentityProviderSpec,
    confirmed: usize,
    next: Instant,
}

async fn run(core: &Arc<Core>, shutdown: &CancellationToken) {
    let mut turns: HashMap<String, Turn> = HashMap::new();
    // Dropped with the loop, which ends what is under way: nothing is half done that the next run does not mend.
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut running: HashMap<tokio::task::Id, String> = HashMap::new();
    let mut changes = core.directory.changes();
    let mut ended = Ended::default();
    loop {
        changes.mark_unchanged();
        if let Err(error) = ended.revoke(core).await {
            tracing::warn!(%error, "tokens of a provider that has ended");
        }
        let providers: Vec<Arc<IdentityProvider>> = core.directory.read().providers.iter().cloned().collect();
        let ids: Vec<String> = providers.iter().map(|p| p.name_any()).collect();
        core.providers.keep(&ids);
        turns.retain(|id, _| ids.contains(id));
        let now = Instant::now();
        for provider in providers.into_iter().filter(|p| p.spec.enabled) {
            let id = provider.name_any();
            let confirmed = confirmed(&provider);
            let same =
                |turn: &&Turn| turn.spec == provider.spec && turn.confirmed == confirmed && turn.next > now;
            if turns.get(&id).as_ref().is_some_and(same) || running.values().any(|r| *r == id) {
                continue;
            }
            let interval = Duration::from_secs(u64::from(provider.spec.sync_interval_seconds.max(1)));
            turns.insert(id.clone(), Turn { spec: provider.spec.clone(), confirmed, next: now + interval });
            let core = core.clone();
            let task = tasks.spawn(async move { reconcile(&core, &provider, confirmed).await });
            running.insert(task.id(), id);
        }
        let next =
            turns.iter().filter(|(id, _)| !running.values().any(|r| r == *id)).map(|(_, t)| t.next).min();
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(DEBOUNCE).await;
            }
            Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                let id = match &ended {
                    Ok((id, ())) => *id,
                    Err(error) => {
                        tracing::error!(%error, "a comparison with a source failed");
                        error.id()
                    }
                };
                running.remove(&id);
            }
            () = tokio::time::sleep_until(next.unwrap_or(now + IDLE)) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn confirmed(provider: &IdentityProvider) -> usize {
    provider.annotations().get(CONFIRM_DISABLE).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Why a run changed nothing more.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Doubt(#[from] Doubt),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Failure {
    fn reason(&self) -> &'static str {
        match self {
            Self::Build(BuildError::Misconfigured(_)) | Self::Source(SourceError::Misconfigured { .. }) => {
                "Misconfigured"
            }
            Self::Source(SourceError::TooLarge { .. }) => "TooLarge",
            Self::Source(_) => "Unavailable",
            Self::Doubt(_) => "Suspended",
            Self::Build(_) | Self::Identity(_) => "Failed",
        }
    }
}

/// What a run did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    users: u64,
    groups: u64,
    changed: usize,
    disabled: usize,
    /// Listed, and not to be had here: a name is taken or not allowed.
    refused: usize,
}

async fn reconcile(core: &Core, provider: &Arc<IdentityProvider>, confirmed: usize) {
    let done = compare(core, provider, confirmed).await;
    let before = provider.status.as_ref().and_then(|s| s.conditions.iter().find(|c| c.type_ == "Ready"));
    let status = status(provider, &done);
    let news =
        status.conditions.first().map(|c| (&c.status, &c.reason)) != before.map(|c| (&c.status, &c.reason));
    let changed = done.as_ref().is_ok_and(|report| report.changed + report.disabled > 0);
    if news || changed {
        let event = AuditEvent::security(SecurityEvent::SourceReconciled, own_info());
        let about = AuditObject::new(gantry_identity_api::GROUP, "identityproviders", &provider.name_any());
        let event = event.about(about);
        let event = match &done {
            Ok(report) => event
                .with("identity.gantry.dev/changed", report.changed.to_string())
                .with("identity.gantry.dev/disabled", report.disabled.to_string()),
            Err(failure) => event.failed(500, failure.reason(), &failure.to_string()),
        };
        if let Err(error) = core.record(event, &Origin::default()).await {
            tracing::error!(%error, "a comparison with a source leaves no record");
        }
    }
    if let Err(failure) = &done {
        tracing::warn!(provider = provider.name_any(), error = %failure, "users of a source are not compared");
    }
    if let Err(error) = write_status(core, provider, &status).await {
        tracing::warn!(provider = provider.name_any(), %error, "the status of a provider is not written");
    }
}

async fn write_status(
    core: &Core,
    provider: &IdentityProvider,
    status: &IdentityProviderStatus,
) -> Result<(), IdentityError> {
    let api: Api<IdentityProvider> = Api::all(core.objects.client()?);
    let patch = Patch::Merge(json!({ "status": status }));
    match api.patch_status(&provider.name_any(), &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(gone)) if gone.code == 404 => Ok(()),
        Err(error) => Err(IdentityError::Unavailable(error.to_string())),
    }
}

fn status(provider: &IdentityProvider, done: &Result<Report, Failure>) -> IdentityProviderStatus {
    let now = Timestamp::now();
    let had = provider.status.clone().unwrap_or_default();
    let condition = |kind: &str, holds: bool, reason: &str, message: String| {
        let status = if holds { "True" } else { "False" };
        let before = had.conditions.iter().find(|c| c.type_ == kind && c.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: provider.metadata.generation,
            last_transition_time: before.map_or_else(|| Time(now), |c| c.last_transition_time.clone()),
        }
    };
    match done {
        Ok(report) => {
            let refused = match report.refused {
                0 => String::new(),
                count => format!("; {count} cannot have their names here"),
            };
            let message = format!("{} users, {} groups{refused}", report.users, report.groups);
            IdentityProviderStatus {
                conditions: vec![
                    condition("Ready", true, "Synchronised", message),
                    condition("Suspended", false, "Synchronised", String::new()),
                ],
                synced_at: Some(Time(now)),
                users: report.users,
                groups: report.groups,
            }
        }
        Err(failure) => {
            let suspended = matches!(failure, Failure::Doubt(_));
            let message = failure.to_string();
            let conditions = vec![
                condition("Ready", false, failure.reason(), message.clone()),
                condition("Suspended", suspended, failure.reason(), message),
            ];
            IdentityProviderStatus { conditions, ..had }
        }
    }
}

async fn compare(core: &Core, provider: &Arc<IdentityProvider>, confirmed: usize) -> Result<Report, Failure> {
    let built = core.providers.fresh(core, provider).await?;
    let id = built.id();
    // Before the source is asked: whoever comes meanwhile is not taken for gone.
    let mut known = look(core, provider);
    let listing = match &built.source {
        Source::Oidc(oidc) => {
            oidc.test().await?;
            let (users, groups) = (known.users.len() as u64, known.groups.len() as u64);
            return Ok(Report { users, groups, ..Report::default() });
        }
        Source::Ldap(_) | Source::Keystone(_) => list(core, &built).await?,
    };
    let mapping = &provider.spec.group_mapping;
    let create = built.options.create_users;
    let first = plan(&id, &known, &listing, mapping, create, confirmed)?;
    let mut report = Report {
        users: listing.users.len() as u64,
        groups: listing.groups.len() as u64,
        ..Report::default()
    };
    for group in &first.groups {
        let group = Named { id: group.id.clone(), name: group.name.clone() };
        ensure_group(core, provider, &group).await?;
    }
    // Groups that could not be had are in nobody's way.
    known.usable = usable_groups(&core.directory.read(), provider);
    let plan = plan(&id, &known, &listing, mapping, create, confirmed)?;
    act(core, &built, plan, &mut report).await?;
    if built.options.keep_roles {
        let mine = |user: &&ExternalUser| known.users.contains_key(&user_id(&id, &user.id));
        let wanted: BTreeMap<String, _> =
            listing.users.iter().filter(mine).map(|u| (user_id(&id, &u.id), u.grants.clone())).collect();
        grants::keep_of_all(core, &built, &wanted, |user| known.users.contains_key(user)).await?;
    }
    Ok(report)
}

fn look(core: &Core, provider: &IdentityProvider) -> Known {
    let state = core.directory.read();
    let id = provider.name_any();
    let own = own_groups(&state, &id);
    let ours = state.users.iter().filter(|u| u.spec.provider.as_deref() == Some(id.as_str()));
    Known {
        users: ours.map(|user| (user.id(), known(user, &own))).collect(),
        groups: own.iter().filter_map(|g| Some((g.clone(), state.groups.get(g)?.display_name()))).collect(),
        usable: usable_groups(&state, provider),
    }
}

/// Everybody, or an error.
async fn list(core: &Core, built: &Built) -> Result<Listing, SourceError> {
    match &built.source {
        Source::Ldap(ldap) => {
            let mut pages = ldap.list().await?;
            let mut users = Vec::new();
            while let Some(page) = pages.next_page().await? {
                users.extend(page);
            }
            if pages.skipped() > 0 {
                tracing::info!(
                    provider = built.id(),
                    skipped = pages.skipped(),
                    "entries without a name or an id"
                );
            }
            Ok(Listing { users, groups: pages.groups() })
        }
        Source::Keystone(keystone) => {
            let listing = keystone.list().await?;
            let state = core.directory.read();
            let users = listing.users.into_iter().filter(|user| built.counts(&state, user)).collect();
            Ok(Listing { users, groups: listing.groups })
        }
        Source::Oidc(_) => Ok(Listing::default()),
    }
}

async fn act(core: &Core, built: &Built, plan: Plan, report: &mut Report) -> Result<(), IdentityError> {
    let origin = Origin::default();
    let disables = plan.disables();
    for (id, change) in plan.users {
        let done = match &change {
            Change::Disable => disable_user(core, &id, &origin).await,
            Change::Update(user) => update_user(core, built, &id, user, false).await,
            Change::Enable(user) => update_user(core, built, &id, user, true).await,
            Change::Create(user) => create_user(core, built, user, &origin).await,
        };
        match done {
            Ok(()) => report.changed += 1,
            // Gone meanwhile.
            Err(IdentityError::NotFound { .. }) => {}
            // One name that cannot be had must not keep the others from following.
            Err(IdentityError::Conflict(why) | IdentityError::Invalid(why)) if change != Change::Disable => {
                tracing::warn!(provider = built.id(), user = id, why, "a user cannot be as the source says");
                report.refused += 1;
            }
            Err(IdentityError::Unauthorized) if matches!(change, Change::Create(_)) => report.refused += 1,
            Err(error) => return Err(error),
        }
    }
    report.disabled = disables;
    report.changed = report.changed.saturating_sub(disables);
    Ok(())
}
