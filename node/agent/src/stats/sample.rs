//! Samples of all counters at one moment, kept while somebody asks, so that rates can be told.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::usage::{self, Interface, Trees, Usage};
use crate::api::{AgentApi, PodRecord};

/// How often counters are read while somebody asks.
const PERIOD: Duration = Duration::from_secs(10);
/// Nobody asked for so long: reading stops.
const INTEREST: Duration = Duration::from_secs(180);
/// A rate over less time says little, and a sample this young is new enough.
const WINDOW_MIN: Duration = Duration::from_millis(500);
/// A rate over more time does not say what is now.
const WINDOW_MAX: Duration = Duration::from_secs(60);
/// Samples kept: those of the longest window.
const SAMPLES_MAX: usize = 8;

/// One pod's counters.
#[derive(Clone, Debug)]
pub(super) struct PodSample {
    pub(super) record: Arc<PodRecord>,
    pub(super) usage: Usage,
    pub(super) interfaces: Vec<Interface>,
}

/// All counters at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) time: Timestamp,
    pub(super) node: Usage,
    pub(super) node_memory: u64,
    pub(super) node_interfaces: Vec<Interface>,
    /// In order of namespace and name.
    pub(super) pods: Vec<PodSample>,
    /// Running containers by id.
    pub(super) containers: HashMap<String, Usage>,
}

impl Sample {
    fn take(api: &AgentApi, trees: &Trees) -> Self {
        let (node, node_memory) = usage::host();
        let mut records = api.pods.list();
        records.sort_by(|a, b| {
            let key = |r: &PodRecord| (r.pod.metadata.namespace.clone(), r.pod.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        let mut containers = HashMap::new();
        let mut pods = Vec::with_capacity(records.len());
        for record in records {
            for container in record.containers.iter().filter(|c| c.running) {
                let usage = trees.usage(&format!("{}/{}", record.cgroup, container.id));
                containers.insert(container.id.clone(), usage);
            }
            let host_network = record.pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
            let sandbox = record.sandbox_id.as_ref().filter(|_| !host_network);
            let process = sandbox.and_then(|id| trees.process(&format!("{}/{id}", record.cgroup)));
            pods.push(PodSample {
                usage: trees.usage(&record.cgroup),
                interfaces: process.map(usage::interfaces).unwrap_or_default(),
                record,
            });
        }
        Self {
            at: Instant::now(),
            time: Timestamp::now(),
            node,
            node_memory,
            node_interfaces: usage::interfaces(std::process::id()),
            pods,
            containers,
        }
    }
}

/// Thousand-millionths of a core used between two readings. `None` when the counter began anew.
pub(super) fn rate(before: Option<u64>, now: Option<u64>, between: Duration) -> Option<u64> {
    let used = now?.checked_sub(before?)?;
    let nanos = between.as_nanos();
    (nanos > 0).then(|| u64::try_from(u128::from(used) * 1_000_000_000 / nanos).unwrap_or(u64::MAX))
}

/// Takes samples. Cheap to clone; idle while nobody asks.
#[derive(Clone)]
pub(super) struct Sampler {
    pub(super) api: AgentApi,
    trees: Arc<Trees>,
    history: Arc<Mutex<History>>,
}

#[derive(Default)]
struct History {
    samples: VecDeque<Arc<Sample>>,
    asked: Option<Instant>,
    /// A task reads every [`PERIOD`].
    running: bool,
}

impl Sampler {
    pub(super) fn new(api: AgentApi) -> Self {
        Self { api, trees: Arc::new(Trees::detect()), history: Arc::default() }
    }

    /// Counters of now. For scrapers that make their own rates.
    pub(super) async fn now(&self) -> Arc<Sample> {
        let mut history = self.history.lock().await;
        self.fresh(&mut history).await
    }

    /// Counters of now and of a moment before, for rates.
    pub(super) async fn pair(&self) -> (Arc<Sample>, Arc<Sample>) {
        // Others that ask meanwhile wait, and then find fresh samples.
        let mut history = self.history.lock().await;
        history.asked = Some(Instant::now());
        if !history.running {
            history.running = true;
            tokio::spawn(self.clone().run());
        }
        let mut now = self.fresh(&mut history).await;
        let base = base(&history.samples, now.at);
        let before = match base {
            Some(before) => before,
            None => {
                let before = now;
                tokio::time::sleep(WINDOW_MIN).await;
                now = self.take(&mut history).await;
                before
            }
        };
        (before, now)
    }

    async fn fresh(&self, history: &mut History) -> Arc<Sample> {
        match history.samples.back() {
            Some(last) if last.at.elapsed() < WINDOW_MIN => last.clone(),
            _ => self.take(history).await,
        }
    }

    async fn take(&self, history: &mut History) -> Arc<Sample> {
        let (api, trees) = (self.api.clone(), self.trees.clone());
        let taken = tokio::task::spawn_blocking(move || Sample::take(&api, &trees)).await;
        // The closure does not panic and blocking tasks are not cancelled, except when the process ends.
        let sample = Arc::new(taken.expect("reading counters does not panic"));
        if history.samples.len() == SAMPLES_MAX {
            history.samples.pop_front();
        }
        history.samples.push_back(sample.clone());
        sample
    }

    async fn run(self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let mut history = self.history.lock().await;
            if history.asked.is_none_or(|asked| asked.elapsed() > INTEREST) {
                history.running = false;
                history.samples.clear();
                return;
            }
            self.take(&mut history).await;
        }
    }
}

/// The newest sample that is old enough to compare with one of `now`.
fn base(samples: &VecDeque<Arc<Sample>>, now: Instant) -> Option<Arc<Sample>> {
    let fits = |s: &&Arc<Sample>| {
        let age = now.saturating_duration_since(s.at);
        age >= WINDOW_MIN && age <= WINDOW_MAX
    };
    samples.iter().rev().find(fits).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_and_never_negative() {
        let second = Duration::from_secs(1);
        for (before, now, between, want) in [
            (Some(0), Some(500_000_000), second, Some(500_000_000)),
            (Some(100), Some(100), second, Some(0)),
            (Some(0), Some(30_000_000_000), second * 10, Some(3_000_000_000)),
            (Some(5), Some(4), second, None),
            (None, Some(4), second, None),
            (Some(4), None, second, None),
            (Some(1), Some(2), Duration::ZERO, None),
        ] {
            assert_eq!(rate(before, now, between), want);
        }
    }

    #[test]
    fn the_base_is_neither_too_young_nor_too_old() {
        let start = Instant::now();
        let sample = |at| {
            Arc::new(Sample {
                at,
                time: Timestamp::UNIX_EPOCH,
                node: Usage::default(),
                node_memory: 0,
                node_interfaces: Vec::new(),
                pods: Vec::new(),
                containers: HashMap::new(),
            })
        };
        let at = |ms| start + Duration::from_millis(ms);
        let samples: VecDeque<_> = [0, 10_000, 20_000].map(|ms| sample(at(ms))).into();
        let found = |ms| base(&samples, at(ms)).map(|s| s.at);
        assert_eq!(found(20_000), Some(at(10_000)));
        assert_eq!(found(20_600), Some(at(20_000)));
        assert_eq!(found(80_000), Some(at(20_000)));
        assert_eq!(found(80_001), None);
    }
}
