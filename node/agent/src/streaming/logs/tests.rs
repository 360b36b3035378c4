use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::api::ContainerRecord;

fn record(status: serde_json::Value, containers: Vec<ContainerRecord>) -> PodRecord {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]},
        "status": status,
    });
    PodRecord {
        pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
        uid: "u".into(),
        sandbox_id: None,
        ips: Vec::new(),
        containers,
        cgroup: String::new(),
    }
}

fn container(running: bool, started_at_ns: i64, previous: Option<(String, PathBuf)>) -> ContainerRecord {
    ContainerRecord {
        name: "c".into(),
        id: "id1".into(),
        attempt: 1,
        running,
        log_path: "/nonexistent/1.log".into(),
        previous,
        started_at_ns,
    }
}

fn waiting(reason: &str) -> serde_json::Value {
    json!({"containerStatuses": [
        {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}}
    ]})
}

#[test]
fn the_run_is_chosen_or_refused_in_known_words() {
    let before = || Some(("id0".to_owned(), PathBuf::from("/l/0.log")));
    let said = |record: PodRecord, name: &str, previous| match choose(&record, "p", name, previous) {
        Ok(log) => format!("{} {}", log.container_id, log.running),
        Err(failure) => failure.to_string(),
    };
    assert_eq!(said(record(json!({}), vec![container(true, 1, None)]), "c", false), "id1 true");
    assert_eq!(said(record(json!({}), vec![container(false, 1, before())]), "c", false), "id1 false");
    assert_eq!(said(record(json!({}), vec![container(false, 0, before())]), "c", false), "id0 false");
    assert_eq!(said(record(json!({}), vec![container(true, 1, before())]), "c", true), "id0 false");
    for (status, name, previous, want) in [
        (json!({}), "c", true, r#"previous terminated container "c" in pod "p" not found"#),
        (json!({}), "c", false, r#"container "c" in pod "p" is waiting to start: PodInitializing"#),
        (json!({}), "i", false, r#"container "i" in pod "p" is waiting to start: ContainerCreating"#),
        (
            waiting("ContainerCreating"),
            "c",
            false,
            r#"container "c" in pod "p" is waiting to start: ContainerCreating"#,
        ),
        (
            waiting("ImagePullBackOff"),
            "c",
            false,
            r#"container "c" in pod "p" is waiting to start: trying and failing to pull image"#,
        ),
        (
            waiting("ErrImagePull"),
            "c",
            false,
            r#"container "c" in pod "p" is waiting to start: image can't be pulled"#,
        ),
    ] {
        assert_eq!(said(record(status, vec![]), name, previous), want);
    }
}

#[test]
fn options_are_read_and_nonsense_is_refused() {
    let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
    let parse = |text: &str| {
        let pairs: Vec<(String, String)> = text
            .split('&')
            .filter_map(|p| p.split_once('='))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect();
        Options::parse(&pairs, now)
    };
    let options =
        parse("follow=true&tailLines=5&limitBytes=9&sinceSeconds=60&stream=Stderr&timestamps=1&x=y");
    let options = options.expect("valid");
    assert!(options.follow && !options.previous && options.filter.timestamps);
    assert_eq!((options.tail, options.limit, options.filter.only), (Some(5), Some(9), Some(Source::Stderr)));
    assert_eq!(options.filter.since, "2026-01-01T00:00:00Z".parse().ok());
    for bad in ["tailLines=-1", "limitBytes=0", "sinceSeconds=0", "sinceTime=now", "stream=x", "follow=yes"] {
        let failure = parse(bad).expect_err(bad);
        assert_eq!(failure.status, http::StatusCode::BAD_REQUEST, "{bad}");
    }
}
