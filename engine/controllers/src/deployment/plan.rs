//! What a Deployment does next with its ReplicaSets: values in, actions out.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
const HASH_LABEL: &str = "pod-template-hash";
/// Annotations that are about the deployment object itself and do not go to its sets.
const NOT_COPIED: &[&str] = &["kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED, MAXIMUM];

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Box<ReplicaSet>),
    Scale { name: String, from: i32, to: i32, annotations: BTreeMap<String, String> },
    Annotate { name: String, annotations: BTreeMap<String, String> },
    SetRevision(i64),
    Delete { name: String },
}

/// The next steps. `old_pods_run`: pods of other revisions exist.
pub fn plan(deployment: &Deployment, sets: &[Arc<ReplicaSet>], old_pods_run: bool) -> Vec<Action> {
    let paused = deployment.spec.paused.unwrap_or(false);
    let current = new_set(deployment, sets);
    if paused || is_scaling(deployment, sets) {
        return scale_proportionally(deployment, sets);
    }
    let Some(current) = current else {
        if is_recreate(deployment) && (old_pods_run || old_replicas(sets, None) > 0) {
            return scale_all_down(deployment, sets, None);
        }
        return vec![Action::Create(Box::new(next_set(deployment, sets)))];
    };
    let mut actions = revise(deployment, sets, &current);
    let scaling = if is_recreate(deployment) {
        recreate(deployment, sets, &current, old_pods_run)
    } else {
        roll(deployment, sets, &current)
    };
    actions.extend(scaling);
    if is_complete(deployment, sets) {
        actions.extend(clean_history(deployment, sets, &current));
    }
    actions
}

pub fn replicas_of(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub fn set_replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// The set whose template is the deployment's; of several, the oldest.
pub fn new_set(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let mut same: Vec<&Arc<ReplicaSet>> = sets.iter().filter(|set| same_template(deployment, set)).collect();
    same.sort_by_key(|set| (set.creation_timestamp().map(|t| t.0), set.name_any()));
    same.first().map(|set| (*set).clone())
}

/// Equal but for the hash label that the set's template carries.
pub fn same_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = Some(deployment.spec.template.clone());
    let mut has = set.spec.template.clone();
    if let Some(labels) = has.as_mut().and_then(|t| t.metadata.as_mut()).and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    let plain = |template: Option<PodTemplateSpec>| {
        let mut template = template.unwrap_or_default();
        if let Some(metadata) = &mut template.metadata {
            metadata.labels = metadata.labels.take().filter(|l| !l.is_empty());
            metadata.annotations = metadata.annotations.take().filter(|a| !a.is_empty());
            metadata.creation_timestamp = None;
        }
        template
    };
    plain(wanted) == plain(has)
}

fn revision_of(set: &ReplicaSet) -> i64 {
    set.annotations().get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

fn highest_revision(sets: &[Arc<ReplicaSet>], but: Option<&ReplicaSet>) -> i64 {
    let others = sets.iter().filter(|set| but.is_none_or(|b| b.uid() != set.uid()));
    others.map(|set| revision_of(set)).max().unwrap_or(0)
}

/// How many pods more than wanted, and how many fewer, a roll-out may have.
pub fn bounds(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, replicas_of(deployment));
    }
    let rolling = deployment.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let of = |value: Option<&IntOrString>, up: bool| {
        scaled(value.unwrap_or(&IntOrString::String("25%".to_owned())), replicas_of(deployment), up)
    };
    let surge = of(rolling.and_then(|r| r.max_surge.as_ref()), true);
    let unavailable = of(rolling.and_then(|r| r.max_unavailable.as_ref()), false);
    // Both zero would never move: one pod may then be missing.
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(replicas_of(deployment))) }
}

fn scaled(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let exact = percent * i64::from(total);
            let whole = if up { (exact + 99) / 100 } else { exact / 100 };
            i32::try_from(whole).unwrap_or(i32::MAX).max(0)
        }
    }
}

fn size_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let (surge, _) = bounds(deployment);
    let replicas = replicas_of(deployment);
    BTreeMap::from([
        (DESIRED.to_owned(), replicas.to_string()),
        (MAXIMUM.to_owned(), (replicas + surge).to_string()),
    ])
}

fn copied_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let own = deployment.annotations().iter();
    own.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The set for the deployment's present template.
fn next_set(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> ReplicaSet {
    let spec = deployment.spec.clone();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector: LabelSelector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut annotations = copied_annotations(deployment);
    annotations.extend(size_annotations(deployment));
    annotations.insert(REVISION.to_owned(), (highest_revision(sets, None) + 1).to_string());
    let old: i32 = old_replicas(sets, None);
    let (surge, _) = bounds(deployment);
    let wanted = replicas_of(deployment);
    let replicas = if is_recreate(deployment) { wanted } else { wanted.min((wanted + surge - old).max(0)) };
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: deployment.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    }
}

