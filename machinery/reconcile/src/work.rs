//! The loop every controller runs.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use gantry_base::tasks::Tasks;

use crate::Queue;

/// What a reconciler asks for when it succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// When something changes.
    OnChange,
    /// When something changes, and at the latest after this time.
    After(Duration),
}

/// Runs `workers` supervised workers that take keys from `queue` and reconcile them.
pub fn work<T, F, Fut, E>(
    tasks: &Tasks,
    controller: &'static str,
    queue: Queue<T>,
    workers: usize,
    reconcile: F,
) where
    T: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static,
    F: Fn(T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Again, E>> + Send + 'static,
    E: Display + Send + 'static,
{
    for _ in 0..workers {
        let (queue, reconcile, shutdown) = (queue.clone(), reconcile.clone(), tasks.shutdown().clone());
        tasks.supervise(&format!("controller/{controller}"), move || {
            let (queue, reconcile, shutdown) = (queue.clone(), reconcile.clone(), shutdown.clone());
            async move {
                loop {
                    let key = tokio::select! {
                        key = queue.next() => key,
                        () = shutdown.cancelled() => return Ok::<(), String>(()),
                    };
                    one(controller, &queue, key, &reconcile).await;
                }
            }
        });
    }
}

async fn one<T, F, Fut, E>(controller: &str, queue: &Queue<T>, key: T, reconcile: &F)
where
    T: Clone + Eq + Hash + Ord + Debug,
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<Again, E>>,
    E: Display,
{
    // A reconciler that panics must not leave its key locked as being worked on.
    let finish = Finish { queue, key: key.clone() };
    match reconcile(key.clone()).await {
        Ok(again) => {
            queue.forget(&key);
            if let Again::After(delay) = again {
                queue.add_after(key, delay);
            }
        }
        Err(error) => {
            tracing::debug!(controller, ?key, %error, "will be tried again");
            queue.retry(key);
        }
    }
    drop(finish);
}

struct Finish<'a, T: Clone + Eq + Hash + Ord> {
    queue: &'a Queue<T>,
    key: T,
}

impl<T: Clone + Eq + Hash + Ord> Drop for Finish<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.queue.retry(self.key.clone());
        }
        self.queue.done(&self.key);
    }
}
