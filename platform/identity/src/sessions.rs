//! Sessions of tokens that were seen lately, good for as long as nothing has changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::session::Session;
use crate::token::Claims;

/// Sessions kept per shard: about 2 KiB each.
const SHARD_SESSIONS_MAX: usize = 1024;
const SHARDS: usize = 16;

/// Versions of directory and revocations that a session was made from.
pub(crate) type Versions = (u64, u64);

/// A bounded cache. An entry of other versions is as good as none, so nothing has to be thrown out when a right
/// changes: the next look finds it outdated.
pub(crate) struct Sessions([Mutex<Shard>; SHARDS]);

#[derive(Default)]
struct Shard {
    entries: HashMap<String, (Versions, Arc<Session>)>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Sessions {
    /// The session of the claims at these versions: the kept one, or what `make` gives.
    pub(crate) fn get_or(
        &self,
        claims: &Arc<Claims>,
        versions: Versions,
        make: impl FnOnce() -> Option<Session>,
    ) -> Option<Arc<Session>> {
        if let Some((at, session)) = self.shard(&claims.id).entries.get(&claims.id)
            && *at == versions
        {
            return Some(session.clone());
        }
        let made = Arc::new(make()?);
        let mut shard = self.shard(&claims.id);
        if shard.entries.len() >= SHARD_SESSIONS_MAX && !shard.entries.contains_key(&claims.id) {
            shard.make_room(versions);
        }
        shard.entries.insert(claims.id.clone(), (versions, made.clone()));
        Some(made)
    }

    fn shard(&self, id: &str) -> MutexGuard<'_, Shard> {
        // Ids are random: any byte spreads them.
        let at = id.bytes().last().map_or(0, usize::from) % SHARDS;
        // A map of clones keeps no invariant across a panic.
        self.0[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// Outdated entries go first; where there are none, half of all: cheaper over time than one by one.
    fn make_room(&mut self, versions: Versions) {
        self.entries.retain(|_, (at, _)| *at == versions);
        if self.entries.len() >= SHARD_SESSIONS_MAX {
            let mut keep = false;
            self.entries.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
    }
}
