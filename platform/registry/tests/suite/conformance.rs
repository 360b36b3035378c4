//! The OCI Distribution specification 1.1, category by category in its order, over HTTP: what the project's own suite
//! asks (`conformance/`, in Go), and what the text says beyond it. Each step names its endpoint (`end-N`).

use bytes::Bytes;
use gantry_oci::{Algorithm, Digest, Hasher};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::new;
use crate::support::TestRegistry;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A client that knows the specification and nothing else.
struct Client {
    http: reqwest::Client,
    base: String,
    _registry: TestRegistry,
}

/// An answer read whole.
struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.bytes().await.expect("a body") }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The answer has this status, and, where it is an error, one of the codes of the specification.
    #[track_caller]
    fn is(self, status: u16, code: &str) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        if !code.is_empty() {
            // "Error Codes": a JSON object with `errors`, each with a `code`.
            assert_eq!(self.json()["errors"][0]["code"], code, "{}", String::from_utf8_lossy(&self.body));
        }
        self
    }
}

impl Client {
    async fn new() -> Self {
        // Another test of the process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let test = new();
        let place = test.place();
        let (registry, address) = test.serve(place).await;
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { http, base: format!("http://{address}"), _registry: registry }
    }

    async fn ask(
        &self,
        method: Method,
        at: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        // `Location` is absolute, or a path.
        let url = if at.starts_with("http") { at.to_owned() } else { format!("{}{at}", self.base) };
        let mut request = self.http.request(method, url).bearer_auth("admin-token").body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.expect("an answer")).await
    }

    async fn get(&self, at: &str) -> Answer {
        self.ask(Method::GET, at, &[], "").await
    }

    /// The same without its body.
    async fn head(&self, at: &str) -> Answer {
        let answer = self.ask(Method::HEAD, at, &[], "").await;
        assert!(answer.body.is_empty());
        answer
    }

    async fn delete(&self, at: &str) -> Answer {
        self.ask(Method::DELETE, at, &[], "").await
    }

    async fn begin(&self, repository: &str) -> String {
        let begun = self.ask(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), &[], "").await;
        begun.is(202, "").header("location").to_owned()
    }

    async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let (at, digest) = (self.begin(repository).await, Digest::of(content));
        self.ask(Method::PUT, &with(&at, &digest), OCTETS, content.to_vec()).await.is(201, "");
        digest
    }

    async fn put(&self, repository: &str, reference: &str, manifest: &Value, kind: &str) -> Answer {
        let at = format!("/v2/{repository}/manifests/{reference}");
        self.ask(Method::PUT, &at, &[("content-type", kind)], manifest.to_string()).await
    }

    /// An image with a configuration and a layer, under a tag.
    async fn push_image(&self, repository: &str, tag: &str) -> (Value, Digest) {
        let (config, layer) = (format!("{{\"tag\":\"{tag}\"}}"), vec![7; 3000]);
        self.push_blob(repository, config.as_bytes()).await;
        self.push_blob(repository, &layer).await;
        let image = json!({ "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)] });
        self.put(repository, tag, &image, MANIFEST).await.is(201, "");
        let digest = Digest::of(image.to_string().as_bytes());
        (image, digest)
    }
}

const OCTETS: &[(&str, &str)] = &[("content-type", "application/octet-stream")];

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": Digest::of(content), "size": content.len() })
}

