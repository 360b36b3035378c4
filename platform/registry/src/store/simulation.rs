//! Pushes, mounts, deletions, garbage collection and crashes in chance order, without the age that garbage has in
//! truth: what was acknowledged is there, whatever comes between two steps of whatever else.

#![expect(
    clippy::disallowed_methods,
    reason = "files are damaged on purpose, and threads wait to be overtaken"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gantry_base::secret::Secret;
use gantry_oci::{Digest, RepositoryName, Tag};
use gantry_testkit::S3Server;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{AccessKeys, ManifestRecord, Removed, S3Settings, Store, Tagging};
use crate::Config;

thread_local! {
    /// State of this thread's own chance; zero in threads of other tests.
    static CHANCE: Cell<u64> = const { Cell::new(0) };
}

/// Lets another thread run now and then.
pub(super) fn race() {
    CHANCE.with(|chance| {
        let state = chance.get();
        if state == 0 {
            return;
        }
        // xorshift
        let state = state ^ (state << 13);
        let state = state ^ (state >> 7);
        let state = state ^ (state << 17);
        chance.set(state);
        match state % 8 {
            0..3 => std::thread::yield_now(),
            3 => std::thread::sleep(Duration::from_micros(state % 300)),
            _ => {}
        }
    });
}

const BLOBS: u8 = 6;
const REPOSITORIES: [&str; 3] = ["a", "b", "c/d"];
const PUSHERS: u64 = 4;
const OPERATIONS: usize = 40;
/// A collector with no age takes what a pusher is about to name; it comes back as often as a client would.
const TRIES: usize = 200;

/// Where a store is.
struct Place {
    directory: tempfile::TempDir,
    /// What has the content of its blobs, if not the directory.
    s3: Option<S3Server>,
}

impl Place {
    fn files() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), s3: None }
    }

    fn s3() -> Self {
        // Another test of the process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { s3: Some(S3Server::start()), ..Self::files() }
    }

    fn open(&self) -> Store {
        let mut config = Config::new(self.directory.path().join("store"));
        config.garbage_age = Duration::ZERO;
        config.garbage_removals_per_second_max = u32::MAX;
        config.s3 = self.s3.as_ref().map(|server| S3Settings {
            regionendpoint: Some(server.endpoint()),
            ..S3Settings::new(S3Server::BUCKET)
        });
        let secret = Secret::new(S3Server::SECRET_KEY.to_owned());
        config.s3_keys = Some(AccessKeys { id: S3Server::KEY_ID.to_owned(), secret, session_token: None });
        Store::open(config).expect("a store")
    }

    /// Puts other content in the place of a blob.
    fn damage(&self, store: &Store, digest: &Digest, content: &[u8]) {
        let path = self.directory.path().join("damaged");
        std::fs::write(&path, content).expect("written");
        store.content.put(&path, digest, content.len() as u64).expect("a store");
    }
}

fn name(rng: &mut SmallRng) -> RepositoryName {
    REPOSITORIES[rng.random_range(0..REPOSITORIES.len())].parse().expect("a name")
}

fn blob(number: u8) -> Vec<u8> {
    vec![number; 1000 + usize::from(number)]
}

fn upload(store: &Store, repository: &RepositoryName, content: &[u8]) {
    let handle = store.begin_upload(repository, false).expect("disk").expect("a place");
    let mut upload = handle.blocking_lock();
    upload.append(content).expect("disk");
    store.finish_upload(repository, &mut upload, &Digest::of(content)).expect("disk").expect("its digest");
}

/// What was acknowledged: tag → manifest. Each pusher has tags and manifests of its own.
type Acknowledged = BTreeMap<(String, String), Digest>;

