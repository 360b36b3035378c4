use super::*;
use crate::events::tests::event;

fn outbox(path: &Path) -> Arc<Outbox> {
    Arc::new(Outbox::open(path).expect("opened"))
}

fn all(outbox: &Outbox, uid: &str) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(taken) = outbox.take(uid, Instant::now()) {
        found.push(taken.event.id.clone());
        outbox.done(uid, taken.number);
    }
    found
}

#[tokio::test]
async fn what_is_written_is_there_again_and_what_is_delivered_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events/outbox");
    let to = |uids: &[&str]| Some(uids.iter().map(|uid| (*uid).to_owned()).collect::<Vec<_>>());
    let events: Vec<Event> = (0..4).map(|_| (*event("a")).clone()).collect();
    let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
    {
        let outbox = outbox(&path);
        outbox.put(events[0].clone(), to(&["x", "y"]));
        outbox.put(events[1].clone(), to(&["x"]));
        let line = outbox.put(events[2].clone(), None);
        let first = outbox.take("x", Instant::now()).expect("one");
        outbox.done("x", first.number);
        outbox.written(line).await.expect("written");
        outbox.flush().await.expect("written");
        // Nobody waits for this one.
        outbox.put(events[3].clone(), to(&["x"]));
    }
    // The machine lost its power in the middle of a line.
    let mut file = OpenOptions::new().append(true).open(&path).expect("the file");
    file.write_all(b"{\"number\":7,\"to\":[\"x\"],\"ev").expect("written");
    {
        let outbox = outbox(&path);
        assert_eq!((outbox.count("x"), outbox.count("y")), ((1, 0), (1, 0)));
        let unrouted = outbox.unrouted();
        assert_eq!(unrouted.len(), 1);
        outbox.route(unrouted[0].0, vec!["y".to_owned()]);
        assert_eq!(all(&outbox, "x"), [ids[1].clone()]);
        outbox.flush().await.expect("written");
    }
    let outbox = outbox(&path);
    assert!(outbox.unrouted().is_empty());
    assert_eq!(outbox.count("x"), (0, 0));
    assert_eq!(all(&outbox, "y"), [ids[0].clone(), ids[2].clone()]);
    outbox.put(events[3].clone(), to(&["x", "y"]));
    outbox.keep(&HashSet::from(["x".to_owned()]));
    assert_eq!((outbox.count("x").0, outbox.count("y").0), (1, 0));
    outbox.give_up("x", Timestamp::MAX);
    assert_eq!(outbox.count("x"), (0, 1));
}

#[tokio::test]
async fn the_file_does_not_grow_with_what_is_over_with() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("outbox");
    let first = outbox(&path);
    let stays = first.put((*event("stays")).clone(), Some(vec!["x".to_owned()]));
    first.written(stays).await.expect("written");
    for round in 0..20_000 {
        first.put((*event("a")).clone(), Some(vec!["y".to_owned()]));
        let taken = first.take("y", Instant::now()).expect("one");
        first.done("y", taken.number);
        if round % 100 == 0 {
            first.flush().await.expect("written");
        }
    }
    first.flush().await.expect("written");
    let length = std::fs::metadata(&path).expect("the file").len();
    assert!(length < 2 * REWRITE_MIN_BYTES, "{length}");
    drop(first);
    let again = outbox(&path);
    assert_eq!((again.count("x").0, again.count("y").0), (1, 0));
}

#[test]
fn a_registry_without_receivers_keeps_a_bounded_number() {
    let directory = tempfile::tempdir().expect("a directory");
    let outbox = outbox(&directory.path().join("outbox"));
    let event = event("a");
    for _ in 0..WAITING_MAX + 5 {
        outbox.put((*event).clone(), None);
    }
    let kept = outbox.unrouted();
    assert_eq!((kept.len(), kept[0].0), (WAITING_MAX, 5));
}

#[tokio::test]
async fn many_who_wait_share_a_write() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("outbox");
    let first = outbox(&path);
    let mut tasks = tokio::task::JoinSet::new();
    for round in 0..200 {
        let outbox = first.clone();
        tasks.spawn(async move {
            let line = outbox.put((*event(&round.to_string())).clone(), Some(vec!["x".to_owned()]));
            // Some go away: what they put stays.
            let written = outbox.written(line);
            if round % 3 == 0 {
                let _ = tokio::time::timeout(std::time::Duration::ZERO, written).await;
            } else {
                written.await.expect("written");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    first.flush().await.expect("written");
    drop(first);
    assert_eq!(outbox(&path).count("x").0, 200);
}
