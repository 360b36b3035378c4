//! Ruby gems, PHP composer packages, .NET dependencies: one small file format each.

use serde_json::Value;

use super::npm::json;
use super::{Analyser, Candidate, Finding, TEXT_MAX_BYTES, plausible};
use crate::files::Content;
use crate::package::{Kind, Package};

pub(super) const GEMSPEC: Analyser = Analyser {
    os: false,
    wants: |file| file.name.ends_with(".gemspec") && file.path.contains("specifications/"),
    read: |_: &Candidate<'_>, content: &Content| {
        Ok(gemspec(&content.text(TEXT_MAX_BYTES)?).into_iter().collect())
    },
};

pub(super) const COMPOSER: Analyser = Analyser {
    os: false,
    wants: |file| file.name == "composer.lock" || file.path.ends_with("vendor/composer/installed.json"),
    read: |_: &Candidate<'_>, content: &Content| Ok(composer(&json(content)?)),
};

pub(super) const DOTNET: Analyser = Analyser {
    os: false,
    wants: |file| file.name.ends_with(".deps.json"),
    read: |_: &Candidate<'_>, content: &Content| Ok(dotnet(&json(content)?)),
};

fn found(kind: Kind, name: &str, version: &str, licenses: Vec<String>) -> Option<Finding> {
    if !plausible(name) || !plausible(version) {
        return None;
    }
    let mut package = Package::new(kind, name, version);
    package.licenses = licenses;
    Some(Finding::Package(package))
}

/// What RubyGems writes: Ruby code of one shape, with `# stub: NAME VERSION PLATFORM PATHS` near the top.
fn gemspec(text: &str) -> Option<Finding> {
    let assigned = |field: &str| {
        text.lines().find_map(|line| {
            let (left, right) = line.trim().split_once('=')?;
            left.trim().strip_suffix(field)?.ends_with('.').then(|| quoted(right))
        })
    };
    let mut stub = text.lines().find_map(|line| line.strip_prefix("# stub: ")).into_iter().flat_map(|line| {
        let mut words = line.split(' ');
        [words.next().unwrap_or_default(), words.next().unwrap_or_default()]
    });
    let first = |values: Option<Vec<String>>| values.and_then(|values| values.into_iter().next());
    let name = stub.next().map(str::to_owned).or_else(|| first(assigned("name")))?;
    let version = stub.next().map(str::to_owned).or_else(|| first(assigned("version")))?;
    let licenses = assigned("licenses").or_else(|| assigned("license")).unwrap_or_default();
    found(Kind::Gem, &name, &version, licenses)
}

/// The quoted words of a line.
fn quoted(line: &str) -> Vec<String> {
    let mut words = line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    if words.is_empty() {
        words = line.split('\'').skip(1).step_by(2).map(str::to_owned).collect();
    }
    words
}

/// `{"packages": […]}`, or a plain list as composer 1 writes `installed.json`.
fn composer(value: &Value) -> Vec<Finding> {
    let list = value["packages"].as_array().or_else(|| value.as_array());
    let package = |entry: &Value| {
        let licenses = entry["license"].as_array().into_iter().flatten();
        let licenses = licenses.filter_map(|license| license.as_str().map(str::to_owned)).collect();
        let version = entry["version"].as_str()?;
        let version = version.strip_prefix('v').unwrap_or(version);
        found(Kind::Composer, entry["name"].as_str()?, version, licenses)
    };
    list.into_iter().flatten().filter_map(package).collect()
}

/// `libraries` of a runtime's dependency file; only what comes from a feed is `package`.
fn dotnet(value: &Value) -> Vec<Finding> {
    let libraries = value["libraries"].as_object().into_iter().flatten();
    libraries
        .filter(|(_, library)| library["type"] == "package")
        .filter_map(|(key, _)| {
            let (name, version) = key.split_once('/')?;
            found(Kind::Nuget, name, version, Vec::new())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(findings: impl IntoIterator<Item = Finding>) -> Vec<String> {
        let text = |finding| match finding {
            Finding::Package(p) => format!("{}@{} {}", p.name, p.version, p.licenses.join(",")),
            other => panic!("{other:?}"),
        };
        findings.into_iter().map(text).collect()
    }

    #[test]
    fn gemspecs_are_read_with_and_without_a_stub() {
        let stub = "# -*- encoding: utf-8 -*-\n# stub: rake 13.0.6 ruby lib\n\nGem::Specification.new do |s|\n  s.name = \"rake\".freeze\n  s.licenses = [\"MIT\".freeze]\n";
        assert_eq!(seen(gemspec(stub)), ["rake@13.0.6 MIT"]);
        let plain =
            "Gem::Specification.new do |s|\n  s.name = %q{x}\n  s.name = 'json'\n  s.version = '2.6.3'\n";
        assert_eq!(seen(gemspec(&plain.replace("  s.name = %q{x}\n", ""))), ["json@2.6.3 "]);
    }

    #[test]
    fn composer_and_dotnet_lists_are_read() {
        let entry = serde_json::json!({"name": "monolog/monolog", "version": "v2.9.1", "license": ["MIT"]});
        for value in [serde_json::json!({"packages": [entry]}), serde_json::json!([entry])] {
            assert_eq!(seen(composer(&value)), ["monolog/monolog@2.9.1 MIT"]);
        }
        let deps = serde_json::json!({"libraries": {
            "App/1.0.0": {"type": "project"}, "Newtonsoft.Json/13.0.1": {"type": "package"},
        }});
        assert_eq!(seen(dotnet(&deps)), ["Newtonsoft.Json@13.0.1 "]);
    }
}
