//! `gantry doctor`: what this machine can do, tried and not guessed.

use std::process::ExitCode;

use super::InstanceArgs;

#[derive(clap::Args, Debug)]
pub struct DoctorArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    /// Output format
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

pub fn run(arguments: &DoctorArgs) -> anyhow::Result<ExitCode> {
    arguments.instance.dirs()?;
    let found = gantry_probes::probe();
    let missing = gantry_probes::first_missing(&found);
    if arguments.output.is_some() {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        let width = found.0.keys().map(String::len).max().unwrap_or(0);
        for (name, capability) in &found.0 {
            let needed = gantry_probes::REQUIRED.contains(&name.as_str());
            let mark = match (capability.available, needed) {
                (true, _) => "ok",
                (false, true) => "MISSING",
                (false, false) => "no",
            };
            println!("{mark:8} {name:width$}  {}", capability.detail);
        }
        match &missing {
            None => println!("\nA node can run here."),
            Some(sentence) => {
                println!("\nNo node can run here: {sentence}. Everything else runs with --no-node.")
            }
        }
    }
    Ok(if missing.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