/// Letters that form no words, in the alphabet Kubernetes uses for generated names.
const SAFE_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a over the template's JSON: stable across restarts, which is all that is asked of it.
fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut json = serde_json::to_vec(template).unwrap_or_default();
    if collisions > 0 {
        json.extend(collisions.to_le_bytes());
    }
    let hash = json.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let digits = format!("{}", (hash >> 32) as u32 ^ hash as u32);
    digits.bytes().map(|d| SAFE_ALPHABET[usize::from(d) % SAFE_ALPHABET.len()] as char).collect()
}

/// Keeps revision and annotations of the current set, and the deployment's own revision, true.
fn revise(deployment: &Deployment, sets: &[Arc<ReplicaSet>], current: &ReplicaSet) -> Vec<Action> {
    let mut actions = Vec::new();
    let revision = revision_of(current).max(highest_revision(sets, Some(current)) + 1);
    let mut wanted = copied_annotations(deployment);
    wanted.insert(REVISION.to_owned(), revision.to_string());
    if revision_of(current) != revision && revision_of(current) > 0 {
        let mut history: Vec<String> = current
            .annotations()
            .get("deployment.kubernetes.io/revision-history")
            .map(|h| h.split(',').map(str::to_owned).collect())
            .unwrap_or_default();
        history.push(revision_of(current).to_string());
        wanted.insert("deployment.kubernetes.io/revision-history".to_owned(), history.join(","));
    }
    wanted.retain(|key, value| current.annotations().get(key) != Some(value));
    if !wanted.is_empty() {
        actions.push(Action::Annotate { name: current.name_any(), annotations: wanted });
    }
    if deployment.annotations().get(REVISION).map(String::as_str) != Some(revision.to_string().as_str()) {
        actions.push(Action::SetRevision(revision));
    }
    actions
}

fn scale(deployment: &Deployment, set: &ReplicaSet, to: i32) -> Option<Action> {
    let annotations = size_annotations(deployment);
    let annotated = annotations.iter().all(|(k, v)| set.annotations().get(k) == Some(v));
    let from = set_replicas(set);
    // Sets without pods keep their old numbers: they are history.
    if from == to && (annotated || to == 0) {
        return None;
    }
    Some(Action::Scale { name: set.name_any(), from, to, annotations })
}

fn old_replicas(sets: &[Arc<ReplicaSet>], current: Option<&ReplicaSet>) -> i32 {
    sets.iter().filter(|s| current.is_none_or(|c| c.uid() != s.uid())).map(|s| set_replicas(s)).sum()
}

fn old_sets<'a>(sets: &'a [Arc<ReplicaSet>], current: &ReplicaSet) -> Vec<&'a Arc<ReplicaSet>> {
    let mut old: Vec<&Arc<ReplicaSet>> = sets.iter().filter(|s| s.uid() != current.uid()).collect();
    old.sort_by_key(|set| (set.creation_timestamp().map(|t| t.0), set.name_any()));
    old
}

fn scale_all_down(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    but: Option<&ReplicaSet>,
) -> Vec<Action> {
    let old = sets.iter().filter(|s| but.is_none_or(|b| b.uid() != s.uid()));
    old.filter_map(|set| scale(deployment, set, 0)).collect()
}

fn recreate(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    current: &ReplicaSet,
    old_pods_run: bool,
) -> Vec<Action> {
    let down = scale_all_down(deployment, sets, Some(current));
    if !down.is_empty() || old_pods_run {
        return down;
    }
    scale(deployment, current, replicas_of(deployment)).into_iter().collect()
}

/// One step of a rolling update: the new set up as far as the surge allows, then the old ones down as
/// far as availability allows.
fn roll(deployment: &Deployment, sets: &[Arc<ReplicaSet>], current: &ReplicaSet) -> Vec<Action> {
    let wanted = replicas_of(deployment);
    let (surge, unavailable) = bounds(deployment);
    let old = old_sets(sets, current);
    let old_total: i32 = old.iter().map(|s| set_replicas(s)).sum();
    let size = set_replicas(current);
    let grown = match size.cmp(&wanted) {
        std::cmp::Ordering::Equal => size,
        std::cmp::Ordering::Greater => wanted,
        std::cmp::Ordering::Less => {
            let room = (wanted + surge - old_total - size).max(0);
            size + room.min(wanted - size)
        }
    };
    if let Some(step) = scale(deployment, current, grown)
        && grown != size
    {
        return vec![step];
    }
    let mut actions: Vec<Action> = scale(deployment, current, grown).into_iter().collect();
    if old_total == 0 {
        return actions;
    }
    let minimum = wanted - unavailable;
    let new_unavailable = (size - available(current)).max(0);
    let mut removable = (old_total + size - minimum - new_unavailable).max(0);
    // Pods that do not serve go first: they cost no availability.
    let mut sizes: Vec<i32> = old.iter().map(|s| set_replicas(s)).collect();
    for (at, set) in old.iter().enumerate() {
        let broken = (sizes[at] - available(set)).clamp(0, removable);
        sizes[at] -= broken;
        removable -= broken;
    }
    let serving: i32 = sets.iter().map(|s| available(s)).sum();
    let mut spare = (serving - minimum).max(0);
    for size in &mut sizes {
        let step = (*size).min(spare);
        *size -= step;
        spare -= step;
    }
    actions.extend(old.iter().zip(sizes).filter_map(|(set, to)| scale(deployment, set, to)));
    actions
}

