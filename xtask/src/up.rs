//! The README's first command: from a clone to a running platform with the demo deployed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::{run, setup};

const ROLLOUT_TIMEOUT: Duration = Duration::from_secs(180);

pub fn up(arguments: &[&str]) -> anyhow::Result<()> {
    setup::for_running()?;
    run::cargo(&["build", "--release", "--package", "gantry", "--package", "hello"])?;
    let gantry = binary("gantry");
    println!("== gantry up --detach {}", arguments.join(" "));
    run::shown(Command::new(&gantry).args(["up", "--detach"]).args(arguments))?;
    let status = run::output(Command::new(&gantry).args(["status", "-o", "json"]).args(instance(arguments)))?;
    let status: serde_json::Value = serde_json::from_str(&status).context("gantry status printed no JSON")?;
    let kubeconfig = text(&status, "kubeconfig")?;

    println!("== gantry image pack hello --tag demo/hello:1 --port 8080");
    let mut pack = Command::new(&gantry);
    pack.args(["image", "pack"]).arg(binary("hello")).args(["--tag", "demo/hello:1", "--port", "8080"]);
    run::shown(pack.env("KUBECONFIG", &kubeconfig))?;

    println!("== kubectl apply -f examples/hello/");
    let kubectl = |words: &[&str]| {
        let mut command = Command::new(setup::kubectl());
        command.args(words).env("KUBECONFIG", &kubeconfig).current_dir(run::root());
        command
    };
    run::shown(&mut kubectl(&["apply", "-f", "examples/hello/"]))?;
    let timeout = format!("--timeout={}s", ROLLOUT_TIMEOUT.as_secs());
    run::shown(&mut kubectl(&["-n", "hello", "rollout", "status", "deployment/hello", &timeout]))?;

    let demo = "http://127.0.0.1:30080/";
    wait_for_demo(demo)?;
    println!();
    println!("Gantry is up, and the demo answers.");
    println!("  API          {}", text(&status, "api")?);
    println!("  kubeconfig   {kubeconfig}");
    println!("  registry     {}", text(&status, "registry")?);
    println!("  demo         {demo}");
    println!("For this shell:");
    println!("  export PATH={}:$PATH", programs().join(":"));
    println!("  export KUBECONFIG={kubeconfig}");
    println!("Try next:");
    println!("  kubectl -n hello get pods -o wide");
    println!("  kubectl -n hello scale deployment/hello --replicas=5");
    println!("  gantry image list");
    Ok(())
}

pub fn down(arguments: &[&str]) -> anyhow::Result<()> {
    let gantry = binary("gantry");
    if !gantry.is_file() {
        bail!("nothing was built: {} is not there", gantry.display());
    }
    run::shown(Command::new(gantry).arg("down").args(arguments))
}

/// The folders in which a shell finds gantry, and kubectl where the machine has none that is new enough.
fn programs() -> Vec<String> {
    let mut folders = vec![run::target().join("release")];
    let kubectl = setup::kubectl();
    folders.extend(kubectl.parent().filter(|parent| parent.is_absolute()).map(Path::to_owned));
    folders.into_iter().map(|folder| folder.display().to_string()).collect()
}

fn binary(name: &str) -> PathBuf {
    run::target().join("release").join(name)
}

/// Of `up`'s arguments those that say which instance is meant.
fn instance<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut kept = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let names = ["--instance", "--data-dir", "--run-dir"];
        if names.contains(word) {
            kept.push(*word);
            kept.extend(words.next());
        } else if names.iter().any(|n| word.starts_with(&format!("{n}="))) {
            kept.push(*word);
        }
    }
    kept
}

fn text(status: &serde_json::Value, field: &str) -> anyhow::Result<String> {
    let value = status[field].as_str();
    value.map(str::to_owned).with_context(|| format!("gantry status says nothing of its {field}"))
}

/// The Service answers as soon as its rules stand, which may be moments after the roll-out.
fn wait_for_demo(url: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match run::output(Command::new("curl").args(["-sS", "--max-time", "2", url])) {
            Ok(answer) if answer.contains(" from ") => return Ok(()),
            Ok(answer) if Instant::now() > deadline => bail!("the demo answered {answer:?}"),
            Err(error) if Instant::now() > deadline => return Err(error.context("the demo does not answer")),
            _ => run::pause(Duration::from_millis(200)),
        }
    }
}
