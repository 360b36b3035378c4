//! The shape of the repository, against golden files: which crate may depend on which, and how large
//! files and functions are. Sizes only ratchet down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::run;

const LAYERS_GOLDEN: &str = "xtask/golden/layers.txt";
const SIZES_GOLDEN: &str = "xtask/golden/sizes.txt";
const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

pub fn run(bless: bool) -> anyhow::Result<()> {
    println!("== tidy");
    let mut wrong = layer_violations(&dependencies()?);
    let layers = render_layers(&dependencies()?);
    let sizes = oversized()?;
    if bless {
        std::fs::create_dir_all(run::root().join("xtask/golden"))?;
        put(LAYERS_GOLDEN, &layers)?;
        put(SIZES_GOLDEN, &render_sizes(&sizes))?;
    } else {
        if read(LAYERS_GOLDEN)? != layers {
            wrong.push(format!(
                "the crates' dependencies differ from {LAYERS_GOLDEN}; look, then `cargo xtask tidy --bless`"
            ));
        }
        wrong.extend(grown(&parse_sizes(&read(SIZES_GOLDEN)?), &sizes));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}", wrong.join("\n"));
}

#[expect(clippy::disallowed_methods, reason = "a golden file in a checkout needs no durability")]
fn put(path: &str, text: &str) -> anyhow::Result<()> {
    std::fs::write(run::root().join(path), text).with_context(|| path.to_owned())
}

fn read(path: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(run::root().join(path));
    text.with_context(|| format!("{path} is missing: run `cargo xtask tidy --bless`"))
}

/// Workspace crate → the workspace crates it names as normal dependencies, both as folders.
fn dependencies() -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let text = run::output(
        Command::new("cargo").args(["metadata", "--format-version=1", "--no-deps"]).current_dir(run::root()),
    )?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let root = run::root();
    let folder = |package: &serde_json::Value| -> Option<(String, String)> {
        let manifest = PathBuf::from(package["manifest_path"].as_str()?);
        let folder = manifest.parent()?.strip_prefix(&root).ok()?.to_string_lossy().into_owned();
        Some((package["name"].as_str()?.to_owned(), folder))
    };
    let folders: BTreeMap<String, String> = packages.iter().filter_map(folder).collect();
    let mut edges = BTreeMap::new();
    for package in packages {
        let Some(from) = package["name"].as_str().and_then(|n| folders.get(n)) else { continue };
        let named = package["dependencies"].as_array().into_iter().flatten();
        let normal = named.filter(|d| d["kind"].is_null()).filter_map(|d| d["name"].as_str());
        edges.insert(from.clone(), normal.filter_map(|n| folders.get(n).cloned()).collect());
    }
    Ok(edges)
}

/// Libraries of components that need no server: commands and other components of `platform` use them as they are.
const LIBRARIES: &[&str] = &["platform/scanner"];

/// The layer of a crate, by its folder: what it may name is written in [`may_name`].
fn layer(folder: &str) -> &str {
    folder.split('/').next().unwrap_or(folder)
}

/// DESIGN section 3: base ← machinery ← {engine, node, frontdoor, platform}; only backends see the
/// engine; only the composition root sees everything.
fn may_name(from: &str, to: &str) -> bool {
    match layer(from) {
        "base" | "xtask" | "examples" => false,
        "testkit" => to == "base",
        "machinery" => matches!(layer(to), "base" | "machinery"),
        "engine" => matches!(layer(to), "base" | "machinery" | "engine"),
        "node" => matches!(layer(to), "base" | "machinery" | "node"),
        "frontdoor" => matches!(layer(to), "base" | "machinery"),
        "platform" => matches!(layer(to), "base" | "machinery") || is_shared(to) || same_component(from, to),
        "backends" => matches!(layer(to), "base" | "machinery" | "engine" | "frontdoor"),
        "cli" => matches!(layer(to), "base" | "machinery") || is_shared(to),
        "app" => true,
        "tests" => matches!(layer(to), "base" | "testkit"),
        _ => false,
    }
}

fn is_shared(to: &str) -> bool {
    to.ends_with("/api") || LIBRARIES.contains(&to)
}