/// Did the deployment's size change since its sets were last sized?
fn is_scaling(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
    let wanted = replicas_of(deployment).to_string();
    let live = sets.iter().filter(|set| set_replicas(set) > 0);
    live.filter_map(|set| set.annotations().get(DESIRED)).any(|desired| *desired != wanted)
}

/// Changes the size without rolling: one set takes it all; several share it by their share of now.
fn scale_proportionally(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Vec<Action> {
    let wanted = replicas_of(deployment);
    let mut live: Vec<&Arc<ReplicaSet>> = sets.iter().filter(|set| set_replicas(set) > 0).collect();
    let current = new_set(deployment, sets);
    if live.len() <= 1 {
        let only = live.first().map(|s| (*s).clone()).or(current);
        return only.and_then(|set| scale(deployment, &set, wanted)).into_iter().collect();
    }
    if let Some(current) = &current
        && set_replicas(current) == available(current)
        && set_replicas(current) >= wanted
        && live.iter().all(|s| s.uid() == current.uid() || available(s) == 0)
    {
        return scale_all_down(deployment, sets, Some(current));
    }
    if is_recreate(deployment) {
        return Vec::new();
    }
    let (surge, _) = bounds(deployment);
    let allowed = if wanted > 0 { wanted + surge } else { 0 };
    let total: i32 = live.iter().map(|s| set_replicas(s)).sum();
    let mut to_add = allowed - total;
    // The largest first: it rounds with the least error; growing, the newest among equals first.
    live.sort_by_key(|s| {
        let age = s.creation_timestamp().map(|t| t.0);
        (std::cmp::Reverse(set_replicas(s)), std::cmp::Reverse(age))
    });
    if to_add < 0 {
        live.sort_by_key(|s| (std::cmp::Reverse(set_replicas(s)), s.creation_timestamp().map(|t| t.0)));
    }
    let mut sizes: Vec<i32> = live.iter().map(|s| set_replicas(s)).collect();
    for (at, set) in live.iter().enumerate() {
        let share = fraction(set, allowed, total) - set_replicas(set);
        let step = if to_add > 0 { share.clamp(0, to_add) } else { share.clamp(to_add, 0) };
        sizes[at] += step;
        to_add -= step;
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add).max(0);
    }
    live.iter().zip(sizes).filter_map(|(set, to)| scale(deployment, set, to)).collect()
}

/// The size a set has by its present share when the whole becomes `allowed`, rounded to nearest.
fn fraction(set: &ReplicaSet, allowed: i32, total: i32) -> i32 {
    let known =
        set.annotations().get(MAXIMUM).and_then(|m| m.parse::<i64>().ok()).unwrap_or(i64::from(total));
    let base = known.max(1);
    let share = (i64::from(set_replicas(set)) * i64::from(allowed) * 2 + base) / (base * 2);
    i32::try_from(share).unwrap_or(i32::MAX)
}

/// All pods are of the current template and available, and no old one is left.
pub fn is_complete(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
    let Some(current) = new_set(deployment, sets) else { return false };
    let wanted = replicas_of(deployment);
    let actual = |set: &ReplicaSet| set.status.as_ref().map_or(0, |s| s.replicas);
    let total: i32 = sets.iter().map(|s| actual(s)).sum();
    actual(&current) == wanted && total == wanted && available(&current) == wanted
}

fn clean_history(deployment: &Deployment, sets: &[Arc<ReplicaSet>], current: &ReplicaSet) -> Vec<Action> {
    let limit = deployment.spec.revision_history_limit.unwrap_or(10).max(0) as usize;
    let mut old: Vec<&Arc<ReplicaSet>> = old_sets(sets, current)
        .into_iter()
        .filter(|set| {
            let actual = set.status.as_ref().map_or(0, |s| s.replicas);
            set_replicas(set) == 0 && actual == 0 && set.meta().deletion_timestamp.is_none()
        })
        .collect();
    old.sort_by_key(|set| revision_of(set));
    let surplus = old.len().saturating_sub(limit);
    old.into_iter().take(surplus).map(|set| Action::Delete { name: set.name_any() }).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
