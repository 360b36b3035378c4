//! Removing images that no pod uses when the disk fills up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gantry_cri::{Image, ImageSpec, ListContainersRequest, ListImagesRequest, RemoveImageRequest};
use tokio::time::Instant;

use crate::events::Kind as EventKind;
use crate::shared::Shared;

/// Removal begins above the first share of used disk and ends below the second.
const HIGH_PERCENT: u64 = 85;
const LOW_PERCENT: u64 = 80;
/// An image younger than this here may belong to a pod that is about to start.
const AGE_MIN: Duration = Duration::from_secs(120);
const PERIOD: Duration = Duration::from_secs(300);

/// Looks at the disk until the agent stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    // When each image was last seen in use, or first seen at all.
    let mut used: BTreeMap<String, Instant> = BTreeMap::new();
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.config.shutdown.cancelled() => return,
            _ = timer.tick() => {}
        }
        if let Err(error) = round(&shared, &mut used).await {
            tracing::debug!(%error, "images not looked at");
        }
    }
}

async fn round(shared: &Shared, used: &mut BTreeMap<String, Instant>) -> Result<(), gantry_cri::CriError> {
    let images = shared.runtime.list_images(ListImagesRequest::default()).await?.images;
    let containers = shared.runtime.list_containers(ListContainersRequest::default()).await?.containers;
    let in_use: BTreeSet<String> = containers
        .into_iter()
        .flat_map(|c| [c.image_ref, c.image.map(|i| i.image).unwrap_or_default()])
        .collect();
    let now = Instant::now();
    used.retain(|id, _| images.iter().any(|i| i.id == *id));
    for image in &images {
        let busy = in_use.contains(&image.id);
        used.entry(image.id.clone()).and_modify(|at| *at = if busy { now } else { *at }).or_insert(now);
    }
    let Some((total, free)) = disk(shared) else { return Ok(()) };
    if total == 0 || (total - free) * 100 / total < HIGH_PERCENT {
        return Ok(());
    }
    let need = (total - free).saturating_sub(total / 100 * LOW_PERCENT);
    let mut freed = 0;
    for image in candidates(&images, &in_use, used, now, &shared.config.pause_image) {
        let spec = Some(ImageSpec { image: image.id.clone(), ..Default::default() });
        if shared.runtime.remove_image(RemoveImageRequest { image: spec }).await.is_ok() {
            freed += image.size;
        }
        if freed >= need {
            return Ok(());
        }
    }
    let text = format!(
        "Failed to garbage collect required amount of images. Attempted to free {need} bytes, but only found {freed} bytes eligible to free."
    );
    shared.recorder.node(&shared.config.node_name, EventKind::Warning, "FreeDiskSpaceFailed", &text);
    Ok(())
}

/// Images that may go, the longest unused first.
fn candidates<'a>(
    images: &'a [Image],
    in_use: &BTreeSet<String>,
    used: &BTreeMap<String, Instant>,
    now: Instant,
    pause: &str,
) -> Vec<&'a Image> {
    let free = |image: &&Image| {
        let tagged = image.repo_tags.iter().any(|tag| tag == pause);
        let old = used.get(&image.id).is_some_and(|at| now.duration_since(*at) >= AGE_MIN);
        !image.pinned && !tagged && !in_use.contains(&image.id) && old
    };
    let mut found: Vec<&Image> = images.iter().filter(free).collect();
    found.sort_by_key(|image| used.get(&image.id));
    found
}

fn disk(shared: &Shared) -> Option<(u64, u64)> {
    let fs = nix::sys::statvfs::statvfs(&shared.config.dirs.data).ok()?;
    Some((fs.blocks() * fs.fragment_size(), fs.blocks_available() * fs.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_new_and_own_images_stay() {
        let image =
            |id: &str, tag: &str| Image { id: id.into(), repo_tags: vec![tag.into()], ..Default::default() };
        let images = [
            image("busy", "b"),
            image("new", "n"),
            image("pause", "p:1"),
            image("old", "o"),
            image("older", "q"),
        ];
        let start = Instant::now();
        let later = |seconds: u64| start + Duration::from_secs(seconds);
        let used = BTreeMap::from([
            ("busy".to_owned(), start),
            ("new".to_owned(), later(990)),
            ("pause".to_owned(), start),
            ("old".to_owned(), later(10)),
            ("older".to_owned(), start),
        ]);
        let in_use = BTreeSet::from(["busy".to_owned()]);
        let ids: Vec<&str> =
            candidates(&images, &in_use, &used, later(1000), "p:1").iter().map(|i| i.id.as_str()).collect();
        assert_eq!(ids, ["older", "old"]);
    }
}
