//! The threads that hash. Async threads never do, and logins never take more than their share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::hash::{HashCost, Workspace, is_outdated};
use super::queue::Queue;
use super::{Password, PasswordError};

/// A thread without work for this long gives its memory back.
const MEMORY_KEPT: Duration = Duration::from_secs(30);
/// What a hash is taken to last before the first has been measured.
const HASH_US_GUESS: u64 = 40_000;
const WORKERS_MAX: usize = 64;

/// How much of the machine logins may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HasherSettings {
    pub cost: HashCost,
    /// Hashes at once; absent: as many as there are processors. Each needs the cost's memory.
    pub workers: Option<usize>,
    /// Logins that wait at most; more are told to come again.
    pub queue_max: usize,
    /// Of those, from one source at most.
    pub queue_per_source_max: usize,
    /// How far the threads stand back (0–19, as nice(1)): other requests are answered first, and logins
    /// take what is left, which is everything on an otherwise idle machine.
    pub niceness: u8,
}

impl Default for HasherSettings {
    fn default() -> Self {
        let cost = HashCost::default();
        Self { cost, workers: None, queue_max: 256, queue_per_source_max: 64, niceness: 10 }
    }
}

/// What came of comparing a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    pub matches: bool,
    /// The password is right and its hash was made at another cost than the settings': hash it anew.
    pub outdated: bool,
}

/// The handle to the threads; cheap to clone. They end when the last handle is dropped.
#[derive(Clone)]
pub struct PasswordHasher(Arc<Owner>);

struct Owner(Arc<Shared>);

struct Shared {
    jobs: Mutex<Jobs>,
    ready: Condvar,
    settings: HasherSettings,
    workers: usize,
    /// A hash of a password nobody has, compared where there is no user or no password.
    dummy: String,
    /// Smoothed duration of one job.
    job_us: AtomicU64,
    /// Hashes computed for others; the one at the start is not.
    #[cfg(test)]
    computed: AtomicU64,
}

struct Jobs {
    queue: Queue<Job>,
    closed: bool,
}

enum Work {
    Hash(Password),
    /// The first of the hashes that is the password's; all are compared.
    Find(Password, Vec<String>),
}

enum Done {
    Hash(String),
    Found(Option<usize>),
}

struct Job {
    work: Work,
    reply: oneshot::Sender<Result<Done, PasswordError>>,
}

impl PasswordHasher {
    /// Starts the threads. Hashes once, to have what unknown users are compared with.
    pub fn start(settings: HasherSettings) -> Result<Self, PasswordError> {
        settings.cost.check()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = settings.workers.unwrap_or(cores).clamp(1, WORKERS_MAX);
        let nobody = Password::generate().ok_or(PasswordError::Random)?;
        let dummy = Workspace::new().hash(&nobody, &settings.cost)?;
        let queue = Queue::new(settings.queue_max, settings.queue_per_source_max);
        let shared = Arc::new(Shared {
            jobs: Mutex::new(Jobs { queue, closed: false }),
            ready: Condvar::new(),
            settings,
            workers,
            dummy,
            job_us: AtomicU64::new(HASH_US_GUESS),
            #[cfg(test)]
            computed: AtomicU64::new(0),
        });
        let hasher = Self(Arc::new(Owner(shared.clone())));
        for number in 0..workers {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("password-{number}"))
                .spawn(move || shared.serve())
                .map_err(|_| PasswordError::Stopped)?;
        }
        Ok(hasher)
    }

    /// What the settings ask of a hash.
    pub fn cost(&self) -> HashCost {
        self.0.0.settings.cost
    }

    /// Hashes at once.
    pub fn workers(&self) -> usize {
        self.0.0.workers
    }

    /// Hashes computed until now: what is answered is counted.
    #[cfg(test)]
    pub(crate) fn computed(&self) -> u64 {
        self.0.0.computed.load(Ordering::SeqCst)
    }

    /// Hashes a password. `source` is whose turn it uses up: see [`crate::lockout::Source::lane`].
    pub async fn hash(&self, source: u64, password: Password) -> Result<String, PasswordError> {
        match self.0.0.run(source, Work::Hash(password)).await? {
            Done::Hash(hash) => Ok(hash),
            Done::Found(_) => Err(PasswordError::Stopped),
        }
    }

    /// Compares a password with the stored hash. `None`: no such user, or one without a password; it
    /// takes as long, and does not match.
    pub async fn verify(
        &self,
        source: u64,
        password: Password,
        hash: Option<String>,
    ) -> Result<Verified, PasswordError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.0.0.dummy.clone());
        let outdated = is_outdated(&hash, &self.0.0.settings.cost);
        let matches = self.find(source, password, vec![hash]).await?.is_some() && known;
        Ok(Verified { matches, outdated: matches && outdated })
    }

    /// Which of the hashes is the password's.
    pub async fn find(
        &self,
        source: u64,
        password: Password,
        hashes: Vec<String>,
    ) -> Result<Option<usize>, PasswordError> {
        match self.0.0.run(source, Work::Find(password, hashes)).await? {
            Done::Found(index) => Ok(index),
            Done::Hash(_) => Err(PasswordError::Stopped),
        }
    }
}

