//! A report as one page for people, in English or Chinese: no script, no font, no image, nothing that is fetched. All
//! that comes from the image or from advisories is escaped.

mod words;

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::Report;
use crate::advisories::{AdvisoryData, Severity, Vulnerability};
use crate::compliance::{Check, Outcome, definition};
use crate::judgement::Judgement;
use crate::rating::{Rating, ReasonKind};
use words::Words;

const STYLE: &str = include_str!("html/style.css");

/// The language of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    English,
    Chinese,
}

/// The page.
pub fn html(report: &Report, language: Language) -> String {
    let words = Words::of(language);
    let mut page = String::new();
    let title = format!("{}: {}", words.report, report.target.name);
    page += &format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        words.code,
        escape(&title),
    );
    head(&mut page, report, &words);
    rating(&mut page, report.rating.as_ref(), &words);
    vulnerabilities(&mut page, report.vulnerabilities.as_deref(), &words);
    compliance(&mut page, report, language, &words);
    packages(&mut page, report, &words);
    problems(&mut page, report, &words);
    page += "</main>\n</body>\n</html>\n";
    page
}

/// Text as it stands between tags and in quoted attributes. Control characters show as such.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(' '),
            // Marks of direction make a name look like another.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                out.push('\u{fffd}')
            }
            c => out.push(c),
        }
    }
    out
}

fn head(page: &mut String, report: &Report, words: &Words) {
    let target = &report.target;
    *page += &format!("<h1>{}</h1>\n<dl>\n", escape(&target.name));
    let mut row = |label: &str, text: &str| {
        *page += &format!("<dt>{label}</dt><dd>{}</dd>\n", escape(text));
    };
    if let Some(digest) = &target.digest {
        row(words.digest, &digest.to_string());
    }
    let system =
        report.operating_system.as_ref().map(|os| if os.name.is_empty() { &os.id } else { &os.name });
    row(words.system, system.map_or(words.none_named, String::as_str));
    row(words.scanned, &report.scanned_at.to_string());
    row(words.data, &data(report.advisory_data.as_ref(), report.scanned_at, words));
    *page += "</dl>\n";
}

fn data(data: Option<&AdvisoryData>, now: Timestamp, words: &Words) -> String {
    let Some(data) = data else { return words.not_compared.to_owned() };
    let newest = data.newest_modified.zip(data.age(now)).map_or(words.unknown_age.to_owned(), |(at, age)| {
        let days = age.as_hours() / 24;
        format!("{} {at} ({days} {})", words.newest, words.days_old)
    });
    format!("{} {}, {newest}; {}", data.advisories, words.advisories, data.source)
}

fn rating(page: &mut String, rating: Option<&Rating>, words: &Words) {
    *page += &format!("<h2>{}</h2>\n", words.rating);
    let Some(rating) = rating else {
        *page += &format!("<p>{}</p>\n", words.not_rated);
        return;
    };
    let grade = rating.grade.as_str();
    *page += &format!(
        "<p><span class=\"grade grade-{grade}\">{grade}</span> {} {}, {} {}, {} {}</p>\n<ul>\n",
        rating.points, words.points, rating.in_grace, words.in_grace, rating.settled, words.settled,
    );
    for reason in &rating.reasons {
        let kind = match reason.kind {
            ReasonKind::Blocker => words.blocker,
            ReasonKind::StaleData => words.data,
            ReasonKind::Vulnerability => words.vulnerability,
            ReasonKind::Check => words.check,
        };
        let (subject, message) = (escape(&reason.subject), escape(&reason.message));
        *page += &format!("<li><b>{kind}</b> {subject} {message} (+{})</li>\n", reason.points);
    }
    *page += "</ul>\n";
    more(page, rating.more, words);
}

fn more(page: &mut String, count: u64, words: &Words) {
    if count > 0 {
        *page += &format!("<p>{count} {}</p>\n", words.more);
    }
}

fn badge(severity: Severity, words: &Words) -> String {
    format!("<span class=\"severity {}\">{}</span>", severity.as_str(), words.severity(severity))
}

fn judged(judgement: Option<&Judgement>, words: &Words) -> String {
    let Some(judgement) = judgement else { return String::new() };
    let until = judgement.expires.map(|at| format!(" ({} {at})", words.until)).unwrap_or_default();
    let (author, reason) = (escape(&judgement.author), escape(&judgement.reason));
    format!("<div class=\"judged\">{} — {author}: {reason}{until}</div>", words.status(judgement.status))
}

