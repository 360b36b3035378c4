//! The matcher: one map per kind of target, so that a token is looked up by what it says.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::event::{Cause, Event, Facts, Target};

/// How many events of a kind are kept. Past it nothing is forgotten: wider events take their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetLimits {
    /// Single tokens, and chains; past it those of the busiest moment become an event about their users.
    pub single_max: usize,
    /// Each other kind; past it everything issued until now is revoked.
    pub wide_max: usize,
}

impl Default for SetLimits {
    fn default() -> Self {
        Self { single_max: 65_536, wide_max: 65_536 }
    }
}

/// Share of the single events that is coarsened at once.
const COARSEN_SHARE: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Until {
    cause: Cause,
    issued_before: Timestamp,
    revoked_at: Timestamp,
}

/// A single token or chain.
#[derive(Clone, Debug)]
struct Single {
    until: Until,
    user: Box<str>,
}

type Wide = HashMap<Box<str>, Until>;

/// The events that still matter. Of several about the same target, the latest stands for all: it is about
/// whatever the earlier ones are about, and matters for longer.
#[derive(Debug)]
pub struct RevocationSet {
    keep: SignedDuration,
    limits: SetLimits,
    tokens: HashMap<Box<str>, Single>,
    chains: HashMap<Box<str>, Single>,
    /// By [`slot`], and within by id.
    wide: [Wide; SLOTS],
    users_in_projects: HashMap<(Box<str>, Box<str>), Until>,
    everything: Option<Until>,
}

const SLOTS: usize = 8;
const USER: usize = 0;
const PROJECT: usize = 1;
const DOMAIN: usize = 2;
const APPLICATION_CREDENTIAL: usize = 3;
const TRUST: usize = 4;
const OAUTH_CONSUMER: usize = 5;
const OAUTH_ACCESS_TOKEN: usize = 6;
const PROVIDER: usize = 7;

impl RevocationSet {
    /// An empty one; events matter for `keep` after what they say in `issued_before` and `revoked_at`.
    pub fn new(keep: SignedDuration, limits: SetLimits) -> Self {
        Self {
            keep,
            limits,
            tokens: HashMap::new(),
            chains: HashMap::new(),
            wide: std::array::from_fn(|_| HashMap::new()),
            users_in_projects: HashMap::new(),
            everything: None,
        }
    }

    /// Takes an event in.
    pub fn insert(&mut self, event: Event) {
        let Event { target, cause, issued_before, revoked_at } = event;
        let until = Until { cause, issued_before, revoked_at };
        match target {
            Target::Token { id, user } => {
                let other = merge_single(&mut self.tokens, id, user, until);
                other.into_iter().for_each(|user| self.insert_wide(USER, user, until));
            }
            Target::Chain { id, user } => {
                let other = merge_single(&mut self.chains, id, user, until);
                other.into_iter().for_each(|user| self.insert_wide(USER, user, until));
            }
            Target::UserInProject { user, project } => {
                let key = (user.into_boxed_str(), project.into_boxed_str());
                self.users_in_projects.entry(key).and_modify(|it| it.merge(until)).or_insert(until);
            }
            Target::Everything => self.everything = Some(merged(self.everything, until)),
            Target::User(id) => self.insert_wide(USER, id, until),
            Target::Project(id) => self.insert_wide(PROJECT, id, until),
            Target::Domain(id) => self.insert_wide(DOMAIN, id, until),
            Target::ApplicationCredential(id) => self.insert_wide(APPLICATION_CREDENTIAL, id, until),
            Target::Trust(id) => self.insert_wide(TRUST, id, until),
            Target::OAuthConsumer(id) => self.insert_wide(OAUTH_CONSUMER, id, until),
            Target::OAuthAccessToken(id) => self.insert_wide(OAUTH_ACCESS_TOKEN, id, until),
            Target::Provider(id) => self.insert_wide(PROVIDER, id, until),
        }
        self.keep_bounds(revoked_at);
    }

    /// Is there an event about this token? At most a dozen look-ups.
    pub fn find(&self, token: &Facts<'_>) -> Option<Cause> {
        if let Some(single) = self.tokens.get(token.id).or_else(|| self.chains.get(token.chain)) {
            return Some(single.until.cause);
        }
        // A chain may be named by any of its tokens.
        if let Some(single) = self.chains.get(token.id) {
            return Some(single.until.cause);
        }
        let wide = [
            (USER, Some(token.user)),
            (DOMAIN, Some(token.user_domain)),
            (PROJECT, token.project),
            (DOMAIN, token.scope_domain),
            (APPLICATION_CREDENTIAL, token.application_credential),
            (TRUST, token.trust),
            (OAUTH_CONSUMER, token.oauth_consumer),
            (OAUTH_ACCESS_TOKEN, token.oauth_access_token),
            (PROVIDER, token.provider),
        ];
        let found = wide.into_iter().filter_map(|(slot, id)| self.wide[slot].get(id?));
        let in_project = token.project.and_then(|project| self.user_in_project(token.user, project));
        let mut all = found.chain(in_project).chain(&self.everything);
        all.find(|until| token.issued_at <= until.issued_before).map(|until| until.cause)
    }

