use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::lockout::{Lockout, LockoutSettings, Refusal, Source, Subject};
use crate::vault::Vault;

const CHEAP: HashCost = HashCost { memory_kib: 64, iterations: 1, parallelism: 1 };
/// Slow enough that a queue builds up behind one.
const SLOW: HashCost = HashCost { memory_kib: 16 << 10, iterations: 3, parallelism: 1 };

fn hasher(cost: HashCost) -> PasswordHasher {
    let settings = HasherSettings { cost, workers: Some(1), ..HasherSettings::default() };
    PasswordHasher::start(settings).expect("threads")
}

fn day(n: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("a time") + SignedDuration::from_hours(24 * n)
}

struct World {
    passwords: Passwords,
    _directory: tempfile::TempDir,
}

impl World {
    fn new(compliance: SecurityCompliance) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let vault = Vault::open(&directory.path().join("vault.redb"), &directory.path().join("vault.key"));
        let lockout = Lockout::new(compliance.lockout(LockoutSettings::default()));
        let policy = PasswordPolicy::new(compliance).expect("good rules");
        let passwords = Passwords::new(vault.expect("a vault"), hasher(CHEAP), lockout, policy);
        Self { passwords, _directory: directory }
    }

    fn login<'a>(&self, user: &'a str, password: &str, now: Timestamp) -> Login<'a> {
        let subject = if user.starts_with("no-") { Subject::Nobody(user) } else { Subject::User(user) };
        let options = PasswordOptions::default();
        Login { subject, source: Source::Unknown, password: Password::new(password), options, now }
    }

    async fn set(&self, password: &str, now: Timestamp) -> Result<PasswordRecord, ChangeError> {
        let options = PasswordOptions::default();
        self.passwords.set("alice", Source::Unknown, Password::new(password), options, now).await
    }

    async fn change(&self, old: &str, new: &str, now: Timestamp) -> Result<PasswordRecord, ChangeError> {
        self.passwords.change(self.login("alice", old, now), Password::new(new)).await
    }

    async fn verify(&self, user: &str, password: &str, now: Timestamp) -> Result<(), LoginError> {
        self.passwords.verify(self.login(user, password, now)).await.map(drop)
    }
}

#[test]
fn generated_passwords_are_strong_and_different() {
    let all: Vec<Password> = (0..50).map(|_| Password::generate().expect("random numbers")).collect();
    for (n, password) in all.iter().enumerate() {
        assert_eq!(password.expose().len(), 24);
        assert!(!all[..n].contains(password));
    }
    let policy = PasswordPolicy::new(SecurityCompliance {
        password_regex: r"^(?=[A-Za-z0-9])(?=.*\d)(?=.*[a-z])(?=.*[A-Z])(?=.*[-_]).{16,}$".to_owned(),
        ..SecurityCompliance::default()
    });
    let policy = policy.expect("a good pattern");
    assert!(all.iter().all(|password| policy.check_text(password).is_ok()));
    assert_eq!(format!("{:?}", all[0]), "[secret]");
}