fn vulnerabilities(page: &mut String, found: Option<&[Vulnerability]>, words: &Words) {
    *page += &format!("<h2>{}</h2>\n", words.vulnerabilities);
    let Some(found) = found else {
        *page += &format!("<p>{}</p>\n", words.not_compared);
        return;
    };
    if found.is_empty() {
        *page += &format!("<p>{}</p>\n", words.nothing_found);
        return;
    }
    table(
        page,
        &[
            words.severity_label,
            words.score,
            words.vulnerability,
            words.package,
            words.version,
            words.fixed_in,
        ],
    );
    for one in found {
        let score = one.score.map_or("–".to_owned(), |score| format!("{score:.1}"));
        let fixed = one.fixed_version.as_deref().unwrap_or("–");
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{score}</td><td><b>{}</b> {}{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            badge(one.severity, words),
            escape(&one.id),
            escape(&one.summary),
            judged(one.judgement.as_ref(), words),
            escape(&one.package),
            escape(&one.version),
            escape(fixed),
        );
    }
    *page += "</tbody></table>\n";
}

fn table(page: &mut String, header: &[&str]) {
    let cells: String = header.iter().map(|cell| format!("<th>{cell}</th>")).collect();
    *page += &format!("<table><thead><tr>{cells}</tr></thead><tbody>\n");
}

fn compliance(page: &mut String, report: &Report, language: Language, words: &Words) {
    *page += &format!("<h2>{}</h2>\n", words.compliance);
    let Some(compliance) = &report.compliance else {
        *page += &format!("<p>{}</p>\n", words.not_checked);
        return;
    };
    table(page, &[words.result, words.severity_label, words.check, words.evidence]);
    for check in &compliance.checks {
        let (class, result) = match check.outcome {
            Outcome::Passed => ("passed", words.passed),
            Outcome::Failed => ("failed", words.failed),
            Outcome::NotApplicable => ("none", words.not_applicable),
        };
        let _ = writeln!(
            page,
            "<tr><td class=\"{class}\">{result}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            badge(check.severity, words),
            described(check, language, words),
            evidence(check, words),
        );
    }
    *page += "</tbody></table>\n";
}

fn described(check: &Check, language: Language, words: &Words) -> String {
    let (title, remedy) = match (language, definition(&check.id)) {
        (Language::Chinese, Some(known)) => (known.title_zh, known.remedy_zh),
        _ => (check.title.as_str(), check.remedy.as_str()),
    };
    let remedy = match check.outcome {
        Outcome::Failed => format!("<div class=\"remedy\">{}: {}</div>", words.remedy, escape(remedy)),
        _ => String::new(),
    };
    format!(
        "{} <code>{}</code>{remedy}{}",
        escape(title),
        escape(&check.id),
        judged(check.judgement.as_ref(), words)
    )
}

fn evidence(check: &Check, words: &Words) -> String {
    let mut text = String::from("<ul>");
    for one in &check.evidence {
        let path = one.location.as_ref().map(|at| at.path.as_str()).filter(|path| !path.is_empty());
        let path = path.map(|path| format!("<code>{}</code> ", escape(path))).unwrap_or_default();
        text += &format!("<li>{path}{}</li>", escape(&one.message));
    }
    text += "</ul>";
    more(&mut text, check.more, words);
    if check.evidence.is_empty() { String::new() } else { text }
}

fn packages(page: &mut String, report: &Report, words: &Words) {
    *page += &format!("<details><summary>{} ({})</summary>\n", words.packages, report.packages.len());
    table(page, &[words.package, words.version, words.kind, words.path]);
    for found in &report.packages {
        let path = found.locations.first().map_or("", |at| at.path.as_str());
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&found.package.name),
            escape(&found.package.version),
            found.package.kind.as_str(),
            escape(path),
        );
    }
    *page += "</tbody></table>\n</details>\n";
}

fn problems(page: &mut String, report: &Report, words: &Words) {
    if report.problems.is_empty() {
        return;
    }
    *page += &format!("<h2>{}</h2>\n<ul>\n", words.problems);
    for problem in &report.problems {
        *page += &format!(
            "<li><code>{}</code> {}</li>\n",
            escape(&problem.location.path),
            escape(&problem.message)
        );
    }
    *page += "</ul>\n";
}
