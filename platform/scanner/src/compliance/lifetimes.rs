//! Until when distributions mend what is found in their releases.

use jiff::Timestamp;

use crate::package::OperatingSystem;

/// `ID` and release of os-release, and the last day of security updates that need no contract, as the distributions
/// publish them. Those of Debian and Ubuntu stand in the package `distro-info-data` of November 2026.
const LIFETIMES: &[(&str, &str, &str)] = &[
    ("debian", "8", "2020-06-30"),
    ("debian", "9", "2022-06-30"),
    ("debian", "10", "2024-06-30"),
    ("debian", "11", "2026-08-31"),
    ("debian", "12", "2028-06-30"),
    ("debian", "13", "2030-06-30"),
    ("ubuntu", "16.04", "2021-04-30"),
    ("ubuntu", "18.04", "2023-05-31"),
    ("ubuntu", "20.04", "2025-05-29"),
    ("ubuntu", "22.04", "2027-06-01"),
    ("ubuntu", "24.04", "2029-05-31"),
    ("ubuntu", "24.10", "2025-07-10"),
    ("ubuntu", "25.04", "2026-01-15"),
    ("ubuntu", "25.10", "2026-07-09"),
    ("ubuntu", "26.04", "2031-05-29"),
    ("alpine", "3.14", "2023-05-01"),
    ("alpine", "3.15", "2023-11-01"),
    ("alpine", "3.16", "2024-05-23"),
    ("alpine", "3.17", "2024-11-22"),
    ("alpine", "3.18", "2025-05-09"),
    ("alpine", "3.19", "2025-11-01"),
    ("alpine", "3.20", "2026-04-01"),
    ("alpine", "3.21", "2026-11-01"),
    ("alpine", "3.22", "2027-05-01"),
    ("centos", "7", "2024-06-30"),
    ("centos", "8", "2021-12-31"),
    ("rhel", "7", "2024-06-30"),
    ("rhel", "8", "2029-05-31"),
    ("rhel", "9", "2032-05-31"),
    ("rocky", "8", "2029-05-31"),
    ("rocky", "9", "2032-05-31"),
    ("almalinux", "8", "2029-03-01"),
    ("almalinux", "9", "2032-05-31"),
];

pub(super) struct Lifetime {
    name: String,
    last_day: &'static str,
}

/// The lifetime of a release; none if it is not known.
pub(super) fn of(system: &OperatingSystem) -> Option<Lifetime> {
    let version = system.version_id.as_str();
    let is_ours = |release: &str| {
        version.strip_prefix(release).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let (id, release, last_day) =
        LIFETIMES.iter().find(|(id, release, _)| *id == system.id && is_ours(release))?;
    Some(Lifetime { name: format!("{id} {release}"), last_day })
}

impl Lifetime {
    pub(super) fn ended(&self, now: Timestamp) -> Option<String> {
        // The day ends everywhere before the next one is over in UTC.
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
        (today.as_str() > self.last_day)
            .then(|| format!("{} has had no security updates since {}", self.name, self.last_day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_end_behind_their_last_day() {
        for (id, version, day, want) in [
            ("debian", "12", "2028-06-30", Some(false)),
            ("debian", "12.5", "2028-07-01", Some(true)),
            ("alpine", "3.19.1", "2025-11-02", Some(true)),
            ("alpine", "3.2", "2025-11-02", None),
            ("debian", "", "2025-11-02", None),
            ("arch", "1", "2025-11-02", None),
        ] {
            let system =
                OperatingSystem { id: id.into(), version_id: version.into(), ..OperatingSystem::default() };
            let now: Timestamp = format!("{day}T12:00:00Z").parse().expect("a time");
            assert_eq!(of(&system).map(|of| of.ended(now).is_some()), want, "{id} {version} {day}");
        }
        for (.., day) in LIFETIMES {
            assert!(format!("{day}T00:00:00Z").parse::<Timestamp>().is_ok(), "{day}");
        }
    }
}
