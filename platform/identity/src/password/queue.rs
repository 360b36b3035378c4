//! Who is next: one lane per source, taken in turns, so that a flood from one place delays itself.

use std::collections::{HashMap, VecDeque};

/// A bounded queue of lanes. First come, first served within a lane; round robin between lanes.
pub(super) struct Queue<T> {
    lanes: HashMap<u64, VecDeque<T>>,
    /// The lanes that have something, in the order of their turns.
    turns: VecDeque<u64>,
    waiting: usize,
    waiting_max: usize,
    lane_max: usize,
}

impl<T> Queue<T> {
    pub(super) fn new(waiting_max: usize, lane_max: usize) -> Self {
        Self { lanes: HashMap::new(), turns: VecDeque::new(), waiting: 0, waiting_max, lane_max }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Gives the item back when the lane or the whole is full.
    pub(super) fn push(&mut self, lane: u64, item: T) -> Result<(), T> {
        let in_lane = self.lanes.get(&lane).map_or(0, VecDeque::len);
        if self.waiting >= self.waiting_max || in_lane >= self.lane_max {
            return Err(item);
        }
        if in_lane == 0 {
            self.turns.push_back(lane);
        }
        self.lanes.entry(lane).or_default().push_back(item);
        self.waiting += 1;
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let lane = self.turns.pop_front()?;
        let items = self.lanes.get_mut(&lane)?;
        let item = items.pop_front();
        if items.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.turns.push_back(lane);
        }
        self.waiting -= usize::from(item.is_some());
        item
    }

    /// Forgets what nobody waits for any more.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.lanes.retain(|_, items| {
            items.retain(&keep);
            !items.is_empty()
        });
        self.turns.retain(|lane| self.lanes.contains_key(lane));
        self.waiting = self.lanes.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lanes_take_turns_and_have_bounds() {
        let mut queue = Queue::new(6, 4);
        for n in 0..4 {
            queue.push(1, (1, n)).expect("room");
        }
        assert_eq!(queue.push(1, (1, 4)), Err((1, 4)), "the lane is full");
        queue.push(2, (2, 0)).expect("room for others");
        queue.push(3, (3, 0)).expect("room for others");
        assert_eq!(queue.push(4, (4, 0)), Err((4, 0)), "the whole is full");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(1, 0), (2, 0), (3, 0), (1, 1), (1, 2), (1, 3)]);
        assert_eq!(queue.len(), 0);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_lane_overtakes_itself(steps in prop::collection::vec((0_u64..5, 0_u8..4), 1..200)) {
            let mut queue = Queue::<(u64, usize)>::new(16, 5);
            let (mut inside, mut next) = (Vec::<(u64, usize)>::new(), 0);
            for (lane, step) in steps {
                match step {
                    0 => if let Some(item) = queue.pop() {
                        let oldest = inside.iter().position(|it| it.0 == item.0);
                        prop_assert_eq!(inside.remove(oldest.expect("it was pushed")), item);
                    } else {
                        prop_assert!(inside.is_empty());
                    },
                    1 => {
                        queue.retain(|item| item.1 % 3 != 0);
                        inside.retain(|item| item.1 % 3 != 0);
                    }
                    _ => {
                        let fits = inside.len() < 16 && inside.iter().filter(|it| it.0 == lane).count() < 5;
                        prop_assert_eq!(queue.push(lane, (lane, next)).is_ok(), fits);
                        if fits {
                            inside.push((lane, next));
                        }
                        next += 1;
                    }
                }
                prop_assert_eq!(queue.len(), inside.len());
            }
        }
    }
}
