use std::os::unix::fs::PermissionsExt;

use super::*;

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + 3600 * hours).expect("a time")
}

fn schedule() -> KeySchedule {
    let hours = SignedDuration::from_hours;
    KeySchedule { rotation: hours(100), publish_ahead: hours(10), keep: hours(30) }
}

fn open(directory: &tempfile::TempDir, hours: i64) -> Result<KeyRing, KeyError> {
    KeyRing::open(&directory.path().join("keys"), schedule(), at(hours))
}

fn ids(ring: &KeyRing) -> Vec<String> {
    ring.set().all().iter().map(|key| key.id().to_owned()).collect()
}

fn files(directory: &tempfile::TempDir) -> usize {
    std::fs::read_dir(directory.path().join("keys")).expect("the directory").count()
}

#[test]
fn keys_outlive_restarts_and_rotate_by_the_clock() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ring = open(&directory, 0).expect("keys");
    let first = ids(&ring);
    assert_eq!(first.len(), 1);
    assert_eq!(ring.maintain(at(0)).expect("nothing to do"), at(90));
    drop(ring);
    let entry = std::fs::read_dir(directory.path().join("keys")).expect("the directory").next();
    let path = entry.expect("a file").expect("a file").path();
    assert_eq!(std::fs::metadata(&path).expect("the key").permissions().mode() & 0o777, 0o600);

    let ring = open(&directory, 90).expect("keys again");
    let both = ids(&ring);
    assert_eq!((both.len(), &both[0]), (2, &first[0]), "the next one is published");
    assert_eq!(ring.set().signing(at(99)).id(), both[0]);
    assert_eq!(ring.set().signing(at(100)).id(), both[1], "without anybody doing anything");
    assert_eq!(ring.jwks()["keys"].as_array().expect("keys").len(), 2);
    assert_eq!(ring.maintain(at(129)).expect("kept"), at(130));
    assert_eq!(ids(&ring), both);
    ring.maintain(at(130)).expect("removed");
    assert_eq!(ids(&ring), both[1..]);
    assert_eq!(files(&directory), 1);
    let jwk = &ring.jwks()["keys"][0];
    assert_eq!((&jwk["kty"], &jwk["crv"], &jwk["alg"]), (&"EC".into(), &"P-256".into(), &"ES256".into()));
    assert!(jwk.get("d").is_none(), "no private half");
    assert_eq!(ring.set().jwks().as_ref(), ring.jwks().to_string());
}

#[test]
fn a_key_can_be_replaced_and_withdrawn_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ring = open(&directory, 0).expect("keys");
    let first = ids(&ring).remove(0);
    assert!(matches!(ring.withdraw(&first), Err(KeyError::Last { .. })));
    assert!(matches!(ring.withdraw("x"), Err(KeyError::Unknown { .. })));
    ring.maintain(at(95)).expect("the next one is published");
    let new = ring.rotate_now(at(95)).expect("rotated");
    assert_eq!(ids(&ring), [first.clone(), new.clone()], "in the place of the one that was to come");
    assert_eq!(ring.set().signing(at(95)).id(), new);
    ring.withdraw(&first).expect("withdrawn");
    assert_eq!((ids(&ring), files(&directory)), (vec![new.clone()], 1));
    assert_eq!(ids(&open(&directory, 95).expect("again")), [new]);
}

#[test]
fn a_file_that_is_not_the_key_it_says_stops_the_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let kid = ids(&open(&directory, 0).expect("keys")).remove(0);
    let path = directory.path().join(format!("keys/token-{}-{kid}.key", at(0).as_second()));
    let key = std::fs::read(&path).expect("the key");
    gantry_base::fs::write_atomic(&directory.path().join("keys/notes.txt"), b"x", 0o600).expect("written");
    open(&directory, 0).expect("other files are left alone");
    gantry_base::fs::write_atomic(&path, b"hello", 0o600).expect("written");
    assert!(matches!(open(&directory, 0), Err(KeyError::Malformed { .. })));
    gantry_base::fs::remove_all(&path).expect("removed");
    gantry_base::fs::write_atomic(&directory.path().join("keys/token-1-AAAA.key"), &key, 0o600)
        .expect("written");
    assert!(matches!(open(&directory, 0), Err(KeyError::Malformed { .. })), "another key's name");
}
