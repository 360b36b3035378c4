//! Sources that are fetched: a zip over HTTP, or a mirror that is laid out as osv.dev's is (`ecosystems.txt`, and
//! `ECOSYSTEM/all.zip` beside it). What did not change since it was last fetched is not fetched again.

use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use reqwest::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Client, Response, StatusCode, Url};
use tempfile::NamedTempFile;

use super::index::{Given, Index, Manifest, SourceState, SourceUpdate, update};
use super::{AdvisoryError, ecosystem};

const ZIP_MAX_BYTES: u64 = 8 << 30;
const LIST_MAX_BYTES: usize = 64 << 10;
const ECOSYSTEMS_MAX: usize = 500;

/// What a source gave.
enum Brought {
    Unchanged,
    Here(PathBuf),
    Fetched { file: NamedTempFile, etag: Option<String>, last_modified: Option<String> },
}

/// What is going on: a source, how much of it is here, and how much there will be.
pub type Watch<'a> = &'a (dyn Fn(&str, u64, Option<u64>) + Sync);

/// Brings the index in `directory` up to date with `locations` (paths, URLs of zips, URLs of mirrors, which end with a
/// slash), or with the sources that it has if none are named.
pub async fn bring(
    directory: &Path,
    client: &Client,
    locations: &[String],
    watch: Watch<'_>,
) -> Result<Manifest, AdvisoryError> {
    let old = match Index::open(directory) {
        Ok(index) => index.manifest().sources.clone(),
        Err(AdvisoryError::NoIndex { .. }) if !locations.is_empty() => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for location in locations {
        match location.ends_with('/').then(|| url(location)).flatten() {
            Some(mirror) => all.extend(ecosystems(client, &mirror).await?),
            None => all.push(named(location)?),
        }
    }
    if locations.is_empty() {
        all.extend(old.iter().map(|source| source.location.clone()));
    }
    all.sort();
    all.dedup();
    let io = |source| AdvisoryError::Io { path: directory.to_owned(), source };
    gantry_base::fs::create_directory(directory, 0o755).map_err(io)?;
    let mut brought = Vec::new();
    for location in all {
        let known = old.iter().find(|source| source.location == location);
        let got = match url(&location) {
            Some(url) => fetch(client, &url, known, directory, watch).await?,
            None => Brought::Here(PathBuf::from(&location)),
        };
        brought.push((location, got));
    }
    let directory = directory.to_owned();
    let updated = tokio::task::spawn_blocking(move || {
        let updates: Vec<SourceUpdate<'_>> =
            brought.iter().map(|(location, got)| given(location, got)).collect();
        update(&directory, &updates, Timestamp::now())
    });
    // A panic of the update is none of its results.
    updated.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn given<'a>(location: &str, brought: &'a Brought) -> SourceUpdate<'a> {
    let location = location.to_owned();
    let (given, etag, last_modified) = match brought {
        Brought::Unchanged => (Given::Unchanged, None, None),
        Brought::Here(path) => (Given::Files(path), None, None),
        Brought::Fetched { file, etag, last_modified } => {
            (Given::Files(file.path()), etag.clone(), last_modified.clone())
        }
    };
    SourceUpdate { location, given, etag, last_modified }
}

/// The name of a source in the index: a URL, or the path from the root.
pub fn named(location: &str) -> Result<String, AdvisoryError> {
    if url(location).is_some() {
        return Ok(location.to_owned());
    }
    let path = std::fs::canonicalize(location)
        .map_err(|source| AdvisoryError::Io { path: location.into(), source })?;
    Ok(path.display().to_string())
}

fn url(location: &str) -> Option<Url> {
    Url::parse(location).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

/// The zips of a mirror whose packages can be found in images.
async fn ecosystems(client: &Client, mirror: &Url) -> Result<Vec<String>, AdvisoryError> {
    let failed = |url: &Url, message: String| AdvisoryError::Mirror { url: url.to_string(), message };
    let list = mirror.join("ecosystems.txt").map_err(|e| failed(mirror, e.to_string()))?;
    let mut response = answer(client.get(list.clone()).send().await, &list)?;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| failed(&list, chain(&e)))? {
        text.extend_from_slice(&chunk);
        if text.len() > LIST_MAX_BYTES {
            return Err(failed(&list, format!("the list has more than {LIST_MAX_BYTES} bytes")));
        }
    }
    let text = String::from_utf8_lossy(&text);
    let names = text.lines().map(str::trim).filter(|name| is_wanted(name)).take(ECOSYSTEMS_MAX);
    let urls: Vec<String> = names
        .filter_map(|name| mirror.join(&format!("{name}/all.zip")).ok())
        .map(|url| url.to_string())
        .collect();
    if urls.is_empty() {
        return Err(failed(&list, "it names no ecosystem whose packages can be found in images".to_owned()));
    }
    Ok(urls)
}

/// `Debian` holds what `Debian:12` does; what has a path in its name is none.
fn is_wanted(name: &str) -> bool {
    ecosystem::kind(name).is_some()
}

async fn fetch(
    client: &Client,
    url: &Url,
    known: Option<&SourceState>,
    directory: &Path,
    watch: Watch<'_>,
) -> Result<Brought, AdvisoryError> {
    let failed = |message: String| AdvisoryError::Mirror { url: url.to_string(), message };
    let io = |source| AdvisoryError::Io { path: directory.to_owned(), source };
    let mut request = client.get(url.clone());
    if let Some(etag) = known.and_then(|known| known.etag.as_ref()) {
        request = request.header(IF_NONE_MATCH, etag);
    }
    if let Some(date) = known.and_then(|known| known.last_modified.as_ref()) {
        request = request.header(IF_MODIFIED_SINCE, date);
    }
    let mut response = answer(request.send().await, url)?;
    if response.status() == StatusCode::NOT_MODIFIED {
        return match known {
            Some(_) => Ok(Brought::Unchanged),
            None => Err(failed("it says that nothing changed, but nothing was fetched before".to_owned())),
        };
    }
    let header = |name| response.headers().get(name)?.to_str().ok().map(str::to_owned);
    let (etag, last_modified) = (header(ETAG), header(LAST_MODIFIED));
    let total = response.content_length();
    let mut file =
        tempfile::Builder::new().prefix(".fetched-").suffix(".zip").tempfile_in(directory).map_err(io)?;
    let mut done = 0_u64;
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(chain(&error)))? {
        done += chunk.len() as u64;
        if done > ZIP_MAX_BYTES {
            return Err(failed(format!("it has more than {ZIP_MAX_BYTES} bytes")));
        }
        file.write_all(&chunk).map_err(io)?;
        watch(url.as_str(), done, total);
    }
    file.flush().map_err(io)?;
    Ok(Brought::Fetched { file, etag, last_modified })
}

fn answer(response: reqwest::Result<Response>, url: &Url) -> Result<Response, AdvisoryError> {
    let failed = |message| AdvisoryError::Mirror { url: url.to_string(), message };
    let response = response.map_err(|error| failed(chain(&error)))?;
    let status = response.status();
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    Err(failed(format!("the server answers {status}")))
}

/// What failed, and why: the client's errors have the reason in their sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
