//! Scores of CVSS 4.0 (first.org, *Specification Document*, section 8): the metrics put a vector into one of 270
//! equivalence classes, whose scores FIRST has published, and its distance from the worst vector of its class takes
//! it part of the way to the next lower one.

/// Tenths of a point, as published. Rows by EQ1, EQ2, and EQ3 with EQ6 (00, 01, 10, 11, 21); columns by EQ4 and EQ5.
#[rustfmt::skip]
const SCORES: [[u8; 9]; 30] = [
    [100, 98, 95, 100, 93, 91, 93, 89, 81],
    [99, 95, 92, 96, 87, 81, 90, 80, 68],
    [98, 95, 90, 93, 89, 81, 88, 78, 69],
    [95, 92, 84, 92, 81, 65, 80, 70, 48],
    [92, 82, 72, 79, 69, 50, 69, 55, 27],
    [99, 95, 92, 95, 90, 84, 92, 82, 72],
    [97, 92, 85, 91, 83, 71, 81, 71, 53],
    [95, 92, 85, 92, 80, 70, 84, 71, 50],
    [93, 85, 73, 82, 72, 59, 70, 52, 30],
    [86, 75, 52, 71, 52, 29, 63, 29, 17],
    [98, 94, 91, 94, 86, 77, 87, 74, 63],
    [95, 87, 81, 89, 74, 64, 75, 63, 49],
    [94, 88, 76, 86, 74, 59, 72, 57, 52],
    [89, 77, 67, 76, 58, 50, 57, 52, 25],
    [83, 70, 54, 65, 58, 26, 53, 21, 13],
    [95, 88, 76, 90, 75, 61, 77, 68, 52],
    [90, 76, 70, 77, 62, 53, 66, 59, 30],
    [89, 76, 62, 74, 57, 47, 61, 57, 24],
    [78, 67, 58, 59, 57, 23, 52, 29, 16],
    [71, 59, 30, 58, 26, 15, 23, 13, 6],
    [93, 86, 75, 86, 74, 56, 70, 52, 40],
    [87, 72, 58, 74, 61, 34, 54, 40, 22],
    [85, 74, 62, 72, 55, 46, 53, 34, 19],
    [75, 55, 51, 57, 41, 19, 36, 19, 8],
    [64, 51, 20, 47, 21, 11, 24, 9, 4],
    [88, 73, 60, 73, 59, 41, 54, 45, 20],
    [75, 53, 50, 55, 40, 20, 43, 22, 11],
    [75, 58, 40, 61, 48, 20, 46, 17, 8],
    [55, 45, 21, 51, 18, 9, 18, 7, 2],
    [53, 24, 14, 24, 12, 5, 10, 3, 1],
];

/// Metrics and their values, the worst first. A base metric has to be there.
const BASE: &[(&str, &str)] = &[
    ("AV", "NALP"),
    ("AC", "LH"),
    ("AT", "NP"),
    ("PR", "NLH"),
    ("UI", "NPA"),
    ("VC", "HLN"),
    ("VI", "HLN"),
    ("VA", "HLN"),
    ("SC", "HLN"),
    ("SI", "HLN"),
    ("SA", "HLN"),
];
/// What does not change the score has values of its own.
const OTHER: &[(&str, &str)] = &[
    ("E", "XAPU"),
    ("CR", "XHML"),
    ("IR", "XHML"),
    ("AR", "XHML"),
    ("MAV", "XNALP"),
    ("MAC", "XLH"),
    ("MAT", "XNP"),
    ("MPR", "XNLH"),
    ("MUI", "XNPA"),
    ("MVC", "XHLN"),
    ("MVI", "XHLN"),
    ("MVA", "XHLN"),
    ("MSC", "XHLN"),
    ("MSI", "XSHLN"),
    ("MSA", "XSHLN"),
    ("S", "XNP"),
    ("AU", "XNY"),
    ("R", "XAUI"),
    ("V", "XDC"),
    ("RE", "XLMH"),
];

/// The score of what stands behind `CVSS:4.0/`; none if it is not a complete vector.
pub(super) fn score(metrics: &str) -> Option<f64> {
    let vector = Vector::parse(metrics)?;
    let is_harmless = ["VC", "VI", "VA", "SC", "SI", "SA"].iter().all(|metric| vector.value(metric) == b'N');
    Some(if is_harmless { 0.0 } else { vector.score() })
}

struct Vector<'a>(Vec<(&'a str, u8)>);

