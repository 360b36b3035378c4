//! Lines of CRI log files: `TIME stdout|stderr F|P TEXT`, where `P` says that the line goes on in a later entry of
//! the same stream. Format: Kubernetes design "CRI logging".

use jiff::Timestamp;

/// What one stream's open line may gather before it is passed on without waiting for its end.
const PARTIAL_BYTES_MAX: usize = 1 << 20;

/// Where a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

/// One entry of a log file, without its line end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// As written: RFC 3339 with nanoseconds, trailing zeros may be missing.
    pub(super) time: &'a str,
    pub(super) source: Source,
    /// The line ends with this entry.
    pub(super) full: bool,
    pub(super) text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads one line. `None` for what the runtime cannot have written.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok().filter(|t| !t.is_empty())?;
        let source = match parts.next()? {
            b"stdout" => Source::Stdout,
            b"stderr" => Source::Stderr,
            _ => return None,
        };
        // More tags may follow the first, after colons; the first is the partial mark.
        let full = match parts.next()?.split(|b| *b == b':').next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time, source, full, text: parts.next().unwrap_or_default() })
    }

    /// When it was written. `None` for a broken time.
    pub(super) fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// The time with exactly nine digits of fraction, as `kubectl logs --timestamps` shows it.
pub(super) fn fixed_time(time: &str) -> String {
    let zone = time.find(['Z', '+']).or_else(|| time.rfind('-').filter(|at| *at > 10)).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone);
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    format!("{seconds}.{fraction:0<9}{zone}")
}

/// What a reader wants of each line.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Entries before this time are left out.
    pub(super) since: Option<Timestamp>,
    /// Each line begins with its time.
    pub(super) timestamps: bool,
    /// Only this stream.
    pub(super) only: Option<Source>,
}

/// Joins entries to lines, each stream for itself, so that the streams' parts do not mix within a line.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    filter: Filter,
    stdout: Open,
    stderr: Open,
    /// Times only grow, so after the first entry that is late enough none is compared any more.
    since_reached: bool,
}

/// A line that has not ended.
#[derive(Debug, Default)]
struct Open {
    text: Vec<u8>,
    /// The line's beginning is here or was passed on already.
    begun: bool,
}

impl Joiner {
    pub(super) fn new(filter: Filter) -> Self {
        Self { since_reached: filter.since.is_none(), filter, ..Self::default() }
    }

    /// Takes one line of the file and appends to `out` what can be shown now.
    pub(super) fn push(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = Entry::parse(line) else { return };
        if self.filter.only.is_some_and(|only| only != entry.source) {
            return;
        }
        if !self.since_reached {
            match (entry.timestamp(), self.filter.since) {
                (Some(time), Some(since)) if time < since => return,
                (None, _) => return,
                _ => self.since_reached = true,
            }
        }
        let open = match entry.source {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        };
        if entry.full && !open.begun {
            // The usual case, without a copy in between.
            if self.filter.timestamps {
                out.extend_from_slice(fixed_time(entry.time).as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(entry.text);
            out.push(b'\n');
            return;
        }
        if !open.begun && self.filter.timestamps {
            open.text.extend_from_slice(fixed_time(entry.time).as_bytes());
            open.text.push(b' ');
        }
        open.begun = true;
        open.text.extend_from_slice(entry.text);
        if entry.full {
            open.text.push(b'\n');
            open.begun = false;
        }
        if entry.full || open.text.len() > PARTIAL_BYTES_MAX {
            out.append(&mut open.text);
        }
    }

    /// Passes on what never got a line end, once nothing more can come.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        for open in [&mut self.stdout, &mut self.stderr] {
            out.append(&mut open.text);
            open.begun = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(filter: Filter, lines: &[&str]) -> String {
        let mut joiner = Joiner::new(filter);
        let mut out = Vec::new();
        for line in lines {
            joiner.push(line.as_bytes(), &mut out);
        }
        joiner.finish(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn entries_are_read_and_garbage_is_not() {
        let entry = Entry::parse(b"2026-01-02T03:04:05.6Z stderr P a b").expect("an entry");
        assert_eq!((entry.source, entry.full, entry.text), (Source::Stderr, false, &b"a b"[..]));
        let empty = Entry::parse(b"2026-01-02T03:04:05.6Z stdout F ").expect("an entry");
        assert_eq!((empty.full, empty.text), (true, &b""[..]));
        assert!(Entry::parse(b"2026-01-02T03:04:05.6Z stdout F:x y").expect("tags").full);
        for bad in ["", " ", "x", "x stdout", "x stdin F a", "x stdout Q a", "\u{0}\u{0}\u{0}"] {
            assert_eq!(Entry::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn times_have_nine_digits() {
        for (given, want) in [
            ("2026-01-02T03:04:05.6Z", "2026-01-02T03:04:05.600000000Z"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000000Z"),
            ("2026-01-02T03:04:05.123456789+08:00", "2026-01-02T03:04:05.123456789+08:00"),
            ("2026-01-02T03:04:05.12-05:00", "2026-01-02T03:04:05.120000000-05:00"),
        ] {
            assert_eq!(fixed_time(given), want);
        }
    }

    #[test]
    fn lines_are_joined_per_stream() {
        let lines = [
            "2026-01-01T00:00:01Z stdout P one ",
            "2026-01-01T00:00:02Z stderr F err",
            "2026-01-01T00:00:03Z stdout F two",
            "2026-01-01T00:00:04Z stdout F three",
            "2026-01-01T00:00:05Z stdout P open",
        ];
        assert_eq!(joined(Filter::default(), &lines), "err\none two\nthree\nopen");
        let only = Filter { only: Some(Source::Stderr), ..Filter::default() };
        assert_eq!(joined(only, &lines), "err\n");
        let since = Filter { since: "2026-01-01T00:00:04Z".parse().ok(), ..Filter::default() };
        assert_eq!(joined(since, &lines), "three\nopen");
        let stamped = Filter { timestamps: true, ..Filter::default() };
        assert_eq!(
            joined(stamped, &lines[..3]),
            "2026-01-01T00:00:02.000000000Z err\n2026-01-01T00:00:01.000000000Z one two\n"
        );
    }

    #[test]
    fn an_endless_line_is_passed_on_in_parts() {
        let part = format!("2026-01-01T00:00:01Z stdout P {}", "x".repeat(16 << 10));
        let mut joiner = Joiner::new(Filter { timestamps: true, ..Filter::default() });
        let mut out = Vec::new();
        for _ in 0..200 {
            joiner.push(part.as_bytes(), &mut out);
        }
        assert!(out.len() > PARTIAL_BYTES_MAX, "{}", out.len());
        joiner.finish(&mut out);
        assert_eq!(out.iter().filter(|b| **b == b'x').count(), 200 * (16 << 10));
        assert_eq!(out.windows(5).filter(|w| w == b"2026-").count(), 1, "one time for one line");
    }
}
