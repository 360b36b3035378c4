//! The keys and values of the table. `p`: what one document says of one package; `d`: a document, so that it is not
//! read again while it stays the same; `q`: a package that changed with a generation.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::codec::{Input, put_bytes, put_number};
use crate::advisories::osv::{Advisory, Affected, Event, Range, Score, Words};
use crate::advisories::{PackageKey, ecosystem, matching};
use crate::{Kind, versions};

/// Names a document of a source: the first half of a SHA-256.
pub(super) type DocumentKey = [u8; DOCUMENT_KEY_BYTES];
pub(super) const DOCUMENT_KEY_BYTES: usize = 16;

/// Longer summaries are cut; the advisory itself has the rest.
const SUMMARY_MAX_CHARS: usize = 300;

/// What is known of a document without reading it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document {
    pub source: u32,
    pub token: u64,
    pub readable: bool,
    pub modified: Option<Timestamp>,
}

impl Document {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, self.source.into());
        out.extend(self.token.to_le_bytes());
        out.push(u8::from(self.readable));
        if let Some(modified) = self.modified {
            out.extend(modified.as_millisecond().to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let source = u32::try_from(input.number()?).ok()?;
        let token = u64::from_le_bytes(input.fixed()?);
        let readable = input.fixed::<1>()? == [1];
        let modified = input.fixed().map(i64::from_le_bytes);
        let modified = modified.and_then(|at| Timestamp::from_millisecond(at).ok());
        Some(Self { source, token, readable, modified })
    }
}

pub(super) fn document_key(key: &DocumentKey) -> Vec<u8> {
    [&b"d"[..], key].concat()
}

/// The document at the end of a key of `p` or `d`.
pub(super) fn document_of(key: &[u8]) -> Option<&DocumentKey> {
    matches!(key.first(), Some(b'p' | b'd')).then(|| key.last_chunk()).flatten()
}

/// All that is said of one package, whatever the release.
pub(super) fn package_prefix(ecosystem: &str, name: &str) -> Vec<u8> {
    [b"p", ecosystem.as_bytes(), b"\0", name.as_bytes(), b"\0"].concat()
}

/// The package of a key of `p`, and the release.
pub(super) fn package_of(key: &[u8]) -> Option<(&str, &str, &str)> {
    let middle = key.get(1..key.len().checked_sub(1 + size_of::<DocumentKey>())?)?;
    let mut parts = std::str::from_utf8(middle).ok()?.split('\0');
    Some((parts.next()?, parts.next()?, parts.next()?))
}

pub(super) fn change_key(generation: u64, package: &PackageKey) -> Vec<u8> {
    let parts = [package.ecosystem.as_bytes(), b"\0", package.name.as_bytes()].concat();
    [&b"q"[..], &generation.to_be_bytes(), &parts].concat()
}

pub(super) fn change_of(key: &[u8]) -> Option<(u64, PackageKey)> {
    let (generation, rest) = key.get(1..)?.split_first_chunk()?;
    let (ecosystem, name) = std::str::from_utf8(rest).ok()?.split_once('\0')?;
    Some((u64::from_be_bytes(*generation), PackageKey { ecosystem: ecosystem.into(), name: name.into() }))
}

/// What a hit says beyond versions.
#[derive(Serialize, Deserialize)]
struct Meta<'a> {
    #[serde(rename = "i", borrow)]
    id: std::borrow::Cow<'a, str>,
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<String>,
    #[serde(rename = "u", default, skip_serializing_if = "Vec::is_empty")]
    upstream: Vec<String>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    #[serde(rename = "v", default, skip_serializing_if = "Vec::is_empty")]
    severity: Vec<(String, String)>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    published: Option<Timestamp>,
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    word: Option<String>,
}

/// The entries of one advisory: key and value for every package that it names.
pub(super) fn postings(advisory: &Advisory, document: &DocumentKey) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut by_key: std::collections::BTreeMap<Vec<u8>, Vec<u8>> = std::collections::BTreeMap::new();
    if advisory.withdrawn.is_some() {
        return Vec::new();
    }
    let scores = |all: &[Score]| all.iter().map(|s| (s.kind.clone(), s.score.clone())).collect::<Vec<_>>();
    let summary = advisory.summary.as_ref().map(|text| text.chars().take(SUMMARY_MAX_CHARS).collect());
    let meta = Meta {
        id: advisory.id.as_str().into(),
        aliases: advisory.aliases.clone(),
        upstream: advisory.upstream.clone(),
        summary,
        severity: scores(&advisory.severity),
        published: advisory.published,
        word: advisory.database_specific.severity.clone(),
    };
    // Texts and lists of texts have a form in JSON.
    let meta = serde_json::to_vec(&meta).unwrap_or_default();
    for affected in &advisory.affected {
        let Some(package) = &affected.package else { continue };
        let (base, release) = ecosystem::split(&package.ecosystem);
        // No package is ever found of an ecosystem that is not known, nor one with such a name.
        let Some(kind) = ecosystem::kind(base) else { continue };
        if [&package.name, &package.ecosystem].into_iter().any(|text| text.contains('\0')) {
            continue;
        }
        let name = ecosystem::name(kind, &package.name);
        let mut key = package_prefix(base, &name);
        key.extend_from_slice(release.as_bytes());
        key.push(0);
        key.extend_from_slice(document);
        let value = by_key.entry(key).or_insert_with(|| {
            let mut value = Vec::new();
            put_bytes(&mut value, &meta);
            value
        });
        put_affected(value, kind, affected);
    }
    by_key.into_iter().collect()
}