/// One of the six sets of metrics that are equivalent: its level and how far from its worst vector.
struct Class {
    level: usize,
    /// Steps from the worst vector of the level.
    distance: u32,
    /// Steps from the worst to the best vector of the level.
    depth: u32,
}

impl<'a> Vector<'a> {
    fn parse(metrics: &'a str) -> Option<Self> {
        let mut found: Vec<(&str, u8)> = Vec::new();
        for metric in metrics.split('/') {
            let (name, value) = metric.split_once(':')?;
            let known = BASE.iter().chain(OTHER).find(|(known, _)| *known == name);
            let value = match (known, value.as_bytes()) {
                (Some((_, values)), [value]) if values.as_bytes().contains(value) => *value,
                // The supplier's urgency has words.
                (None, _) if name == "U" && ["X", "Clear", "Green", "Amber", "Red"].contains(&value) => b'X',
                _ => return None,
            };
            if found.iter().any(|(other, _)| *other == name) {
                return None;
            }
            found.push((name, value));
        }
        let is_complete = BASE.iter().all(|(name, _)| found.iter().any(|(known, _)| known == name));
        is_complete.then_some(Self(found))
    }

    fn given(&self, name: &str) -> Option<u8> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
            .filter(|value| *value != b'X')
    }

    /// What counts: the modified metric before the base metric, and the worst where nothing is said.
    fn value(&self, name: &str) -> u8 {
        let modified = OTHER.iter().find(|(known, _)| known.strip_prefix('M') == Some(name));
        let worst = || if name == "E" { b'A' } else { b'H' };
        modified.and_then(|(name, _)| self.given(name)).or_else(|| self.given(name)).unwrap_or_else(worst)
    }

    fn is(&self, name: &str, value: u8) -> bool {
        self.value(name) == value
    }

    /// Steps from the worst value.
    fn step(&self, name: &str, values: &str) -> i32 {
        let value = self.value(name);
        values.bytes().zip(0..).find(|(known, _)| *known == value).map_or(0, |(_, step)| step)
    }

    /// The distance from the first of `worst` that is not better than this vector in any metric.
    fn distance(&self, metrics: &[(&str, &str)], worst: &[&[i32]]) -> u32 {
        let steps: Vec<i32> = metrics.iter().map(|(name, values)| self.step(name, values)).collect();
        let from = |worst: &&[i32]| -> Option<u32> {
            steps.iter().zip(worst.iter()).map(|(step, worst)| u32::try_from(step - worst).ok()).sum()
        };
        worst.iter().find_map(from).unwrap_or_default()
    }

    fn eq1(&self) -> Class {
        let good = [self.is("AV", b'N'), self.is("PR", b'N'), self.is("UI", b'N')];
        let level = match good {
            [true, true, true] => 0,
            _ if good.contains(&true) && !self.is("AV", b'P') => 1,
            _ => 2,
        };
        let worst: [&[&[i32]]; 3] =
            [&[&[0, 0, 0]], &[&[1, 0, 0], &[0, 1, 0], &[0, 0, 1]], &[&[3, 0, 0], &[1, 1, 1]]];
        let distance = self.distance(&[("AV", "NALP"), ("PR", "NLH"), ("UI", "NPA")], worst[level]);
        Class { level, distance, depth: [1, 4, 5][level] }
    }

    fn eq2(&self) -> Class {
        let level = usize::from(!(self.is("AC", b'L') && self.is("AT", b'N')));
        let worst: [&[&[i32]]; 2] = [&[&[0, 0]], &[&[1, 0], &[0, 1]]];
        let distance = self.distance(&[("AC", "LH"), ("AT", "NP")], worst[level]);
        Class { level, distance, depth: [1, 2][level] }
    }

    /// EQ3 and EQ6 depend on each other: 00, 01, 10, 11, 21.
    fn eq3_and_6(&self) -> Class {
        let (c, i, a) = (self.is("VC", b'H'), self.is("VI", b'H'), self.is("VA", b'H'));
        let required = (c && self.is("CR", b'H')) || (i && self.is("IR", b'H')) || (a && self.is("AR", b'H'));
        let level = match (c && i, c || i || a) {
            (true, _) => usize::from(!required),
            (false, true) => 2 + usize::from(!required),
            (false, false) => 4,
        };
        let worst: [&[&[i32]]; 5] = [
            &[&[0, 0, 0, 0, 0, 0]],
            &[&[0, 0, 1, 1, 1, 0], &[0, 0, 0, 1, 1, 1]],
            &[&[1, 0, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 0]],
            &[
                &[1, 0, 1, 0, 1, 0],
                &[1, 0, 0, 0, 1, 1],
                &[0, 1, 0, 1, 0, 1],
                &[0, 1, 1, 1, 0, 0],
                &[1, 1, 0, 0, 0, 1],
            ],
            &[&[1, 1, 1, 0, 0, 0]],
        ];
        let metrics =
            [("VC", "HLN"), ("VI", "HLN"), ("VA", "HLN"), ("CR", "HML"), ("IR", "HML"), ("AR", "HML")];
        Class { level, distance: self.distance(&metrics, worst[level]), depth: [7, 6, 8, 8, 10][level] }
    }

    fn eq4(&self) -> Class {
        let is_safety = self.given("MSI") == Some(b'S') || self.given("MSA") == Some(b'S');
        let is_high = self.is("SC", b'H') || self.is("SI", b'H') || self.is("SA", b'H');
        let level = match (is_safety, is_high) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        };
        let worst: [&[&[i32]]; 3] = [&[&[1, 0, 0]], &[&[1, 1, 1]], &[&[2, 2, 2]]];
        let distance = self.distance(&[("SC", "SHLN"), ("SI", "SHLN"), ("SA", "SHLN")], worst[level]);
        Class { level, distance, depth: [6, 5, 4][level] }
    }

    fn score(&self) -> f64 {
        let (one, two, three, four) = (self.eq1(), self.eq2(), self.eq3_and_6(), self.eq4());
        let five = match self.value("E") {
            b'A' => 0,
            b'P' => 1,
            _ => 2,
        };
        let at = |one: usize, two: usize, three: usize, four: usize, five: usize| -> Option<u8> {
            let exists = one < 3 && two < 2 && three < 5 && four < 3 && five < 3;
            exists.then(|| SCORES[(one * 2 + two) * 5 + three][four * 3 + five])
        };
        let (l1, l2, l3, l4) = (one.level, two.level, three.level, four.level);
        let own = at(l1, l2, l3, l4, five).unwrap_or_default();
        // From 00 there are two ways down; the one to the higher score counts.
        let below_three: &[usize] = [&[1, 2][..], &[3], &[3], &[4], &[]][l3];
        let below = [
            (at(l1 + 1, l2, l3, l4, five), one.distance, one.depth),
            (at(l1, l2 + 1, l3, l4, five), two.distance, two.depth),
            (
                below_three.iter().filter_map(|l3| at(l1, l2, *l3, l4, five)).max(),
                three.distance,
                three.depth,
            ),
            (at(l1, l2, l3, l4 + 1, five), four.distance, four.depth),
            (at(l1, l2, l3, l4, five + 1), 0, 1),
        ];
        let parts: Vec<f64> = below
            .into_iter()
            .filter_map(|(lower, distance, depth)| {
                let available = f64::from(own) - f64::from(lower?);
                Some(available * f64::from(distance) / f64::from(depth))
            })
            .collect();
        let mean = if parts.is_empty() { 0.0 } else { parts.iter().sum::<f64>() / parts.len() as f64 };
        // The small addend keeps a half that floating point made smaller a half.
        ((f64::from(own) - mean + 1e-6).round() / 10.0).clamp(0.0, 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_that_others_compute() {
        for (vector, want) in [
            ("AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H", 10.0),
            ("AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", 9.3),
            ("AV:P/AC:H/AT:P/PR:H/UI:A/VC:N/VI:N/VA:N/SC:N/SI:N/SA:N", 0.0),
            (
                "AV:A/AC:H/AT:N/PR:H/UI:P/VC:L/VI:H/VA:H/SC:H/SI:H/SA:L/CR:X/IR:M/AR:H/MAC:X/MVC:L/MVI:L/MVA:L/MSA:L",
                2.3,
            ),
            ("AV:L/AC:L/AT:P/PR:N/UI:P/VC:N/VI:N/VA:L/SC:N/SI:H/SA:L", 4.5),
            (
                "AV:A/AC:H/AT:P/PR:N/UI:P/VC:L/VI:N/VA:N/SC:L/SI:N/SA:N/E:P/CR:X/AR:H/MAV:N/MAC:X/MAT:P/MPR:L/MVI:L/MVA:H",
                5.3,
            ),
            ("AV:N/AC:H/AT:N/PR:L/UI:P/VC:H/VI:L/VA:L/SC:N/SI:H/SA:L", 7.1),
            (
                "AV:N/AC:H/AT:N/PR:L/UI:N/VC:H/VI:N/VA:L/SC:L/SI:N/SA:H/CR:L/AR:L/MAV:L/MPR:L/MUI:N/MVA:L/MSC:L",
                5.7,
            ),
            ("AV:P/AC:L/AT:P/PR:L/UI:N/VC:L/VI:H/VA:N/SC:H/SI:L/SA:L", 5.8),
            ("AV:A/AC:H/AT:N/PR:N/UI:A/VC:N/VI:L/VA:N/SC:L/SI:N/SA:L/CR:X/IR:H/AR:M/MAV:L/MUI:P/MSA:N", 2.0),
            ("AV:N/AC:H/AT:P/PR:H/UI:N/VC:H/VI:L/VA:H/SC:N/SI:H/SA:L", 7.1),
            (
                "AV:P/AC:H/AT:P/PR:N/UI:A/VC:H/VI:N/VA:L/SC:L/SI:L/SA:H/CR:H/IR:H/AR:M/MAV:X/MAT:N/MPR:X/MVA:H/MSI:S",
                7.2,
            ),
            ("AV:N/AC:L/AT:P/PR:H/UI:P/VC:N/VI:L/VA:N/SC:L/SI:N/SA:N", 2.0),
            ("AV:N/AC:L/AT:P/PR:H/UI:N/VC:L/VI:N/VA:L/SC:L/SI:H/SA:L/MAV:A/MPR:H/MVI:X/MVA:N", 4.8),
            ("AV:L/AC:H/AT:N/PR:L/UI:A/VC:H/VI:L/VA:L/SC:H/SI:N/SA:L", 5.8),
            (
                "AV:P/AC:L/AT:N/PR:H/UI:N/VC:L/VI:N/VA:L/SC:N/SI:L/SA:H/MAC:X/MAT:X/MUI:P/MVC:H/MVI:X/MVA:L/MSC:L/MSI:H",
                7.0,
            ),
            ("AV:A/AC:L/AT:P/PR:N/UI:A/VC:N/VI:H/VA:N/SC:L/SI:N/SA:H", 6.9),
            ("AV:P/AC:L/AT:P/PR:H/UI:N/VC:L/VI:H/VA:H/SC:H/SI:H/SA:N/CR:X/MAV:L/MVC:H/MSC:L/MSI:L", 7.1),
            ("AV:N/AC:L/AT:P/PR:H/UI:A/VC:N/VI:L/VA:L/SC:N/SI:L/SA:H", 4.3),
            ("AV:A/AC:L/AT:P/PR:H/UI:N/VC:N/VI:L/VA:H/SC:N/SI:N/SA:H/E:A/AR:X/MAV:N/MAC:X/MVC:N/MSC:N", 7.0),
            ("AV:L/AC:H/AT:N/PR:H/UI:A/VC:L/VI:L/VA:H/SC:H/SI:H/SA:L", 6.0),
            ("AV:A/AC:H/AT:N/PR:N/UI:A/VC:H/VI:N/VA:H/SC:L/SI:N/SA:H/IR:M/AR:H/MAV:N/MAT:N/MPR:N/MVC:H", 7.0),
            ("AV:L/AC:L/AT:P/PR:H/UI:P/VC:N/VI:N/VA:L/SC:H/SI:H/SA:H", 2.4),
            (
                "AV:L/AC:H/AT:P/PR:H/UI:P/VC:H/VI:H/VA:H/SC:H/SI:L/SA:H/E:P/IR:M/AR:X/MAC:L/MAT:P/MPR:X/MUI:P/MSI:H",
                5.8,
            ),
            ("AV:P/AC:L/AT:N/PR:L/UI:A/VC:L/VI:L/VA:L/SC:H/SI:L/SA:N", 4.2),
            ("AV:N/AC:L/AT:P/PR:L/UI:N/VC:N/VI:H/VA:N/SC:H/SI:H/SA:H/CR:M/AR:M/MUI:P/MVI:H/MVA:H/MSA:N", 7.0),
            ("AV:A/AC:L/AT:N/PR:H/UI:A/VC:H/VI:N/VA:H/SC:N/SI:L/SA:H", 6.9),
        ] {
            let found = score(vector).expect("a score");
            assert!((found - want).abs() < 1e-9, "{vector}: {found}, not {want}");
        }
        for bad in [
            "",
            "AV:N",
            "AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H",
            "AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:S",
            "AV:N/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H",
            "AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H/",
            "AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H/XX:N",
        ] {
            assert_eq!(score(bad), None, "{bad}");
        }
    }
}