/// One pusher: pushes and deletes images whose blobs all pushers share.
fn push(store: &Store, pusher: u64, seed: u64, acknowledged: &Mutex<Acknowledged>) {
    let mut rng = SmallRng::seed_from_u64(seed * 1000 + pusher);
    CHANCE.with(|chance| chance.set(seed * 7919 + pusher + 1));
    let mut known: Vec<(RepositoryName, Tag, Digest)> = Vec::new();
    let lock = || acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
    for turn in 0..OPERATIONS {
        if !known.is_empty() && rng.random_bool(0.4) {
            let (repository, tag, digest) = known.swap_remove(rng.random_range(0..known.len()));
            // It is not promised any more from here on.
            lock().remove(&(repository.to_string(), tag.to_string()));
            assert_eq!(store.delete_manifest(&repository, &digest).expect("disk"), Removed::Done);
            continue;
        }
        let repository = name(&mut rng);
        let blobs: Vec<Vec<u8>> = (0..3).map(|_| blob(rng.random_range(0..BLOBS))).collect();
        let tag: Tag = format!("t{pusher}-{turn}").parse().expect("a tag");
        let tagging = Tagging { tag: tag.clone(), immutable: false };
        let bytes = format!("{pusher} {turn}").into_bytes();
        let digest = Digest::of(&bytes);
        let record = ManifestRecord {
            media_type: "x".to_owned(),
            size: bytes.len() as u64,
            blobs: blobs.iter().map(|b| Digest::of(b)).collect(),
            ..ManifestRecord::default()
        };
        let pushed = (0..TRIES).any(|_| {
            for content in &blobs {
                let wanted = Digest::of(content);
                if store.blob(&repository, &wanted).is_some() {
                    continue;
                }
                let source = name(&mut rng);
                if !store.mount_blob(&repository, &source, &wanted).expect("disk") {
                    upload(store, &repository, content);
                }
            }
            store
                .put_manifest(&repository, &digest, record.clone(), &bytes, Some(&tagging))
                .expect("disk")
                .is_ok()
        });
        if pushed {
            lock().insert((repository.to_string(), tag.to_string()), digest.clone());
            known.push((repository.clone(), tag, digest));
        }
        // Somebody tries to take a blob away under everybody's hands.
        if rng.random_bool(0.3) {
            let _ = store.unlink_blob(&repository, &Digest::of(&blob(rng.random_range(0..BLOBS))));
        }
    }
}

/// Everything acknowledged is there and is what its digest says.
fn whole(store: &Store, acknowledged: &Acknowledged, when: &str) {
    let checked = store.check(true, &|_, _| true).expect("disk");
    assert_eq!(checked.problems, 0, "{when}: {:?}", checked.listed);
    for ((repository, tag), digest) in acknowledged {
        let repository: RepositoryName = repository.parse().expect("a name");
        let tag: Tag = tag.parse().expect("a tag");
        assert_eq!(store.resolve(&repository, &tag).as_ref(), Some(digest), "{when}: {repository}:{tag}");
        let manifest = store.manifest(&repository, digest).expect("disk");
        assert!(manifest.is_some(), "{when}: {repository}@{digest}");
    }
}

/// The same suite where content is files, and where it is on S3.
mod files {
    use super::*;

    #[test]
    fn nothing_acknowledged_is_lost_to_garbage_collection() {
        nothing_is_lost(Place::files, 4);
    }

    #[test]
    fn a_collection_that_is_cut_off_is_gone_on_with() {
        a_cut_off_collection(&Place::files());
    }

    #[test]
    fn a_check_finds_what_is_missing_and_what_is_changed() {
        a_check(&Place::files());
    }
}

mod s3 {
    use super::*;

    #[test]
    fn nothing_acknowledged_is_lost_to_garbage_collection() {
        nothing_is_lost(Place::s3, 1);
    }

    #[test]
    fn a_collection_that_is_cut_off_is_gone_on_with() {
        a_cut_off_collection(&Place::s3());
    }

    #[test]
    fn a_check_finds_what_is_missing_and_what_is_changed() {
        a_check(&Place::s3());
    }
}

fn nothing_is_lost(place: fn() -> Place, seeds: u64) {
    let (mut collected, mut pushed) = (0, 0);
    for seed in 1..=seeds {
        let place = place();
        let store = place.open();
        let acknowledged = Mutex::new(Acknowledged::new());
        let (working, blobs) = (AtomicBool::new(true), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let pushers: Vec<_> = (0..PUSHERS)
                .map(|pusher| {
                    let (store, acknowledged) = (&store, &acknowledged);
                    scope.spawn(move || push(store, pusher, seed, acknowledged))
                })
                .collect();
            for collector in 0..2 {
                let (store, working, blobs) = (&store, &working, &blobs);
                scope.spawn(move || {
                    CHANCE.with(|chance| chance.set(seed * 104_729 + collector + 1));
                    while working.load(Ordering::SeqCst) {
                        let done = store.collect_garbage(&|_| true).expect("disk");
                        blobs.fetch_add(done.blobs, Ordering::SeqCst);
                    }
                });
            }
            for pusher in pushers {
                pusher.join().expect("a pusher");
            }
            working.store(false, Ordering::SeqCst);
        });
        let acknowledged = acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
        (collected, pushed) = (collected + blobs.into_inner(), pushed + acknowledged.len());
        whole(&store, &acknowledged, &format!("seed {seed}"));
        // What died with the process is not missed: files alone say what there is.
        drop(store);
        let store = place.open();
        whole(&store, &acknowledged, &format!("seed {seed}, opened again"));
        store.collect_garbage(&|_| true).expect("disk");
        whole(&store, &acknowledged, &format!("seed {seed}, collected"));
        let again = store.collect_garbage(&|_| true).expect("disk");
        assert_eq!((again.links, again.blobs), (0, 0), "one collection is enough when nobody pushes");
    }
    assert!(
        collected > 5 * seeds as usize && pushed > 25 * seeds as usize,
        "{collected} blobs collected, {pushed} images kept"
    );
}

