//! Sessions of tokens that were seen lately, good for as long as nothing has changed or run out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::session::Session;
use crate::token::Claims;

/// Sessions kept per shard: 2 to 4 KiB each.
const SHARD_SESSIONS_MAX: usize = 1024;
const SHARDS: usize = 16;

/// Versions of directory and revocations that a session was made from.
pub(crate) type Versions = (u64, u64);

/// One session with the versions it was made from.
#[derive(Default)]
pub(crate) struct Last(Mutex<Option<(Versions, Arc<Session>)>>);

impl Last {
    pub(crate) fn get_or(
        &self,
        versions: Versions,
        now: Timestamp,
        find: impl FnOnce() -> Option<Arc<Session>>,
    ) -> Option<Arc<Session>> {
        {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, session)) = &*kept
                && *at == versions
                && is_good(session, now)
            {
                return Some(session.clone());
            }
        }
        let found = find()?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((versions, found.clone()));
        Some(found)
    }
}

fn is_good(session: &Session, now: Timestamp) -> bool {
    session.ends_at.is_none_or(|end| now < end)
}

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
    /// The session of the claims at these versions and this time: the kept one, or what `make` gives.
    pub(crate) fn get_or(
        &self,
        claims: &Arc<Claims>,
        versions: Versions,
        now: Timestamp,
        make: impl FnOnce() -> Option<Session>,
    ) -> Option<Arc<Session>> {
        if let Some((at, session)) = self.shard(&claims.id).entries.get(&claims.id)
            && *at == versions
            && is_good(session, now)
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

#[cfg(test)]
mod tests {
    use gantry_identity_api::{ApplicationCredential, ApplicationCredentialSpec};
    use jiff::SignedDuration;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::directory::tests::{assign, put, two_organisations};
    use crate::token::TokenScope;

    #[test]
    fn a_kept_session_ends_with_the_credential_it_came_from() {
        let now = Timestamp::from_second(1_700_000_000).expect("a time");
        let end = now + SignedDuration::from_mins(1);
        let mut state = two_organisations();
        assign(&mut state, "member alice project:web");
        let spec = ApplicationCredentialSpec {
            user: "alice".to_owned(),
            project: "web".to_owned(),
            roles: vec!["reader".to_owned()],
            expires_at: Some(Time(end)),
            ..ApplicationCredentialSpec::default()
        };
        put(&mut state, ApplicationCredential::new("robot", spec));
        let lives = now..now + SignedDuration::from_hours(4);
        let claims = Arc::new(Claims {
            scope: TokenScope::Project { id: "web".to_owned(), domain: "acme".to_owned() },
            application_credential: Some("robot".to_owned()),
            ..Claims::unscoped("AAAAAAAAAAAAAAAAAAAAAA", "alice", "acme", lives)
        });
        let sessions = Sessions::default();
        let at = |now| sessions.get_or(&claims, (1, 1), now, || Session::of(&state, claims.clone(), now));
        let first = at(now).expect("good");
        let kept = at(end - SignedDuration::from_millis(1)).expect("still good");
        assert!(Arc::ptr_eq(&first, &kept), "made twice");
        assert!(at(end).is_none());
        let last = Last::default();
        let again = |now| last.get_or((1, 1), now, || at(now));
        let first = again(now).expect("good");
        assert!(Arc::ptr_eq(&first, &again(now).expect("still good")));
        assert!(again(end).is_none());
        assert!(last.get_or((2, 1), now, || None).is_none(), "another version");
    }
}
