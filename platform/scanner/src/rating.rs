//! A to F: how a report stands to the operator's policy. A pure function of both and the time.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Report;
use crate::advisories::{Severity, Vulnerability};
use crate::compliance::{self, Check};
use crate::judgement::Judgement;

const DOCUMENT_MAX_BYTES: usize = 1 << 20;
const BLOCKERS_MAX: usize = 1000;
/// What a rating names at most; points count all.
const REASONS_MAX: usize = 50;
const DAYS_MAX: u32 = 3650;
const HOURS_PER_DAY: i64 = 24;

/// The best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Grade {
    A,
    B,
    C,
    D,
    E,
    F,
}

impl Grade {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            Self::E => "E",
            Self::F => "F",
        }
    }
}

/// The operator's document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RatingPolicy {
    /// Points of each open vulnerability and each failed check.
    pub weights: BySeverity,
    /// The most points of each grade; more than `e` is F.
    pub grades: Grades,
    /// What makes it F by itself.
    pub blockers: Vec<Blocker>,
    /// For so long after it became known a vulnerability costs nothing, blockers included.
    pub grace_period_days: BySeverity,
    /// Older advisory data cannot tell that an image is good.
    pub data_age_max_days: u32,
    /// The best grade with data that is too old.
    pub stale_grade: Grade,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BySeverity {
    pub critical: u32,
    pub high: u32,
    pub medium: u32,
    pub low: u32,
    pub none: u32,
    pub unknown: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grades {
    pub a: u32,
    pub b: u32,
    pub c: u32,
    pub d: u32,
    pub e: u32,
}

/// All that is set has to be true of a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Blocker {
    /// Vulnerabilities of this severity or worse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Those that a newer version mends, or does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix_available: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vulnerability: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

/// Why a policy is not taken.
#[derive(Debug, thiserror::Error)]
#[error("the rating policy is not valid: {0}")]
pub struct PolicyError(String);

impl Default for RatingPolicy {
    fn default() -> Self {
        let check = |id: &str| Blocker { check: Some(id.to_owned()), ..Blocker::default() };
        let critical =
            Blocker { severity: Some(Severity::Critical), fix_available: Some(true), ..Blocker::default() };
        Self {
            weights: BySeverity { critical: 40, high: 10, medium: 3, low: 1, none: 0, unknown: 2 },
            grades: Grades { a: 5, b: 25, c: 75, d: 200, e: 500 },
            blockers: vec![
                critical,
                check("malware"),
                check("secret-in-file"),
                check("secret-in-environment"),
            ],
            grace_period_days: BySeverity { critical: 2, high: 7, medium: 30, low: 90, none: 0, unknown: 30 },
            data_age_max_days: 7,
            stale_grade: Grade::C,
        }
    }
}

impl BySeverity {
    fn of(self, severity: Severity) -> u32 {
        match severity {
            Severity::Critical => self.critical,
            Severity::High => self.high,
            Severity::Medium => self.medium,
            Severity::Low => self.low,
            Severity::None => self.none,
            Severity::Unknown => self.unknown,
        }
    }

    fn all(self) -> [u32; 6] {
        [self.critical, self.high, self.medium, self.low, self.none, self.unknown]
    }
}

impl RatingPolicy {
    /// Reads YAML or JSON; what is left out is as in the default policy.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > DOCUMENT_MAX_BYTES {
            return Err(PolicyError(format!("it has more than {DOCUMENT_MAX_BYTES} bytes")));
        }
        let policy: Self = serde_saphyr::from_str(text).map_err(|error| PolicyError(error.to_string()))?;
        policy.validate().map_err(PolicyError)?;
        Ok(policy)
    }

    fn validate(&self) -> Result<(), String> {
        let Grades { a, b, c, d, e } = self.grades;
        if ![a, b, c, d, e].is_sorted() {
            return Err("grades: each grade allows at least as many points as the one before".to_owned());
        }
        if self.grace_period_days.all().iter().chain([&self.data_age_max_days]).any(|days| *days > DAYS_MAX) {
            return Err(format!("gracePeriodDays, dataAgeMaxDays: at most {DAYS_MAX} days"));
        }
        if self.blockers.len() > BLOCKERS_MAX {
            return Err(format!("blockers: there are more than {BLOCKERS_MAX}"));
        }
        for (n, blocker) in self.blockers.iter().enumerate() {
            blocker.validate().map_err(|why| format!("blockers[{n}]: {why}"))?;
        }
        Ok(())
    }
}

impl Blocker {
    fn validate(&self) -> Result<(), String> {
        let of_vulnerability =
            self.severity.is_some() || self.fix_available.is_some() || self.vulnerability.is_some();
        match &self.check {
            None if !of_vulnerability => Err("it names nothing, and so would block everything".to_owned()),
            Some(_) if of_vulnerability => Err("check stands alone".to_owned()),
            Some(id) if compliance::definition(id).is_none() => {
                let known: Vec<&str> = compliance::CHECKS.iter().map(|check| check.id).collect();
                Err(format!("there is no check {id:?}, but: {}", known.join(", ")))
            }
            _ => Ok(()),
        }
    }

    fn blocks(&self, found: &Vulnerability) -> bool {
        let Self { severity, fix_available, vulnerability, check } = self;
        check.is_none()
            && severity.is_none_or(|least| found.severity >= least)
            && fix_available.is_none_or(|wanted| found.fixed_version.is_some() == wanted)
            && vulnerability.as_ref().is_none_or(|id| *id == found.id || found.aliases.contains(id))
    }
}

