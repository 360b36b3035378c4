//! Numbers in the text format of Prometheus (0.0.4), written when somebody asks for them.
//!
//! No crate: what is shown is read from where it is in the moment of a scrape, so counting costs one atomic addition
//! and no number is kept twice. What a client library would be for is then these few lines.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Something that only grows while the process lives.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        // Nothing else is ordered by it.
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The answer to one scrape.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// What only grows; the name ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// What goes up and down; the name ends in its unit.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.0, name }
    }

    pub fn into_text(self) -> String {
        self.0
    }
}

/// The samples of one name.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    /// One number, with labels that no other sample of the family has.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) -> &mut Self {
        self.text.push_str(self.name);
        for (at, (label, is)) in labels.iter().enumerate() {
            let is = is.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.text, "{}{label}=\"{is}\"", if at == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_their_samples_and_labels_are_escaped() {
        let mut scrape = Exposition::default();
        scrape.gauge("queue_items", "What waits.\nNow.").sample(&[], 3);
        let counted = Counter::default();
        counted.add(2);
        counted.add(5);
        let mut family = scrape.counter("runs_total", "Runs.");
        family.sample(&[("rule", "a\"b\\c\nd"), ("result", "failure")], counted.get());
        family.sample(&[("rule", "x"), ("result", "success")], 0);
        assert_eq!(
            scrape.into_text(),
            "# HELP queue_items What waits.\\nNow.\n# TYPE queue_items gauge\nqueue_items 3\n\
             # HELP runs_total Runs.\n# TYPE runs_total counter\n\
             runs_total{rule=\"a\\\"b\\\\c\\nd\",result=\"failure\"} 7\n\
             runs_total{rule=\"x\",result=\"success\"} 0\n"
        );
    }
}
