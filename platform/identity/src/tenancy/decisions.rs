//! Decisions about one caller: a client asks for the same things again and again.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use gantry_kube_types::{Attributes, Decision};

/// Kept per caller, half a KiB each.
const DECISIONS_MAX: usize = 32;

/// The same answers for as long as nothing they depend on has changed.
#[derive(Default)]
pub(crate) struct Decisions {
    hashes: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    version: u64,
    decisions: HashMap<u64, (Attributes, Decision), RandomState>,
    /// Questions asked once. A list that looks at every object asks thousands that nobody repeats.
    asked: [u64; DECISIONS_MAX],
}

impl Decisions {
    /// The kept answer, or what `decide` says. `version` is as of before: what is decided is at least as new.
    pub(crate) fn get_or(
        &self,
        version: Option<u64>,
        asked: &Attributes,
        decide: impl FnOnce() -> Decision,
    ) -> Decision {
        let Some(version) = version else { return decide() };
        let Attributes { verb, group, resource, subresource, namespace, name, path, .. } = asked;
        let hash = self.hashes.hash_one((verb, group, resource, subresource, namespace, name, path));
        let again = {
            let mut kept = self.lock();
            if kept.version != version {
                *kept = Kept { version, ..Kept::default() };
            }
            if let Some((question, decision)) = kept.decisions.get(&hash)
                && question == asked
            {
                return decision.clone();
            }
            std::mem::replace(&mut kept.asked[hash as usize % DECISIONS_MAX], hash) == hash
        };
        let decision = decide();
        let mut kept = self.lock();
        if again && kept.version == version {
            if kept.decisions.len() >= DECISIONS_MAX {
                kept.decisions.clear();
            }
            kept.decisions.insert(hash, (asked.clone(), decision.clone()));
        }
        decision
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Whole entries are put in: a panic leaves none half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use gantry_kube_types::UserInfo;

    use super::*;

    #[test]
    fn an_answer_is_kept_from_the_second_time_on_until_the_version_changes() {
        let (decisions, made) = (Decisions::default(), Cell::new(0));
        let user = UserInfo::authenticated("acme/alice", &[]);
        let ask = |version: Option<u64>, name: &str| {
            let asked = Attributes {
                user: user.clone(),
                verb: "get".into(),
                name: name.into(),
                ..Attributes::default()
            };
            decisions.get_or(version, &asked, || {
                made.set(made.get() + 1);
                Decision::Allow(format!("{name} for the {}th time", made.get()))
            })
        };
        for (version, name, want) in [
            (Some(1), "a", 1),
            (Some(1), "a", 2),
            (Some(1), "a", 2),
            (Some(1), "b", 3),
            (Some(1), "a", 3),
            (Some(2), "a", 4),
            (None, "a", 5),
            (None, "a", 6),
        ] {
            ask(version, name);
            assert_eq!(made.get(), want, "{version:?} {name}");
        }
        let others: Vec<String> = (0..1000).map(|n| format!("n{n}")).collect();
        for _ in 0..3 {
            others.iter().for_each(|name| drop(ask(Some(3), name)));
        }
        assert!(decisions.lock().decisions.len() <= DECISIONS_MAX);
    }
}
