//! Tasks that are watched: a failed one is restarted, its part shown degraded, and all of them end
//! when the process drains. No task exits the process.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::health::{Health, HealthBoard};

const RESTART_DELAY_MS_MIN: u64 = 200;
const RESTART_DELAY_MS_MAX: u64 = 30_000;
/// A task that ran this long is taken as recovered: its next restart is quick again.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

/// Starts tasks, restarts them, and waits for their end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    health: HealthBoard,
}

impl Tasks {
    pub fn new(shutdown: CancellationToken, health: HealthBoard) -> Self {
        Self { tracker: TaskTracker::new(), shutdown, health }
    }

    /// Cancelled when the process drains; every task must then come to its end.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    pub fn health(&self) -> &HealthBoard {
        &self.health
    }

    /// Runs `start()` for as long as the process lives, and shows the part as ok from now on. When its
    /// future ends or panics before the shutdown, the part is shown degraded and the task is started again
    /// after a growing delay.
    pub fn supervise<F, Fut, E>(&self, part: &str, mut start: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let (part, shutdown, health) = (part.to_owned(), self.shutdown.clone(), self.health.clone());
        health.set(&part, Health::Ok);
        self.tracker.spawn(async move {
            let mut delay_ms = RESTART_DELAY_MS_MIN;
            while !shutdown.is_cancelled() {
                let began = Instant::now();
                let ended = tokio::spawn(start()).await;
                if shutdown.is_cancelled() {
                    return;
                }
                let why = match ended {
                    Ok(Ok(())) => "ended by itself".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(panic) => format!("panicked: {panic}"),
                };
                if began.elapsed() > RECOVERED_AFTER {
                    delay_ms = RESTART_DELAY_MS_MIN;
                }
                tracing::error!(part, why, delay_ms, "task failed and will be restarted");
                health.set(&part, Health::Degraded(why));
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(delay_ms)) => {}
                    () = shutdown.cancelled() => return,
                }
                delay_ms = (delay_ms * 2).min(RESTART_DELAY_MS_MAX);
                health.set(&part, Health::Ok);
            }
        });
    }

    /// Waits until every task has ended; false when some had not by `deadline`.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.shutdown.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_failing_task_is_restarted_until_the_drain() {
        let tasks = Tasks::new(CancellationToken::new(), HealthBoard::default());
        let starts = Arc::new(AtomicU32::new(0));
        let (counted, shutdown) = (starts.clone(), tasks.shutdown().clone());
        tasks.supervise("part", move || {
            let (starts, shutdown) = (counted.clone(), shutdown.clone());
            async move {
                match starts.fetch_add(1, Ordering::SeqCst) {
                    0 => Err("broken".to_owned()),
                    1 => panic!("on purpose"),
                    _ => {
                        shutdown.cancelled().await;
                        Ok::<(), String>(())
                    }
                }
            }
        });
        assert_eq!(tasks.health().all()["part"], Health::Ok, "shown from the start");
        while starts.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(tasks.health().all()["part"], Health::Ok);
        assert!(tasks.drain(Duration::from_secs(1)).await);
    }
}
