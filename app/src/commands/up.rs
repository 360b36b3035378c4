//! `gantry up`: everything on this machine, in the foreground or detached.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use gantry_base::fs as durable;
use gantry_base::health::HealthBoard;
use gantry_base::settings::{CONFIG_FILE, InstanceDirs, environment};
use gantry_base::tasks::Tasks;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::InstanceArgs;
use super::undo::Before;
use crate::access::read_password;
use crate::config::ConfigFile;
use crate::instance::{InstanceLock, InstanceRecord};
use crate::platform::{Platform, Settings};

/// How long tasks may take to end after a signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(clap::Args, Clone, Debug)]
pub struct UpArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Address of the HTTPS front door: Kubernetes API, registry
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:6443")]
    pub listen: SocketAddr,
    /// Return when everything is ready; go on in the background
    #[arg(long)]
    pub detach: bool,
    /// Run no containers on this machine (needs no root)
    #[arg(long)]
    pub no_node: bool,
    /// Name of the Node object (default: the host name)
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// How long everything may take to be ready
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
    /// DNS domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// File whose first line is the first administrator's password (default: one is generated and kept in DATA/identity/admin-password)
    #[arg(long, value_name = "FILE")]
    pub admin_password_file: Option<PathBuf>,
    /// File of settings (default: /etc/gantry/config.toml or /etc/gantry-NAME/config.toml where it is there; DIR/config.toml with --data-dir DIR)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set by --detach: report to the parent on standard output.
    #[arg(long, hide = true)]
    pub report: bool,
}

pub fn run(arguments: &UpArgs) -> anyhow::Result<ExitCode> {
    let dirs = arguments.instance.dirs()?;
    if arguments.detach && !arguments.report {
        return detach(&dirs);
    }
    if arguments.report {
        // The parent's terminal must not end us when it closes.
        let _ = nix::unistd::setsid();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = Report { to_parent: arguments.report };
    let done = runtime.block_on(serve(arguments, dirs, &report));
    if let Err(error) = &done
        && arguments.report
    {
        report.line("error", &format!("{error:#}"));
    }
    // Blocking threads may still wait for a disk or a child; they hold nothing that must be kept.
    runtime.shutdown_timeout(Duration::from_secs(2));
    done.map(|()| ExitCode::SUCCESS)
}

/// Tells how the start goes: to the terminal, or to the parent that does.
pub struct Report {
    to_parent: bool,
}

impl Report {
    pub fn step(&self, text: &str) {
        if self.to_parent {
            self.line("step", text);
        } else {
            eprintln!("{text}");
        }
    }

    fn line(&self, word: &str, text: &str) {
        // The parent may be gone; there is nobody else to tell.
        let _ = writeln!(std::io::stdout(), "{word} {}", text.replace('\n', " "));
    }
}

async fn serve(arguments: &UpArgs, dirs: InstanceDirs, report: &Report) -> anyhow::Result<()> {
    if let Some(pid) = InstanceLock::holder(&dirs)? {
        bail!(
            "the instance {} runs already (pid {pid}); `gantry down` stops it",
            arguments.instance.instance
        );
    }
    let config = ConfigFile::read(arguments.config.as_deref(), &dirs.config)?;
    let admin_password = arguments.admin_password_file.as_deref().map(read_password).transpose()?;
    let before = Before::look(&dirs);
    let node = wants_node(arguments, report)?;
    // Before anything is made: a refusal leaves nothing behind.
    let listener = bind(arguments.listen)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let _lock = InstanceLock::take(&dirs, &arguments.instance.instance)?;
    let settings = Settings {
        instance: arguments.instance.instance.clone(),
        dirs: dirs.clone(),
        listen: arguments.listen,
        node,
        node_name: arguments.node_name.clone(),
        cluster_domain: arguments.cluster_domain.clone(),
        admin_password,
        config,
    };
    let tasks = Tasks::new(CancellationToken::new(), HealthBoard::default());
    let starting = start(settings, listener, report, tasks.clone(), Duration::from_secs(arguments.timeout));
    let started = tokio::select! {
        started = starting => started,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted while starting")),
        _ = terminate.recv() => Err(anyhow::anyhow!("stopped while starting")),
    };
    let platform = match started {
        Ok(platform) => platform,
        Err(error) => {
            tracing::error!("the start failed: {error:#}");
            report.step("The start failed; taking back what it made ...");
            tasks.drain(DRAIN_TIMEOUT).await;
            let restored = before.restore(&arguments.instance.instance, &dirs).await;
            return match restored {
                Ok(()) => Err(error),
                Err(left) => Err(error.context(format!(
                    "something is left on the host ({left:#}), `gantry down` removes it; the start failed"
                ))),
            };
        }
    };
    if report.to_parent {
        report.line("ready", "");
        detach_stdout()?;
    } else {
        print_summary(platform.record());
    }
    loop {
        tokio::select! {
            _ = interrupt.recv() => break tracing::info!("interrupted"),
            _ = terminate.recv() => break tracing::info!("asked to stop"),
            _ = hangup.recv() => platform.reload(),
        }
    }
    let drained = platform.stop(DRAIN_TIMEOUT).await;
    InstanceRecord::remove(&dirs)?;
    if !drained {
        tracing::warn!("some tasks had not ended in time");
    }
    Ok(())
}

/// Everything, ready; or nothing of it running any more.
async fn start(
    settings: Settings,
    listener: std::net::TcpListener,
    report: &Report,
    tasks: Tasks,
    timeout: Duration,
) -> anyhow::Result<Platform> {
    let platform = Platform::start(settings, listener, report, tasks).await?;
    let ready = match platform.wait_ready(timeout).await {
        Ok(()) => platform.record().write(),
        unready => unready,
    };
    match ready {
        Ok(()) => Ok(platform),
        Err(error) => {
            platform.stop(DRAIN_TIMEOUT).await;
            Err(error)
        }
    }
}

/// Whether this machine runs containers; without root it does not, and says so.
fn wants_node(arguments: &UpArgs, report: &Report) -> anyhow::Result<bool> {
    if arguments.no_node {
        report.step("No node: this machine runs no containers (--no-node).");
        return Ok(false);
    }
    if !nix::unistd::geteuid().is_root() {
        report.step("No node: this machine runs no containers, because gantry was not started as root.");
        return Ok(false);
    }
    match gantry_probes::first_missing(&gantry_probes::probe_required()) {
        None => Ok(true),
        Some(sentence) => bail!("no node can run here: {sentence}; or start with --no-node"),
    }
}

fn bind(listen: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let bound = std::net::TcpListener::bind(listen);
    let listener = bound.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "{listen} is in use by another program: stop it, or choose another address with --listen"
            )
        }
        std::io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{listen} may not be used without root: choose a port above 1023 with --listen")
        }
        _ => anyhow::anyhow!("{listen} cannot be listened on: {error}"),
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn print_summary(record: &InstanceRecord) {
    println!("Gantry is up.");
    println!("  API         {}", record.api);
    println!("  kubeconfig  {}", record.kubeconfig.display());
    println!("  registry    {}", record.registry);
    println!("Try next:");
    if let Some(line) = path_line() {
        println!("  {line}");
    }
    println!("  export KUBECONFIG={}", record.kubeconfig.display());
    println!("  kubectl get nodes");
    println!("  gantry image pack PROGRAM --tag demo/hello:1 --port 8080");
}

