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
