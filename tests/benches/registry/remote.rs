//! A registry as clients see it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use gantry_testkit::Instance;
use rand::RngCore as _;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use reqwest::{Client, RequestBuilder, Response};
use ring::digest::{Context, SHA256, digest};
use serde_json::{Value, json};

use crate::downloads::Downloads;
use crate::load::Target;
use crate::people::Server;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Blobs under way at the same time for one image, as in containers/image.
pub const BLOBS_AT_ONCE: usize = 6;
/// A token for each repository of the bench.
pub const REPOSITORIES: usize = 12;

pub struct Remote {
    pub name: &'static str,
    pub port: u16,
    pub authority: PathBuf,
    pub pid: i32,
    pub downloads: Downloads,
    base: String,
    client: Client,
    token: Option<String>,
}

impl Remote {
    pub fn new(name: &'static str, port: u16, authority: &Path, pid: i32, token: Option<String>) -> Self {
        let downloads = Downloads::new(Target::new(port, authority, None));
        let pem = std::fs::read(authority).expect("the server's authority");
        let pem = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        let client = Client::builder().tls_certs_only([pem]).http1_only().build().expect("a client");
        let base = format!("https://127.0.0.1:{port}");
        Self { name, port, authority: authority.to_owned(), pid, downloads, base, client, token }
    }

    /// The instance's registry, asked with a token of its own for the bench's repositories.
    pub async fn ours(gantry: &Instance, server: &Server) -> Self {
        let mut remote = Self::new("gantry", gantry.port(), &server.authority, gantry.pid(), None);
        let scopes: Vec<String> = (0..REPOSITORIES)
            .map(|number| format!("scope=repository:{}:pull,push", repository(number)))
            .collect();
        let request = remote.client.get(format!("{}/token?{}", remote.base, scopes.join("&")));
        let answer = request.basic_auth("token", Some(&server.token)).send().await.expect("an answer");
        let answer: Value = good(answer).await.json().await.expect("JSON");
        remote.token = Some(answer["token"].as_str().expect("a token").to_owned());
        remote
    }

    /// Headers of a request that is written by hand.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("accept", MANIFEST.to_owned())];
        headers.extend(self.token.as_ref().map(|token| ("authorization", format!("Bearer {token}"))));
        headers
    }

    fn with_token(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Response {
        good(self.with_token(request).send().await.expect("an answer")).await
    }

    /// As docker, podman and skopeo do it: begin, send, finish; layers at the same time, then the manifest.
    pub async fn push(&self, repository: &str, image: &Image) -> Duration {
        let began = Instant::now();
        let blobs = image.layers.iter().chain([&image.config]);
        futures::stream::iter(blobs)
            .for_each_concurrent(BLOBS_AT_ONCE, |blob| self.push_blob(repository, blob))
            .await;
        let url = format!("{}/v2/{repository}/manifests/latest", self.base);
        let put = self.client.put(url).header(CONTENT_TYPE, MANIFEST).body(image.manifest.clone());
        self.send(put).await;
        began.elapsed()
    }

    async fn push_blob(&self, repository: &str, blob: &Blob) {
        let begin = self.client.post(format!("{}/v2/{repository}/blobs/uploads/", self.base));
        let location = self.location(&self.send(begin.body("")).await);
        let patch = self.client.patch(location).header(CONTENT_TYPE, "application/octet-stream");
        let location = self.location(&self.send(patch.body(blob.bytes.clone())).await);
        let more = if location.contains('?') { '&' } else { '?' };
        let put = self.client.put(format!("{location}{more}digest={}", blob.digest));
        self.send(put.body("")).await;
    }

    fn location(&self, answer: &Response) -> String {
        let location = answer.headers()[LOCATION].to_str().expect("text");
        if location.starts_with('/') { format!("{}{location}", self.base) } else { location.to_owned() }
    }

    /// Everything of an image, its digests looked at as every client does, and thrown away. Also returns the digests.
    pub async fn pull(&self, repository: &str) -> (Duration, Vec<String>) {
        let began = Instant::now();
        let get = self.client.get(format!("{}/v2/{repository}/manifests/latest", self.base));
        let manifest = self.send(get.header(ACCEPT, MANIFEST)).await.bytes().await.expect("a body");
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        let layers = manifest["layers"].as_array().expect("layers").iter().chain([&manifest["config"]]);
        let digests: Vec<String> =
            layers.map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect();
        futures::stream::iter(&digests)
            .for_each_concurrent(BLOBS_AT_ONCE, |digest| self.pull_blob(repository, digest))
            .await;
        (began.elapsed(), digests)
    }

    /// By which blobs are got.
    pub fn requests(&self, repository: &str, digests: &[String]) -> Vec<Vec<u8>> {
        let headers = self.headers();
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let path = |digest: &String| format!("/v2/{repository}/blobs/{digest}");
        digests.iter().map(|digest| self.downloads.request(&path(digest), &headers)).collect()
    }

    async fn pull_blob(&self, repository: &str, digest: &str) {
        let get = self.client.get(format!("{}/v2/{repository}/blobs/{digest}", self.base));
        let mut answer = self.send(get).await;
        let mut hash = Context::new(&SHA256);
        while let Some(part) = answer.chunk().await.expect("a body that does not break off") {
            hash.update(&part);
        }
        assert_eq!(digest, shown(hash.finish().as_ref()));
    }
}

async fn good(answer: Response) -> Response {
    let status = answer.status();
    if status.is_success() {
        return answer;
    }
    let url = answer.url().clone();
    panic!("{url}: {status} {}", answer.text().await.unwrap_or_default());
}

pub fn repository(number: usize) -> String {
    format!("bench/image-{number}")
}

pub struct Blob {
    pub digest: String,
    bytes: Bytes,
}

/// An image of noise, which nobody can compress.
pub struct Image {
    pub layers: Vec<Blob>,
    config: Blob,
    manifest: Bytes,
}

impl Image {
    pub fn of_noise(layers: usize, bytes: usize) -> Arc<Self> {
        let layer = |_| {
            let mut noise = vec![0; bytes];
            rand::rng().fill_bytes(&mut noise);
            Blob::of(noise.into())
        };
        let layers: Vec<Blob> = (0..layers).map(layer).collect();
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = Blob::of(config.to_string().into());
        let named = |kind: &str, blob: &Blob| json!({ "mediaType": kind, "digest": blob.digest, "size": blob.bytes.len() });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": named(CONFIG, &config),
            "layers": layers.iter().map(|layer| named(LAYER, layer)).collect::<Vec<_>>(),
        });
        Arc::new(Self { layers, config, manifest: manifest.to_string().into() })
    }
}

impl Blob {
    pub fn of(bytes: Bytes) -> Self {
        Self { digest: shown(digest(&SHA256, &bytes).as_ref()), bytes }
    }

    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

fn shown(hash: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    hash.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
    text
}
