use std::os::unix::fs::PermissionsExt;

use gantry_kube_types::UserInfo;
use proptest::prelude::*;

use super::*;
use crate::directory::tests::{assign, two_organisations};
use crate::session::Session;
use crate::token::{Federation, TokenScope};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
}

const KEEP: SignedDuration = SignedDuration::from_secs(1000);

fn config() -> RevocationConfig {
    RevocationConfig::new(KEEP)
}

fn token<'a>(id: &'a str, user: &'a str, issued: i64) -> Facts<'a> {
    Facts { id, chain: id, user, user_domain: "acme", issued_at: at(issued), ..Facts::default() }
}

fn single(id: &str, user: &str, now: i64) -> Event {
    Event::new(Target::Token { id: id.into(), user: user.into() }, Cause::Revoked, at(now))
}

#[test]
fn each_target_is_about_its_tokens_alone() {
    let alice = Facts {
        id: "t1",
        chain: "t0",
        user: "alice",
        user_domain: "acme",
        project: Some("web"),
        scope_domain: Some("globex"),
        application_credential: Some("ci"),
        trust: Some("tr"),
        oauth_consumer: Some("con"),
        oauth_access_token: Some("acc"),
        provider: Some("idp"),
        issued_at: at(50),
    };
    let bob = Facts { user: "bob", ..token("t9", "bob", 50) };
    let bob = Facts { user_domain: "initech", ..bob };
    let (user, project) = ("alice".to_owned(), "web".to_owned());
    let of = |id: &str| id.to_owned();
    for (target, other) in [
        (
            Target::Token { id: of("t1"), user: user.clone() },
            Target::Token { id: of("t2"), user: user.clone() },
        ),
        (
            Target::Chain { id: of("t0"), user: user.clone() },
            Target::Chain { id: of("t2"), user: user.clone() },
        ),
        (Target::User(user.clone()), Target::User(of("carol"))),
        (
            Target::UserInProject { user: user.clone(), project: project.clone() },
            Target::UserInProject { user: user.clone(), project: of("db") },
        ),
        (Target::Project(project.clone()), Target::Project(of("alice"))),
        (Target::Domain(of("acme")), Target::Domain(of("web"))),
        (Target::Domain(of("globex")), Target::Domain(of("default"))),
        (Target::ApplicationCredential(of("ci")), Target::ApplicationCredential(of("cd"))),
        (Target::Trust(of("tr")), Target::Trust(of("ci"))),
        (Target::OAuthConsumer(of("con")), Target::OAuthConsumer(of("acc"))),
        (Target::OAuthAccessToken(of("acc")), Target::OAuthAccessToken(of("con"))),
        (Target::Provider(of("idp")), Target::Provider(of("ldap"))),
    ] {
        let mut set = RevocationSet::new(KEEP, SetLimits::default());
        set.insert(Event::new(other.clone(), Cause::Disabled, at(60)));
        assert_eq!(set.find(&alice), None, "{other:?}");
        set.insert(Event::new(target.clone(), Cause::Disabled, at(60)));
        assert_eq!(set.find(&alice), Some(Cause::Disabled), "{target:?}");
        assert_eq!(set.find(&bob), None, "{target:?}");
        let later = Facts { issued_at: at(61), ..alice };
        let single = matches!(target, Target::Token { .. } | Target::Chain { .. });
        assert_eq!(set.find(&later).is_some(), single, "{target:?}");
        assert!(set.find(&Facts { issued_at: at(60), ..alice }).is_some(), "the same instant");
    }
    let mut set = RevocationSet::new(KEEP, SetLimits::default());
    set.insert(Event::new(Target::Everything, Cause::Revoked, at(60)));
    assert!(set.find(&alice).is_some() && set.find(&bob).is_some());
    assert_eq!(set.find(&Facts { issued_at: at(61), ..bob }), None);
}

#[test]
fn bounds_widen_and_never_revive() {
    let limits = SetLimits { single_max: 100, wide_max: 50 };
    let mut set = RevocationSet::new(KEEP, limits);
    for n in 0..1000 {
        set.insert(single(&format!("t{n}"), &format!("u{}", n % 10), n));
        assert!(set.len() <= 100 + 50 + 1);
    }
    for n in 0..1000 {
        let (id, user) = (format!("t{n}"), format!("u{}", n % 10));
        assert!(set.find(&token(&id, &user, n)).is_some(), "{id}");
    }
    assert_eq!(set.find(&token("new", "u1", 1000)), None, "who signs in again is not touched");
    assert_eq!(set.find(&token("old", "somebody", 0)), None);
    for n in 0..100 {
        set.insert(Event::new(Target::User(format!("v{n}")), Cause::Deleted, at(1000 + n)));
    }
    assert!(set.len() <= 151);
    for n in 0..100 {
        assert!(set.find(&token("x", &format!("v{n}"), 1000 + n)).is_some(), "v{n}");
    }
    assert_eq!(set.find(&token("y", "z", 1100)), None, "issued after all of them");
}

