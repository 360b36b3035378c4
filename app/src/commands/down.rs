//! `gantry down`: ends the process, its containers and everything they have on this host; the data
//! stays unless it is asked for too.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use gantry_base::fs as durable;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{InstanceArgs, slots_dir};
use crate::instance::{InstanceLock, InstanceRecord};
use crate::{addresses, clients, platform};

const STOP_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(clap::Args, Debug)]
pub struct DownArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    /// Remove the instance's data too: objects, images, volumes, certificates
    #[arg(long)]
    purge: bool,
}

pub async fn run(arguments: &DownArgs) -> anyhow::Result<ExitCode> {
    let dirs = arguments.instance.dirs()?;
    let name = &arguments.instance.instance;
    let known = dirs.data.exists() || dirs.run.exists();
    if let Some(pid) = InstanceLock::holder(&dirs)? {
        eprintln!("Stopping the instance {name} (pid {pid}) ...");
        stop(&dirs, pid).await?;
    }
    if nix::unistd::geteuid().is_root() && known {
        eprintln!("Removing its containers, networks and rules ...");
        platform::remove_from_host(name, &dirs).await?;
        clients::remove(&clients::directory(), &dirs.data)?;
    }
    InstanceRecord::remove(&dirs)?;
    durable::remove_all(&dirs.run).with_context(|| dirs.run.display().to_string())?;
    if arguments.purge {
        durable::remove_all(&dirs.data).with_context(|| dirs.data.display().to_string())?;
        if nix::unistd::geteuid().is_root() {
            addresses::release(&dirs.data, &slots_dir())?;
        }
    }
    let what = match (known, arguments.purge) {
        (false, _) => format!("The instance {name} was not there."),
        (true, false) => format!("The instance {name} is down; its data stays in {}.", dirs.data.display()),
        (true, true) => format!("The instance {name} is gone with all its data."),
    };
    println!("{what}");
    Ok(ExitCode::SUCCESS)
}

async fn stop(dirs: &gantry_base::settings::InstanceDirs, pid: i32) -> anyhow::Result<()> {
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => bail!("pid {pid} cannot be stopped: {error}"),
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    loop {
        let is_late = Instant::now() > deadline;
        match InstanceLock::holder(dirs)?.is_some() {
            true if is_late => {
                eprintln!("It does not end; killing it.");
                kill(Pid::from_raw(pid), Signal::SIGKILL).context("the process cannot be killed")?;
            }
            true => {}
            // Who has the number by then is somebody else.
            false if is_late || !runs(pid) => return Ok(()),
            false => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The lock is given back before the process has ended, and who asks for `down` finds nothing of it afterwards.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name in its parentheses is the state. What has ended and is not waited for runs no more.
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_does_not_run() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = i32::try_from(child.id()).expect("a pid");
        assert!(runs(pid));
        child.kill().expect("our own child");
        // It is a zombie soon, for as long as nobody waits for it.
        let began = Instant::now();
        while runs(pid) {
            assert!(began.elapsed() < STOP_TIMEOUT);
            std::thread::yield_now();
        }
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
        child.wait().expect("our own child");
        assert!(!runs(pid));
    }
}
