use super::*;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + ms).expect("a time")
}

fn from(address: &str) -> Source {
    address.parse::<IpAddr>().expect("an address").into()
}

const ALICE: Subject<'static> = Subject::User("alice");

fn lockout(change: impl FnOnce(&mut LockoutSettings)) -> Lockout {
    let mut settings = LockoutSettings::default();
    change(&mut settings);
    Lockout::new(settings)
}

/// Tries a wrong password: how long to wait in seconds, or the failures so far.
fn guess(lockout: &Lockout, subject: Subject<'_>, source: &str, ms: i64) -> Result<u32, Refusal> {
    Ok(lockout.begin(subject, from(source), false, at(ms))?.failed(at(ms)).failures)
}

#[test]
fn waits_grow_and_early_attempts_cost_nothing() {
    let backoff = Backoff { free: 2, wait_ms_min: 500, wait_ms_max: 3000 };
    let waits: Vec<u64> = (0..8).map(|failures| backoff.wait_ms(failures)).collect();
    assert_eq!(waits, [0, 0, 0, 500, 1000, 2000, 3000, 3000]);
    assert_eq!(backoff.wait_ms(u32::MAX), 3000);

    let lockout = lockout(|it| it.user = backoff);
    for (ms, answer) in [
        (0, Ok(1)),
        (0, Ok(2)),
        (0, Ok(3)),
        (499, Err(1)),
        (500, Ok(4)),
        (501, Err(1)),
        (1499, Err(1)),
        (1500, Ok(5)),
        (1600, Err(2)),
    ] {
        let got = guess(&lockout, ALICE, "192.0.2.1", ms).map_err(|refusal| refusal.retry_after().as_secs());
        assert_eq!(got, answer, "at {ms} ms");
    }
    let bob = Subject::User("bob");
    assert_eq!(guess(&lockout, bob, "192.0.2.1", 1600), Ok(1), "another user");
    lockout.unlock("alice");
    assert_eq!(guess(&lockout, ALICE, "192.0.2.1", 1600), Ok(1), "unlocked");
}

#[test]
fn success_forgets_and_time_does() {
    let lockout = lockout(|_| ());
    for n in 1..=3 {
        assert_eq!(guess(&lockout, ALICE, "192.0.2.1", 0), Ok(n));
    }
    lockout.begin(ALICE, from("192.0.2.1"), false, at(0)).expect("free").succeeded();
    assert_eq!(guess(&lockout, ALICE, "192.0.2.1", 0), Ok(1));
    assert_eq!(guess(&lockout, ALICE, "192.0.2.1", 3_599_000), Ok(2));
    assert_eq!(guess(&lockout, ALICE, "192.0.2.1", 2 * 3_600_000), Ok(1), "an hour without a failure");
}

#[test]
fn a_lockout_holds_for_the_right_password_too_and_then_ends() {
    let lockout = lockout(|it| {
        it.lockout_failure_attempts = 3;
        it.lockout_duration = 60;
    });
    assert_eq!(guess(&lockout, ALICE, "192.0.2.1", 0), Ok(1));
    assert_eq!(guess(&lockout, ALICE, "192.0.2.1", 0), Ok(2));
    let last = lockout.begin(ALICE, from("192.0.2.1"), false, at(0)).expect("the third").failed(at(0));
    assert_eq!(last, Failure { failures: 3, locked_until: Some(at(60_000)), address_until: None });
    assert_eq!(lockout.locked_until("alice", at(59_999)), Some(at(60_000)));
    let refusal = lockout.begin(ALICE, from("198.51.100.9"), false, at(59_000)).err();
    assert_eq!(refusal, Some(Refusal::Locked { retry_after: Duration::from_secs(1) }), "from anywhere");
    assert_eq!(lockout.locked_until("alice", at(60_000)), None);
    assert_eq!(guess(&lockout, ALICE, "192.0.2.1", 60_000), Ok(1), "counting begins again");

    let service = Subject::User("nova");
    for n in 1..=3 {
        let attempt = lockout.begin(service, from("192.0.2.2"), true, at(0)).expect("free");
        assert_eq!(
            attempt.failed(at(0)),
            Failure { failures: n, locked_until: None, address_until: None },
            "ignores lock-outs"
        );
    }
}

