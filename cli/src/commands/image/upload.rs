//! `gantry image upload archive.tar demo/x:1`: the archive goes to the server as it is, and is read there. What broke off
//! is gone on with: the server knows how much of the file it has, by a key made of its size and its ends.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use gantry_oci::archive::{ArchiveLimits, names};
use gantry_oci::reference::may_be_tag;
use gantry_oci::{Algorithm, Digest, Hasher, Reference};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use http::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::Context;

const CHUNK_BYTES: u64 = 8 << 20;
const PIECE_BYTES: usize = 256 << 10;
/// Of the beginning and of the end of a file: what it is known by.
const ENDS_BYTES: u64 = 1 << 20;
/// How often in a row something may fail that another time may not, a second apart at the least.
const FAILURES_MAX: u32 = 8;
const PAUSE_MAX: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct UploadArgs {
    /// docker-archive (`docker save`) or OCI archive, as it is or compressed by gzip or zstd
    file: PathBuf,
    /// Where its images go: REPOSITORY:TAG for one image, REPOSITORY for all of them under the tags that the archive
    /// gives them [default: the names in the archive]
    name: Option<Reference>,
    /// Begin anew where an earlier upload of the file broke off, and do not go on with that
    #[arg(long)]
    no_resume: bool,
}

pub async fn run(args: UploadArgs, context: &Context) -> anyhow::Result<()> {
    let shown = args.file.display().to_string();
    let file = args.file.clone();
    let read = tokio::task::spawn_blocking(move || key(&file));
    let (size_bytes, key) = read.await?.with_context(|| format!("cannot read {shown}"))?;
    let query = query(&args, size_bytes, &key).await?;
    let client = Client { http: context.http()?, base: format!("{}/registry/v1/archives", context.server()) };
    let path = args.file.clone();
    // Meanwhile: the server has to have the same.
    let digest = tokio::task::spawn_blocking(move || Hasher::read(Algorithm::Sha256, File::open(path)?));
    let mut status = client.begin(&query).await.with_context(|| format!("cannot upload {shown}"))?;
    if args.no_resume && number(&status, "receivedBytes") > 0 {
        client.ask(Method::DELETE, &id(&status)?, Vec::new(), "".into()).await?;
        status = client.begin(&query).await?;
    }
    let bar = Bar::new(size_bytes);
    let uploaded = client.upload(&args.file, size_bytes, digest, status, &bar).await;
    bar.0.finish_and_clear();
    for image in uploaded.with_context(|| format!("cannot upload {shown}"))? {
        let text = |field: &str| image[field].as_str().unwrap_or_default().to_owned();
        println!("{}:{}@{}", text("repository"), text("tag"), text("digest"));
    }
    Ok(())
}

/// The size of the file, and what it is known by.
fn key(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let size_bytes = file.metadata()?.len();
    let mut ends = size_bytes.to_le_bytes().to_vec();
    Read::by_ref(&mut file).take(ENDS_BYTES).read_to_end(&mut ends)?;
    file.seek(SeekFrom::Start(size_bytes.saturating_sub(ENDS_BYTES)))?;
    file.take(ENDS_BYTES).read_to_end(&mut ends)?;
    Ok((size_bytes, Digest::of(&ends).to_string()))
}

async fn query(args: &UploadArgs, size_bytes: u64, key: &str) -> anyhow::Result<String> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("size", &size_bytes.to_string()).append_pair("key", key);
    if let Some(name) = &args.name {
        query.append_pair("name", &name.to_string());
        return Ok(query.finish());
    }
    let path = args.file.clone();
    let named = tokio::task::spawn_blocking(move || names(&path, &ArchiveLimits::default())).await?;
    let named = named.with_context(|| format!("cannot read {}", args.file.display()))?;
    let mut repositories = std::collections::BTreeSet::new();
    for name in &named {
        if may_be_tag(name) {
            bail!("{} calls its image {name:?}, which may be a tag: say where it goes", args.file.display());
        }
        repositories.insert(super::repository(name)?.to_string());
    }
    if repositories.is_empty() {
        bail!("{} gives its images no name: say where they go", args.file.display());
    }
    for repository in repositories {
        query.append_pair("repository", &repository);
    }
    Ok(query.finish())
}

/// Bytes that are sent, and then those that are stored.
struct Bar(ProgressBar);