impl std::fmt::Debug for PasswordHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordHasher").field("settings", &self.0.0.settings).finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.ready.notify_all();
    }
}

impl Shared {
    async fn run(&self, lane: u64, work: Work) -> Result<Done, PasswordError> {
        let (reply, answer) = oneshot::channel();
        self.push(lane, Job { work, reply })?;
        self.ready.notify_one();
        answer.await.map_err(|_| PasswordError::Stopped)?
    }

    fn push(&self, lane: u64, job: Job) -> Result<(), PasswordError> {
        let mut jobs = self.lock();
        let Err(job) = jobs.queue.push(lane, job) else { return Ok(()) };
        // Clients that have gone make room before one that is there is sent away.
        jobs.queue.retain(|waiting| !waiting.reply.is_closed());
        let waiting = jobs.queue.len();
        jobs.queue.push(lane, job).map_err(|_| PasswordError::Busy { retry_after: self.wait(waiting) })
    }

    /// How long so many jobs take, in whole seconds, at least one.
    fn wait(&self, jobs: usize) -> Duration {
        let us = self.job_us.load(Ordering::Relaxed).saturating_mul(jobs as u64) / self.workers as u64;
        Duration::from_secs(us.div_ceil(1_000_000).max(1))
    }

    fn serve(&self) {
        gantry_base::threads::stand_back(self.settings.niceness);
        let mut workspace = Workspace::new();
        while let Some(job) = self.next(&mut workspace) {
            if job.reply.is_closed() {
                continue;
            }
            let began = Instant::now();
            // A panic must not take the thread: there would be one less for the rest of the process's life.
            let done = catch_unwind(AssertUnwindSafe(|| job.work.run(&mut workspace, &self.settings.cost)));
            let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let smoothed = self.job_us.load(Ordering::Relaxed).saturating_mul(7).saturating_add(took_us) / 8;
            self.job_us.store(smoothed, Ordering::Relaxed);
            #[cfg(test)]
            self.computed.fetch_add(std::mem::take(&mut workspace.computed), Ordering::SeqCst);
            let _ = job.reply.send(done.unwrap_or(Err(PasswordError::Stopped)));
        }
    }

    /// Waits for work; `None`: there will be no more.
    fn next(&self, workspace: &mut Workspace) -> Option<Job> {
        let mut jobs = self.lock();
        loop {
            if let Some(job) = jobs.queue.pop() {
                return Some(job);
            }
            if jobs.closed {
                return None;
            }
            let (waited, timeout) =
                self.ready.wait_timeout(jobs, MEMORY_KEPT).unwrap_or_else(PoisonError::into_inner);
            jobs = waited;
            if timeout.timed_out() {
                workspace.release();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        // Nothing panics between the steps of a change of the queue.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    fn run(self, workspace: &mut Workspace, cost: &HashCost) -> Result<Done, PasswordError> {
        match self {
            Self::Hash(password) => workspace.hash(&password, cost).map(Done::Hash),
            Self::Find(password, hashes) => {
                let mut found = None;
                for (index, hash) in hashes.iter().enumerate() {
                    let matches = workspace.verify(&password, hash)?;
                    found = found.or(matches.then_some(index));
                }
                Ok(Done::Found(found))
            }
        }
    }
}