/// The line a shell needs to find this program; none where it does already.
fn path_line() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let directory = program.parent()?;
    let path = environment("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|entry| entry == directory);
    (!found).then(|| format!("export PATH={}:$PATH", directory.display()))
}

/// Starts this program again in the background and waits until it is ready or says why not.
fn detach(dirs: &InstanceDirs) -> anyhow::Result<ExitCode> {
    let log_path = dirs.data.join("gantry.log");
    let made_log = !log_path.exists();
    let log = open_log(&log_path)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--report")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("gantry cannot start itself")?;
    let stdout = child.stdout.take().context("the child has no standard output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("step", text) => eprintln!("{text}"),
            ("error", text) => {
                let _ = child.wait();
                if made_log {
                    discard(&log_path, dirs);
                }
                bail!("{text}");
            }
            ("ready", _) => {
                let record = InstanceRecord::read(dirs)?.context("the instance left no record")?;
                print_summary(&record);
                return Ok(ExitCode::SUCCESS);
            }
            _ => {}
        }
    }
    let status = child.wait()?;
    bail!("gantry ended while starting ({status}); see {}", log_path.display())
}

fn open_log(path: &PathBuf) -> anyhow::Result<File> {
    if let Some(directory) = path.parent() {
        durable::create_directory(directory, 0o755).with_context(|| directory.display().to_string())?;
    }
    OpenOptions::new().create(true).append(true).open(path).with_context(|| path.display().to_string())
}

/// A start that was refused before it made anything leaves nothing behind: not even its log.
fn discard(log: &PathBuf, dirs: &InstanceDirs) {
    let ours = |name: &std::ffi::OsStr| name == CONFIG_FILE || log.file_name() == Some(name);
    let nothing_else =
        std::fs::read_dir(&dirs.data).is_ok_and(|mut all| all.all(|e| e.is_ok_and(|e| ours(&e.file_name()))));
    if nothing_else {
        let _ = std::fs::remove_file(log);
        // Settings that were there before keep their directory.
        let _ = std::fs::remove_dir(&dirs.data);
    }
}

/// The parent has heard enough and goes; a later write to its pipe would end us.
fn detach_stdout() -> anyhow::Result<()> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(null)?;
    Ok(())
}
