//! What is due: pure, in seconds since the epoch.

use super::KeySchedule;

/// What to do with the keys, which are sorted by when they begin to sign.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Make a key that signs from then on.
    pub(super) make: Option<i64>,
    pub(super) remove: Vec<usize>,
}

/// The youngest whose time has come; when a clock went back, the oldest.
pub(super) fn signing(starts: &[i64], now: i64) -> usize {
    starts.iter().rposition(|start| *start <= now).unwrap_or(0)
}

pub(super) fn plan(starts: &[i64], schedule: &KeySchedule, now: i64) -> Plan {
    let ahead = schedule.publish_ahead.as_secs();
    let make = match starts.last() {
        None => Some(now),
        Some(last) => {
            let due = last + schedule.rotation.as_secs();
            (now >= due - ahead).then(|| due.max(now + ahead))
        }
    };
    let signing = signing(starts, now);
    let is_over = |at: &usize| starts[at + 1] + schedule.keep.as_secs() <= now;
    Plan { make, remove: (0..signing).filter(is_over).collect() }
}

/// When the next thing is due, after `plan` has been carried out.
pub(super) fn next(starts: &[i64], schedule: &KeySchedule, now: i64) -> i64 {
    let make =
        starts.last().map(|last| last + schedule.rotation.as_secs() - schedule.publish_ahead.as_secs());
    let remove = starts.iter().skip(1).map(|start| start + schedule.keep.as_secs());
    make.into_iter().chain(remove).filter(|at| *at > now).min().unwrap_or(now + schedule.rotation.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use proptest::prelude::*;

    fn schedule() -> KeySchedule {
        let seconds = SignedDuration::from_secs;
        KeySchedule { rotation: seconds(1000), publish_ahead: seconds(100), keep: seconds(300) }
    }

    #[test]
    fn keys_are_published_ahead_and_kept_behind() {
        let s = schedule();
        for (starts, now, signs, make, remove) in [
            (vec![0], 0, 0, None, vec![]),
            (vec![0], 899, 0, None, vec![]),
            (vec![0], 900, 0, Some(1000), vec![]),
            (vec![0], 5000, 0, Some(5100), vec![]),
            (vec![0, 1000], 999, 0, None, vec![]),
            (vec![0, 1000], 1000, 1, None, vec![]),
            (vec![0, 1000], 1299, 1, None, vec![]),
            (vec![0, 1000], 1300, 1, None, vec![0]),
            (vec![0, 1000, 2000], 1950, 1, None, vec![0]),
            (vec![500], 0, 0, None, vec![]),
        ] {
            assert_eq!(signing(&starts, now), signs, "{starts:?} at {now}");
            assert_eq!(plan(&starts, &s, now), Plan { make, remove }, "{starts:?} at {now}");
        }
    }

    proptest! {
        /// However the clock moves on: there is a signing key, it was published in time, and no key goes
        /// while a token it signed may live.
        #[test]
        fn no_token_loses_its_key(steps in prop::collection::vec(1_i64..700, 1..60)) {
            let s = schedule();
            let (mut now, mut starts, mut published) = (0, vec![0], vec![(0, 0)]);
            let mut signed_until = std::collections::HashMap::<i64, i64>::new();
            for step in steps {
                now += step;
                let plan = plan(&starts, &s, now);
                for at in plan.remove.iter().rev() {
                    let gone = starts.remove(*at);
                    prop_assert!(signed_until.get(&gone).is_none_or(|at| at + 300 <= now), "{} at {}", gone, now);
                }
                if let Some(start) = plan.make {
                    published.push((start, now));
                    starts.push(start);
                }
                let key = starts[signing(&starts, now)];
                prop_assert!(published.iter().any(|(start, at)| *start == key && (key == 0 || at + 100 <= now)));
                signed_until.insert(key, now);
                prop_assert!(next(&starts, &s, now) > now);
                prop_assert!(starts.len() <= 4);
            }
        }
    }
}
