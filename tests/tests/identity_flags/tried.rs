//! Every command of identity, and every flag of it, stands in a command line that some test runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Subcommand as _;

/// Flags that no test of this folder gives, with the reason why.
const ELSEWHERE: [(&str, &str); 0] = [];

type Tried = BTreeMap<String, BTreeSet<String>>;

#[test]
fn every_flag_is_given_by_a_test() {
    let mut root = gantry_cli::commands::identity::IdentityCommand::augment_subcommands(
        clap::Command::new("gantry").disable_help_subcommand(true),
    );
    root.build();
    let mut tried = Tried::new();
    let is_other = |file: &PathBuf| !file.ends_with("identity_flags/tried.rs");
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).into_iter().filter(is_other) {
        let text = std::fs::read_to_string(&file).expect("a file of this package");
        for line in lines(&text) {
            note(&root, &line, &mut tried);
        }
    }
    let mut missing = Vec::new();
    for command in root.get_subcommands() {
        look(command, command.get_name(), &tried, &mut missing);
    }
    missing.retain(|line| !ELSEWHERE.iter().any(|(known, _)| known == line));
    assert!(missing.is_empty(), "no test runs: {missing:#?}");
}

/// What no test runs of the command and of those below it.
fn look(command: &clap::Command, path: &str, tried: &Tried, missing: &mut Vec<String>) {
    let given = tried.get(path);
    // A command that only holds others is not run.
    if given.is_none() && !command.is_subcommand_required_set() {
        missing.push(path.to_owned());
    }
    for flag in command.get_arguments().filter(|flag| !flag.is_positional() && !flag.is_hide_set()) {
        let Some(long) = flag.get_long().filter(|long| *long != "help") else { continue };
        if given.is_some_and(|given| !given.contains(long)) {
            missing.push(format!("{path} --{long}"));
        }
    }
    for below in command.get_subcommands() {
        look(below, &format!("{path} {}", below.get_name()), tried, missing);
    }
}

/// Notes the command that a line begins with, and the flags in it.
fn note(root: &clap::Command, line: &[String], tried: &mut Tried) {
    let mut command = root;
    let mut path = Vec::new();
    let mut rest = line.iter();
    for word in line {
        let Some(below) = command.find_subcommand(word) else { break };
        path.push(below.get_name());
        (command, _) = (below, rest.next());
    }
    if path.is_empty() {
        return;
    }
    let given = tried.entry(path.join(" ")).or_default();
    for word in rest {
        let is_it = |flag: &&clap::Arg| match word.strip_prefix("--") {
            Some(long) => flag.get_long() == long.split('=').next(),
            None => flag.get_short().is_some_and(|short| *word == format!("-{short}")),
        };
        given.extend(command.get_arguments().find(is_it).and_then(clap::Arg::get_long).map(str::to_owned));
    }
}

/// The words of each text in quotes, and of those that stand in one list.
fn lines(source: &str) -> Vec<Vec<String>> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let source = code.collect::<Vec<_>>().join("\n").replace("'\"'", "");
    let mut found: Vec<Vec<String>> = Vec::new();
    // What is between two texts is of one list where no bracket closes that did not open there.
    let mut is_one_list = false;
    let mut rest = source.as_str();
    while let Some(start) = rest.find('"') {
        is_one_list = is_one_list && stays_open(&rest[..start]);
        let inner = &rest[start + 1..];
        let mut escaped = false;
        let end = inner.find(|c| {
            let is_end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            is_end
        });
        let Some(end) = end else { break };
        let words = inner[..end].replace("\\\n", " ");
        let words = words.split_whitespace().map(str::to_owned);
        match found.last_mut().filter(|_| is_one_list) {
            Some(list) => list.extend(words),
            None => found.push(words.collect()),
        }
        is_one_list = true;
        rest = &inner[end + 1..];
    }
    found
}

fn stays_open(between: &str) -> bool {
    let mut depth = 0_i32;
    for letter in between.chars() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ';' => return false,
            _ => {}
        }
        if depth < 0 {
            return false;
        }
    }
    true
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of this package").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn command_lines_are_found_in_sources() {
    let source = r#"run(&["user", "set", name, "--email", "x"]).ok(); run("user delete a \
        --ignore-not-found"); has_all(&other.fails(), &["--disable"]); f(&["login", &g.registry(), "-u", "a"]);"#;
    let found: Vec<String> = lines(source).iter().map(|words| words.join(" ")).collect();
    assert_eq!(found, ["user set --email x", "user delete a --ignore-not-found", "--disable", "login -u a"]);
}