#[tokio::test]
async fn unknown_users_cost_a_comparison_and_never_match() {
    let hasher = hasher(CHEAP);
    let password = Password::new("hunter22");
    let hash = hasher.hash(1, password.clone()).await.expect("hashed");
    let yes = hasher.verify(1, password.clone(), Some(hash.clone())).await;
    assert_eq!(yes, Ok(Verified { matches: true, outdated: false }));
    let no = Ok(Verified { matches: false, outdated: false });
    for (shown, kept) in [("hunter2", Some(hash.clone())), ("hunter22", None), ("", None)] {
        let before = hasher.computed();
        assert_eq!(hasher.verify(1, Password::new(shown), kept.clone()).await, no);
        assert_eq!(hasher.computed() - before, 1, "{shown:?} against {kept:?}");
    }
    assert_eq!(hasher.find(1, password.clone(), vec![]).await, Ok(None));
    let other = hasher.hash(1, Password::new("x")).await.expect("hashed");
    assert_eq!(hasher.find(1, password.clone(), vec![other, hash.clone()]).await, Ok(Some(1)));
    let malformed = hasher.verify(1, password.clone(), Some("{SSHA}x".to_owned())).await;
    assert_eq!(malformed, Err(PasswordError::MalformedHash));
    let dearer = super::tests::hasher(HashCost { memory_kib: 128, ..CHEAP });
    let outdated = dearer.verify(1, password, Some(hash)).await;
    assert_eq!(outdated, Ok(Verified { matches: true, outdated: true }));
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again_and_those_who_left_make_room() {
    let settings =
        HasherSettings { cost: SLOW, workers: Some(1), queue_max: 4, queue_per_source_max: 2, niceness: 0 };
    let hasher = PasswordHasher::start(settings).expect("threads");
    let ask = |source| {
        let hasher = hasher.clone();
        tokio::spawn(async move { hasher.hash(source, Password::new("x")).await })
    };
    let waiting: Vec<_> = (0..12).map(|n| ask(n % 2)).collect();
    let (mut served, mut refused) = (0, 0);
    for answer in waiting {
        match answer.await.expect("no panic") {
            Ok(_) => served += 1,
            Err(PasswordError::Busy { retry_after }) => {
                assert!(retry_after >= Duration::from_secs(1));
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    // Four wait, and the worker may have taken some of them before the last one asked.
    assert!(served >= 4 && refused >= 1, "{served} served, {refused} refused");

    let gone: Vec<_> = (0..4).map(|n| ask(n % 2)).collect();
    tokio::task::yield_now().await;
    for task in &gone {
        task.abort();
    }
    for task in gone {
        let _ = task.await;
    }
    let answer = ask(0).await.expect("no panic");
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test]
async fn a_password_signs_in_and_a_wrong_one_or_none_does_not() {
    let world =
        World::new(SecurityCompliance { lockout_failure_attempts: 3, ..SecurityCompliance::default() });
    world.set("correct horse", day(0)).await.expect("set");
    world.verify("alice", "correct horse", day(0)).await.expect("right");
    for (user, password) in [("alice", "correct hors"), ("no-one", "correct horse"), ("bob", "correct horse")]
    {
        let refused = world.verify(user, password, day(0)).await;
        assert!(
            matches!(refused, Err(LoginError::Wrong(failure)) if failure.failures == 1),
            "{user}: {refused:?}"
        );
    }
    world.verify("alice", "x", day(0)).await.expect_err("wrong");
    let third = world.verify("alice", "x", day(0)).await;
    assert!(matches!(third, Err(LoginError::Wrong(failure)) if failure.locked_until.is_some()), "{third:?}");
    let locked = world.verify("alice", "correct horse", day(0)).await;
    assert!(matches!(locked, Err(LoginError::Refused(Refusal::Locked { .. }))), "{locked:?}");
    world.set("another one", day(0)).await.expect("an administrator sets it");
    world.verify("alice", "another one", day(0)).await.expect("and the lock-out has ended");
    assert!(world.passwords.remove("alice").await.expect("removed"));
    assert!(world.verify("alice", "another one", day(0)).await.is_err());
}

#[tokio::test]
async fn changes_keep_history_and_age() {
    let world = World::new(SecurityCompliance {
        unique_last_password_count: 2,
        minimum_password_age: 2,
        password_expires_days: 30,
        ..SecurityCompliance::default()
    });
    world.set("password one", day(0)).await.expect("set");
    let changed = world.change("password one", "password two", day(0)).await.expect("set by another: no age");
    assert_eq!(changed.current.expires, Some(day(30)));
    let young = world.change("password two", "password three", day(1)).await;
    assert!(
        matches!(young, Err(ChangeError::Violation(Violation::TooYoung { days: 2, days_left: 1 }))),
        "{young:?}"
    );
    for old in ["password one", "password two"] {
        let reused = world.change("password two", old, day(3)).await;
        assert!(matches!(reused, Err(ChangeError::Violation(Violation::Reused { count: 2 }))), "{reused:?}");
    }
    world.change("password two", "password three", day(3)).await.expect("new");
    world.change("password three", "password one", day(6)).await.expect("two others came between");
    let short = world.change("password one", "short", day(9)).await;
    assert!(matches!(short, Err(ChangeError::Violation(Violation::TooShort { min: 8 }))));
    let wrong = world.change("password nine", "password ten", day(9)).await;
    assert!(matches!(wrong, Err(ChangeError::Login(LoginError::Wrong(_)))));
    let expired = world.verify("alice", "password one", day(36)).await;
    assert!(matches!(expired, Err(LoginError::Expired)), "{expired:?}");
    world.change("password one", "password six", day(37)).await.expect("an expired one can be changed");
    world.verify("alice", "password six", day(37)).await.expect("good");
    world.set("password six", day(37)).await.expect("history does not bind an administrator");
}

#[tokio::test]
async fn a_reset_password_is_for_changing_only() {
    let world = World::new(SecurityCompliance {
        change_password_upon_first_use: true,
        ..SecurityCompliance::default()
    });
    world.set("from the helpdesk", day(0)).await.expect("set");
    assert!(matches!(world.verify("alice", "from the helpdesk", day(0)).await, Err(LoginError::Expired)));
    let mut login = world.login("alice", "from the helpdesk", day(0));
    login.options.ignore_change_password_upon_first_use = true;
    world.passwords.verify(login).await.expect("the option");
    let mut login = world.login("alice", "from the helpdesk", day(0));
    login.options.ignore_password_expiry = true;
    assert!(world.passwords.verify(login).await.is_err(), "another option");
    let mut login = world.login("alice", "from the helpdesk", day(0));
    login.options.lock_password = true;
    let locked = world.passwords.change(login, Password::new("my own words")).await;
    assert!(matches!(locked, Err(ChangeError::Violation(Violation::Locked))));
    world.change("from the helpdesk", "my own words", day(0)).await.expect("changed");
    world.verify("alice", "my own words", day(0)).await.expect("good");
}

#[tokio::test]
async fn an_old_hash_is_made_anew_at_the_next_login() {
    let world = World::new(SecurityCompliance::default());
    world.set("correct horse", day(0)).await.expect("set");
    let dearer = HashCost { memory_kib: 128, ..CHEAP };
    let mut passwords = world.passwords.clone();
    passwords.hasher = hasher(dearer);
    let record = passwords.verify(world.login("alice", "correct horse", day(1))).await.expect("right");
    assert!(record.current.hash.contains("m=64,"));
    let renewed = async || {
        let record = passwords.record("alice").await.expect("read").expect("a record");
        record.current.hash.contains("m=128,").then_some(record)
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let record = loop {
        match renewed().await {
            Some(record) => break record,
            None if std::time::Instant::now() > deadline => panic!("the hash stays as it was"),
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!(record.current.created, day(0), "it is the same password");
    passwords.verify(world.login("alice", "correct horse", day(1))).await.expect("still right");
}

#[test]
fn settings_and_inactivity() {
    let with = |change: fn(&mut SecurityCompliance)| {
        let mut settings = SecurityCompliance::default();
        change(&mut settings);
        PasswordPolicy::new(settings)
    };
    assert!(with(|it| it.password_regex = "(".to_owned()).is_err());
    assert!(with(|it| it.password_expires_days = u32::MAX).is_err());
    let policy = with(|it| {
        it.disable_user_account_days_inactive = 90;
        it.password_regex = r"^(?=.*\d).*$".to_owned();
        it.password_regex_description = "a digit".to_owned();
    });
    let policy = policy.expect("good");
    let described = Violation::Pattern { description: "a digit".to_owned() };
    assert_eq!(policy.check_text(&Password::new("no digits")), Err(described));
    assert_eq!(policy.check_text(&Password::new("pässw1")), Err(Violation::TooShort { min: 8 }));
    assert_eq!(policy.check_text(&Password::new("pässwör1")), Ok(()), "characters, not bytes");
    let mut options = PasswordOptions::default();
    assert!(!policy.is_inactive(day(0), &options, day(89)));
    assert!(policy.is_inactive(day(0), &options, day(90)));
    options.ignore_user_inactivity = true;
    assert!(!policy.is_inactive(day(0), &options, day(900)));
}