fn same_component(from: &str, to: &str) -> bool {
    let component = |folder: &str| folder.split('/').nth(1).map(str::to_owned);
    layer(to) == "platform" && component(from) == component(to)
}

fn layer_violations(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let pairs = edges.iter().flat_map(|(from, tos)| tos.iter().map(move |to| (from, to)));
    pairs
        .filter(|(from, to)| !may_name(from, to))
        .map(|(from, to)| format!("{from} must not depend on {to}"))
        .collect()
}

fn render_layers(edges: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut text =
        String::from("# Which crate names which; changed on purpose only (`cargo xtask tidy --bless`).\n");
    for (from, tos) in edges {
        let tos: Vec<&str> = tos.iter().map(String::as_str).collect();
        let _ = writeln!(text, "{from}: {}", tos.join(" "));
    }
    text
}

/// `path` or `path::function` → lines, for all over their limit.
fn oversized() -> anyhow::Result<BTreeMap<String, usize>> {
    let listed = run::output(Command::new("git").args(["ls-files", "*.rs"]).current_dir(run::root()))?;
    let mut sizes = BTreeMap::new();
    for path in listed.lines() {
        let Ok(text) = std::fs::read_to_string(run::root().join(path)) else { continue };
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            sizes.insert(path.to_owned(), lines);
        }
        for (name, lines) in functions(&text) {
            if lines > FUNCTION_LINES_MAX {
                sizes.insert(format!("{path}::{name}"), lines);
            }
        }
    }
    Ok(sizes)
}

/// Functions and their length in lines, read from rustfmt's layout: a function ends at the closing
/// brace of its own indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let indentation = line.len() - line.trim_start().len();
        let Some(name) = function_name(line) else { continue };
        let closing = format!("{}}}", " ".repeat(indentation));
        // A signature ends in a brace, or in a trait's declaration, which is as long as itself.
        let signature = lines[at..].iter().find(|l| l.ends_with(['{', ';', '}']));
        if signature.is_some_and(|end| end.ends_with(';')) {
            continue;
        }
        if let Some(length) = lines[at..].iter().position(|l| **l == closing) {
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.trim_start();
    for prefix in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe "] {
        words = words.strip_prefix(prefix).unwrap_or(words);
    }
    let rest = words.strip_prefix("fn ")?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

fn render_sizes(sizes: &BTreeMap<String, usize>) -> String {
    let mut text = format!(
        "# Files over {FILE_LINES_MAX} lines and functions over {FUNCTION_LINES_MAX}; only to shrink.\n"
    );
    for (what, lines) in sizes {
        let _ = writeln!(text, "{lines} {what}");
    }
    text
}

fn parse_sizes(text: &str) -> BTreeMap<String, usize> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(n, what)| Some((what.to_owned(), n.parse().ok()?)))
        .collect()
}

fn grown(golden: &BTreeMap<String, usize>, now: &BTreeMap<String, usize>) -> Vec<String> {
    let over = now.iter().filter(|(what, lines)| **lines > golden.get(*what).copied().unwrap_or(0));
    over.map(|(what, lines)| match golden.get(what) {
        Some(was) => format!("{what} grew from {was} to {lines} lines: split it"),
        None => format!("{what} has {lines} lines: split it"),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_point_down_only() {
        for (from, to, may) in [
            ("engine/apiserver", "machinery/kube-logic", true),
            ("engine/apiserver", "frontdoor", false),
            ("platform/registry", "platform/identity", false),
            ("platform/registry", "platform/identity/api", true),
            ("platform/registry", "engine/store", false),
            ("node/agent", "engine/store", false),
            ("backends/embedded", "engine/store", true),
            ("app", "engine/store", true),
        ] {
            assert_eq!(may_name(from, to), may, "{from} → {to}");
        }
    }

    #[test]
    fn functions_are_measured_by_their_braces() {
        let text = "impl X {\n    pub async fn a() {\n        x\n    }\n}\nfn b() {\n}\n";
        assert_eq!(functions(text), [("a".to_owned(), 3), ("b".to_owned(), 2)]);
        let text = "trait X {\n    fn a();\n    fn b(\n        x: u8,\n    );\n    fn c() {\n    }\n}\n";
        assert_eq!(functions(text), [("c".to_owned(), 2)]);
    }
}
