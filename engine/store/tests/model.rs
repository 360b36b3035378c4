//! Random writes against a plain map, with older snapshots and a replaying watch.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_store::{
    EventKind, Expect, Key, Mutation, OpenError, Options, Packed, Prefix, Store, WatchItem, WriteError,
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

/// Events that are old are kept packed where their kind is: whoever is late, and whoever reads at an older revision,
/// finds what was written.
#[tokio::test]
async fn old_events_of_packed_kinds_are_as_they_were() {
    const OBJECTS: u8 = 200;
    const ROUNDS: usize = 12;
    let options = Options { packed: Packed::new(&[("", "pods")]), ..Options::default() };
    let store = Store::memory(options).unwrap();
    let value = |index: u8, round: usize| {
        format!(
            r#"{{"kind":"Pod","metadata":{{"name":"pod-{index}","namespace":"ns"}},"spec":{{"node":"node-1","restartPolicy":"Always","containers":[{{"image":"registry.example.org/web:{round}"}}]}}}}"#
        )
    };
    let mut watches = [
        store.watch(Prefix::resource("", "pods"), 0).unwrap(),
        store.watch(Prefix::resource("", "pods").in_namespace("a"), 0).unwrap(),
        store.watch(Prefix::resource("", "pods").named("b"), 0).unwrap(),
        store.watch(Prefix::resource("", "secrets"), 0).unwrap(),
    ];
    let (mut written, mut states) = (Vec::new(), vec![Model::new()]);
    for round in 0..ROUNDS {
        for index in 0..OBJECTS {
            // Some in the other namespace, some of the other kind, which is not packed; some go, and come back.
            let resource = if index % 7 == 0 { "secrets" } else { "pods" };
            let (namespace, name) = (["a", "ns"][usize::from(index % 2)], format!("pod-{}", index / 2));
            let name = if index == 5 { "b" } else { &name };
            let key = Key::new("", resource, namespace, name);
            let text = value(index, round);
            let is_delete = round > 0 && (usize::from(index) + round) % 9 == 0;
            let was_there = states.last().unwrap().contains_key(&key);
            let mutation = if is_delete && was_there {
                Mutation::Delete { key: key.clone(), expect: Expect::Any, encode: None }
            } else {
                let text = text.clone();
                let encode = Box::new(move |_| text.into());
                Mutation::Put { key: key.clone(), expect: Expect::Any, encode }
            };
            let object = store.write(mutation).await.unwrap();
            let mut state = states.last().unwrap().clone();
            let before = if is_delete && was_there {
                state.remove(&key)
            } else {
                state.insert(key.clone(), (object.revision, text.into()))
            };
            written.push((key, object.revision, object.value.clone(), before));
            states.push(state);
        }
    }
    for (number, watch) in watches.iter_mut().enumerate() {
        let is_selected = |key: &Key| match number {
            0 => key.resource() == "pods",
            1 => key.resource() == "pods" && key.namespace() == "a",
            2 => key.resource() == "pods" && key.name() == "b",
            _ => key.resource() == "secrets",
        };
        for (key, revision, value, before) in written.iter().filter(|(key, ..)| is_selected(key)) {
            let Some(Ok(WatchItem::Event(event))) = watch.next().await else { panic!("it is remembered") };
            assert_eq!((&event.object.key, event.revision, &event.object.value), (key, *revision, value));
            let previous = event.previous.as_ref().map(|it| (it.revision, it.value.clone()));
            assert_eq!(&previous, before, "{key} {revision}");
        }
    }
    for at in (0..states.len()).step_by(97) {
        let snapshot = store.snapshot_at(at as u64).unwrap();
        for resource in ["pods", "secrets"] {
            assert_eq!(listed(&snapshot, resource), expected(&states[at], resource), "{at}");
        }
    }
}
