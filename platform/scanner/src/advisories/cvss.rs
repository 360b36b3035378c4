//! Base scores of CVSS 3.0 and 3.1 (first.org, *Specification Document*, section 7.1); 4.0 has a file of its own.
//! Vectors of other versions give no score.

use serde::{Deserialize, Serialize};

/// The specification's qualitative scale, and `Unknown` where nothing says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    #[default]
    Unknown,
    None,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    pub(crate) fn of_score(score: f64) -> Self {
        match score {
            score if score >= 9.0 => Self::Critical,
            score if score >= 7.0 => Self::High,
            score if score >= 4.0 => Self::Medium,
            score if score > 0.0 => Self::Low,
            _ => Self::None,
        }
    }

    /// A word of an advisory: those of GitHub, Debian and Ubuntu.
    pub(crate) fn of_word(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "critical" => Self::Critical,
            "high" | "important" => Self::High,
            "medium" | "moderate" => Self::Medium,
            "low" => Self::Low,
            "negligible" | "unimportant" | "none" => Self::None,
            _ => Self::Unknown,
        }
    }
}

/// The base score of a vector such as `CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H`; none if it is not a complete
/// vector of version 3 or 4.
pub fn base_score(vector: &str) -> Option<f64> {
    if let Some(metrics) = vector.strip_prefix("CVSS:4.0/") {
        return super::cvss4::score(metrics);
    }
    let metrics = vector.strip_prefix("CVSS:3.1/").or_else(|| vector.strip_prefix("CVSS:3.0/"))?;
    let value = |name: &str| {
        let mut found = metrics.split('/').filter_map(|metric| metric.split_once(':'));
        let value = found.find(|(key, _)| *key == name).map(|(_, value)| value);
        (found.all(|(key, _)| key != name)).then_some(value).flatten()
    };
    let changed = match value("S")? {
        "U" => false,
        "C" => true,
        _ => return None,
    };
    let weight = |name: &str, weights: &[(&str, f64)]| {
        let wanted = value(name)?;
        weights.iter().find(|(value, _)| *value == wanted).map(|(_, weight)| *weight)
    };
    let effect = [("H", 0.56), ("L", 0.22), ("N", 0.0)];
    let attack = weight("AV", &[("N", 0.85), ("A", 0.62), ("L", 0.55), ("P", 0.2)])?;
    let complexity = weight("AC", &[("L", 0.77), ("H", 0.44)])?;
    let (low, high) = if changed { (0.68, 0.5) } else { (0.62, 0.27) };
    let privileges = weight("PR", &[("N", 0.85), ("L", low), ("H", high)])?;
    let interaction = weight("UI", &[("N", 0.85), ("R", 0.62)])?;
    let kept = ["C", "I", "A"].map(|name| weight(name, &effect).map(|weight| 1.0 - weight));
    let [confidentiality, integrity, availability] = kept;
    let sub_score = 1.0 - confidentiality? * integrity? * availability?;
    let impact = if changed {
        7.52 * (sub_score - 0.029) - 3.25 * (sub_score - 0.02).powi(15)
    } else {
        6.42 * sub_score
    };
    if impact <= 0.0 {
        return Some(0.0);
    }
    let exploitability = 8.22 * attack * complexity * privileges * interaction;
    let sum = if changed { 1.08 * (impact + exploitability) } else { impact + exploitability };
    Some(round_up(sum.min(10.0)))
}

/// To the next tenth, as appendix A of 3.1 says it, so that floating point makes no difference.
fn round_up(value: f64) -> f64 {
    let scaled = (value * 100_000.0).round();
    if scaled % 10_000.0 == 0.0 { scaled / 100_000.0 } else { ((scaled / 10_000.0).floor() + 1.0) / 10.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scores_are_those_that_were_published() {
        for (vector, score, severity) in [
            ("AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0, Severity::Critical), // CVE-2021-44228
            ("AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", 7.5, Severity::High),      // CVE-2014-0160
            ("AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8, Severity::Critical),  // CVE-2014-6271
            ("AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:H/A:H", 8.1, Severity::High),      // CVE-2024-6387
            ("AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1, Severity::Medium),    // CVE-2020-11022
            ("AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", 3.1, Severity::Low),       // CVE-2014-3566
            ("AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", 7.8, Severity::High),      // CVE-2021-4034
            ("AV:P/AC:H/PR:H/UI:R/S:U/C:N/I:N/A:N", 0.0, Severity::None),
        ] {
            let found = base_score(&format!("CVSS:3.1/{vector}")).expect("a score");
            assert!((found - score).abs() < 1e-9, "{vector}: {found}");
            assert_eq!(Severity::of_score(found), severity);
        }
        for bad in ["", "CVSS:2.0/AV:N", "CVSS:3.1/AV:N", "CVSS:3.1/AV:X/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"] {
            assert_eq!(base_score(bad), None, "{bad}");
        }
        let twice = "CVSS:3.1/AV:N/AV:L/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H";
        assert_eq!(base_score(twice), None);
    }

    proptest! {
        #[test]
        fn any_text_has_a_score_in_range_or_none(text in "(CVSS:(3\\.[01]|4\\.0)/)?([A-Z]{1,2}:[A-Z]/){0,9}.{0,8}") {
            prop_assert!(base_score(&text).is_none_or(|score| (0.0..=10.0).contains(&score)));
        }
    }
}
