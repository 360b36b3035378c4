//! What operators watch of the registry, read from where it is when they ask.

use gantry_base::metrics::{Counter, Exposition};
use gantry_registry_api::Direction;
use kube::ResourceExt;

use crate::Registry;
use crate::replication::{Measured, Totals};

/// What was done since the process began, counted where it is done.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) pulls: Counter,
    pub(crate) pushes: Counter,
    pub(crate) scans_good: Counter,
    pub(crate) scans_failed: Counter,
    pub(crate) freed_blobs: Counter,
    pub(crate) freed_bytes: Counter,
}

impl Registry {
    /// Adds the registry's numbers to a scrape.
    pub async fn measure(&self, scrape: &mut Exposition) {
        // Blobs are counted by looking at all of them, which must not keep a thread from its requests.
        let stored = self.blocking(|registry| Ok(registry.store().totals())).await;
        if let Ok((repositories, blobs, bytes)) = stored {
            scrape
                .gauge("gantry_registry_repositories", "Repositories that hold an image.")
                .sample(&[], repositories);
            scrape.gauge("gantry_registry_blobs", "Blobs that are stored.").sample(&[], blobs);
            scrape.gauge("gantry_registry_blobs_bytes", "Bytes of all blobs.").sample(&[], bytes);
        }
        self.measure_work(scrape);
        let rules = self.inner.replications.measured();
        if !rules.is_empty() {
            replication_state(scrape, &rules);
            replication_totals(scrape, &rules);
        }
    }

    fn measure_work(&self, scrape: &mut Exposition) {
        let counts = &self.inner.counts;
        for (name, help, counter) in [
            ("gantry_registry_pulls_total", "Manifests that were pulled.", &counts.pulls),
            ("gantry_registry_pushes_total", "Manifests that were pushed.", &counts.pushes),
            (
                "gantry_registry_freed_blobs_total",
                "Blobs that garbage collection removed.",
                &counts.freed_blobs,
            ),
            (
                "gantry_registry_freed_bytes_total",
                "Bytes that garbage collection gave back.",
                &counts.freed_bytes,
            ),
        ] {
            scrape.counter(name, help).sample(&[], counter.get());
        }
        scrape
            .gauge("gantry_registry_scans_queued", "Images that wait to be scanned.")
            .sample(&[], self.inner.scans.waiting() as u64);
        scrape
            .counter("gantry_registry_scans_total", "Images that were scanned, or could not be.")
            .sample(&[("result", "success")], counts.scans_good.get())
            .sample(&[("result", "failure")], counts.scans_failed.get());
    }
}

/// How far every rule is, as of now and as its object says.
fn replication_state(scrape: &mut Exposition, rules: &[Measured]) {
    let each = |scrape: &mut Exposition, name, help, value: &dyn Fn(&Measured) -> Option<u64>| {
        let mut family = scrape.gauge(name, help);
        for rule in rules {
            if let Some(value) = value(rule) {
                family.sample(&labels(rule, &rule.object.name_any()), value);
            }
        }
    };
    each(
        scrape,
        "gantry_registry_replication_lag_seconds",
        "How long something waits to be copied; 0 where everything known is.",
        &|rule| Some(rule.lag_seconds),
    );
    each(
        scrape,
        "gantry_registry_replication_last_run_timestamp_seconds",
        "When the last run ended.",
        &|rule| rule.last_run_seconds(),
    );
    each(
        scrape,
        "gantry_registry_replication_last_success_timestamp_seconds",
        "When the last run ended that copied everything.",
        &|rule| rule.last_success_seconds(),
    );
    each(
        scrape,
        "gantry_registry_replication_last_run_success",
        "Whether the last run copied everything.",
        &|rule| rule.last_run_seconds().map(|_| u64::from(rule.is_synced())),
    );
    each(
        scrape,
        "gantry_registry_replication_pending_tags",
        "Tags that the last run could not copy.",
        &|rule| Some(rule.pending().into()),
    );
}

/// What every rule did since the process began.
fn replication_totals(scrape: &mut Exposition, rules: &[Measured]) {
    let mut runs = scrape.counter("gantry_registry_replication_runs_total", "Runs, by how they ended.");
    for Measured { object, totals, .. } in rules {
        let name = object.name_any();
        for (result, count) in [("success", totals.successes), ("failure", totals.failures)] {
            runs.sample(&[("replication", &name), ("result", result)], count);
        }
    }
    type Of = fn(&Totals) -> u64;
    let families: [(_, _, Of); 4] = [
        ("gantry_registry_replication_copied_tags_total", "Tags that were copied.", |t| t.tags),
        ("gantry_registry_replication_copied_blobs_total", "Blobs that were copied.", |t| t.blobs),
        ("gantry_registry_replication_copied_bytes_total", "Bytes of the blobs.", |t| t.bytes),
        ("gantry_registry_replication_deleted_tags_total", "Tags that were removed where they went.", |t| {
            t.deleted
        }),
    ];
    for (name, help, of) in families {
        let mut family = scrape.counter(name, help);
        for rule in rules {
            family.sample(&labels(rule, &rule.object.name_any()), of(&rule.totals));
        }
    }
}

fn labels<'a>(rule: &Measured, name: &'a str) -> [(&'static str, &'a str); 2] {
    let direction = match rule.object.spec.direction {
        Direction::Push => "push",
        Direction::Pull => "pull",
    };
    [("replication", name), ("direction", direction)]
}
