//! What the commands of identity do by their flags, one by one: `identity_commands.rs` has the common ways. That no
//! flag is left out is looked at by `identity_flags/tried.rs`.

mod assignments;
mod objects;
mod programs;
mod providers;
mod sign_in;
mod tried;

use gantry_testkit::{Instance, Output, binary, run_with_input};
use serde_json::Value;

use crate::people::Person;

#[track_caller]
fn json(out: Output) -> Value {
    serde_json::from_str(&out.ok()).expect("JSON")
}

/// The arguments of a line without quotes.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// A command of the platform's administrator.
#[track_caller]
fn admin(gantry: &Instance, line: &str) -> Output {
    gantry.gantry(&words(line))
}

/// A command of a person who writes `lines` to its standard input.
#[track_caller]
fn told(person: &Person, line: &str, lines: &[&str]) -> Output {
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    run_with_input(person.command(binary("gantry")).args(words(line)), input.as_bytes())
}

/// `login SERVER …` at the instance, whose authority is known by a file.
#[track_caller]
fn login(person: &Person, gantry: &Instance, line: &str, lines: &[&str]) -> Output {
    let ca = gantry.data_dir().join("pki/ca.crt").display().to_string();
    told(person, &format!("{} --ca {ca}", line.replace("SERVER", &gantry.registry())), lines)
}
