//! Which tags and images a repository's retention rules let go: a pure function of what there is and the time.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use gantry_base::pattern::matches;
use gantry_oci::{Digest, Tag};
use gantry_registry_api::{Keep, Rules};
use jiff::Timestamp;

const SECONDS_PER_DAY: i64 = 86_400;

/// A tag as the rules look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TagFacts {
    pub(crate) tag: Tag,
    pub(crate) digest: Digest,
    pub(crate) pushed: Timestamp,
    pub(crate) pulled: Option<Timestamp>,
}

/// A manifest as the rules look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestFacts {
    pub(crate) digest: Digest,
    pub(crate) pushed: Timestamp,
    /// The manifests an index names.
    pub(crate) children: Vec<Digest>,
    pub(crate) subject: Option<Digest>,
}

/// What is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) tags: BTreeSet<Tag>,
    pub(crate) manifests: BTreeSet<Digest>,
}

/// A tag goes when the rules keep some tags and no rule keeps this one. A manifest goes when nothing leads to it any
/// more: no tag, no index that stays, no subject that stays; and, where it never had a tag, when it is old enough.
/// Immutable tags always stay. A tag that is called after an image here (`sha256-HEX.sig`) goes and stays with it.
pub(crate) fn plan(tags: &[TagFacts], manifests: &[ManifestFacts], rules: &Rules, now: Timestamp) -> Plan {
    let Some(retention) = &rules.retention else { return Plan::default() };
    let immutable = |tag: &Tag| rules.immutable_tags.iter().any(|pattern| matches(pattern, tag.as_str()));
    let there: HashSet<&Digest> = manifests.iter().map(|m| &m.digest).collect();
    let subject = |facts: &TagFacts| {
        attached_to(&facts.tag).filter(|digest| there.contains(digest) && !immutable(&facts.tag))
    };
    let (attached, tags): (Vec<&TagFacts>, Vec<&TagFacts>) = tags.iter().partition(|t| subject(t).is_some());
    let attached: Vec<(Digest, &TagFacts)> =
        attached.into_iter().filter_map(|facts| Some((subject(facts)?, facts))).collect();
    let kept: HashSet<&Tag> = retention.keep.iter().flat_map(|keep| kept_by(keep, &tags, now)).collect();
    let goes = |facts: &&&TagFacts| {
        !retention.keep.is_empty() && !kept.contains(&facts.tag) && !immutable(&facts.tag)
    };
    let going: BTreeMap<&Tag, &Digest> = tags.iter().filter(goes).map(|t| (&t.tag, &t.digest)).collect();
    let mut roots: Vec<&Digest> =
        tags.iter().filter(|t| !going.contains_key(&t.tag)).map(|t| &t.digest).collect();
    let untagged = |manifest: &&ManifestFacts| {
        !tags.iter().chain(attached.iter().map(|(_, t)| t)).any(|t| t.digest == manifest.digest)
    };
    let old = |manifest: &ManifestFacts| {
        retention.untagged_days.is_some_and(|days| !within(manifest.pushed, days, now))
    };
    // What lost its last tag just now goes with it. What had none, and hangs on nothing that goes, waits.
    let let_go = reachable(going.values().copied().collect(), manifests, &attached);
    let waiting = manifests.iter().filter(untagged).filter(|m| !old(m) && !let_go.contains(&m.digest));
    roots.extend(waiting.map(|m| &m.digest));
    let staying = reachable(roots, manifests, &attached);
    let gone = manifests.iter().map(|m| &m.digest).filter(|digest| !staying.contains(digest));
    let without = attached.iter().filter(|(subject, _)| !staying.contains(subject)).map(|(_, t)| &t.tag);
    Plan { tags: going.into_keys().chain(without).cloned().collect(), manifests: gone.cloned().collect() }
}

/// The image whose signatures, attestations or referrers a tag names, as clients call them: `sha256-HEX`, perhaps
/// with an ending such as `.sig`.
pub(crate) fn attached_to(tag: &Tag) -> Option<Digest> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let hex = rest.split_once('.').map_or(rest, |(hex, _)| hex);
    format!("{algorithm}:{hex}").parse().ok()
}

/// The tags that one rule keeps: those it matches, and of them the newest, the recently pushed and the recently
/// pulled, or all where it says nothing of that.
fn kept_by<'a>(keep: &Keep, tags: &[&'a TagFacts], now: Timestamp) -> Vec<&'a Tag> {
    let of_pattern = |tag: &Tag| keep.tags.is_empty() || keep.tags.iter().any(|p| matches(p, tag.as_str()));
    let mut matching: Vec<&TagFacts> = tags.iter().copied().filter(|t| of_pattern(&t.tag)).collect();
    if keep.newest.is_none() && keep.pushed_days.is_none() && keep.pulled_days.is_none() {
        return matching.into_iter().map(|t| &t.tag).collect();
    }
    // Of two pushed in the same moment the name decides: the plan is the same each time.
    matching.sort_by(|a, b| b.pushed.cmp(&a.pushed).then_with(|| b.tag.cmp(&a.tag)));
    let newest = usize::try_from(keep.newest.unwrap_or(0)).unwrap_or(usize::MAX);
    let recent = |t: &TagFacts| {
        let pulled = t.pulled.unwrap_or(t.pushed).max(t.pushed);
        keep.pushed_days.is_some_and(|days| within(t.pushed, days, now))
            || keep.pulled_days.is_some_and(|days| within(pulled, days, now))
    };
    let kept = matching.iter().enumerate().filter(|(place, t)| *place < newest || recent(t));
    kept.map(|(_, t)| &t.tag).collect()
}

fn within(at: Timestamp, days: u32, now: Timestamp) -> bool {
    now.as_second().saturating_sub(at.as_second()) < i64::from(days) * SECONDS_PER_DAY
}

/// Everything that indexes among `roots` name, and what refers to any of it (signatures, bills of materials).
fn reachable<'a>(
    roots: Vec<&'a Digest>,
    manifests: &'a [ManifestFacts],
    attached: &'a [(Digest, &TagFacts)],
) -> HashSet<&'a Digest> {
    let by_digest: BTreeMap<&Digest, &ManifestFacts> = manifests.iter().map(|m| (&m.digest, m)).collect();
    let mut referrers: BTreeMap<&Digest, Vec<&Digest>> = BTreeMap::new();
    for manifest in manifests {
        if let Some(subject) = &manifest.subject {
            referrers.entry(subject).or_default().push(&manifest.digest);
        }
    }
    for (subject, facts) in attached {
        referrers.entry(subject).or_default().push(&facts.digest);
    }
    let (mut found, mut open) = (HashSet::new(), roots);
    while let Some(digest) = open.pop() {
        if found.insert(digest) {
            open.extend(by_digest.get(digest).into_iter().flat_map(|m| &m.children));
            open.extend(referrers.get(digest).into_iter().flatten());
        }
    }
    found
}

#[cfg(test)]
#[path = "retention/tests.rs"]
mod tests;
