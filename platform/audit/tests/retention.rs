//! Old segments go, and the trail says so.

use std::time::Duration;

use gantry_audit::{Config, Retention};
use tempfile::TempDir;

use crate::api::{ask, items};
use crate::support::{check, config, eventually, files, fill, open};

#[tokio::test]
async fn what_expires_leaves_a_tombstone() {
    let directory = TempDir::new().expect("a directory");
    // Every made-up record is older than this.
    let retention = Retention { age_max: Some(Duration::from_secs(60)), bytes_max: None };
    let audit = open(Config { retention, ..config(directory.path()) });
    fill(&audit, 0..1500).await;
    eventually("the first segment goes", || {
        files(directory.path(), "seal")
            .iter()
            .chain(&files(directory.path(), "log"))
            .all(|path| !path.ends_with("000000000001.seal") && !path.ends_with("000000000001.log"))
    })
    .await;
    audit.flush().await.expect("durable");
    let (status, _) = ask(&audit, "auditor", "records/id-0").await;
    assert_eq!(status, 404);
    let (_, newest) = ask(&audit, "auditor", "records?limit=1").await;
    assert_eq!(items(&newest), ["id-1499"]);
    audit.close().await;
    let report = check(directory.path());
    assert!(report.intact && report.removed_through > 0 && report.first_sequence > 1, "{report:?}");

    // Without a tombstone for it, the same is damage.
    let all = files(directory.path(), "seal");
    if let Some(first) = all.first() {
        std::fs::remove_file(first).expect("removed");
        assert!(!check(directory.path()).intact);
    }
}

#[tokio::test]
async fn what_a_quiet_system_recorded_expires_too() {
    let directory = TempDir::new().expect("a directory");
    let retention = Retention { age_max: Some(Duration::from_secs(60)), bytes_max: None };
    let segment_age_max = Duration::from_millis(100);
    let audit = open(Config { retention, segment_age_max, ..config(directory.path()) });
    fill(&audit, 0..5).await;
    eventually("the first segment goes", || {
        ["log", "seal"]
            .iter()
            .flat_map(|extension| files(directory.path(), extension))
            .all(|path| path.file_stem().is_some_and(|stem| stem != "000000000001"))
    })
    .await;
    audit.flush().await.expect("durable");
    assert_eq!(ask(&audit, "auditor", "records/id-0").await.0, 404);
    audit.close().await;
    let report = check(directory.path());
    assert!(report.intact && report.removed_through >= 5, "{report:?}");
}

#[tokio::test]
async fn a_segment_that_was_left_open_is_closed_by_its_age() {
    let directory = TempDir::new().expect("a directory");
    let audit = open(config(directory.path()));
    fill(&audit, 0..5).await;
    audit.close().await;
    assert!(files(directory.path(), "seal").is_empty(), "it has a day");
    let segment_age_max = Duration::from_millis(1);
    let audit = open(Config { segment_age_max, ..config(directory.path()) });
    eventually("it is closed", || files(directory.path(), "seal").len() == 1).await;
    audit.close().await;
    assert!(check(directory.path()).intact);
}

#[tokio::test]
async fn a_bound_in_bytes_holds() {
    let directory = TempDir::new().expect("a directory");
    let bytes_max = 60_000;
    let retention = Retention { age_max: None, bytes_max: Some(bytes_max) };
    let audit = open(Config { retention, ..config(directory.path()) });
    fill(&audit, 0..4000).await;
    let size = |extension: &str| -> u64 {
        files(directory.path(), extension).iter().filter_map(|p| p.metadata().ok()).map(|m| m.len()).sum()
    };
    eventually("the closed segments are few", || {
        files(directory.path(), "log").len() == 1 && size("seal") + size("idx") <= bytes_max
    })
    .await;
    audit.close().await;
    let report = check(directory.path());
    assert!(report.intact && report.removed_through > 0, "{report:?}");
}
