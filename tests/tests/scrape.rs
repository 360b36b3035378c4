//! `/metrics` as Prometheus asks for it: with a service account's token, read by Prometheus' own parser.

use std::process::Command;

use gantry_testkit::{Instance, Output, python_program, run, run_with_input, skip};
use serde_json::Value;

const PARSER: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families as parse
families = parse(sys.stdin.read())
print(json.dumps([[f.type, s.name, s.labels, s.value] for f in families for s in f.samples]))
";

/// Somebody who scrapes.
pub struct Scraper<'a> {
    gantry: &'a Instance,
    token: String,
}

impl<'a> Scraper<'a> {
    /// A service account without any right; nothing where the parser is missing.
    pub fn new(gantry: &'a Instance) -> Option<Self> {
        let imported = run(Command::new(python_program()).args(["-c", "import prometheus_client"]));
        if !imported.succeeded() {
            skip(format!("{} has no prometheus_client: run `cargo xtask setup`", python_program().display()));
            return None;
        }
        gantry.kubectl(&["create", "serviceaccount", "scraper"]).ok();
        let token = gantry.kubectl(&["create", "token", "scraper"]).ok().trim().to_owned();
        Some(Self { gantry, token })
    }

    /// Gives it the right as the manuals of Prometheus do.
    pub fn allow(&self) {
        let role = ["create", "clusterrole", "scraper", "--verb=get", "--non-resource-url=/metrics"];
        self.gantry.kubectl(&role).ok();
        let binding = [
            "create",
            "clusterrolebinding",
            "scraper",
            "--clusterrole=scraper",
            "--serviceaccount=default:scraper",
        ];
        self.gantry.kubectl(&binding).ok();
    }

    /// Headers and body.
    pub fn ask(&self) -> Output {
        let ca = self.gantry.data_dir().join("pki/ca.crt").display().to_string();
        let url = format!("https://{}/metrics", self.gantry.registry());
        let bearer = format!("Authorization: Bearer {}", self.token);
        run(Command::new("curl").args(["-sSi", "--max-time", "30", "--cacert", &ca, "-H", &bearer, &url]))
    }

    pub fn samples(&self) -> Samples {
        let answer = self.ask().ok().replace("\r\n", "\n");
        let (head, body) = answer.split_once("\n\n").expect("headers and a body");
        assert!(head.starts_with("HTTP/2 200"), "{answer}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        let parsed =
            run_with_input(Command::new(python_program()).args(["-c", PARSER]), body.as_bytes()).ok();
        Samples(serde_json::from_str(&parsed).expect("JSON"))
    }
}

/// What one scrape gave: kind, name, labels and value of each.
#[derive(Debug)]
pub struct Samples(Vec<(String, String, Value, f64)>);

impl Samples {
    /// The value under a name, with these labels among others.
    #[track_caller]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |found: &Value| labels.iter().all(|(label, is)| found[*label] == **is);
        let mut found = self.0.iter().filter(|(_, n, l, _)| n == name && fits(l));
        let (kind, _, _, value) = found.next().unwrap_or_else(|| panic!("{name} {labels:?} in {self:?}"));
        assert_eq!(found.next(), None, "one sample");
        assert_eq!(kind, if name.ends_with("_total") { "counter" } else { "gauge" }, "{name}");
        *value
    }
}
