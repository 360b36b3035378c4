//! What this machine can do, found by trying it and never by its version: `gantry doctor` prints it,
//! the Node object carries it, and drivers are chosen by it.
//!
//! Every probe cleans up what it made; none of them leaves a link, table, mount or cgroup behind. The
//! network probes run in a network namespace of their own that ends with the probe.

mod network;
mod programs;

mod system;

use gantry_host::{Capabilities, Capability};

pub use programs::find as find_program;

/// Which features a node cannot do without; the rest is chosen around.
pub const REQUIRED: &[&str] =
    &["root", "containerd", "runc", "nft", "ip", "veth", "bridge", "overlayfs", "cgroup"];

/// Tries everything. Takes some hundred milliseconds, because it runs `ip` and `nft`.
pub fn probe() -> Capabilities {
    let mut found = Vec::new();
    programs::probe(&mut found);
    system::probe(&mut found);
    network::probe(&mut found);
    Capabilities(found.into_iter().map(|(name, capability)| (name.to_owned(), capability)).collect())
}

/// Only what a node cannot do without, for a quick start; the full list follows in the background.
pub fn probe_required() -> Capabilities {
    let mut found = Vec::new();
    programs::probe(&mut found);
    system::probe(&mut found);
    Capabilities(
        found
            .into_iter()
            .filter(|(name, _)| REQUIRED.contains(name))
            .map(|(name, capability)| (name.to_owned(), capability))
            .collect(),
    )
}

/// The first required feature that is missing, as one sentence that says what to do.
pub fn first_missing(capabilities: &Capabilities) -> Option<String> {
    let missing = REQUIRED.iter().filter_map(|name| capabilities.0.get(*name).map(|c| (name, c)));
    missing
        .into_iter()
        .find(|(_, c)| !c.available)
        .map(|(name, c)| format!("{name} is missing: {}", c.detail))
}

type Found = Vec<(&'static str, Capability)>;

fn note(found: &mut Found, name: &'static str, available: bool, detail: impl Into<String>) {
    found.push((name, Capability { available, detail: detail.into() }));
}