#[test]
fn addresses_are_slowed_down_whatever_names_they_try() {
    let lockout = lockout(|it| it.address = Backoff { free: 10, wait_ms_min: 1000, wait_ms_max: 5000 });
    for n in 0..11 {
        let name = format!("acme/u{n}");
        let host = format!("2001:db8:0:1::{n}");
        assert_eq!(guess(&lockout, Subject::Nobody(&name), &host, 0), Ok(1));
    }
    let refused = guess(&lockout, ALICE, "2001:db8:0:1:ffff::", 0);
    assert_eq!(refused, Err(Refusal::Address { retry_after: Duration::from_secs(1) }), "the same /64");
    assert_eq!(guess(&lockout, ALICE, "2001:db8:0:2::1", 0), Ok(1), "the neighbour");
    for n in 0..11 {
        assert_eq!(guess(&lockout, Subject::Nobody(&format!("v{n}")), "::ffff:192.0.2.7", 0), Ok(1));
    }
    assert!(guess(&lockout, ALICE, "192.0.2.7", 0).is_err(), "a mapped address is the address");
    // Its own good account does not free an address: each success takes one failure off.
    let attempt = lockout.begin(ALICE, from("192.0.2.7"), false, at(1000)).expect("waited");
    attempt.succeeded();
    assert_eq!(guess(&lockout, Subject::Nobody("w"), "192.0.2.7", 1000), Ok(1));
    assert!(guess(&lockout, Subject::Nobody("x"), "192.0.2.7", 1000).is_err());
}

#[test]
fn many_at_once_are_no_way_around() {
    let lockout = lockout(|_| ());
    let begin = |ms| lockout.begin(ALICE, from("192.0.2.1"), false, at(ms));
    let attempts: Vec<Attempt> = std::iter::from_fn(|| begin(0).ok()).collect();
    assert_eq!(attempts.len(), PARALLEL_MAX as usize);
    drop(attempts);
    assert_eq!(lockout.lock().users.len(), 0, "what was dropped left nothing");
    for n in 1..=3 {
        assert_eq!(guess(&lockout, ALICE, "192.0.2.1", 0), Ok(n));
    }
    let one = begin(0).expect("one at a time");
    assert!(begin(0).is_err());
    one.succeeded();
    let (first, second) = (begin(0).expect("good again"), begin(0).expect("good again"));
    first.succeeded();
    assert_eq!(lockout.lock().users.len(), 1, "the second is still counted");
    second.succeeded();
    assert_eq!(lockout.lock().users.len(), 0);
}

#[test]
fn memory_is_bounded_and_inventions_push_out_no_user() {
    let lockout = lockout(|it| {
        it.entries_max = 100;
        it.lockout_failure_attempts = 2;
        it.address.free = u32::MAX - 1;
    });
    guess(&lockout, ALICE, "192.0.2.1", 0).expect("one");
    guess(&lockout, ALICE, "192.0.2.1", 0).expect("two");
    for n in 0..10_000_u32 {
        let [a, b, c, d] = n.to_be_bytes();
        let address = format!("2001:db8:{a:x}{b:02x}:{c:x}{d:02x}::1");
        guess(&lockout, Subject::Nobody(&format!("name-{n}")), &address, 1).expect("a new name and address");
    }
    assert!(matches!(guess(&lockout, ALICE, "192.0.2.1", 2), Err(Refusal::Locked { .. })));
    let state = lockout.lock();
    assert!(state.nobodies.len() <= 100 && state.addresses.len() <= 100);
}
