//! Sends events until they are taken: several at once, of one repository one after the other, with growing pauses.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gantry_host::Host;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use super::cloud;
use super::hooks::{Hook, Target};
use super::queue::Taken;
use crate::Registry;

/// From the connection to the receiver's answer.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// Requests at a time to one receiver, to those of one namespace, and to all: who answers slowly holds up himself.
const PER_RECEIVER_MAX: usize = 4;
const PER_NAMESPACE_MAX: usize = 16;
const FLYING_MAX: usize = 256;
/// Between one failed attempt and the next.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// How long what nobody waits for may be in memory alone, and how often it is looked what is too old.
const TICK: Duration = Duration::from_secs(1);
/// With nothing to do it is woken.
const IDLE: Duration = Duration::from_secs(3600);
/// Several attempts are one change of a status.
const SETTLE: Duration = Duration::from_millis(500);

/// How it goes with a receiver.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) delivered: i64,
    pub(super) failed: i64,
    pub(super) last_delivery: Option<Timestamp>,
    pub(super) last_failure: Option<Timestamp>,
    pub(super) last_error: String,
    /// Attempts that failed one after the other.
    pub(super) failures: u32,
    /// The generation of the object whose receiver wants nothing any more.
    pub(super) gone: Option<i64>,
    pub(super) flying: usize,
    /// Nothing is sent before.
    pub(super) pause_until: Option<Instant>,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    /// `of_receiver`: any other event would have failed, too.
    Refused {
        why: String,
        after: Option<Duration>,
        of_receiver: bool,
    },
    /// 410: it wants nothing any more (Standard Webhooks, "Success and failures").
    Gone,
}

/// Requests that are being sent.
#[derive(Default)]
struct Slots<'a> {
    all: usize,
    namespaces: HashMap<&'a str, usize>,
}

impl<'a> Slots<'a> {
    fn add(&mut self, namespace: &'a str, count: usize) {
        self.all += count;
        *self.namespaces.entry(namespace).or_default() += count;
    }

    /// Whether one more may be sent.
    fn has(&self, namespace: &str) -> bool {
        self.all < FLYING_MAX && self.namespaces.get(namespace).is_none_or(|count| *count < PER_NAMESPACE_MAX)
    }
}

struct Attempt {
    hook: Arc<Hook>,
    number: u64,
    attempts: u32,
    verdict: Verdict,
}

/// How long to wait after so many failures: twice as long each time, and by chance between half of it and all.
fn pause(failures: u32, chance: f64) -> Duration {
    let whole = PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_MAX);
    whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

impl Registry {
    /// Delivers from now on.
    pub(super) fn deliver_events(&self, host: &Host) {
        let (registry, shutdown) = (self.clone(), host.tasks.shutdown().clone());
        host.tasks.supervise("registry/webhooks", move || {
            let (registry, shutdown) = (registry.clone(), shutdown.clone());
            async move {
                let mut flying = JoinSet::new();
                // Of a task that ended before: what it had taken is due again.
                registry.land_all();
                let mut flushed = Instant::now();
                loop {
                    if flushed.elapsed() >= TICK {
                        let done = registry.inner.events.outbox.flush().await;
                        done.map_err(|error| error.to_string())?;
                        flushed = Instant::now();
                    }
                    let next = registry.send_due(&mut flying);
                    tokio::select! {
                        () = registry.inner.events.woken.notified() => {}
                        Some(done) = flying.join_next(), if !flying.is_empty() => {
                            registry.settle(done.map_err(|error| error.to_string())?);
                        }
                        () = tokio::time::sleep_until(next.into()) => {}
                        () = shutdown.cancelled() => break,
                    }
                }
                registry.inner.events.outbox.flush().await.map_err(|error| error.to_string())
            }
        });
    }

    fn land_all(&self) {
        let now = Instant::now();
        for (uid, tally) in self.inner.events.tallies().iter_mut() {
            tally.flying = 0;
            self.inner.events.outbox.land(uid, now);
        }
    }

    /// Begins whatever may be sent now, and says when to look again.
    fn send_due(&self, flying: &mut JoinSet<Attempt>) -> Instant {
        let events = &self.inner.events;
        let now = Instant::now();
        let mut next = now + if events.outbox.is_idle() { IDLE } else { TICK };
        let hooks = events.hooks().unwrap_or_default();
        let mut slots = Slots::default();
        for hook in hooks.iter() {
            slots.add(&hook.key.namespace, events.tallies().get(&hook.uid).map_or(0, |tally| tally.flying));
        }
        // Each round begins with another one.
        let turn = events.turn.fetch_add(1, Ordering::Relaxed) % hooks.len().max(1);
        for hook in hooks[turn..].iter().chain(&hooks[..turn]) {
            self.give_up_old(hook);
            let Ok(target) = &hook.target else { continue };
            let mut tallies = events.tallies();
            let Some(tally) = tallies.get_mut(&hook.uid) else { continue };
            if hook.suspended || tally.gone.is_some() {
                continue;
            }
            if let Some(until) = tally.pause_until.filter(|until| *until > now) {
                next = next.min(until);
                continue;
            }
            // One that did not answer is asked with one event whether it does again.
            let max = if tally.failures > 0 { 1 } else { PER_RECEIVER_MAX };
            let namespace = hook.key.namespace.as_str();
            while tally.flying < max && slots.has(namespace) {
                let Some(taken) = events.outbox.take(&hook.uid, now) else { break };
                tally.flying += 1;
                slots.add(namespace, 1);
                flying.spawn(attempt(hook.clone(), target.clone(), taken));
            }
            // With its hands full, the end of an attempt wakes it.
            if tally.flying < max
                && slots.has(namespace)
                && let Some(at) = events.outbox.next(&hook.uid)
            {
                next = next.min(at);
            }
        }
        next
    }