/// The place with the digest that ends an upload there.
fn with(location: &str, digest: &Digest) -> String {
    format!("{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' })
}

#[tokio::test(flavor = "multi_thread")]
async fn pull() {
    let client = Client::new().await;
    let (image, digest) = client.push_image("demo/app", "1").await;
    let text = image.to_string();
    // end-1, "Determining Support"
    client.get("/v2/").await.is(200, "");
    // end-3, "Pulling manifests": by tag and by digest, the bytes as they were pushed, with their type.
    for reference in ["1", &digest.to_string()] {
        let at = format!("/v2/demo/app/manifests/{reference}");
        let found = client.ask(Method::GET, &at, &[("accept", MANIFEST)], "").await.is(200, "");
        assert_eq!((found.body.as_ref(), found.header("content-type")), (text.as_bytes(), MANIFEST));
        assert_eq!(found.header("docker-content-digest"), digest.to_string());
        // "Checking if content exists in the registry"
        let head = client.head(&at).await.is(200, "");
        assert_eq!(head.header("content-length"), text.len().to_string());
        assert_eq!(head.header("docker-content-digest"), digest.to_string());
    }
    let absent = Digest::of(b"absent");
    for reference in ["absent", &absent.to_string()] {
        let at = format!("/v2/demo/app/manifests/{reference}");
        client.get(&at).await.is(404, "MANIFEST_UNKNOWN");
        client.head(&at).await.is(404, "");
    }
    client.get("/v2/demo/app/manifests/.invalid").await.is(400, "TAG_INVALID");
    client.get("/v2/demo/app/manifests/sha256:short").await.is(400, "DIGEST_INVALID");
    client.get("/v2/Upper/app/manifests/1").await.is(400, "NAME_INVALID");
    // end-2, "Pulling blobs"
    let layer = image["layers"][0]["digest"].as_str().expect("a digest");
    let at = format!("/v2/demo/app/blobs/{layer}");
    let found = client.get(&at).await.is(200, "");
    assert_eq!((found.body.len(), found.header("docker-content-digest")), (3000, layer));
    assert_eq!(client.head(&at).await.is(200, "").header("content-length"), "3000");
    // "A registry SHOULD support the `Range` request header in accordance with RFC 9110"
    let part = client.ask(Method::GET, &at, &[("range", "bytes=1000-1999")], "").await.is(206, "");
    assert_eq!((part.body.len(), part.header("content-range")), (1000, "bytes 1000-1999/3000"));
    let none = client.ask(Method::GET, &at, &[("range", "bytes=3000-")], "").await;
    assert_eq!(none.is(416, "").header("content-range"), "bytes */3000");
    client.get(&format!("/v2/demo/app/blobs/{absent}")).await.is(404, "BLOB_UNKNOWN");
    client.head(&format!("/v2/demo/app/blobs/{absent}")).await.is(404, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn push_blobs() {
    let client = Client::new().await;
    let content: Vec<u8> = (0..9000_u32).map(|n| (n % 251) as u8).collect();
    let pulled = |digest: Digest| {
        let client = &client;
        async move { client.get(&format!("/v2/demo/b/blobs/{digest}")).await.is(200, "").body }
    };
    // end-4a and end-6, "POST then PUT"; an empty blob is one.
    for content in [&content[..], &[]] {
        let at = client.begin("demo/b").await;
        let digest = Digest::of(content);
        let put = client.ask(Method::PUT, &with(&at, &digest), OCTETS, content.to_vec()).await.is(201, "");
        assert!(put.header("location").ends_with(&format!("/v2/demo/b/blobs/{digest}")));
        assert_eq!(pulled(digest).await, content);
    }
    // end-4b, "Single POST"
    let single = Digest::of(&content[..100]);
    let at = format!("/v2/demo/b/blobs/uploads/?digest={single}");
    client.ask(Method::POST, &at, OCTETS, content[..100].to_vec()).await.is(201, "");
    assert_eq!(pulled(single).await, content[..100]);
    // end-5 and end-6, "Pushing a blob in chunks"
    let digest = Digest::of(&content);
    let mut at = client.begin("demo/b").await;
    let range =
        |range: &'static str| [("content-type", "application/octet-stream"), ("content-range", range)];
    client.ask(Method::PATCH, &at, &range("3000-5999"), content[3000..6000].to_vec()).await.is(416, "");
    for (bounds, sent) in [("0-2999", 0..3000), ("3000-5999", 3000..6000)] {
        let patched =
            client.ask(Method::PATCH, &at, &range(bounds), content[sent].to_vec()).await.is(202, "");
        assert_eq!(patched.header("range"), format!("0-{}", bounds.split('-').nth(1).expect("an end")));
        at = patched.header("location").to_owned();
    }
    // Not again, and not with a gap: 416, and end-13 says how far it is.
    client.ask(Method::PATCH, &at, &range("3000-5999"), content[3000..6000].to_vec()).await.is(416, "");
    client.ask(Method::PATCH, &at, &range("7000-8999"), content[7000..].to_vec()).await.is(416, "");
    let status = client.get(&at).await.is(204, "");
    assert_eq!(status.header("range"), "0-5999");
    at = status.header("location").to_owned();
    client
        .ask(Method::PUT, &with(&at, &digest), &range("6000-8999"), content[6000..].to_vec())
        .await
        .is(201, "");
    assert_eq!(pulled(digest.clone()).await, content);
    // In one stream, the last chunk being empty.
    let at = client.begin("demo/c").await;
    let patched = client.ask(Method::PATCH, &at, OCTETS, content.clone()).await.is(202, "");
    client.ask(Method::PUT, &with(patched.header("location"), &digest), &[], "").await.is(201, "");
    // Content that is not what its digest says is not taken.
    let at = client.begin("demo/b").await;
    client
        .ask(Method::PUT, &with(&at, &Digest::of(b"other")), OCTETS, "this")
        .await
        .is(400, "DIGEST_INVALID");
    client.head(&format!("/v2/demo/b/blobs/{}", Digest::of(b"this"))).await.is(404, "");
    client.get("/v2/demo/b/blobs/uploads/unknown").await.is(404, "BLOB_UPLOAD_UNKNOWN");
    mounts(&client, &digest).await;
}

/// end-11, "Mounting a blob from another repository"
async fn mounts(client: &Client, digest: &Digest) {
    let at = format!("/v2/demo/mounted/blobs/uploads/?mount={digest}&from=demo/b");
    let mounted = client.ask(Method::POST, &at, &[], "").await.is(201, "");
    assert!(mounted.header("location").ends_with(&format!("/v2/demo/mounted/blobs/{digest}")));
    client.head(&format!("/v2/demo/mounted/blobs/{digest}")).await.is(200, "");
    // What is not there is an upload like any other.
    for query in
        [format!("mount={}&from=demo/b", Digest::of(b"absent")), format!("mount={digest}&from=no/such")]
    {
        let begun =
            client.ask(Method::POST, &format!("/v2/demo/other/blobs/uploads/?{query}"), &[], "").await;
        assert!(begun.is(202, "").header("location").contains("/v2/demo/other/blobs/uploads/"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn push_manifests() {
    let client = Client::new().await;
    let (image, digest) = client.push_image("demo/m", "1").await;
    // end-7, "Pushing Manifests": by digest, too, of any algorithm that is registered.
    let text = image.to_string();
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(text.as_bytes());
    let long = hasher.finish();
    for reference in [digest.to_string(), long.to_string()] {
        let put = client.put("demo/m", &reference, &image, MANIFEST).await.is(201, "");
        assert!(put.header("location").ends_with(&format!("/v2/demo/m/manifests/{reference}")));
        assert_eq!(put.header("docker-content-digest"), reference);
        let at = format!("/v2/demo/m/manifests/{reference}");
        assert_eq!(client.get(&at).await.is(200, "").body, text);
    }
    client.put("demo/m", &Digest::of(b"other").to_string(), &image, MANIFEST).await.is(400, "DIGEST_INVALID");
    // A manifest names what is there.
    let mut lacking = image.clone();
    lacking["layers"][0] = descriptor("application/vnd.oci.image.layer.v1.tar", b"absent");
    client.put("demo/m", "lacking", &lacking, MANIFEST).await.is(404, "MANIFEST_BLOB_UNKNOWN");
    client.put("demo/m", "bad", &json!({ "schemaVersion": 2 }), MANIFEST).await.is(400, "MANIFEST_INVALID");
    // "SHOULD … accept a manifest without layers", and an index with any platform, or none.
    client.push_blob("demo/m", b"{}").await;
    let artifact = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.x",
        "config": descriptor(EMPTY, b"{}"), "layers": [] });
    client.put("demo/m", "artifact", &artifact, MANIFEST).await.is(201, "");
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, text.as_bytes())] });
    client.put("demo/m", "index", &index, INDEX).await.is(201, "");
    let empty = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
    client.put("demo/m", "empty", &empty, INDEX).await.is(201, "");
    // "Pushing Manifests with Subject": taken also where the subject is not there.
    let subject = descriptor(MANIFEST, b"nobody has pushed it");
    let mut referrer = artifact.clone();
    referrer["subject"] = subject.clone();
    let put = client.put("demo/m", "referrer", &referrer, MANIFEST).await.is(201, "");
    assert_eq!(put.header("oci-subject"), subject["digest"].as_str().expect("a digest"));
}

#[tokio::test(flavor = "multi_thread")]
async fn content_discovery() {
    let client = Client::new().await;
    let mut last = Value::Null;
    for tag in ["b", "a10", "a2", "a1"] {
        last = client.push_image("demo/d", tag).await.0;
    }
    // end-8a and end-8b, "Listing Tags": in lexical order, in pages.
    let listed = client.get("/v2/demo/d/tags/list").await.is(200, "").json();
    assert_eq!(listed, json!({ "name": "demo/d", "tags": ["a1", "a10", "a2", "b"] }));
    let page = client.get("/v2/demo/d/tags/list?n=2").await.is(200, "");
    assert_eq!(page.json()["tags"], json!(["a1", "a10"]));
    let link = page.header("link").to_owned();
    assert!(link.ends_with("; rel=\"next\""), "{link}");
    let next = link.split(['<', '>']).nth(1).expect("an address");
    let next = client.get(next).await.is(200, "");
    assert_eq!((&next.json()["tags"], next.header("link")), (&json!(["a2", "b"]), ""));
    let after = client.get("/v2/demo/d/tags/list?n=1&last=a10").await.is(200, "");
    assert_eq!(after.json()["tags"], json!(["a2"]));
    let none = client.get("/v2/demo/d/tags/list?n=0").await.is(200, "");
    assert_eq!((&none.json()["tags"], none.header("link")), (&json!([]), ""));
    client.get("/v2/no/such/tags/list").await.is(404, "NAME_UNKNOWN");
    referrers(&client, &last).await;
}

/// end-12a and end-12b, "Listing Referrers"
async fn referrers(client: &Client, image: &Value) {
    let subject = descriptor(MANIFEST, image.to_string().as_bytes());
    client.push_blob("demo/d", b"{}").await;
    let mut refer = Vec::new();
    for (name, artifact, config, kind) in [
        ("signature", "application/vnd.signature", EMPTY, MANIFEST),
        ("sbom", "application/vnd.sbom", EMPTY, MANIFEST),
        // Without a type of its own, it is of its configuration's.
        ("old", "", "application/vnd.old.config", MANIFEST),
        ("index", "application/vnd.index", "", INDEX),
    ] {
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": kind, "subject": subject, "annotations": { "name": name } });
        match kind {
            INDEX => manifest["manifests"] = json!([]),
            _ => {
                manifest["config"] = descriptor(config, b"{}");
                manifest["layers"] = json!([descriptor(EMPTY, b"{}")]);
            }
        }
        if !artifact.is_empty() {
            manifest["artifactType"] = artifact.into();
        }
        let text = manifest.to_string();
        let digest = Digest::of(text.as_bytes());
        client.put("demo/d", &digest.to_string(), &manifest, kind).await.is(201, "");
        let artifact = if artifact.is_empty() { config } else { artifact };
        refer
            .push(json!({ "mediaType": kind, "digest": digest, "size": text.len(), "artifactType": artifact,
            "annotations": { "name": name } }));
    }
    refer.sort_by_key(|entry| entry["digest"].to_string());
    let at = format!("/v2/demo/d/referrers/{}", subject["digest"].as_str().expect("a digest"));
    let found = client.get(&at).await.is(200, "");
    assert_eq!(found.header("content-type"), INDEX);
    assert_eq!((&found.json()["schemaVersion"], &found.json()["mediaType"]), (&json!(2), &json!(INDEX)));
    let mut entries = found.json()["manifests"].as_array().expect("a list").clone();
    entries.sort_by_key(|entry| entry["digest"].to_string());
    assert_eq!(entries, refer);
    let filtered = client.get(&format!("{at}?artifactType=application/vnd.sbom")).await.is(200, "");
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let entries = filtered.json()["manifests"].as_array().expect("a list").clone();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["annotations"]["name"], "sbom");
    // "MUST NOT return 404" where nothing refers to it, or nobody has it.
    for path in ["demo/d", "no/such"] {
        let found = client.get(&format!("/v2/{path}/referrers/{}", Digest::of(b"absent"))).await.is(200, "");
        assert_eq!(found.json()["manifests"], json!([]));
    }
    client.get("/v2/demo/d/referrers/sha256:short").await.is(400, "DIGEST_INVALID");
    // What is deleted refers to nothing.
    let gone = refer[0]["digest"].as_str().expect("a digest");
    client.delete(&format!("/v2/demo/d/manifests/{gone}")).await.is(202, "");
    let left = client.get(&at).await.is(200, "").json();
    assert_eq!(left["manifests"].as_array().map(Vec::len), Some(3), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_management() {
    let client = Client::new().await;
    let (image, digest) = client.push_image("demo/x", "1").await;
    client.put("demo/x", "2", &image, MANIFEST).await.is(201, "");
    // end-9, "Deleting tags": the manifest, and its other tags, stay.
    client.delete("/v2/demo/x/manifests/1").await.is(202, "");
    client.get("/v2/demo/x/manifests/1").await.is(404, "MANIFEST_UNKNOWN");
    client.delete("/v2/demo/x/manifests/1").await.is(404, "MANIFEST_UNKNOWN");
    client.get("/v2/demo/x/manifests/2").await.is(200, "");
    assert_eq!(client.get("/v2/demo/x/tags/list").await.is(200, "").json()["tags"], json!(["2"]));
    // "Deleting Manifests": with every tag.
    let at = format!("/v2/demo/x/manifests/{digest}");
    client.delete(&at).await.is(202, "");
    for gone in [at.as_str(), "/v2/demo/x/manifests/2"] {
        client.get(gone).await.is(404, "MANIFEST_UNKNOWN");
        client.delete(gone).await.is(404, "MANIFEST_UNKNOWN");
    }
    // end-10, "Deleting Blobs": once no manifest names them.
    let layer = image["layers"][0]["digest"].as_str().expect("a digest");
    let at = format!("/v2/demo/x/blobs/{layer}");
    client.delete(&at).await.is(202, "");
    client.get(&at).await.is(404, "BLOB_UNKNOWN");
    client.delete(&at).await.is(404, "BLOB_UNKNOWN");
}