/// How a report stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rating {
    pub grade: Grade,
    pub points: u64,
    /// What costs most first.
    pub reasons: Vec<Reason>,
    /// How many reasons are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    /// Vulnerabilities that cost nothing yet.
    pub in_grace: u64,
    /// Findings that somebody has settled.
    pub settled: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub kind: ReasonKind,
    /// A vulnerability or a check; nothing for data.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    pub points: u64,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReasonKind {
    Blocker,
    StaleData,
    Vulnerability,
    Check,
}

/// Rates `report`. None if it was not compared with advisories, or not checked: nothing can be said then.
pub fn rate(report: &Report, policy: &RatingPolicy, now: Timestamp) -> Option<Rating> {
    let (vulnerabilities, compliance) = (report.vulnerabilities.as_ref()?, report.compliance.as_ref()?);
    let mut reasons = Vec::new();
    let (mut in_grace, mut settled) = (0, 0);
    for found in distinct(vulnerabilities) {
        let days = i64::from(policy.grace_period_days.of(found.severity));
        let known_for = found.published.map(|published| now.duration_since(published));
        if found.judgement.as_ref().is_some_and(Judgement::settles) {
            settled += 1;
        } else if known_for.is_some_and(|age| age < SignedDuration::from_hours(days * HOURS_PER_DAY)) {
            in_grace += 1;
        } else {
            reasons.push(of_vulnerability(found, policy));
        }
    }
    for check in &compliance.checks {
        if check.is_open() {
            reasons.push(of_check(check, policy));
        } else if check.judgement.as_ref().is_some_and(Judgement::settles) {
            settled += 1;
        }
    }
    let points = reasons.iter().map(|reason| reason.points).sum();
    let mut grade = by_points(points, policy.grades);
    if let Some(message) = stale(report, policy, now) {
        grade = grade.max(policy.stale_grade);
        reasons.push(Reason { kind: ReasonKind::StaleData, subject: String::new(), points: 0, message });
    }
    if reasons.iter().any(|reason| reason.kind == ReasonKind::Blocker) {
        grade = Grade::F;
    }
    let rank = |kind| matches!(kind, ReasonKind::Vulnerability | ReasonKind::Check);
    reasons.sort_by(|a, b| (rank(a.kind), b.points, &a.subject).cmp(&(rank(b.kind), a.points, &b.subject)));
    let more = reasons.len().saturating_sub(REASONS_MAX) as u64;
    reasons.truncate(REASONS_MAX);
    Some(Rating { grade, points, reasons, more, in_grace, settled })
}

/// A vulnerability that several packages of one source have counts once, by what is open and worst.
fn distinct(all: &[Vulnerability]) -> impl Iterator<Item = &Vulnerability> {
    let mut by_id: BTreeMap<&str, &Vulnerability> = BTreeMap::new();
    let rank = |v: &Vulnerability| {
        (!v.judgement.as_ref().is_some_and(Judgement::settles), v.severity, v.fixed_version.is_some())
    };
    for found in all {
        let known = by_id.entry(found.id.as_str()).or_insert(found);
        if rank(found) > rank(known) {
            *known = found;
        }
    }
    by_id.into_values()
}

fn of_vulnerability(found: &Vulnerability, policy: &RatingPolicy) -> Reason {
    let blocks = policy.blockers.iter().any(|blocker| blocker.blocks(found));
    let mends =
        found.fixed_version.as_ref().map(|version| format!(", mended in {version}")).unwrap_or_default();
    Reason {
        kind: if blocks { ReasonKind::Blocker } else { ReasonKind::Vulnerability },
        subject: found.id.clone(),
        points: policy.weights.of(found.severity).into(),
        message: format!("{} in {} {}{mends}", found.severity.as_str(), found.package, found.version),
    }
}

fn of_check(check: &Check, policy: &RatingPolicy) -> Reason {
    let blocks = policy.blockers.iter().any(|blocker| blocker.check.as_deref() == Some(check.id.as_str()));
    Reason {
        kind: if blocks { ReasonKind::Blocker } else { ReasonKind::Check },
        subject: check.id.clone(),
        points: policy.weights.of(check.severity).into(),
        message: format!("not so: {}", check.title),
    }
}

fn by_points(points: u64, grades: Grades) -> Grade {
    let most = [
        (grades.a, Grade::A),
        (grades.b, Grade::B),
        (grades.c, Grade::C),
        (grades.d, Grade::D),
        (grades.e, Grade::E),
    ];
    most.into_iter().find(|(most, _)| points <= u64::from(*most)).map_or(Grade::F, |(_, grade)| grade)
}

/// Why the data cannot tell, if it cannot.
fn stale(report: &Report, policy: &RatingPolicy, now: Timestamp) -> Option<String> {
    let age = report.advisory_data.as_ref().and_then(|data| data.age(now));
    let Some(age) = age else { return Some("the age of the advisory data is not known".to_owned()) };
    let most = policy.data_age_max_days;
    let days = age.as_hours() / HOURS_PER_DAY;
    (age > SignedDuration::from_hours(i64::from(most) * HOURS_PER_DAY)).then(|| {
        format!("the advisory data is {days} days old, {most} are allowed: `gantry advisories update`")
    })
}
