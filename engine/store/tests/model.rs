//! Random writes against a plain map, with older snapshots and a replaying watch.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_store::{
    EventKind, Expect, Key, Mutation, OpenError, Options, Prefix, Store, WatchItem, WriteError,
};
use proptest::prelude::*;

type Model = BTreeMap<Key, (u64, Bytes)>;

fn key(index: u8) -> Key {
    Key::new(
        "",
        if index.is_multiple_of(2) { "pods" } else { "secrets" },
        ["a", "a-b"][usize::from(index / 4 % 2)],
        &format!("n{index}"),
    )
}

fn put(key: Key, expect: Expect) -> Mutation {
    Mutation::Put { key, expect, encode: Box::new(|revision| Bytes::from(revision.to_string())) }
}

/// What the store must answer, worked out on the model.
fn step(
    model: &mut Model,
    revision: &mut u64,
    key: &Key,
    delete: bool,
    expect: Expect,
) -> Result<u64, WriteError> {
    let current = model.get(key).map(|it| it.0);
    match (current, expect) {
        (Some(_), Expect::Absent) => return Err(WriteError::Exists),
        (None, Expect::Revision(_)) => return Err(WriteError::NotFound),
        (Some(current), Expect::Revision(want)) if want != current => {
            return Err(WriteError::Conflict { current });
        }
        (None, _) if delete => return Err(WriteError::NotFound),
        _ => *revision += 1,
    }
    if delete {
        model.remove(key);
    } else {
        model.insert(key.clone(), (*revision, Bytes::from(revision.to_string())));
    }
    Ok(*revision)
}

fn listed(snapshot: &gantry_store::Snapshot, resource: &str) -> Vec<(Key, u64, Bytes)> {
    let all = snapshot.scan(&Prefix::resource("", resource), None);
    all.map(|it| (it.key.clone(), it.revision, it.value.clone())).collect()
}

fn expected(model: &Model, resource: &str) -> Vec<(Key, u64, Bytes)> {
    let all = model.iter().filter(|(key, _)| key.resource() == resource);
    all.map(|(key, (revision, value))| (key.clone(), *revision, value.clone())).collect()
}

async fn replay(ops: Vec<(u8, bool, u8, u8)>) {
    let store = Store::memory(Options::default()).unwrap();
    let mut watch = store.watch(Prefix::resource("", "pods"), 0).unwrap();
    let (mut model, mut revision, mut states) = (Model::new(), 0, vec![Model::new()]);
    for (index, delete, mode, back) in ops {
        let key = key(index);
        let current = model.get(&key).map_or(7, |it| it.0);
        let expect = match mode {
            0 => Expect::Any,
            1 => Expect::Absent,
            2 => Expect::Revision(current),
            _ => Expect::Revision(current + u64::from(back) % 2),
        };
        let wanted = step(&mut model, &mut revision, &key, delete, expect);
        let mutation = if delete { Mutation::Delete { key, expect, encode: None } } else { put(key, expect) };
        assert_eq!(store.write(mutation).await.map(|it| it.revision), wanted);
        if wanted.is_ok() {
            states.push(model.clone());
        }
        let at = revision.saturating_sub(u64::from(back));
        let old = store.snapshot_at(at).unwrap();
        assert_eq!(old.revision(), at);
        for resource in ["pods", "secrets"] {
            assert_eq!(listed(&old, resource), expected(&states[usize::try_from(at).unwrap()], resource));
            assert_eq!(old.count(&Prefix::resource("", resource)), listed(&old, resource).len());
        }
    }
    let pods = Prefix::resource("", "pods");
    let whole = listed(&store.snapshot(), "pods");
    for (index, (key, ..)) in whole.iter().enumerate() {
        let head = store.snapshot();
        let page: Vec<_> =
            head.scan(&pods, Some((key.namespace(), key.name()))).map(|it| it.key.clone()).collect();
        assert_eq!(page, whole[index + 1..].iter().map(|it| it.0.clone()).collect::<Vec<_>>());
    }
    watch.request_progress();
    let mut seen = Model::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchItem::Progress(at) => break assert_eq!(at, revision),
            WatchItem::Event(event) => {
                let object = &event.object;
                let before = match event.kind {
                    EventKind::Put => seen.insert(object.key.clone(), (event.revision, object.value.clone())),
                    EventKind::Delete => seen.remove(&object.key),
                };
                assert_eq!(event.previous.as_ref().map(|it| it.revision), before.map(|it| it.0));
            }
        }
    }
    assert_eq!(expected(&seen, "pods"), expected(&model, "pods"));
    store.close().await;
    assert!(watch.next().await.is_none(), "a closed store ends its watches");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_plain_map(ops in prop::collection::vec((0u8..12, any::<bool>(), 0u8..4, 0u8..40), 1..120)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(replay(ops));
    }
}

#[tokio::test]
async fn a_slow_watch_is_told_and_a_quiet_one_is_not() {
    let store = Store::memory(Options { events_max: 4, ..Options::default() }).unwrap();
    let mut slow = store.watch(Prefix::resource("", "pods"), 0).unwrap();
    let mut quiet = store.watch(Prefix::resource("", "secrets"), 0).unwrap();
    for _ in 0..10 {
        store.write(put(key(0), Expect::Any)).await.unwrap();
    }
    assert_eq!(slow.next().await.unwrap().unwrap_err().compacted, 6);
    assert!(store.watch(Prefix::resource("", "pods"), 5).is_err());
    assert!(
        store.snapshot_at(5).is_none() && store.snapshot_at(6).is_some() && store.snapshot_at(11).is_none()
    );
    store.write(put(key(1), Expect::Any)).await.unwrap();
    assert!(matches!(quiet.next().await, Some(Ok(WatchItem::Event(event))) if event.revision == 11));
}

#[tokio::test]
async fn a_commit_is_all_or_nothing_and_values_are_bounded() {
    let store = Store::memory(Options { value_bytes_max: 8, ..Options::default() }).unwrap();
    let pair = vec![put(key(0), Expect::Absent), put(key(0), Expect::Absent)];
    assert_eq!(store.commit(pair).await.unwrap_err(), WriteError::Exists);
    assert_eq!((store.revision(), store.stats().objects), (0, 0));
    let encode = Box::new(|_| Bytes::from_static(b"123456789"));
    let big = Mutation::Put { key: key(0), expect: Expect::Any, encode };
    assert_eq!(store.write(big).await.unwrap_err(), WriteError::TooLarge { bytes: 9, bytes_max: 8 });
    let panics =
        Mutation::Put { key: key(0), expect: Expect::Any, encode: Box::new(|_| panic!("bad encoder")) };
    assert!(matches!(store.write(panics).await, Err(WriteError::Unavailable(_))));
    assert_eq!(store.write(put(key(0), Expect::Any)).await.unwrap().revision, 1);
}

#[tokio::test]
async fn a_second_opener_is_refused_and_close_releases() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = Store::open(&path, Options::default()).unwrap();
    store.write(put(key(0), Expect::Any)).await.unwrap();
    let error = Store::open(&path, Options::default()).err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }) && error.to_string().contains("store.redb"), "{error}");
    store.close().await;
    assert!(matches!(store.write(put(key(0), Expect::Any)).await, Err(WriteError::Unavailable(_))));
    let again = Store::open(&path, Options::default()).unwrap();
    assert_eq!(again.snapshot().get(&key(0)).unwrap().revision, 1);
    assert!(again.watch(Prefix::resource("", "pods"), 0).is_err(), "events before the restart are gone");
    again.close().await;
}