/// A collection that ends anywhere leaves a whole store, and the next one does the rest.
fn a_cut_off_collection(place: &Place) {
    let store = place.open();
    let repository: RepositoryName = "a".parse().expect("a name");
    for number in 0..200_u8 {
        upload(&store, &repository, &blob(number));
    }
    let record = ManifestRecord { blobs: vec![Digest::of(&blob(7))], size: 1, ..ManifestRecord::default() };
    let digest = Digest::of(b"x");
    store.put_manifest(&repository, &digest, record, b"x", None).expect("disk").expect("whole");
    let looks = AtomicUsize::new(0);
    let first = store.collect_garbage(&|_| looks.fetch_add(1, Ordering::SeqCst) < 2).expect("disk");
    assert!(first.blobs > 0 && first.blobs < 199, "{first:?}");
    drop(store);
    let store = place.open();
    let rest = store.collect_garbage(&|_| true).expect("disk");
    assert_eq!(first.blobs + rest.blobs, 199);
    let checked = store.check(true, &|_, _| true).expect("disk");
    assert_eq!((checked.problems, checked.blobs), (0, 1));
    let left = store.content.list().expect("disk");
    assert_eq!(left.len(), 1, "the space is given back");
}

fn a_check(place: &Place) {
    let store = place.open();
    let repository: RepositoryName = "a/b".parse().expect("a name");
    let manifest = |store: &Store, text: &[u8], number: u8| {
        upload(store, &repository, &blob(number));
        let blobs = vec![Digest::of(&blob(number))];
        let record = ManifestRecord { blobs, size: text.len() as u64, ..ManifestRecord::default() };
        let digest = Digest::of(text);
        store.put_manifest(&repository, &digest, record, text, None).expect("disk").expect("whole");
        digest
    };
    let first = manifest(&store, b"first", 1);
    let second = manifest(&store, b"second", 2);
    manifest(&store, b"third", 3);
    assert_eq!(store.check(true, &|_, _| true).expect("disk").problems, 0);
    let lost = Digest::of(&blob(1));
    store.content.remove(&lost).expect("removed");
    let changed = Digest::of(&blob(2));
    place.damage(&store, &changed, &[9; 1002]);
    let path = store.repository_directory(&repository, "_manifests").join(super::file_name(&second));
    let text = std::fs::read_to_string(&path).expect("a file");
    std::fs::write(&path, text.replace("second", "secund")).expect("written");
    let short = Digest::of(&blob(3));
    place.damage(&store, &short, b"x");

    let problems = |store: &Store, content| {
        let checked = store.check(content, &|_, _| true).expect("disk");
        assert_eq!(checked.problems, checked.listed.len());
        let mut found: Vec<_> = checked.listed.into_iter().map(|p| (p.digest, p.problem)).collect();
        found.sort();
        found
    };
    let found = problems(&store, true);
    let has = |digest: &Digest, words: &str| {
        let there = found.iter().any(|(d, p)| *d == digest.to_string() && p.contains(words));
        assert!(there, "{digest} {words}: {found:?}");
    };
    has(&lost, "gone");
    has(&changed, "has the digest");
    has(&second, "has the digest");
    has(&short, "has 1 bytes, not 1003");
    assert_eq!(found.len(), 4);
    assert_eq!(problems(&store, false).len(), 3, "content is read only where it is asked for");
    // A restart does not know the blob any more, and says which image that breaks.
    drop(store);
    let found = problems(&place.open(), false);
    assert!(found.iter().any(|(d, p)| *d == first.to_string() && p.contains("is missing")), "{found:?}");
}
