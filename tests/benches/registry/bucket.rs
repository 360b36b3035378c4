//! Content in files beside content on S3, the server of it on this machine and on the same disk.

use std::time::Duration;

use gantry_testkit::{Instance, S3Server};

use crate::common::Table;
use crate::people::Server;
use crate::remote::{Image, Remote, repository};
use crate::transfers::middle;

const ROUNDS: usize = 3;
const REDIRECTED: &str = "redirect = true\n";

pub async fn measure(table: &Table) -> Option<()> {
    let (server, redirecting) = (S3Server::start(), S3Server::start());
    let instances = [
        ("files", Instance::builder().no_node().start()?),
        ("S3", on(&server, "")?),
        ("S3, redirected", on(&redirecting, REDIRECTED)?),
    ];
    let mut remotes = Vec::new();
    for (what, gantry) in &instances {
        let server = Server::sign_in(gantry.port(), gantry.data_dir()).await;
        remotes.push((*what, Remote::ours(gantry, &server).await));
    }
    for (place, (what, layers, bytes)) in
        [("3 × 100 MB", 3, 100_000_000), ("200 × 64 KiB", 200, 64 << 10)].into_iter().enumerate()
    {
        let mut times: Vec<(Vec<Duration>, Vec<Duration>)> = vec![Default::default(); remotes.len()];
        for round in 0..ROUNDS {
            // Another image each time: what is there already is not sent again.
            let image = Image::of_noise(layers, bytes);
            let repository = repository(place * ROUNDS + round);
            for ((_, remote), (pushes, pulls)) in remotes.iter().zip(&mut times) {
                pushes.push(remote.push(&repository, &image).await);
                pulls.push(remote.pull(&repository).await.0);
            }
        }
        for ((kind, _), (pushes, pulls)) in remotes.iter().zip(times) {
            for (deed, times) in [("push", pushes), ("pull", pulls)] {
                table.told(
                    &format!("{deed} of {what}, {kind}"),
                    &format!("{:.2} s", middle(times).as_secs_f64()),
                );
            }
        }
    }
    Some(())
}

fn on(server: &S3Server, more: &str) -> Option<Instance> {
    Instance::builder().no_node().file("config.toml", &format!("{}{more}", server.settings())).start()
}
