//! Prints durable creates per second, fsync cost, reopen time and file growth: `bench DIRECTORY`.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gantry_store::{Expect, Key, Mutation, Options, Prefix, Store};

const VALUE_BYTES: usize = 1500;

fn put(name: String) -> Mutation {
    let encode = Box::new(|_| Bytes::from(vec![b'x'; VALUE_BYTES]));
    Mutation::Put { key: Key::new("", "pods", "default", &name), expect: Expect::Absent, encode }
}

async fn creates(store: &Store, writers: usize, time: Duration) -> (usize, Duration) {
    let end = Instant::now() + time;
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut waits = Vec::new();
                while Instant::now() < end {
                    let start = Instant::now();
                    let name = format!("{writers}-{writer}-{}", waits.len());
                    store.write(put(name)).await.expect("the bench's store accepts writes");
                    waits.push(start.elapsed());
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.expect("a bench writer does not panic"));
    }
    waits.sort();
    (waits.len(), waits[waits.len() / 2])
}

/// The floor of any log of our own: append one record, fdatasync.
fn raw_appends(path: &Path, time: Duration) -> std::io::Result<(usize, Duration)> {
    let mut file = std::fs::File::create(path)?;
    let mut waits = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let start = Instant::now();
        file.write_all(&[b'x'; VALUE_BYTES])?;
        file.sync_data()?;
        waits.push(start.elapsed());
    }
    waits.sort();
    Ok((waits.len(), waits[waits.len() / 2]))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: bench DIRECTORY")?;
    let directory = Path::new(&directory);
    let time = Duration::from_secs(2);
    let (count, median) = raw_appends(&directory.join("bench.raw"), time)?;
    println!("raw append + fdatasync: {:.0}/s, median {median:?}", count as f64 / time.as_secs_f64());
    let path = directory.join("bench.redb");
    let store = Store::open(&path, Options::default())?;
    for writers in [1, 16, 64] {
        let commits = store.stats().commits;
        let (count, median) = creates(&store, writers, time).await;
        let commits = store.stats().commits - commits;
        println!(
            "{writers} writers: {:.0} creates/s, median {median:?}, {commits} commits",
            count as f64 / time.as_secs_f64()
        );
    }
    for chunk in 0..100 {
        store.commit((0..1000).map(|index| put(format!("bulk-{chunk}-{index}"))).collect()).await?;
    }
    let start = Instant::now();
    let seen = store.snapshot().scan(&Prefix::resource("", "pods"), None).count();
    println!("scan of {seen} objects: {:?}", start.elapsed());
    store.close().await;
    let live = seen * VALUE_BYTES;
    println!("file {} MB for {} MB of values", std::fs::metadata(&path)?.len() >> 20, live >> 20);
    let start = Instant::now();
    let store = Store::open(&path, Options::default())?;
    println!("reopen with {seen} objects: {:?}", start.elapsed());
    store.close().await;
    std::fs::remove_file(&path)?;
    std::fs::remove_file(directory.join("bench.raw"))?;
    Ok(())
}
