//! What leaves when an upstream has more than its limit: what nobody pulled for longest.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use gantry_oci::Digest;

use super::Upstream;
use crate::Registry;
use crate::quota::{self, Bound};
use crate::store::{Cached, CachedBlob, Kept};

/// A blob that no manifest names may belong to an image that is on its way.
const LOOSE_STAYS: Duration = Duration::from_secs(60);

/// Brings an upstream below its limit, and below what others' images leave of quotas that they share. What cannot be
/// removed now leaves the next time.
pub(super) async fn make_room(registry: &Registry, upstream: &Upstream) {
    let _alone = upstream.evicting.lock().await;
    let (prefix, limit) = (format!("{}/", upstream.prefix), upstream.size_limit_bytes);
    let bounds = bounds(registry, &prefix);
    if limit.is_none() && bounds.is_empty() {
        return;
    }
    let used = upstream.memory().used.clone();
    let done = registry.blocking(move |registry| {
        let store = registry.store();
        let mut gone = Vec::new();
        let mut shrink = |mut kept: Kept, limit: u64| {
            for manifest in &mut kept.manifests {
                let key = (manifest.repository.clone(), manifest.digest.clone());
                manifest.used = used.get(&key).copied().unwrap_or(manifest.used).max(manifest.used);
            }
            let (manifests, blobs) = plan(&kept, limit, SystemTime::now());
            store.evict(&manifests, &blobs)?;
            gone.extend(manifests);
            std::io::Result::Ok(())
        };
        if let Some(limit) = limit {
            shrink(store.kept(&prefix), limit)?;
        }
        for bound in bounds {
            let used = quota::used(&store.index(), &bound.repositories);
            let excess = used.saturating_sub(bound.own_bytes_max());
            if excess > 0 {
                let kept = store.kept(&prefix).counted_in(&bound.repositories);
                let limit = kept.size_bytes().saturating_sub(excess);
                shrink(kept, limit)?;
            }
        }
        Ok(gone)
    });
    match done.await {
        Ok(manifests) if !manifests.is_empty() => {
            tracing::info!(upstream = upstream.name, manifests = manifests.len(), "left to make room");
            let repositories: HashSet<_> = manifests.into_iter().map(|m| m.repository).collect();
            for repository in repositories {
                registry.note(&repository);
            }
            registry.inner.upstreams.changed.add(upstream.name.clone());
        }
        Ok(_) => {}
        Err(error) => tracing::error!(upstream = upstream.name, %error, "no room could be made"),
    }
}

/// The quotas that hold for what is kept below the prefix.
fn bounds(registry: &Registry, prefix: &str) -> Vec<Bound> {
    let names = registry.store().names();
    let (mut bounds, mut owners) = (Vec::<Bound>::new(), HashSet::new());
    for name in names.iter().filter(|name| name.as_str().starts_with(prefix)) {
        let Some(facts) = registry.facts(name) else { continue };
        // Those of one owner have the same ones, but for their own.
        if !owners.insert(facts.owner.clone()) && facts.rules.quota.is_none() {
            continue;
        }
        for bound in registry.inner.catalogue.bounds(&facts, || names.clone()) {
            // One quota may count one way for its own images and another for those below a quota in it.
            if !bounds.contains(&bound) {
                bounds.push(bound);
            }
        }
    }
    bounds
}

/// What goes, in order, so that the rest is within the limit: blobs that nothing names, then images by their last
/// pull, an index before its images.
fn plan(kept: &Kept, limit: u64, now: SystemTime) -> (Vec<Cached>, Vec<CachedBlob>) {
    let mut size = kept.size_bytes();
    if size <= limit {
        return (Vec::new(), Vec::new());
    }
    let named: HashSet<(&str, &Digest)> = kept
        .manifests
        .iter()
        .flat_map(|m| m.blobs.iter().map(|blob| (m.repository.as_str(), blob)))
        .collect();
    // How many repositories a blob is in, or manifests name it: the bytes go with the last.
    let mut holders: HashMap<&Digest, (usize, u64)> = HashMap::new();
    let mut loose = Vec::new();
    for blob in &kept.blobs {
        holders.entry(&blob.digest).or_insert((0, blob.size_bytes));
        if !named.contains(&(blob.repository.as_str(), &blob.digest)) {
            holders.entry(&blob.digest).and_modify(|(count, _)| *count += 1);
            if now.duration_since(blob.touched).is_ok_and(|age| age > LOOSE_STAYS) {
                loose.push(blob);
            }
        }
    }
    for manifest in &kept.manifests {
        for blob in manifest.blobs.iter().collect::<HashSet<_>>() {
            holders.entry(blob).and_modify(|(count, _)| *count += 1);
        }
    }
    let mut let_go = |blob: &Digest| match holders.get_mut(blob) {
        Some((count, bytes)) => {
            *count = count.saturating_sub(1);
            if *count == 0 { *bytes } else { 0 }
        }
        None => 0,
    };
    let (mut manifests, mut blobs) = (Vec::new(), Vec::new());
    for blob in loose {
        if size <= limit {
            return (manifests, blobs);
        }
        size = size.saturating_sub(let_go(&blob.digest));
        blobs.push(blob.clone());
    }
    for manifest in by_last_use(&kept.manifests) {
        if size <= limit {
            break;
        }
        let freed: u64 = manifest.blobs.iter().collect::<HashSet<_>>().into_iter().map(&mut let_go).sum();
        size = size.saturating_sub(freed + manifest.size_bytes);
        manifests.push(manifest.clone());
    }
    (manifests, blobs)
}