#[test]
fn an_id_that_comes_as_two_users_is_revoked_for_both() {
    let mut set = RevocationSet::new(KEEP, SetLimits { single_max: 2, wide_max: 50 });
    let chain = |id: &str, user: &str, now| {
        Event::new(Target::Chain { id: id.into(), user: user.into() }, Cause::Revoked, at(now))
    };
    for (id, user, now) in [("e", "b", 0), ("e", "a", 48), ("a", "a", 49), ("b", "a", 49)] {
        set.insert(chain(id, user, now));
    }
    assert!(set.find(&Facts { chain: "c", ..token("e", "a", 0) }).is_some());
}

#[tokio::test]
async fn events_are_told_kept_and_in_the_end_forgotten() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("identity/revocations.redb");
    let revocations = Revocations::open(&path, config(), at(0)).expect("open");
    assert!(matches!(Revocations::open(&path, config(), at(0)), Err(RevocationError::Locked { .. })));
    assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
    let (mut told, generation) = (revocations.subscribe(), revocations.generation());
    let event = Event::new(Target::User("alice".into()), Cause::PasswordChanged, at(10));
    revocations.record(event.clone()).await.expect("kept");
    assert_eq!(*told.recv().await.expect("told"), event);
    assert!(revocations.generation() > generation);
    assert_eq!(revocations.find(&token("t", "alice", 9)), Some(Cause::PasswordChanged));
    revocations.record(single("t5", "bob", 20)).await.expect("kept");
    // An older one about the same takes nothing back.
    let older = Event::new(Target::User("alice".into()), Cause::Disabled, at(5));
    revocations.record(older).await.expect("kept");
    assert_eq!(revocations.find(&token("t", "alice", 9)), Some(Cause::PasswordChanged));
    assert_eq!(revocations.events(None), [event.clone(), single("t5", "bob", 20)]);
    assert_eq!(revocations.events(Some(at(11))), [single("t5", "bob", 20)]);
    let again = reopened(revocations, &path, 500).await;
    assert_eq!(again.events(None), [event, single("t5", "bob", 20)], "after a restart");
    assert_eq!(again.prune(at(1015)).await.expect("pruned"), 1, "the user's tokens have expired");
    assert_eq!(again.find(&token("t", "alice", 9)), None);
    let again = reopened(again, &path, 1020).await;
    assert_eq!(again.events(None), []);
}