    fn give_up_old(&self, hook: &Hook) {
        let outbox = &self.inner.events.outbox;
        let oldest_kept = Timestamp::now() - SignedDuration::from_secs(hook.give_up_after_seconds.into());
        if outbox.oldest(&hook.uid).is_some_and(|oldest| oldest < oldest_kept) {
            outbox.give_up(&hook.uid, oldest_kept);
            self.inner.events.changed.add_after(hook.key.clone(), SETTLE);
        }
    }

    fn settle(&self, attempt: Attempt) {
        let events = &self.inner.events;
        let Attempt { hook, number, attempts, verdict } = attempt;
        let now = Timestamp::now();
        {
            let mut tallies = events.tallies();
            // It may have gone meanwhile.
            let Some(tally) = tallies.get_mut(&hook.uid) else { return };
            tally.flying = tally.flying.saturating_sub(1);
            match verdict {
                Verdict::Taken => {
                    (tally.failures, tally.pause_until) = (0, None);
                    tally.delivered += 1;
                    tally.last_delivery = Some(now);
                    events.outbox.done(&hook.uid, number);
                }
                Verdict::Refused { why, after, of_receiver } => {
                    tracing::debug!(webhook = ?hook.key, why, "an event was not delivered");
                    (tally.last_failure, tally.last_error) = (Some(now), why);
                    tally.failures = tally.failures.saturating_add(1);
                    let failures = if of_receiver { tally.failures } else { attempts.saturating_add(1) };
                    let at = Instant::now() + pause(failures, rand::random()).max(after.unwrap_or_default());
                    if of_receiver {
                        tally.pause_until = Some(at);
                    }
                    events.outbox.again(&hook.uid, number, at);
                }
                Verdict::Gone => {
                    tally.last_failure = Some(now);
                    tally.last_error = "410 Gone".to_owned();
                    tally.gone = Some(hook.generation);
                    events.outbox.again(&hook.uid, number, Instant::now());
                    events.outbox.give_up(&hook.uid, Timestamp::MAX);
                }
            }
        }
        events.changed.add_after(hook.key.clone(), SETTLE);
    }
}

async fn attempt(hook: Arc<Hook>, target: Target, taken: Taken) -> Attempt {
    let Taken { number, event, attempts } = taken;
    let source = format!("/v2/{}", event.repository);
    let (mut headers, body) = cloud::request(&event, hook.content_mode, &source);
    cloud::sign(&mut headers, &event.id, &body, &target.keys, Timestamp::now());
    let sent = target.client.post(target.url.clone()).headers(headers).body(body).send().await;
    let verdict = match sent {
        Ok(answer) => judge(answer.status(), answer.headers()),
        Err(error) => Verdict::Refused { why: in_words(&error), after: None, of_receiver: true },
    };
    Attempt { hook, number, attempts, verdict }
}

/// With its causes: what reqwest says alone is that a request failed. Without the address, which the object has.
fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut causes = std::iter::successors(error.source(), |error| error.source()).peekable();
    match causes.peek() {
        None => error.to_string(),
        Some(_) => causes.map(ToString::to_string).collect::<Vec<_>>().join(": "),
    }
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Verdict {
    if status.is_success() {
        return Verdict::Taken;
    }
    if status == StatusCode::GONE {
        return Verdict::Gone;
    }
    let seconds = headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
    Verdict::Refused {
        why: format!("it answered {status}"),
        after: seconds.map(|seconds| Duration::from_secs(seconds).min(PAUSE_MAX)),
        // Only a complaint about the request itself may be one about this event alone.
        of_receiver: busy || !status.is_client_error(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_slow_leaves_room_for_others() {
        let mut slots = Slots::default();
        let fill = |slots: &mut Slots<'static>, namespace: &'static str| {
            let mut count = 0;
            while slots.has(namespace) {
                slots.add(namespace, 1);
                count += 1;
            }
            count
        };
        slots.add("slow", PER_NAMESPACE_MAX - 1);
        assert_eq!(fill(&mut slots, "slow"), 1);
        assert_eq!(fill(&mut slots, "other"), PER_NAMESPACE_MAX);
        slots.add("many", FLYING_MAX);
        assert_eq!(fill(&mut slots, "third"), 0);
    }

    #[test]
    fn pauses_grow_and_differ() {
        for (failures, chance, want_ms) in [
            (1, 0.0, 500),
            (1, 1.0, 1000),
            (2, 0.5, 1500),
            (5, 1.0, 16_000),
            (40, 1.0, 600_000),
            (u32::MAX, 0.0, 300_000),
        ] {
            assert_eq!(pause(failures, chance), Duration::from_millis(want_ms), "{failures} {chance}");
        }
    }

    #[test]
    fn answers_say_what_is_next() {
        let answer = |status: u16, after: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, after.parse().expect("a header"));
            judge(StatusCode::from_u16(status).expect("a status"), &headers)
        };
        assert_eq!(answer(204, ""), Verdict::Taken);
        assert_eq!(answer(410, ""), Verdict::Gone);
        for (status, retry, wanted_after, wanted_of_receiver) in [
            (500, "", None, true),
            (503, "30", Some(30), true),
            (429, "7", Some(7), true),
            (429, "100000", Some(600), true),
            (302, "", None, true),
            (400, "", None, false),
            (401, "soon", None, false),
        ] {
            let Verdict::Refused { after, of_receiver, .. } = answer(status, retry) else {
                panic!("{status}")
            };
            assert_eq!(
                (after.map(|d| d.as_secs()), of_receiver),
                (wanted_after, wanted_of_receiver),
                "{status}"
            );
        }
    }
}
