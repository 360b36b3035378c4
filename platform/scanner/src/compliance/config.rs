//! What an image's configuration says: user, environment, ports, health check, history.

use std::collections::BTreeMap;
use std::io::Read;

use gantry_oci::image::Image;
use serde::Deserialize;
use serde_json::Value;

use super::{Results, secrets};

/// The check of the name alone.
pub(super) const LATEST_TAG: &str = "latest-tag";
const CONFIG_MAX_BYTES: u64 = 4 << 20;

#[derive(Default, Deserialize)]
struct Document {
    #[serde(default)]
    config: Option<Config>,
    #[serde(default)]
    history: Option<Vec<Step>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    exposed_ports: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    healthcheck: Option<HealthCheck>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthCheck {
    #[serde(default)]
    test: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct Step {
    #[serde(default)]
    created_by: Option<String>,
}

/// Checks the configuration of `image`; what is no configuration of a container is not judged.
pub(super) fn check(results: &mut Results, name: &str, image: &Image) {
    let mut bytes = Vec::new();
    let read =
        image.config.source.open().and_then(|reader| reader.take(CONFIG_MAX_BYTES).read_to_end(&mut bytes));
    let Some(document) = read.ok().and_then(|_| serde_json::from_slice::<Document>(&bytes).ok()) else {
        return;
    };
    let config = document.config.unwrap_or_default();
    let history = document.history.unwrap_or_default();
    user(results, config.user.as_deref().unwrap_or_default());
    environment(results, config.env.as_deref().unwrap_or_default(), &history);
    ports(results, config.exposed_ports.unwrap_or_default().keys());
    results.applies("no-health-check");
    let test = config.healthcheck.and_then(|check| check.test).unwrap_or_default();
    if matches!(&test[..], []) || test.first().is_some_and(|first| first == "NONE") {
        results.found("no-health-check", None, "there is no HEALTHCHECK");
    }
    results.applies(LATEST_TAG);
    if let Some(message) = latest(name) {
        results.found(LATEST_TAG, None, message);
    }
    results.applies("add-from-url");
    for (n, step) in history.iter().enumerate() {
        if let Some(url) = added_url(step.created_by.as_deref().unwrap_or_default()) {
            results.found("add-from-url", None, format!("step {} adds {url:.300}", n + 1));
        }
    }
}

/// What is wrong with the name of an image, if it is.
pub(super) fn latest(name: &str) -> Option<String> {
    is_latest(name).then(|| format!("{name} is whatever was pushed last"))
}

fn user(results: &mut Results, user: &str) {
    results.applies("runs-as-root");
    let name = user.split(':').next().unwrap_or_default();
    if name.is_empty() {
        results.found("runs-as-root", None, "no USER is named, so it is root");
    } else if name == "root" || name.parse() == Ok(0) {
        results.found("runs-as-root", None, format!("USER is {user}"));
    }
}

fn environment(results: &mut Results, variables: &[String], history: &[Step]) {
    let id = "secret-in-environment";
    results.applies(id);
    for variable in variables {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        let shape = secrets::shapes(value.as_bytes()).into_iter().next();
        match shape {
            Some(secret) => results.found(id, None, format!("{name:.100}: {} {}", secret.rule, secret.shown)),
            None if secrets::is_named(name, value) => {
                let shown = secrets::hidden(value.as_bytes(), 0);
                results.found(id, None, format!("{name:.100}: a value {shown}"));
            }
            None => {}
        }
    }
    for (n, step) in history.iter().enumerate() {
        let text = step.created_by.as_deref().unwrap_or_default();
        for secret in secrets::shapes(text.as_bytes()) {
            results.found(id, None, format!("history step {}: {} {}", n + 1, secret.rule, secret.shown));
        }
    }
}

fn ports<'a>(results: &mut Results, ports: impl Iterator<Item = &'a String>) {
    results.applies("privileged-port");
    for port in ports {
        let number = port.split('/').next().unwrap_or_default();
        // Ranges begin with their least.
        let first = number.split('-').next().unwrap_or_default();
        if first.parse::<u32>().is_ok_and(|number| (1..1024).contains(&number)) {
            results.found("privileged-port", None, format!("port {port:.50}"));
        }
    }
}

/// `demo/hello` and `demo/hello:latest`; not what is named by digest, nor an archive without a name.
fn is_latest(name: &str) -> bool {
    let is_path = name.starts_with(['/', '.']) || name.ends_with(".tar") || name.ends_with("gz");
    let last = name.rsplit('/').next().unwrap_or(name);
    !name.contains('@') && !is_path && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// The first URL of an `ADD` step, as Docker's builders write them into the history.
fn added_url(step: &str) -> Option<&str> {
    let step = step.strip_prefix("/bin/sh -c #(nop) ").unwrap_or(step).trim_start();
    let mut words =
        step.strip_prefix("ADD ")?.split_whitespace().map(|word| word.trim_matches(['[', '"', ',']));
    let is_checked = step.contains("--checksum=");
    words.find(|word| word.starts_with("http://") || word.starts_with("https://")).filter(|_| !is_checked)
}

#[cfg(test)]
mod tests {
    use gantry_oci::image::Image;

    use super::super::{Outcome, evaluate};
    use super::*;

    fn failed(name: &str, config: &Value) -> Vec<(String, String)> {
        let image = Image::with_config(config.to_string().into(), Vec::new()).expect("an image");
        let now = jiff::Timestamp::UNIX_EPOCH;
        let compliance = evaluate(Vec::new(), None, Some((name, &image)), false, now);
        let failed = compliance.checks.into_iter().filter(|check| check.outcome == Outcome::Failed);
        failed.flat_map(|c| c.evidence.into_iter().map(move |e| (c.id.clone(), e.message))).collect()
    }

    #[test]
    fn a_careful_image_passes() {
        let config = serde_json::json!({
            "config": {"User": "65532:65532", "Env": ["PATH=/bin", "TOKEN_FILE=/run/secrets/t"],
                       "ExposedPorts": {"8080/tcp": {}}, "Healthcheck": {"Test": ["CMD", "/app", "check"]}},
            "history": [{"created_by": "ADD file:123 in / "}, {"created_by": "RUN /bin/sh -c make # buildkit"},
                        {"created_by": "ADD --checksum=sha256:0 https://example.org/x / # buildkit"}],
        });
        assert_eq!(failed("demo/hello:1.2", &config), []);
    }

    #[test]
    fn a_careless_one_does_not() {
        let config = serde_json::json!({
            "config": {"User": "0", "Env": ["DB_PASSWORD=hunter2"], "ExposedPorts": {"80/tcp": {}, "8080": {}},
                       "Healthcheck": {"Test": ["NONE"]}},
            "history": [{"created_by": "/bin/sh -c #(nop) ADD https://example.org/x.tar in /opt "}],
        });
        let found = failed("demo/hello", &config);
        let ids: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "secret-in-environment",
                "runs-as-root",
                "add-from-url",
                "no-health-check",
                "latest-tag",
                "privileged-port"
            ]
        );
        assert!(!found[0].1.contains("hunter2"), "{found:?}");
        assert!(found[2].1.contains("https://example.org/x.tar"), "{found:?}");
    }

    #[test]
    fn names_of_versions_are_not_latest() {
        for (name, want) in [
            ("demo/hello", true),
            ("demo/hello:latest", true),
            ("127.0.0.1:5000/demo/hello", true),
            ("demo/hello:1", false),
            ("demo/hello@sha256:0", false),
            ("./hello.tar", false),
        ] {
            assert_eq!(is_latest(name), want, "{name}");
        }
    }
}
