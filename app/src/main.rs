//! `gantry`: one binary, the composition root of the platform.

mod access;
mod addresses;
mod clients;
mod commands;
mod config;
mod instance;
mod kubeconfig;
mod memory;
mod metrics;
mod node;
mod platform;
mod routes;

use std::process::ExitCode;

use clap::Parser;
use gantry_base::settings::{ENVIRONMENT, environment};
use gantry_cli::ClientFlags;

/// The container platform where operators, application providers and resource providers meet.
#[derive(clap::Parser, Debug)]
#[command(name = "gantry", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = environment_help())]
struct Cli {
    #[command(flatten)]
    client: ClientFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Run everything on this machine
    Up(commands::up::UpArgs),
    /// Run the server alone; this machine runs no containers
    Server(commands::up::UpArgs),
    /// Show whether the instance runs, where, and how its parts are
    Status(commands::status::StatusArgs),
    /// Stop the instance and everything it runs on this machine
    Down(commands::down::DownArgs),
    /// Show what this machine can do
    Doctor(commands::doctor::DoctorArgs),
    #[command(flatten)]
    User(gantry_cli::Command),
}

/// What `gantry --help` says of the environment: all that is read of it.
fn environment_help() -> String {
    let width = ENVIRONMENT.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = ENVIRONMENT.iter().map(|(name, what)| format!("\n  {name:width$}  {what}"));
    format!("Environment:{}", lines.collect::<String>())
}

fn main() -> ExitCode {
    // containerd runs this same file under its plugins' names.
    let called_as = std::env::args_os().next().unwrap_or_default();
    if called_as.to_str().is_some_and(gantry_netstack::is_cni_name) {
        return gantry_netstack::cni_main();
    }
    // A second call could only find the same provider installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    gantry_base::telemetry::init(environment("GANTRY_LOG").as_deref());
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gantry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Up(arguments) => commands::up::run(&arguments),
        Command::Server(mut arguments) => {
            arguments.no_node = true;
            commands::up::run(&arguments)
        }
        Command::Doctor(arguments) => commands::doctor::run(&arguments),
        Command::Status(arguments) => block_on(commands::status::run(&arguments)),
        Command::Down(arguments) => block_on(commands::down::run(&arguments)),
        Command::User(command) => block_on(async {
            gantry_cli::run(command, &cli.client).await?;
            Ok(ExitCode::SUCCESS)
        }),
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}