/// The writing thread lets go of the file a moment after the last handle is dropped.
async fn reopened(revocations: Revocations, path: &Path, now: i64) -> Revocations {
    drop(revocations);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match Revocations::open(path, config(), at(now)) {
            Ok(open) => return open,
            Err(RevocationError::Locked { .. }) if std::time::Instant::now() < deadline => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn many_at_once_share_the_disk() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("revocations.redb");
    let revocations = Revocations::open(&path, config(), at(0)).expect("open");
    let all = (0..300).map(|n| {
        let revocations = revocations.clone();
        tokio::spawn(async move { revocations.record(single(&format!("t{n}"), "alice", n)).await })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.expect("no panic").expect("kept");
    }
    let again = reopened(revocations, &path, 300).await;
    assert_eq!(again.events(None).len(), 300);
}

#[derive(Clone, Debug)]
struct Made {
    id: String,
    chain: String,
    user: String,
    domain: String,
    project: Option<String>,
    scope_domain: Option<String>,
    trust: Option<String>,
    issued: i64,
}

impl Made {
    fn facts(&self) -> Facts<'_> {
        Facts {
            id: &self.id,
            chain: &self.chain,
            user: &self.user,
            user_domain: &self.domain,
            project: self.project.as_deref(),
            scope_domain: self.scope_domain.as_deref(),
            trust: self.trust.as_deref(),
            issued_at: at(self.issued),
            ..Facts::default()
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    "[ab]"
}

prop_compose! {
    fn made()(
        id in "[a-f]", chain in "[a-f]", user in name(), domain in name(), issued in 0_i64..100,
        project in prop::option::of(name()), scope_domain in prop::option::of(name()), trust in prop::option::of(name()),
    ) -> Made {
        let scope_domain = if project.is_some() { scope_domain.or(Some("a".into())) } else { scope_domain };
        Made { id, chain, user, domain, project, scope_domain, trust, issued }
    }
}

/// An id is one user's.
fn owner(id: &str) -> String {
    if id < "d" { "a".to_owned() } else { "b".to_owned() }
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        4 => "[a-f]".prop_map(|id| Target::Token { user: owner(&id), id }),
        4 => "[a-f]".prop_map(|id| Target::Chain { user: owner(&id), id }),
        2 => name().prop_map(Target::User),
        2 => (name(), name()).prop_map(|(user, project)| Target::UserInProject { user, project }),
        2 => name().prop_map(Target::Project),
        2 => name().prop_map(Target::Domain),
        2 => name().prop_map(Target::Trust),
        1 => Just(Target::Everything),
    ]
}

/// Every event looked at, one by one.
fn naive(events: &[Event], token: &Made, now: i64) -> bool {
    events.iter().any(|event| {
        let lives = now - event.revoked_at.duration_since(at(0)).as_secs() < KEEP.as_secs();
        let issued = at(token.issued) <= event.issued_before;
        let some = |field: &Option<String>, id: &String| field.as_ref() == Some(id);
        lives
            && match &event.target {
                Target::Token { id, .. } => token.id == *id,
                Target::Chain { id, .. } => token.chain == *id || token.id == *id,
                Target::User(id) => issued && token.user == *id,
                Target::UserInProject { user, project } => {
                    issued && token.user == *user && some(&token.project, project)
                }
                Target::Project(id) => issued && some(&token.project, id),
                Target::Domain(id) => issued && (token.domain == *id || some(&token.scope_domain, id)),
                Target::Trust(id) => issued && some(&token.trust, id),
                Target::Everything => issued,
                _ => false,
            }
    })
}

proptest! {
    #[test]
    fn it_answers_as_a_look_at_every_event_does(
        events in prop::collection::vec((target(), 0_i64..100), 0..12),
        tokens in prop::collection::vec(made(), 1..12),
        prune_at in prop::option::of(900_i64..1100),
    ) {
        let events: Vec<Event> =
            events.into_iter().map(|(target, now)| Event::new(target, Cause::Revoked, at(now))).collect();
        let mut set = RevocationSet::new(KEEP, SetLimits::default());
        events.iter().cloned().for_each(|event| set.insert(event));
        // What is listed is what is known: a set made of it answers alike.
        let mut copy = RevocationSet::new(KEEP, SetLimits::default());
        set.events(None).into_iter().for_each(|event| copy.insert(event));
        let now = prune_at.unwrap_or(100);
        set.prune(at(now));
        copy.prune(at(now));
        for token in &tokens {
            // A token lives no longer than events matter: an older one is refused as expired.
            let lives = now - token.issued < KEEP.as_secs();
            if lives {
                let known = naive(&events, token, now);
                prop_assert_eq!(set.find(&token.facts()).is_some(), known, "{:?}", token);
                prop_assert_eq!(copy.find(&token.facts()).is_some(), known, "{:?}", token);
            }
        }
    }

    /// With bounds of almost nothing more may be refused, never less.
    #[test]
    fn small_bounds_never_let_a_revoked_token_through(
        events in prop::collection::vec((target(), 0_i64..100), 0..30),
        tokens in prop::collection::vec(made(), 1..12),
    ) {
        let mut events: Vec<Event> =
            events.into_iter().map(|(target, now)| Event::new(target, Cause::Revoked, at(now))).collect();
        events.sort_by_key(|event| event.revoked_at);
        let mut set = RevocationSet::new(KEEP, SetLimits { single_max: 2, wide_max: 1 });
        events.iter().cloned().for_each(|event| set.insert(event));
        for token in &tokens {
            // A single token is revoked after it was issued, by the user it is of.
            let honest: Vec<Event> = events.iter().filter(|event| match &event.target {
                Target::Token { user, .. } | Target::Chain { user, .. } => {
                    *user == token.user && event.issued_before >= at(token.issued)
                }
                _ => true,
            }).cloned().collect();
            if naive(&honest, token, 100) {
                prop_assert!(set.find(&token.facts()).is_some(), "{:?}", token);
            }
        }
    }
}

/// What a service hands out for a token ends with the token: it knows no more of it than the caller's description.
#[test]
fn a_caller_tells_of_their_token_what_events_are_about() {
    let mut state = two_organisations();
    for assignment in ["member alice project:web", "manager alice domain:acme", "admin alice system"] {
        assign(&mut state, assignment);
    }
    let now = at(0);
    let unscoped = Claims::unscoped("t1", "alice", "acme", now..now + SignedDuration::from_hours(1));
    let federation =
        Federation { provider: "idp".to_owned(), protocol: "openid".to_owned(), groups: Vec::new() };
    let project = TokenScope::Project { id: "web".to_owned(), domain: "acme".to_owned() };
    for claims in [
        Claims { chain: Some("t0".to_owned()), ..unscoped.clone() },
        Claims { federation: Some(federation), ..unscoped.clone() },
        Claims { scope: project, ..unscoped.clone() },
        Claims { scope: TokenScope::Domain("acme".to_owned()), ..unscoped.clone() },
        Claims { scope: TokenScope::System, ..unscoped.clone() },
        unscoped,
    ] {
        let info = Session::of(&state, Arc::new(claims.clone()), now).expect("it is good").info;
        let domain_of = |id: &str| state.projects.get(id).map(|project| project.spec.domain.as_str());
        assert_eq!(Facts::of_caller(&info, now, domain_of), Some(Facts::from(&claims)));
    }
    let other = UserInfo::authenticated("system:serviceaccount:web-dev:ci", &[]);
    assert_eq!(Facts::of_caller(&other, now, |_| None), None);
}
