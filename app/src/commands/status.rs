//! `gantry status`: is the instance up, where, and how is every part.

use std::collections::BTreeMap;
use std::process::ExitCode;

use gantry_base::health::Health;
use gantry_base::settings::InstanceDirs;
use gantry_cli::{ClientFlags, Context};
use serde_json::json;

use super::InstanceArgs;
use crate::instance::{InstanceLock, InstanceRecord};

#[derive(clap::Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    /// Output format
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

/// Exit code 0: up and every part ok; 1: up, but not all of it; 3: not running (as `systemctl status`).
pub async fn run(arguments: &StatusArgs) -> anyhow::Result<ExitCode> {
    let dirs = arguments.instance.dirs()?;
    let holder = InstanceLock::holder(&dirs)?;
    let record = InstanceRecord::read(&dirs)?;
    let (Some(pid), Some(record)) = (holder, record) else {
        if arguments.output.is_some() {
            println!("{}", json!({"instance": arguments.instance.instance, "running": false}));
        } else {
            println!("The instance {} is not running; `gantry up` starts it.", arguments.instance.instance);
        }
        return Ok(ExitCode::from(3));
    };
    let health = health(&dirs).await;
    let parts = health.as_ref().map(|parts| parts.clone()).unwrap_or_default();
    let ready = health.is_ok() && parts.values().all(|h| matches!(h, Health::Ok | Health::Off(_)));
    if arguments.output.is_some() {
        let mut object = serde_json::to_value(&record)?;
        object["running"] = json!(true);
        object["ready"] = json!(ready);
        object["health"] = json!(parts);
        println!("{}", serde_json::to_string_pretty(&object)?);
    } else {
        print(&record, pid, &parts);
        if let Err(error) = &health {
            println!("The API does not answer: {error:#}");
        }
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(record: &InstanceRecord, pid: i32, parts: &BTreeMap<String, Health>) {
    println!("Instance    {} (pid {pid}, since {})", record.instance, record.started);
    println!("API         {}", record.api);
    println!("Registry    {}", record.registry);
    println!("Kubeconfig  {}", record.kubeconfig.display());
    println!("Data        {}", record.data_dir.display());
    for (part, text) in lines(parts) {
        println!("  {part:24} {text}");
    }
}

/// A line for every part that is not well, and one for all that are of each `group/`.
fn lines(parts: &BTreeMap<String, Health>) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut well: BTreeMap<&str, usize> = BTreeMap::new();
    for (part, health) in parts {
        let text = match (health, part.split_once('/')) {
            (Health::Ok, Some((group, _))) => {
                *well.entry(group).or_default() += 1;
                continue;
            }
            (Health::Ok, None) => "ok".to_owned(),
            (Health::Starting, _) => "starting".to_owned(),
            (Health::Degraded(why), _) => format!("degraded: {why}"),
            (Health::Off(why), _) => format!("off: {why}"),
        };
        lines.push((part.clone(), text));
    }
    lines
        .extend(well.into_iter().map(|(group, count)| (format!("{group}/…"), format!("ok ({count} parts)"))));
    lines.sort();
    lines
}

/// Asks the instance itself, as its administrator.
async fn health(dirs: &InstanceDirs) -> anyhow::Result<BTreeMap<String, Health>> {
    let flags = ClientFlags { kubeconfig: Some(dirs.kubeconfig()), context: None };
    let context = Context::load(&flags).await?;
    let url = format!("{}/gantry/health", context.server());
    let answer = context.http()?.get(url).timeout(std::time::Duration::from_secs(5)).send().await?;
    Ok(answer.error_for_status()?.json().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_well_is_short_and_what_is_not_is_named() {
        let parts = [
            ("controller/a", Health::Ok),
            ("controller/b", Health::Degraded("panicked".to_owned())),
            ("controller/c", Health::Ok),
            ("store", Health::Ok),
        ];
        let parts = parts.map(|(part, health)| (part.to_owned(), health)).into();
        let shown: Vec<String> =
            lines(&parts).into_iter().map(|(part, text)| format!("{part}: {text}")).collect();
        assert_eq!(shown, ["controller/b: degraded: panicked", "controller/…: ok (2 parts)", "store: ok"]);
    }
}