/// The longest unused first. What an index names cannot go before it, and is as new as it.
fn by_last_use(manifests: &[Cached]) -> Vec<&Cached> {
    let mut parents: HashMap<(&str, &Digest), SystemTime> = HashMap::new();
    for index in manifests {
        for child in &index.children {
            let at = parents.entry((index.repository.as_str(), child)).or_insert(index.used);
            *at = (*at).max(index.used);
        }
    }
    let mut sorted: Vec<(SystemTime, bool, &Cached)> = manifests
        .iter()
        .map(|manifest| {
            let parent = parents.get(&(manifest.repository.as_str(), &manifest.digest));
            (parent.copied().unwrap_or(manifest.used).max(manifest.used), parent.is_some(), manifest)
        })
        .collect();
    sorted.sort_by(|(a, child, m), (b, other, n)| {
        a.cmp(b).then(child.cmp(other)).then_with(|| m.digest.to_string().cmp(&n.digest.to_string()))
    });
    sorted.into_iter().map(|(_, _, manifest)| manifest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn manifest(name: &str, used: u64, blobs: &[&str], children: &[&str]) -> Cached {
        Cached {
            repository: "m/x".parse().expect("a name"),
            digest: digest(name),
            size_bytes: 1,
            blobs: blobs.iter().map(|b| digest(b)).collect(),
            children: children.iter().map(|c| digest(c)).collect(),
            used: at(used),
        }
    }

    fn blob(name: &str, size_bytes: u64, touched: u64) -> CachedBlob {
        let repository = "m/x".parse().expect("a name");
        CachedBlob { repository, digest: digest(name), size_bytes, touched: at(touched) }
    }

    #[test]
    fn what_was_not_pulled_for_longest_leaves_until_the_rest_fits() {
        let kept = Kept {
            manifests: vec![
                manifest("old", 10, &["base", "a"], &[]),
                manifest("new", 30, &["base", "b"], &[]),
                manifest("middle", 20, &["c"], &[]),
                // Not pulled itself for long, but by its index, which goes before it.
                manifest("child", 5, &["d"], &[]),
                manifest("index", 25, &[], &["child"]),
            ],
            blobs: vec![
                blob("base", 1000, 1),
                blob("a", 100, 1),
                blob("b", 100, 1),
                blob("c", 100, 1),
                blob("d", 100, 1),
                blob("loose", 100, 1),
                blob("coming", 100, 990),
            ],
            repositories: 1,
            own: 0,
        };
        assert_eq!(kept.size_bytes(), 1605);
        for (limit, goes) in [
            (1605, ""),
            (1604, "loose"),
            (1505, "loose"),
            (1504, "loose old"),
            // The base stays with what else needs it.
            (1404, "loose old"),
            (1403, "loose old middle"),
            (1302, "loose old middle index"),
            (1301, "loose old middle index child"),
            (0, "loose old middle index child new"),
        ] {
            let (manifests, blobs) = plan(&kept, limit, at(1000));
            let names = ["old", "new", "middle", "child", "index", "loose", "coming"];
            let name = |of: &Digest| names.iter().find(|name| digest(name) == *of).copied().expect("a name");
            let found: Vec<&str> = blobs
                .iter()
                .map(|b| name(&b.digest))
                .chain(manifests.iter().map(|m| name(&m.digest)))
                .collect();
            assert_eq!(found.join(" "), goes, "{limit}");
        }
    }
}
