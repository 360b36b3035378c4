//! Images in and out.

use std::time::Duration;

use crate::common::{Table, cpu, in_status, resident_kib};
use crate::remote::{Image, Remote, repository};

const ROUNDS: usize = 3;
const BAR: f64 = 1.5;
const MEMORY_BAR_MIB: u64 = 60;
const PULLS_AT_ONCE: usize = 8;

/// Times of one registry.
#[derive(Default)]
struct Times {
    push: Vec<Duration>,
    pull: Vec<Duration>,
    pulls: Vec<Duration>,
    /// Of the server, while many pulled.
    pulls_cpu: Vec<Duration>,
}

pub async fn measure(ours: &Remote, theirs: &Remote, table: &mut Table) {
    let idle = resident_kib(ours.pid);
    begin_peak(ours.pid);
    // Three layers of 100 MB, and two hundred of 64 KiB.
    for (place, (what, layers, bytes)) in
        [("3 × 100 MB", 3, 100_000_000), ("200 × 64 KiB", 200, 64 << 10)].into_iter().enumerate()
    {
        let (mut mine, mut peers) = (Times::default(), Times::default());
        for round in 0..ROUNDS {
            // Another image each time: what is there already is not sent again.
            let image = Image::of_noise(layers, bytes);
            let repository = repository(place * ROUNDS + round);
            for (remote, times) in [(theirs, &mut peers), (ours, &mut mine)] {
                times.push.push(remote.push(&repository, &image).await);
                // One that looks at what it gets, and then those that are measured, which do not.
                let (_, digests) = remote.pull(&repository).await;
                let requests = remote.requests(&repository, &digests);
                let (pull, pulls, cpu) = tokio::task::block_in_place(|| {
                    let (pull, once) = remote.downloads.pull(&requests, 1);
                    let before = cpu(remote.pid);
                    let (pulls, all) = remote.downloads.pull(&requests, PULLS_AT_ONCE);
                    assert_eq!(all, once * PULLS_AT_ONCE);
                    assert!(once > layers * bytes, "{once} bytes are not all");
                    (pull, pulls, cpu(remote.pid) - before)
                });
                times.pull.push(pull);
                times.pulls.push(pulls);
                times.pulls_cpu.push(cpu);
            }
        }
        for (deed, mine, peers) in [
            (format!("push of {what}"), mine.push, peers.push),
            (format!("pull of {what}"), mine.pull, peers.pull),
            (format!("{PULLS_AT_ONCE} pulls of {what} at once"), mine.pulls, peers.pulls),
        ] {
            judge(&deed, mine, peers, theirs.name, table);
        }
        let (mine, peers) = (middle(mine.pulls_cpu).as_secs_f64(), middle(peers.pulls_cpu).as_secs_f64());
        table.told("– CPU of the server for these", &format!("{mine:.2} s, {} {peers:.2} s", theirs.name));
    }
    let grown = in_status(ours.pid, "VmHWM:").saturating_sub(idle) / 1024;
    table.judged(
        "memory during all of it, above idle",
        &format!("≤ {MEMORY_BAR_MIB} MiB"),
        &format!("{grown} MiB"),
        grown <= MEMORY_BAR_MIB,
    );
    table.told(
        &format!("– of {}, at its end", theirs.name),
        &format!("{} MiB", resident_kib(theirs.pid) / 1024),
    );
}

/// The most memory a process had is counted from here.
#[expect(clippy::disallowed_methods, reason = "no file: the kernel takes an order")]
fn begin_peak(pid: i32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("its owner may");
}

fn judge(deed: &str, mine: Vec<Duration>, peers: Vec<Duration>, peer: &str, table: &mut Table) {
    let (mine, peers) = (middle(mine), middle(peers));
    let ratio = peers.as_secs_f64() / mine.as_secs_f64();
    table.judged(
        deed,
        &format!("≥ {BAR} × {peer}"),
        &format!("{:.2} s, {peer} {:.2} s: {ratio:.2} ×", mine.as_secs_f64(), peers.as_secs_f64()),
        ratio >= BAR,
    );
}

pub fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
