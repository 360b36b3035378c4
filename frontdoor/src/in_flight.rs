//! How many requests are under way: all reads and writes together, and who has how many where handlers have bounds
//! of their own.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_kube_types::UserInfo;

use crate::limits::Limits;

/// Callers are counted in so many counters. Two who meet in one share its bound; which do, nobody can foresee.
const CALLERS: usize = 4096;

/// Counts the requests in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    reads: Arc<Places>,
    writes: Arc<Places>,
    anonymous: Arc<Places>,
    addresses: Arc<Places>,
    users: Arc<Places>,
    spread: RandomState,
}

/// Nobody waits for a place, so that numbers are enough.
#[derive(Debug)]
struct Places {
    taken: Box<[AtomicUsize]>,
    /// Of each counter.
    max: usize,
}

impl Places {
    fn new(counters: usize, max: usize) -> Arc<Self> {
        Arc::new(Self { taken: (0..counters).map(|_| AtomicUsize::new(0)).collect(), max })
    }

    fn enter(self: &Arc<Self>, counter: usize) -> Option<Place> {
        let place = Place { places: self.clone(), counter };
        // Given back with the place where it is one too many.
        (self.taken[counter].fetch_add(1, Ordering::Relaxed) < self.max).then_some(place)
    }
}

#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    counter: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken[self.counter].fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one request in flight takes.
#[derive(Debug)]
pub(crate) struct InFlightPlace {
    _place: Place,
    _among_unknown: Option<Place>,
}

impl InFlight {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            reads: Places::new(1, limits.read_requests_max),
            writes: Places::new(1, limits.write_requests_max),
            anonymous: Places::new(1, limits.anonymous_requests_max),
            addresses: Places::new(CALLERS, limits.anonymous_requests_per_address_max),
            users: Places::new(CALLERS, limits.requests_per_user_max),
            spread: RandomState::new(),
        }
    }

    /// A place among the requests in flight, or `None` when all are taken.
    pub(crate) fn enter(&self, verb: &str) -> Option<InFlightPlace> {
        let reads = matches!(verb, "get" | "list" | "head" | "options");
        let places = if reads { &self.reads } else { &self.writes };
        places.enter(0).map(|place| InFlightPlace { _place: place, _among_unknown: None })
    }

    /// A place among those of this caller, for a handler that has bounds of its own; `None` when the caller, or those
    /// who are not known, have as many as they may.
    pub(crate) fn enter_as(&self, user: &UserInfo, address: Option<IpAddr>) -> Option<InFlightPlace> {
        if !user.is_anonymous() {
            let own = self.users.enter(self.counter(&user.username))?;
            return Some(InFlightPlace { _place: own, _among_unknown: None });
        }
        let own = self.addresses.enter(self.counter(&address.map(source)))?;
        Some(InFlightPlace { _place: own, _among_unknown: Some(self.anonymous.enter(0)?) })
    }

    fn counter(&self, caller: &impl Hash) -> usize {
        // Fewer counters than an usize holds.
        (self.spread.hash_one(caller) % CALLERS as u64) as usize
    }
}

/// One customer's addresses: an IPv4 address, an IPv6 /64.
fn source(address: IpAddr) -> [u8; 8] {
    let mut source = [0; 8];
    match address.to_canonical() {
        IpAddr::V4(v4) => source[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => source.copy_from_slice(&v6.octets()[..8]),
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_a_share_and_the_unknown_have_one_together() {
        let limits = Limits {
            anonymous_requests_max: 5,
            anonymous_requests_per_address_max: 3,
            requests_per_user_max: 2,
            ..Limits::default()
        };
        let places = InFlight::new(&limits);
        let (nobody, alice) = (UserInfo::anonymous(), UserInfo::authenticated("alice", &[]));
        let address = |text: &str| text.parse().ok();
        let enter = |count: usize, from: &str| -> Vec<InFlightPlace> {
            (0..count).filter_map(|_| places.enter_as(&nobody, address(from))).collect()
        };
        let first = enter(9, "10.0.0.1");
        assert_eq!(first.len(), 3, "of one address");
        let mapped = enter(9, "::ffff:10.0.0.1");
        assert_eq!(mapped.len(), 0, "the same address");
        let second = enter(1, "2001:db8::1");
        let third = enter(9, "2001:db8::2");
        assert_eq!((second.len(), third.len()), (1, 1), "of all");
        let alices: Vec<_> = (0..9).filter_map(|_| places.enter_as(&alice, address("10.0.0.1"))).collect();
        assert_eq!(alices.len(), 2, "who is known has places of her own");
        drop((first, second, third));
        assert_eq!(enter(9, "10.0.0.1").len(), 3, "given back");
    }
}