    /// The events recorded since then, oldest first.
    pub fn events(&self, since: Option<Timestamp>) -> Vec<Event> {
        let tokens = self.tokens.iter().map(|(id, single)| {
            (Target::Token { id: id.to_string(), user: single.user.to_string() }, single.until)
        });
        let chains = self.chains.iter().map(|(id, single)| {
            (Target::Chain { id: id.to_string(), user: single.user.to_string() }, single.until)
        });
        let wide = self.wide.iter().enumerate().flat_map(|(slot, events)| {
            events.iter().map(move |(id, until)| (wide_target(slot, id.to_string()), *until))
        });
        let in_projects = self.users_in_projects.iter().map(|((user, project), until)| {
            (Target::UserInProject { user: user.to_string(), project: project.to_string() }, *until)
        });
        let everything = self.everything.map(|until| (Target::Everything, until));
        let all = tokens.chain(chains).chain(wide).chain(in_projects).chain(everything);
        let all = all.filter(|(_, until)| since.is_none_or(|since| until.revoked_at >= since));
        let mut events: Vec<Event> = all
            .map(|(target, Until { cause, issued_before, revoked_at })| Event {
                target,
                cause,
                issued_before,
                revoked_at,
            })
            .collect();
        events.sort_by(|a, b| (a.revoked_at, &a.target).cmp(&(b.revoked_at, &b.target)));
        events
    }

    /// Forgets what is about no living token any more.
    pub fn prune(&mut self, now: Timestamp) {
        let keep = self.keep;
        let lives = |until: &Until| now.duration_since(until.issued_before.max(until.revoked_at)) < keep;
        self.tokens.retain(|_, single| lives(&single.until));
        self.chains.retain(|_, single| lives(&single.until));
        self.wide.iter_mut().for_each(|events| events.retain(|_, until| lives(until)));
        self.users_in_projects.retain(|_, until| lives(until));
        self.everything = self.everything.filter(|until| lives(until));
    }

    /// Events that are kept.
    pub fn len(&self) -> usize {
        let wide: usize = self.wide.iter().map(HashMap::len).sum();
        let single = self.tokens.len() + self.chains.len();
        single + wide + self.users_in_projects.len() + usize::from(self.everything.is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn insert_wide(&mut self, slot: usize, id: String, until: Until) {
        self.wide[slot].entry(id.into_boxed_str()).and_modify(|it| it.merge(until)).or_insert(until);
    }

    fn user_in_project(&self, user: &str, project: &str) -> Option<&Until> {
        if self.users_in_projects.is_empty() {
            return None;
        }
        self.users_in_projects.get(&(user.into(), project.into()))
    }

    /// Wider events in the place of too many narrow ones: more is revoked than was asked, never less.
    fn keep_bounds(&mut self, now: Timestamp) {
        let single_max = self.limits.single_max;
        let mut users = Vec::new();
        for singles in [&mut self.tokens, &mut self.chains] {
            if singles.len() > single_max {
                users.extend(take_oldest(singles, single_max.div_ceil(COARSEN_SHARE)));
            }
        }
        for (user, last) in users {
            // Whenever the tokens were issued: it was before they were revoked.
            let until = Until { cause: Cause::Coarsened, issued_before: last, revoked_at: last };
            self.insert_wide(USER, user.into(), until);
        }
        let too_many = |len: usize| len > self.limits.wide_max;
        let overfull: Vec<usize> = (0..SLOTS).filter(|slot| too_many(self.wide[*slot].len())).collect();
        let pairs = too_many(self.users_in_projects.len());
        if overfull.is_empty() && !pairs {
            return;
        }
        let mut last = Until { cause: Cause::Coarsened, issued_before: now, revoked_at: now };
        for slot in overfull {
            for (_, until) in self.wide[slot].drain() {
                last.widen(until);
            }
        }
        if pairs {
            for (_, until) in self.users_in_projects.drain() {
                last.widen(until);
            }
        }
        self.everything = Some(merged(self.everything, last));
    }
}

impl Until {
    /// The later one stands for both.
    fn merge(&mut self, other: Self) {
        let cause = if other.issued_before >= self.issued_before { other.cause } else { self.cause };
        self.widen(other);
        self.cause = cause;
    }

    fn widen(&mut self, other: Self) {
        self.issued_before = self.issued_before.max(other.issued_before);
        self.revoked_at = self.revoked_at.max(other.revoked_at);
    }
}

fn merged(known: Option<Until>, until: Until) -> Until {
    let mut all = known.unwrap_or(until);
    all.merge(until);
    all
}

/// Ids are random and one user's. Should one come as somebody else's too, that user is given back: the event could
/// not become one about both when it is coarsened.
fn merge_single(
    singles: &mut HashMap<Box<str>, Single>,
    id: String,
    user: String,
    until: Until,
) -> Option<String> {
    let known = singles
        .entry(id.into_boxed_str())
        .and_modify(|it| it.until.merge(until))
        .or_insert_with(|| Single { until, user: user.as_str().into() });
    (known.user.as_ref() != user).then_some(user)
}

/// Takes out the `count` oldest; gives their users, each with the latest time of theirs.
fn take_oldest(singles: &mut HashMap<Box<str>, Single>, count: usize) -> HashMap<Box<str>, Timestamp> {
    let age = |single: &Single| single.until.revoked_at.max(single.until.issued_before);
    let mut ages: Vec<(Timestamp, Box<str>)> = singles.iter().map(|(id, it)| (age(it), id.clone())).collect();
    let count = count.clamp(1, ages.len());
    ages.select_nth_unstable(count - 1);
    let mut users = HashMap::new();
    for (at, id) in ages.into_iter().take(count) {
        if let Some(single) = singles.remove(&id) {
            users.entry(single.user).and_modify(|last: &mut Timestamp| *last = (*last).max(at)).or_insert(at);
        }
    }
    users
}

fn wide_target(slot: usize, id: String) -> Target {
    match slot {
        USER => Target::User(id),
        PROJECT => Target::Project(id),
        DOMAIN => Target::Domain(id),
        APPLICATION_CREDENTIAL => Target::ApplicationCredential(id),
        TRUST => Target::Trust(id),
        OAUTH_CONSUMER => Target::OAuthConsumer(id),
        OAUTH_ACCESS_TOKEN => Target::OAuthAccessToken(id),
        _ => Target::Provider(id),
    }
}
