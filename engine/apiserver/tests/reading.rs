//! get, list, tables.

use serde_json::{Value, json};

use crate::harness::Api;

const MAPS: &str = "/api/v1/namespaces/d/configmaps";

async fn five() -> Api {
    let api = Api::new();
    for (index, name) in ["a", "b", "c", "d", "e"].iter().enumerate() {
        let labels = json!({ "n": name, "odd": (index % 2 == 1).to_string() });
        api.post(MAPS, &json!({ "metadata": { "name": name, "labels": labels } })).await;
    }
    api
}

fn names(list: &Value) -> String {
    let items = list["items"].as_array().expect("items");
    items.iter().filter_map(|i| i["metadata"]["name"].as_str()).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn selectors_choose() {
    let api = five().await;
    for (query, want) in [
        ("", "a b c d e"),
        ("labelSelector=odd%3Dtrue", "b d"),
        ("labelSelector=n+in+(a,e),odd!%3Dtrue", "a e"),
        ("fieldSelector=metadata.name%3Dc", "c"),
        ("fieldSelector=metadata.name!%3Dc,metadata.namespace%3Dd", "a b d e"),
    ] {
        assert_eq!(names(&api.get(&format!("{MAPS}?{query}")).await), want, "{query}");
    }
    api.table(&[
        ("GET", &format!("{MAPS}?fieldSelector=spec.x%3D1"), "", 400, "field label not supported: spec.x"),
        (
            "GET",
            &format!("{MAPS}?resourceVersion=99999"),
            "",
            504,
            "Too large resource version: 99999, current: 5",
        ),
        (
            "GET",
            &format!("{MAPS}?resourceVersionMatch=Exact"),
            "",
            422,
            "forbidden unless resourceVersion is provided",
        ),
        ("GET", &format!("{MAPS}?continue=nonsense"), "", 400, "continue key is not valid"),
        ("GET", &format!("{MAPS}?limit=x"), "", 400, "limit"),
    ])
    .await;
}

#[tokio::test]
async fn pages_show_one_state() {
    let api = five().await;
    let first = api.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!((names(&first).as_str(), &first["metadata"]["remainingItemCount"]), ("a b", &json!(3)));
    api.delete(&format!("{MAPS}/c")).await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = api.get(&format!("{MAPS}?limit=9&continue={token}")).await;
    assert_eq!(names(&second), "c d e", "the page is of the first page's state");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"].get("continue").is_none());
    let exact = api.get(&format!("{MAPS}?resourceVersion=3&resourceVersionMatch=Exact")).await;
    assert_eq!(names(&exact), "a b c");
}

#[tokio::test]
async fn tables_and_metadata_are_made() {
    let api = five().await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = api.send("GET", MAPS, &accept, "").await.body;
    assert_eq!((&table["kind"], &table["columnDefinitions"][0]["name"]), (&json!("Table"), &json!("Name")));
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let accept = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let list = api.send("GET", MAPS, &accept, "").await.body;
    assert_eq!((&list["kind"], names(&list).as_str()), (&json!("PartialObjectMetadataList"), "a b c d e"));
    let head = api.send("HEAD", &format!("{MAPS}/a"), &[], "").await;
    assert_eq!((head.status, head.body), (200, Value::Null));
}

#[tokio::test]
async fn large_lists_are_compressed_when_asked() {
    let api = Api::new();
    let data = json!({ "k": "x".repeat(200_000) });
    api.post(MAPS, &json!({ "metadata": { "name": "big" }, "data": data })).await;
    let plain = api.send("GET", MAPS, &[], "").await;
    assert!(plain.headers.get("content-encoding").is_none());
    let packed = api.send("GET", MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
}