impl Bar {
    fn new(size_bytes: u64) -> Self {
        let bar = match io::stderr().is_terminal() {
            true => ProgressBar::new(size_bytes),
            false => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}");
        // It is a constant, and the bar has one of its own.
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    fn show(&self, word: &'static str, done: u64, total: u64) {
        self.0.set_message(word);
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

/// What the server answered that is an error.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{message}")]
    Answer { status: StatusCode, message: String },
    #[error("cannot reach the server")]
    Transport(#[from] reqwest::Error),
}

impl Refused {
    /// Another time it may be otherwise; what broke off is asked for first.
    fn is_passing(&self) -> bool {
        match self {
            Self::Transport(error) => !error.is_builder(),
            Self::Answer { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::CONFLICT)
            }
        }
    }
}

struct Client {
    http: reqwest::Client,
    base: String,
}

type Hash = tokio::task::JoinHandle<io::Result<(Digest, u64)>>;

impl Client {
    async fn begin(&self, query: &str) -> Result<Value, Refused> {
        self.send(Method::POST, format!("{}?{query}", self.base), Vec::new(), "".into()).await
    }

    async fn ask(
        &self,
        method: Method,
        id: &str,
        headers: Vec<(http::HeaderName, String)>,
        body: reqwest::Body,
    ) -> Result<Value, Refused> {
        self.send(method, format!("{}/{id}", self.base), headers, body).await
    }

    async fn send(
        &self,
        method: Method,
        url: String,
        headers: Vec<(http::HeaderName, String)>,
        body: reqwest::Body,
    ) -> Result<Value, Refused> {
        let mut request = self.http.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.send().await?;
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let said: Value = response.json().await.unwrap_or_default();
        if status.is_success() {
            return Ok(said);
        }
        let message = said["errors"][0]["message"].as_str().or(said["message"].as_str());
        let message = message.map_or_else(|| status.to_string(), str::to_owned);
        Err(Refused::Answer { status, message })
    }

    /// Sends what is missing, and waits until all is stored; returns the images.
    async fn upload(
        &self,
        path: &Path,
        size_bytes: u64,
        mut digest: Hash,
        mut status: Value,
        bar: &Bar,
    ) -> anyhow::Result<Vec<Value>> {
        let id = id(&status)?;
        if number(&status, "receivedBytes") > 0 {
            let done = indicatif::BinaryBytes(number(&status, "receivedBytes"));
            bar.0.suspend(|| eprintln!("Going on at {done} of {}", indicatif::BinaryBytes(size_bytes)));
        }
        let (mut failures, mut known, mut finished) = (0, None, false);
        loop {
            let received = number(&status, "receivedBytes");
            let next = match status["phase"].as_str().unwrap_or_default() {
                "done" => return Ok(status["images"].as_array().cloned().unwrap_or_default()),
                // Of this run; of an earlier one, it is tried again.
                "failed" if finished => bail!("{}", status["error"].as_str().unwrap_or("it failed")),
                "receiving" | "failed" if received < size_bytes => {
                    bar.show("Sending", received, size_bytes);
                    self.chunk(path, &id, received, size_bytes, bar).await?
                }
                "receiving" | "failed" => {
                    if known.is_none() {
                        known = Some((&mut digest).await??.0);
                    }
                    finished = true;
                    let digest = known.as_ref().map(ToString::to_string).unwrap_or_default();
                    self.ask(Method::PUT, &format!("{id}?digest={digest}"), Vec::new(), "".into()).await
                }
                phase => {
                    let word = if phase == "storing" { "Storing" } else { "Reading" };
                    bar.show(word, number(&status, "storedBytes"), number(&status, "totalBytes"));
                    tokio::time::sleep(ASK_EVERY).await;
                    self.ask(Method::GET, &id, Vec::new(), "".into()).await
                }
            };
            status = match next {
                Ok(status) => {
                    failures = 0;
                    status
                }
                Err(error) => {
                    let again = self.again(error, &id, &mut failures).await?;
                    again.unwrap_or(status)
                }
            };
        }
    }

    /// After something that may pass: a pause that grows, and how far it is now, if that can be told.
    async fn again(&self, error: Refused, id: &str, failures: &mut u32) -> anyhow::Result<Option<Value>> {
        *failures += 1;
        if !error.is_passing() || *failures > FAILURES_MAX {
            return Err(error.into());
        }
        tracing::debug!(%error, failures, "asking how far the upload is");
        tokio::time::sleep(Duration::from_secs(u64::from(*failures)).min(PAUSE_MAX)).await;
        match self.ask(Method::GET, id, Vec::new(), "".into()).await {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.is_passing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn chunk(
        &self,
        path: &Path,
        id: &str,
        at: u64,
        size_bytes: u64,
        bar: &Bar,
    ) -> anyhow::Result<Result<Value, Refused>> {
        let (path, length) = (path.to_owned(), CHUNK_BYTES.min(size_bytes - at));
        let read = tokio::task::spawn_blocking(move || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(at))?;
            let mut bytes = Vec::new();
            file.take(length).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(Bytes::from(bytes))
        });
        let bytes = read.await??;
        anyhow::ensure!(bytes.len() as u64 == length, "the file became shorter meanwhile");
        let headers = vec![
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
            (CONTENT_LENGTH, length.to_string()),
            (CONTENT_RANGE, format!("{at}-{}", at + length - 1)),
        ];
        let bar = bar.0.clone();
        let starts = (0..bytes.len()).step_by(PIECE_BYTES);
        let pieces = starts.map(move |start| {
            let piece = bytes.slice(start..bytes.len().min(start + PIECE_BYTES));
            bar.inc(piece.len() as u64);
            Ok::<_, io::Error>(piece)
        });
        let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
        Ok(self.ask(Method::PATCH, id, headers, body).await)
    }
}

fn number(status: &Value, field: &str) -> u64 {
    status[field].as_u64().unwrap_or_default()
}

fn id(status: &Value) -> anyhow::Result<String> {
    let id = status["id"].as_str().filter(|id| !id.is_empty() && !id.contains(['/', '?']));
    id.map(str::to_owned).context("the server's answer cannot be understood")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn files_are_known_by_their_size_and_their_ends() {
        let key_of = |bytes: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(bytes).expect("written");
            key(file.path()).expect("a key")
        };
        let mut large = vec![7_u8; 3 << 20];
        let before = key_of(&large);
        assert_eq!(before.0, 3 << 20);
        assert_eq!(key_of(&large), before);
        large[0] = 8;
        assert_ne!(key_of(&large), before);
        large[0] = 7;
        large[(3 << 20) - 1] = 8;
        assert_ne!(key_of(&large), before);
        assert_ne!(key_of(b""), key_of(b"a"));
    }
}
