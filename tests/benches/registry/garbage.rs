//! A hundred thousand blobs, half of them garbage, collected while images come in.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use gantry_kube_types::{
    Attributes, Authenticator, Authorizer, ConnectionInfo, Decision, StatusError, UserInfo,
};
use gantry_registry::{Access, Catalogue, Config, JwtIssuer, PasswordIsToken, Registry};
use http::{HeaderMap, Request, StatusCode};
use serde_json::json;
use tower::ServiceExt as _;

use crate::common::Table;
use crate::remote::Blob;

const BLOBS: usize = 100_000;
/// Blobs that one manifest names.
const LAYERS: usize = 500;
const SEEDERS: usize = 64;
const PUSHERS: usize = 4;
const IDLE: Duration = Duration::from_secs(8);
const BAR: Duration = Duration::from_secs(30);
const P99_BAR: f64 = 2.0;

pub async fn measure(table: &mut Table) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let registry = open(directory.path());
    let began = Instant::now();
    seed(&registry).await;
    table.told(
        &format!("{BLOBS} blobs pushed, each durable"),
        &format!("{:.0} s", began.elapsed().as_secs_f64()),
    );
    let idle = pushes_while(&registry, tokio::time::sleep(IDLE)).await.1;
    let began = Instant::now();
    let (collected, busy) = pushes_while(&registry, registry.gc()).await;
    let taken = began.elapsed();
    let collected = collected.expect("the disk works");
    let removed = collected.blobs;
    table.judged(
        &format!("garbage collection, {BLOBS} blobs, {removed} removed, {} pushes meanwhile", busy.len()),
        &format!("≤ {} s, no push fails", BAR.as_secs()),
        &format!("{:.1} s", taken.as_secs_f64()),
        taken <= BAR && removed >= BLOBS / 2,
    );
    let (idle, busy) = (p99(idle), p99(busy));
    let ratio = busy.as_secs_f64() / idle.as_secs_f64();
    table.judged(
        "– p99 of pushes of a blob and a manifest meanwhile",
        &format!("≤ {P99_BAR} × without"),
        &format!("{:.1} ms, without {:.1} ms: {ratio:.2} ×", ms(busy), ms(idle)),
        ratio <= P99_BAR,
    );
    let checked = registry.fsck(false, |_, _| true).await.expect("the disk works");
    assert_eq!(checked.problems, 0, "{:?}", checked.listed);
}

fn open(directory: &Path) -> Registry {
    let mut config = Config::new(directory.join("registry"));
    // Nobody here saw a blob and is about to name it but those who push, whose blobs are pinned.
    config.garbage_age = Duration::ZERO;
    let issuer = Arc::new(JwtIssuer::open(&directory.join("token.key")).expect("a key"));
    let access = Access {
        authorizer: Arc::new(Everything),
        issuer,
        passwords: Arc::new(PasswordIsToken(Arc::new(Everybody))),
        bearers: Arc::new(Everybody),
    };
    gantry_registry::build(config, access, Catalogue::default()).expect("a registry")
}

async fn seed(registry: &Registry) {
    let content = |number: usize| Blob::of(Bytes::from(format!("content {number}")));
    let seeded: Vec<Blob> = futures::stream::iter(0..BLOBS)
        .map(|number| async move {
            let blob = content(number);
            push_blob(registry, "bench/seed", &blob).await;
            blob
        })
        .buffered(SEEDERS)
        .collect()
        .await;
    for layers in seeded[..BLOBS / 2].chunks(LAYERS) {
        push_manifest(registry, "bench/seed", layers).await;
    }
}

/// Pushes images until `work` has ended; what it gave, and how long each push took.
async fn pushes_while<T>(registry: &Registry, work: impl Future<Output = T>) -> (T, Vec<Duration>) {
    let over = AtomicBool::new(false);
    let pusher = |pusher: usize| {
        let over = &over;
        async move {
            let mut taken = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let number = taken.len();
                let blob = Blob::of(Bytes::from(format!("{pusher} pushes {number} at {began:?}")));
                let repository = format!("bench/pushed-{pusher}");
                push_blob(registry, &repository, &blob).await;
                push_manifest(registry, &repository, std::slice::from_ref(&blob)).await;
                taken.push(began.elapsed());
            }
            taken
        }
    };
    let pushing = futures::future::join_all((0..PUSHERS).map(pusher));
    let working = async {
        let done = work.await;
        over.store(true, Ordering::Relaxed);
        done
    };
    let (done, taken) = futures::future::join(working, pushing).await;
    (done, taken.into_iter().flatten().collect())
}

async fn push_blob(registry: &Registry, repository: &str, blob: &Blob) {
    let path = format!("/v2/{repository}/blobs/uploads/?digest={}", blob.digest);
    send(registry, "POST", &path, "application/octet-stream", blob.bytes()).await;
}

async fn push_manifest(registry: &Registry, repository: &str, layers: &[Blob]) {
    let named = |kind: &str, blob: &Blob| json!({ "mediaType": kind, "digest": blob.digest, "size": blob.bytes().len() });
    const KIND: &str = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": KIND,
        "config": named("application/vnd.oci.image.config.v1+json", &layers[0]),
        "layers": layers.iter().map(|layer| named("application/vnd.oci.image.layer.v1.tar", layer)).collect::<Vec<_>>(),
    });
    let manifest = Blob::of(manifest.to_string().into());
    let path = format!("/v2/{repository}/manifests/{}", manifest.digest);
    send(registry, "PUT", &path, KIND, manifest.bytes()).await;
}

async fn send(registry: &Registry, method: &str, path: &str, kind: &str, body: Bytes) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", "Bearer everybody")
        .header("content-type", kind)
        .header("content-length", body.len())
        .body(Body::from(body))
        .expect("a request");
    let answer = registry.router().oneshot(request).await.expect("the router answers");
    assert_eq!(answer.status(), StatusCode::CREATED, "{method} {path}");
}

fn p99(mut taken: Vec<Duration>) -> Duration {
    taken.sort_unstable();
    taken[taken.len() * 99 / 100]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

struct Everybody;

#[async_trait::async_trait]
impl Authenticator for Everybody {
    async fn authenticate(&self, _: &HeaderMap, _: &ConnectionInfo) -> Result<Option<UserInfo>, StatusError> {
        Ok(Some(UserInfo::authenticated("somebody", &[])))
    }
}

struct Everything;

impl Authorizer for Everything {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::Allow(String::new())
    }
}
