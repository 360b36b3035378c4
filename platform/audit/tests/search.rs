//! What is found is what a slow look at every record finds.

use gantry_audit_api::query::Query;
use serde_json::Value;
use tempfile::TempDir;

use crate::api::{ask, items};
use crate::support::{config, event, eventually, files, fill, open, project};

const RECORDS: u64 = 3000;

/// The slow model: the fields that `event` makes, compared one by one.
fn expected(query: &Query) -> Vec<u64> {
    let start: jiff::Timestamp = crate::support::START.parse().expect("a time");
    let matches = |number: &u64| {
        let event = event(*number);
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|w| w == value);
        let outcome = ["success", "success", "denied", "failed", "error"][(*number % 5) as usize];
        let words = query.q.clone().unwrap_or_default().to_lowercase();
        let text = format!(
            "{} {} {}",
            event.user.username,
            event.uri,
            "kubectl v1 34 0 linux amd64 192 0 2 1 rbac allow forbid bearer secret read"
        );
        let has: Vec<String> = text.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase).collect();
        let received = event.received;
        is(&query.user, &event.user.username)
            && is(&query.project, &project(*number).unwrap_or_default())
            && is(&query.namespace, &event.object.namespace)
            && is(&query.verb, &event.verb)
            && is(&query.resource, &event.object.resource)
            && is(&query.name, &event.object.name)
            && is(&query.outcome, outcome)
            && query.since.is_none_or(|t| received >= t)
            && query.until.is_none_or(|t| received <= t)
            && words.split_whitespace().all(|word| has.iter().any(|h| h == word))
            && received >= start
    };
    (0..RECORDS).rev().filter(matches).collect()
}

#[tokio::test]
async fn every_search_finds_what_a_slow_look_finds() {
    let directory = TempDir::new().expect("a directory");
    let audit = open(config(directory.path()));
    fill(&audit, 0..RECORDS).await;
    eventually("most is closed", || files(directory.path(), "idx").len() >= 10).await;
    let name = event(77).object.name;
    for query in [
        "".to_owned(),
        "user=acme/user3".to_owned(),
        "user=nobody".to_owned(),
        "namespace=project2-dev&verb=delete".to_owned(),
        "resource=secrets&outcome=denied&user=acme/user0".to_owned(),
        "project=p1".to_owned(),
        "project=p2&verb=delete&user=acme/user3".to_owned(),
        "project=acme/web".to_owned(),
        format!("name={name}"),
        "since=2026-01-01T00:10:00Z&until=2026-01-01T00:20:00Z".to_owned(),
        "since=2026-01-01T00:10:00.5Z&until=2026-01-01T00:10:01Z".to_owned(),
        "outcome=error&since=2026-01-01T00:40:00Z".to_owned(),
        "q=USER7%20project1".to_owned(),
        format!("q={}", name.replace('-', "%20")),
        "q=nonsense".to_owned(),
    ] {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let page = ask(&audit, "auditor", &format!("records?limit=97&{query}{token}")).await.1;
            found.extend(items(&page));
            let next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if next.is_empty() {
                break;
            }
            token = format!("&continue={next}");
        }
        let parsed: Query = axum::extract::Query::try_from_uri(&format!("/?{query}").parse().expect("a URI"))
            .expect("a query")
            .0;
        let want: Vec<Value> = expected(&parsed).iter().map(|n| format!("id-{n}").into()).collect();
        assert_eq!(found, want, "{query}");
    }
    audit.close().await;

    // The same after a start, from the files alone.
    let audit = open(config(directory.path()));
    let page = ask(&audit, "auditor", &format!("records?name={name}")).await.1;
    assert!(items(&page).contains(&"id-77".into()), "{page}");
    // An index that is lost is made again.
    audit.close().await;
    for file in files(directory.path(), "idx") {
        std::fs::remove_file(file).expect("removed");
    }
    let audit = open(config(directory.path()));
    let page = ask(&audit, "auditor", &format!("records?name={name}")).await.1;
    assert!(items(&page).contains(&"id-77".into()), "{page}");
    eventually("it is made again", || files(directory.path(), "idx").len() >= 10).await;
    audit.close().await;
}