fn put_affected(out: &mut Vec<u8>, kind: Kind, affected: &Affected) {
    let ordered: Vec<&Range> = affected.ranges.iter().filter(|range| matching::is_ordered(range)).collect();
    put_number(out, ordered.len() as u64);
    for range in &ordered {
        let events: Vec<(u64, &str)> = range.events.iter().filter_map(event).collect();
        put_number(out, events.len() as u64);
        for (tag, at) in events {
            put_number(out, tag);
            put_bytes(out, at.as_bytes());
        }
    }
    // Lists mostly repeat what the ranges say, and are most of the data.
    let mut listed: Vec<&String> = affected
        .versions
        .iter()
        .filter(|v| matching::in_ranges(kind, v, &affected.ranges).is_none())
        .collect();
    // In order, so that a lookup compares with a few of them.
    listed.sort_by(|a, b| versions::compare(kind, a, b));
    put_number(out, listed.len() as u64);
    for version in listed {
        put_bytes(out, version.as_bytes());
    }
    put_number(out, affected.severity.len() as u64);
    for score in &affected.severity {
        put_bytes(out, score.kind.as_bytes());
        put_bytes(out, score.score.as_bytes());
    }
    let words = &affected.ecosystem_specific;
    for word in [&words.urgency, &words.severity] {
        put_bytes(out, word.as_deref().unwrap_or_default().as_bytes());
    }
}

fn event(event: &Event) -> Option<(u64, &str)> {
    let introduced = event.introduced.as_deref().map(|at| (0, at));
    introduced
        .or_else(|| event.fixed.as_deref().map(|at| (1, at)))
        .or_else(|| event.last_affected.as_deref().map(|at| (2, at)))
}

/// What one value says: the advisory is made only for hits.
pub(super) struct Posting<'a> {
    meta: &'a [u8],
    rest: Input<'a>,
}

impl<'a> Posting<'a> {
    pub(super) fn decode(value: &'a [u8]) -> Option<Self> {
        let mut rest = Input(value);
        Some(Self { meta: rest.bytes()?, rest })
    }

    /// What the next part says of a version: `Some(None)` at the end, `None` where it is damaged.
    pub(super) fn next(&mut self, kind: Kind, version: &str) -> Option<Option<Verdict>> {
        if self.rest.0.is_empty() { Some(None) } else { verdict(&mut self.rest, kind, version).map(Some) }
    }

    pub(super) fn advisory(&self) -> Option<Advisory> {
        let meta: Meta<'_> = serde_json::from_slice(self.meta).ok()?;
        let severity = meta.severity.into_iter().map(|(kind, score)| Score { kind, score });
        Some(Advisory {
            id: meta.id.into_owned(),
            modified: None,
            published: meta.published,
            withdrawn: None,
            aliases: meta.aliases,
            upstream: meta.upstream,
            summary: meta.summary,
            severity: severity.collect(),
            affected: Vec::new(),
            database_specific: Words { severity: meta.word, urgency: None },
        })
    }
}

/// One part's answer.
pub(super) enum Verdict {
    NotAffected,
    Affected {
        fixed: Option<String>,
        /// Without ranges and versions: what else the part says.
        more: Box<Affected>,
    },
}

/// The event of a tag.
fn of_tag(tag: u64, at: &str) -> Option<Event> {
    let mut event = Event::default();
    *match tag {
        0 => &mut event.introduced,
        1 => &mut event.fixed,
        2 => &mut event.last_affected,
        _ => return None,
    } = Some(at.to_owned());
    Some(event)
}

/// Of one range: mostly where it begins and where it ends.
type Events<'a> = SmallVec<[(u64, &'a str); 2]>;

/// What the ranges say, as [`matching::in_ranges`] does.
fn in_ranges(ranges: &[Events<'_>], kind: Kind, version: &str) -> Option<Option<Option<String>>> {
    // Nearly all advisories are of this form, and nearly all of those are not hits: nothing is made for them.
    if let [range] = ranges
        && let [(0, "0"), (1, fixed)] = range[..]
        && fixed != "0"
    {
        let is_before = versions::compare(kind, fixed, version).is_gt();
        return Some(is_before.then(|| Some(fixed.to_owned())));
    }
    let mut all = Vec::new();
    for range in ranges {
        let events = range.iter().map(|(tag, at)| of_tag(*tag, at)).collect::<Option<Vec<_>>>()?;
        all.push(Range { kind: "ECOSYSTEM".to_owned(), events });
    }
    Some(matching::in_ranges(kind, version, &all))
}

fn verdict(input: &mut Input<'_>, kind: Kind, version: &str) -> Option<Verdict> {
    let mut ranges: SmallVec<[Events<'_>; 1]> = SmallVec::new();
    for _ in 0..input.number()? {
        let mut events = Events::new();
        for _ in 0..input.number()? {
            events.push((input.number()?, input.text()?));
        }
        ranges.push(events);
    }
    let mut listed = Vec::new();
    for _ in 0..input.number()? {
        listed.push(input.text()?);
    }
    let mut severity = Vec::new();
    for _ in 0..input.number()? {
        severity.push(Score { kind: input.text()?.to_owned(), score: input.text()?.to_owned() });
    }
    let (urgency, word) = (input.text()?, input.text()?);
    let fixed = match in_ranges(&ranges, kind, version)? {
        Some(fixed) => fixed,
        None if listed.binary_search_by(|known| versions::compare(kind, known, version)).is_ok() => None,
        None => return Some(Verdict::NotAffected),
    };
    let said = |word: &str| (!word.is_empty()).then(|| word.to_owned());
    let ecosystem_specific = Words { severity: said(word), urgency: said(urgency) };
    let more =
        Affected { package: None, severity, ranges: Vec::new(), versions: Vec::new(), ecosystem_specific };
    Some(Verdict::Affected { fixed, more: Box::new(more) })
}
