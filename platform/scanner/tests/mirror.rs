//! A mirror over HTTP, which answers conditional requests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use gantry_scanner::advisories::{AdvisoryError, Index, Manifest, mirror};
use serde_json::json;

use crate::advisories::advisory;
use crate::support::zip;

/// Content by path; a path is answered with 304 to who has its content.
type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A server with ETags; gives its URL, and what it answered.
fn serve(files: &Files) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/osv/", listener.local_addr().expect("an address"));
    let (files, log) = (Arc::clone(files), Arc::new(Mutex::new(Vec::new())));
    let answered = Arc::clone(&log);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
            let request = lines.next().expect("a request").expect("a line");
            let headers: Vec<String> =
                lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let path = request.split(' ').nth(1).expect("a path").to_owned();
            let content = files.lock().expect("files").get(&path).cloned();
            let etag =
                content.as_ref().map(|content| format!("\"{}\"", gantry_oci::Digest::of(content).hex()));
            let has = |tag: &str| headers.iter().any(|h| h.to_lowercase() == format!("if-none-match: {tag}"));
            let (status, body) = match (&etag, content) {
                (Some(etag), _) if has(etag) => (304, Vec::new()),
                (_, Some(content)) => (200, content),
                _ => (404, Vec::new()),
            };
            answered.lock().expect("a log").push(format!("{status} {path}"));
            let tag = etag.map(|etag| format!("ETag: {etag}\r\n")).unwrap_or_default();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{tag}Connection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    (url, log)
}

fn bring(place: &std::path::Path, locations: &[&str]) -> Result<Manifest, AdvisoryError> {
    // Another test of this process may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = reqwest::Client::builder().tls_certs_only(Vec::new()).build().expect("a client");
    let locations: Vec<String> = locations.iter().map(|&location| location.to_owned()).collect();
    runtime.block_on(mirror::bring(place, &client, &locations, &|_, _, _| {}))
}

fn archive(id: &str, ecosystem: &str, name: &str) -> Vec<u8> {
    zip(&[("a.json", advisory(id, ecosystem, name, "9", json!({})).as_bytes())])
}

#[test]
fn a_mirror_is_fetched_once_and_then_only_what_changed() {
    let files = Files::default();
    let put =
        |path: &str, content: Vec<u8>| drop(files.lock().expect("files").insert(path.to_owned(), content));
    put("/osv/ecosystems.txt", b"Debian\nDebian:12\nAndroid\nnpm\n../../etc\n".to_vec());
    put("/osv/Debian/all.zip", archive("A-1", "Debian:12", "curl"));
    put("/osv/npm/all.zip", archive("A-2", "npm", "left-pad"));
    let (url, log) = serve(&files);
    let place = tempfile::tempdir().expect("a directory");
    let answers = || std::mem::take(&mut *log.lock().expect("a log"));

    assert!(matches!(bring(place.path(), &[]), Err(AdvisoryError::NoIndex { .. })));
    let manifest = bring(place.path(), &[&url]).expect("fetched");
    assert_eq!(answers(), ["200 /osv/ecosystems.txt", "200 /osv/Debian/all.zip", "200 /osv/npm/all.zip"]);
    let locations: Vec<_> = manifest.sources.iter().map(|source| source.location.clone()).collect();
    assert_eq!(locations, [format!("{url}Debian/all.zip"), format!("{url}npm/all.zip")]);

    put("/osv/npm/all.zip", archive("A-3", "npm", "left-pad"));
    let again = bring(place.path(), &[]).expect("fetched");
    assert_eq!(answers(), ["304 /osv/Debian/all.zip", "200 /osv/npm/all.zip"]);
    assert_eq!(again.generation, 2);
    assert_eq!(again.sources[0].changed_at, manifest.sources[0].changed_at);
    assert!(again.sources[0].checked_at > manifest.sources[0].checked_at);
    let mut report = crate::advisories::report();
    Index::open(place.path()).expect("opened").compare(&mut report).expect("compared");
    let found: Vec<_> = report.vulnerabilities.iter().flatten().map(|v| v.id.as_str()).collect();
    assert_eq!(found, ["A-3", "A-1"]);

    // What cannot be fetched, or is no zip, leaves what was there.
    put("/osv/npm/all.zip", b"<html>Sign in</html>".to_vec());
    assert!(matches!(bring(place.path(), &[]), Err(AdvisoryError::Invalid { .. })));
    files.lock().expect("files").remove("/osv/npm/all.zip");
    let failed = bring(place.path(), &[]).expect_err("it is gone").to_string();
    assert!(failed.contains("npm/all.zip cannot be fetched: the server answers 404"), "{failed}");
    assert_eq!(Index::open(place.path()).expect("opened").manifest(), &again);
    let left = std::fs::read_dir(place.path()).expect("listed").count();
    assert_eq!(left, 3, "the manifest, the table and the lock");
}
