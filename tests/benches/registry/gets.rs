//! Small answers: manifests and small blobs.

use std::time::Duration;

use crate::common::{Table, cpu};
use crate::load::{Load, Target, Until};
use crate::remote::{Image, REPOSITORIES, Remote, repository};

const CLIENTS: usize = 16;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(4);
const BAR: f64 = 10.0;
const CPU_BAR_MS: f64 = 0.3;

pub async fn measure(ours: &Remote, theirs: &Remote, table: &mut Table) {
    let image = Image::of_noise(1, 1000);
    let repository = repository(REPOSITORIES - 1);
    for remote in [ours, theirs] {
        remote.push(&repository, &image).await;
    }
    for (what, path) in [
        ("manifest", format!("/v2/{repository}/manifests/latest")),
        ("blob of 1,000 bytes", format!("/v2/{repository}/blobs/{}", image.layers[0].digest)),
    ] {
        let (mut mine, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            peers.push(round(theirs, &path));
            mine.push(round(ours, &path));
        }
        let (mine, peers) = (middle(mine), middle(peers));
        let ratio = mine.0 / peers.0;
        let shown = |(rate, each): (f64, f64)| format!("{rate:.0}/s, {each:.3} ms CPU each");
        table.judged(
            &format!("GET of a {what}, {CLIENTS} clients"),
            &format!("≥ {BAR} × {}, ≤ {CPU_BAR_MS} ms CPU each", theirs.name),
            &format!("{}; {} {}: {ratio:.1} ×", shown(mine), theirs.name, shown(peers)),
            ratio >= BAR && mine.1 <= CPU_BAR_MS,
        );
    }
}

/// Requests per second, and milliseconds of CPU for each.
fn round(remote: &Remote, path: &str) -> (f64, f64) {
    let target = Target::new(remote.port, &remote.authority, None);
    let headers = remote.headers();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let requests = [target.request("GET", path, &headers, "")];
    let load = Load {
        target: &target,
        requests: &requests,
        connections: CLIENTS,
        until: Until::Time(ROUND),
        status: 200,
        pause: Duration::ZERO,
    };
    let before = cpu(remote.pid);
    let outcome = tokio::task::block_in_place(|| load.run());
    let spent = cpu(remote.pid) - before;
    (outcome.rate(), spent.as_secs_f64() * 1e3 / outcome.done as f64)
}

fn middle(mut rounds: Vec<(f64, f64)>) -> (f64, f64) {
    rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    rounds[rounds.len() / 2]
}
