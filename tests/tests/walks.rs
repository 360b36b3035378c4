//! Walks of the documentation: what stands after `$` in a block is run as it stands, and has to print what stands
//! below it. Ids, times and ages differ from one day to the next and are not compared, nor is how wide a column is.

use std::path::PathBuf;
use std::process::Command;

use std::time::{Duration, Instant};

use gantry_testkit::{Instance, Output, binary, kubectl_program, pause, run, run_with_input};

use crate::support::SOON;

const PAUSE: Duration = Duration::from_millis(200);

/// A shell of somebody who types what is written.
pub struct Walk {
    folder: PathBuf,
    path: String,
    /// As `export KUBECONFIG=…` has set it, from the folder.
    pub kubeconfig: String,
    /// Before the command that begins with the first, the second is run: what the text takes for granted.
    pub prepared: Vec<(&'static str, &'static str)>,
    /// Commands that begin so are left out: they ask for something, or are of another machine.
    pub left_out: Vec<&'static str>,
}

/// One command of a block and what stands below it.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    printed: Vec<String>,
}

impl Walk {
    /// In a folder of its own, with this build's gantry and the chosen kubectl on the path.
    pub fn new(gantry: &Instance, name: &str) -> Self {
        let folder = gantry.scratch().join(name);
        std::fs::create_dir_all(&folder).expect("a folder of ours");
        let tools = tools(gantry);
        let kubeconfig = gantry.kubeconfig().display().to_string();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", tools.display());
        Self { folder, path, kubeconfig, prepared: Vec::new(), left_out: Vec::new() }
    }

    /// A program at this place, with this place's kubeconfig.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env("PATH", &self.path).env("HOME", &self.folder);
        command.env("KUBECONFIG", self.folder.join(&self.kubeconfig));
        command
    }

    /// `gantry login` of somebody into a kubeconfig of their own in this folder, `acme-alice.kubeconfig`.
    #[track_caller]
    pub fn sign_in(&self, gantry: &Instance, name: &str, password: &str) {
        let ca = gantry.data_dir().join("pki/ca.crt").display().to_string();
        let mut login = self.command("gantry");
        login.args(["--kubeconfig", &format!("{}.kubeconfig", name.replace('/', "-")), "login"]);
        login.args([&gantry.registry(), "-u", name, "--password-stdin", "--ca", &ca]);
        run_with_input(&mut login, format!("{password}\n").as_bytes()).ok();
    }

    /// Runs a line, with both outputs in one as on a terminal.
    #[track_caller]
    pub fn shell(&self, line: &str) -> Output {
        run(self.command("sh").args(["-c", &format!("{{ {line}\n}} 2>&1")]))
    }

    /// Runs every block of the text that has a `$` in it, from the first to the last.
    ///
    /// # Panics
    /// Where a command prints something else.
    #[track_caller]
    pub fn walk(&mut self, text: &str) -> usize {
        let steps = steps(text);
        for step in &steps {
            if let Some(file) = step.command.strip_prefix("export KUBECONFIG=") {
                self.kubeconfig = file.to_owned();
                continue;
            }
            if self.left_out.iter().any(|begin| step.command.starts_with(begin)) {
                continue;
            }
            for (_, line) in self.prepared.iter().filter(|(begin, _)| step.command.starts_with(begin)) {
                self.shell(line).ok();
            }
            let wanted = plain(&step.printed.join("\n"));
            let started = Instant::now();
            let mut out = self.shell(&step.command);
            // Rights, namespaces and conditions follow within a moment, which a reader does not notice.
            while plain(&out.stdout) != wanted && looks_only(&step.command) && started.elapsed() < SOON {
                pause(PAUSE);
                out = self.shell(&step.command);
            }
            assert_eq!(plain(&out.stdout), wanted, "$ {}\n{}", step.command, out.stdout);
        }
        steps.len()
    }
}

/// The folder of the path on which the walks find their programs.
fn tools(gantry: &Instance) -> PathBuf {
    let tools = gantry.scratch().join("bin");
    std::fs::create_dir_all(&tools).expect("a folder");
    for (name, program) in [("gantry", binary("gantry")), ("kubectl", kubectl_program())] {
        let link = tools.join(name);
        if program.is_absolute() && !link.exists() {
            std::os::unix::fs::symlink(program, link).expect("a link");
        }
    }
    tools
}

/// A command that changes nothing may be run again.
fn looks_only(command: &str) -> bool {
    let words: Vec<&str> = command.split_whitespace().collect();
    ["list", "get", "can", "members"].iter().any(|look| words.iter().take(4).any(|word| word == look))
}

fn steps(text: &str) -> Vec<Step> {
    let mut found: Vec<Step> = Vec::new();
    let mut is_block = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            // What is below no command is no output of one.
            is_block = false;
        } else if let Some(command) = line.strip_prefix("$ ") {
            let mut command = command.to_owned();
            while command.ends_with('\\') {
                command = format!("{command}\n{}", lines.next().unwrap_or_default());
            }
            is_block = true;
            found.push(Step { command, printed: Vec::new() });
        } else if let Some(step) = found.last_mut().filter(|_| is_block) {
            step.printed.push(line.to_owned());
        }
    }
    found
}

/// The lines with what differs from day to day left out.
fn plain(text: &str) -> Vec<String> {
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).filter(|line| !line.is_empty()).collect()
}

fn word(word: &str) -> String {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 && matches!(&word[digits..], "s" | "m" | "h" | "d") {
        return "AGE".to_owned();
    }
    if word.len() >= 19 && word.as_bytes()[0].is_ascii_digit() && word.as_bytes()[10] == b'T' {
        return "TIME".to_owned();
    }
    if word.starts_with("gac_") {
        return "SECRET".to_owned();
    }
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let length = rest[at..].bytes().take_while(u8::is_ascii_hexdigit).count();
        let run = &rest[at..at + length];
        text.push_str(&rest[..at]);
        text.push_str(if length == 32 { "ID" } else { run });
        rest = &rest[at + length..];
    }
    text + rest
}

#[test]
fn commands_and_what_they_print_are_read() {
    let text = "Text.\n\n```sh\n./not-run\n```\n\n```\n$ one \\\n  two\nprinted\n$ three\n```\nno output\n";
    let step = |command: &str, printed: &[&str]| Step {
        command: command.to_owned(),
        printed: printed.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(steps(text), [step("one \\\n  two", &["printed"]), step("three", &[])]);
    assert_eq!(
        plain("a   12s\n  b (id d3e2cca7f07c4ec88f8aedc292994da8) cafe 2026-11-25T21:26:43Z\n"),
        ["a AGE", "b (id ID) cafe TIME"]
    );
}
