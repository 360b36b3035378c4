//! What an object says of its repository.

use gantry_registry_api::RepositoryStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::scans::RepositoryGrades;
use crate::store::Contents;

/// The status of a repository that holds `contents`.
pub(crate) fn status(owner: String, contents: &Contents, grades: RepositoryGrades) -> RepositoryStatus {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    RepositoryStatus {
        owner,
        tags: count(contents.tags),
        manifests: count(contents.manifests),
        size_bytes: i64::try_from(contents.size_bytes).unwrap_or(i64::MAX),
        size: bytes(contents.size_bytes),
        worst_grade: grades.worst,
        latest_grade: grades.latest,
        // Whole seconds: that is what the API keeps.
        last_push: contents
            .pushed
            .and_then(|at| jiff::Timestamp::try_from(at).ok())
            .and_then(|at| jiff::Timestamp::from_second(at.as_second()).ok())
            .map(Time),
        conditions: Vec::new(),
    }
}

/// `12.3 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // For people: a rounding error of the last digit does not matter.
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (count, want) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (12_900_000, "12.3 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(count), want, "{count}");
        }
    }
}
