//! npm: `package.json` of installed packages, and lock files of applications.

use serde_json::Value;

use super::{Analyser, Candidate, Finding, TEXT_MAX_BYTES, plausible};
use crate::files::Content;
use crate::package::{Kind, Package};

/// Depth of nested dependencies in lock files of version 1.
const DEPTH_MAX: usize = 64;

pub(super) const PACKAGE: Analyser = Analyser {
    os: false,
    wants: |file| file.name == "package.json" && is_installed(file.path),
    read: |_: &Candidate<'_>, content: &Content| {
        let value: Value = json(content)?;
        let name = value["name"].as_str().unwrap_or_default();
        let version = value["version"].as_str().unwrap_or_default();
        Ok(package(name, version, license(&value)).into_iter().collect())
    },
};

pub(super) const LOCK: Analyser = Analyser {
    os: false,
    wants: |file| {
        matches!(file.name, "package-lock.json" | "npm-shrinkwrap.json")
            && !file.path.contains("node_modules/")
    },
    read: |_: &Candidate<'_>, content: &Content| Ok(lock(&json(content)?)),
};

/// `…/node_modules/NAME/package.json` or with a scope; what lies deeper belongs to a package and is none.
fn is_installed(path: &str) -> bool {
    let mut parents = path.rsplit('/').skip(1);
    let (Some(_), Some(second)) = (parents.next(), parents.next()) else { return false };
    second == "node_modules" || (second.starts_with('@') && parents.next() == Some("node_modules"))
}

pub(super) fn json<T: serde::de::DeserializeOwned>(content: &Content) -> Result<T, String> {
    let bytes = content.all(TEXT_MAX_BYTES)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(bytes).map_err(|error| format!("it is no valid JSON: {error}"))
}

fn package(name: &str, version: &str, license: Option<String>) -> Option<Finding> {
    if !plausible(name) || !plausible(version) {
        return None;
    }
    let mut package = Package::new(Kind::Npm, name, version);
    package.licenses.extend(license);
    Some(Finding::Package(package))
}

/// A word, or an object as old packages have it.
fn license(value: &Value) -> Option<String> {
    let license = value["license"].as_str().or_else(|| value["license"]["type"].as_str());
    license.filter(|text| plausible(text)).map(str::to_owned)
}

/// Packages of a lock file that are not for development only.
fn lock(value: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(packages) = value["packages"].as_object() {
        for (path, entry) in packages {
            let Some((_, name)) = path.rsplit_once("node_modules/") else { continue };
            if entry["dev"] == true || entry["link"] == true {
                continue;
            }
            // An alias says in `name` what it really is.
            let name = entry["name"].as_str().unwrap_or(name);
            findings.extend(package(name, entry["version"].as_str().unwrap_or_default(), license(entry)));
        }
    } else {
        dependencies(&value["dependencies"], 0, &mut findings);
    }
    findings
}

fn dependencies(value: &Value, depth: usize, findings: &mut Vec<Finding>) {
    for (name, entry) in value.as_object().into_iter().flatten() {
        if entry["dev"] == true || depth > DEPTH_MAX {
            continue;
        }
        findings.extend(package(name, entry["version"].as_str().unwrap_or_default(), None));
        dependencies(&entry["dependencies"], depth + 1, findings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(findings: &[Finding]) -> Vec<String> {
        let name = |finding: &Finding| match finding {
            Finding::Package(package) => format!("{}@{}", package.name, package.version),
            other => panic!("{other:?}"),
        };
        findings.iter().map(name).collect()
    }

    #[test]
    fn only_installed_packages_count() {
        for (path, want) in [
            ("app/node_modules/left-pad/package.json", true),
            ("app/node_modules/@babel/core/package.json", true),
            ("app/node_modules/a/node_modules/b/package.json", true),
            ("app/node_modules/resolve/test/package.json", false),
            ("app/package.json", false),
            ("package.json", false),
        ] {
            assert_eq!(is_installed(path), want, "{path}");
        }
    }

    #[test]
    fn lock_files_of_every_version_are_read() {
        let v3 = serde_json::json!({"packages": {
            "": {"name": "app", "version": "1.0.0"},
            "node_modules/a": {"version": "1.0.0", "license": "MIT"},
            "node_modules/a/node_modules/@s/b": {"version": "2.0.0"},
            "node_modules/t": {"version": "3.0.0", "dev": true},
        }});
        assert_eq!(names(&lock(&v3)), ["a@1.0.0", "@s/b@2.0.0"]);
        let v1 = serde_json::json!({"dependencies": {
            "a": {"version": "1.0.0", "dependencies": {"b": {"version": "2.0.0"}}},
            "t": {"version": "3.0.0", "dev": true},
        }});
        assert_eq!(names(&lock(&v1)), ["a@1.0.0", "b@2.0.0"]);
    }
}
