//! Images that are there already need not be fetched.

use super::{Cycle, SCORE_MAX};
use crate::snapshot::NodeInfo;

/// Smaller images are fetched quicker than a wrong placement costs; larger ones count no further.
const BYTES_MIN: i64 = 23 * 1024 * 1024;
const BYTES_MAX_PER_CONTAINER: i64 = 1000 * 1024 * 1024;

pub fn locality(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let images = &cycle.pod.images;
    if images.is_empty() {
        return 0;
    }
    let nodes = cycle.snapshot.nodes().count().max(1) as f64;
    let total: f64 = images
        .iter()
        .filter_map(|image| {
            let name = normalised(image);
            let size = *node.images.get(&name)?;
            let having = cycle.snapshot.nodes().filter(|n| n.images.contains_key(&name)).count();
            // An image on one node only must not draw every pod there.
            Some(size as f64 * having as f64 / nodes)
        })
        .sum();
    let most = BYTES_MAX_PER_CONTAINER * i64::try_from(images.len()).unwrap_or(1);
    let clamped = (total as i64).clamp(BYTES_MIN, most);
    SCORE_MAX * (clamped - BYTES_MIN) / (most - BYTES_MIN)
}

/// The name under which a node lists an image: with a tag, and with the default registry where the name
/// has none.
fn normalised(image: &str) -> String {
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let mut full = match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    };
    match digest {
        Some(digest) => full = format!("{full}@{digest}"),
        None if !tagged => full.push_str(":latest"),
        None => {}
    }
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_are_those_a_node_lists() {
        for (image, want) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("demo/hello:1", "docker.io/demo/hello:1"),
            ("127.0.0.1:6443/demo/hello:1", "127.0.0.1:6443/demo/hello:1"),
            ("a.b/c@sha256:1", "a.b/c@sha256:1"),
        ] {
            assert_eq!(normalised(image), want);
        }
    }
}
