//! What waits for one receiver. Events of one repository go one after the other, those of several beside each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::Event;

/// Events that wait for one receiver; with one more, the oldest is given up.
pub(super) const WAITING_MAX: usize = 10_000;

/// Ordered by numbers, which grow with time.
#[derive(Default)]
pub(super) struct Waiting {
    events: BTreeMap<u64, Held>,
    /// Repository → its events. The first alone may be sent.
    lines: HashMap<String, VecDeque<u64>>,
    /// The first of each line that is not being sent, by when it may be.
    due: BTreeSet<(Instant, u64)>,
}

struct Held {
    event: Arc<Event>,
    attempts: u32,
    /// Absent: it is being sent, or stands behind another.
    due: Option<Instant>,
    is_sent: bool,
}

/// An event to send now.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) number: u64,
    pub(super) event: Arc<Event>,
    /// How often it was tried before.
    pub(super) attempts: u32,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Arc<Event>)> {
        self.events.iter().map(|(number, held)| (*number, &held.event))
    }

    /// Gives back the number of the event that had to go, if one had.
    pub(super) fn add(&mut self, number: u64, event: Arc<Event>, now: Instant) -> Option<u64> {
        let line = self.lines.entry(event.repository.clone()).or_default();
        line.push_back(number);
        let due = (line.len() == 1).then_some(now);
        self.due.extend(due.map(|at| (at, number)));
        self.events.insert(number, Held { event, attempts: 0, due, is_sent: false });
        if self.events.len() <= WAITING_MAX {
            return None;
        }
        let oldest = self.events.iter().find(|(_, held)| !held.is_sent).map(|(number, _)| *number)?;
        self.remove(oldest, now);
        Some(oldest)
    }

    /// The event whose turn it is, which is then being sent: [`Self::remove`] or [`Self::again`] follow.
    pub(super) fn take(&mut self, now: Instant) -> Option<Taken> {
        let (at, number) = *self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, number));
        let held = self.events.get_mut(&number)?;
        (held.due, held.is_sent) = (None, true);
        Some(Taken { number, event: held.event.clone(), attempts: held.attempts })
    }

    /// When the next turn is.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// It could not be sent, and is tried again at `at`.
    pub(super) fn again(&mut self, number: u64, at: Instant) {
        let Some(held) = self.events.get_mut(&number).filter(|held| held.is_sent) else { return };
        held.attempts = held.attempts.saturating_add(1);
        (held.due, held.is_sent) = (Some(at), false);
        self.due.insert((at, number));
    }

    /// Whatever was being sent is not any more.
    pub(super) fn land(&mut self, now: Instant) {
        let sent: Vec<u64> = self.events.iter().filter(|(_, held)| held.is_sent).map(|(n, _)| *n).collect();
        for number in sent {
            self.again(number, now);
        }
    }

    /// It is over with. The next of its repository may go.
    pub(super) fn remove(&mut self, number: u64, now: Instant) -> bool {
        let Some(held) = self.events.remove(&number) else { return false };
        if let Some(at) = held.due {
            self.due.remove(&(at, number));
        }
        let Some(line) = self.lines.get_mut(&held.event.repository) else { return true };
        let was_first = line.front() == Some(&number);
        line.retain(|other| *other != number);
        match line.front().copied() {
            None => drop(self.lines.remove(&held.event.repository)),
            Some(first) if was_first => {
                if let Some(held) = self.events.get_mut(&first) {
                    held.due = Some(now);
                    self.due.insert((now, first));
                }
            }
            Some(_) => {}
        }
        true
    }

    /// The time of the oldest event.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.events.first_key_value().map(|(_, held)| held.event.time)
    }

    /// Those that are older, and not being sent.
    pub(super) fn older_than(&self, time: Timestamp) -> Vec<u64> {
        let old = self.events.iter().take_while(|(_, held)| held.event.time < time);
        old.filter(|(_, held)| !held.is_sent).map(|(number, _)| *number).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::events::tests::event;

    #[test]
    fn one_repository_waits_for_its_first_and_others_do_not() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for (number, repository) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
            assert_eq!(waiting.add(number, event(repository), now), None);
        }
        let take = |waiting: &mut Waiting, at| waiting.take(at).map(|taken| (taken.number, taken.attempts));
        assert_eq!(take(&mut waiting, now), Some((1, 0)));
        assert_eq!(take(&mut waiting, now), Some((3, 0)));
        assert_eq!(take(&mut waiting, now), None);
        let later = now + Duration::from_secs(1);
        waiting.again(1, later);
        assert!(waiting.remove(3, now) && !waiting.remove(3, now));
        assert_eq!((take(&mut waiting, now), waiting.next()), (None, Some(later)));
        assert_eq!(take(&mut waiting, later), Some((1, 1)));
        waiting.remove(1, later);
        assert_eq!(take(&mut waiting, later), Some((2, 0)));
        // One that is taken out of the middle holds nobody up.
        waiting.remove(4, later);
        waiting.remove(2, later);
        assert_eq!((waiting.len(), waiting.next(), waiting.lines.len()), (0, None, 0));
    }

    #[test]
    fn the_oldest_goes_when_it_is_full_or_too_old() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let max = u64::try_from(WAITING_MAX).expect("a number");
        for number in 0..max {
            assert_eq!(waiting.add(number, event(&(number % 7).to_string()), now), None);
        }
        // What is being sent is not the one.
        assert_eq!(waiting.take(now).map(|taken| taken.number), Some(0));
        assert_eq!(waiting.add(max, event("x"), now), Some(1));
        assert_eq!(waiting.len(), WAITING_MAX);
        let (oldest, end) = (waiting.oldest().expect("one"), Timestamp::MAX);
        assert!(waiting.older_than(oldest).is_empty());
        assert_eq!(waiting.older_than(end).len(), WAITING_MAX - 1);
    }

    proptest::proptest! {
        /// Whatever happens, each repository's events are taken in order, and every one in the end.
        #[test]
        fn nothing_is_lost_or_overtaken(steps in proptest::collection::vec((0_u8..4, 0_u64..5), 1..200)) {
            let (mut waiting, mut now) = (Waiting::default(), Instant::now());
            let (mut number, mut flying, mut last) = (0, Vec::<Taken>::new(), HashMap::<String, u64>::new());
            let mut settle = |waiting: &mut Waiting, taken: Taken, good: bool, now| {
                if !good {
                    waiting.again(taken.number, now + Duration::from_secs(taken.number % 3));
                    return;
                }
                let before = last.insert(taken.event.repository.clone(), taken.number);
                assert!(before.is_none_or(|before| before < taken.number));
                waiting.remove(taken.number, now);
            };
            for (what, of) in steps {
                match what {
                    0 => {
                        number += 1;
                        waiting.add(number, event(&of.to_string()), now);
                    }
                    1 => flying.extend(waiting.take(now)),
                    _ if !flying.is_empty() => {
                        let taken = flying.swap_remove(usize::try_from(of).expect("small") % flying.len());
                        settle(&mut waiting, taken, what == 2, now);
                    }
                    _ => now += Duration::from_secs(1),
                }
            }
            for taken in std::mem::take(&mut flying) {
                settle(&mut waiting, taken, true, now);
            }
            while let Some(at) = waiting.next() {
                let taken = waiting.take(at).expect("it is due");
                settle(&mut waiting, taken, true, at);
            }
            assert_eq!(waiting.len(), 0);
        }
    }
}
