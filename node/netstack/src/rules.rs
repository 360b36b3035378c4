//! Keeps the kernel's rules equal to the plan: one transaction per change.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::{Mutex, watch};

use crate::config::NetConfig;
use crate::conntrack;
use crate::error::{Context, NetError, Result};
use crate::ipam::Lease;
use crate::service::World;
use crate::service::plan::{Node, plan};
use crate::table::{Client, Table, difference, replace};

/// Longest run of one nft transaction.
const NFT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a pod with host ports waits for the first list of services after a start.
const SYNC_WAIT_MAX: Duration = Duration::from_secs(20);

/// The rules of one instance. All changes go through here, one after the other.
pub(crate) struct Rules {
    config: NetConfig,
    node: Node,
    state: Mutex<State>,
    synced: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    leases: Vec<Lease>,
    /// `None` until the services are known while the rules of the last run still serve.
    world: Option<Arc<World>>,
    /// What the kernel has; `None`: unknown, so the next change replaces the whole table.
    applied: Option<Table>,
}

impl Rules {
    /// Takes over. Rules of an earlier run go on serving until the first call of [`Self::set_world`]
    /// replaces them in one transaction; without such rules the fixed part is installed now.
    pub async fn start(config: NetConfig, leases: Vec<Lease>) -> Result<Self> {
        let found = nft_list(&config).await?;
        let node = Node::of(&config);
        let state = State { leases, ..State::default() };
        let rules = Self { config, node, state: Mutex::new(state), synced: watch::Sender::new(false) };
        if !found {
            rules.set_world(Arc::default()).await?;
        }
        Ok(rules)
    }

    /// The services as they are now.
    pub async fn set_world(&self, world: Arc<World>) -> Result<()> {
        let mut state = self.state.lock().await;
        state.world = Some(world);
        self.apply(&mut state).await?;
        self.synced.send_replace(true);
        Ok(())
    }

    /// All pods' leases that have rules. Before the services are known they are only noted.
    pub async fn set_leases(&self, leases: Vec<Lease>) -> Result<()> {
        let mut state = self.state.lock().await;
        state.leases = leases;
        self.apply(&mut state).await
    }

    /// Comes back when rules can be changed.
    pub async fn wait_synced(&self) -> Result<()> {
        let mut synced = self.synced.subscribe();
        let waited = tokio::time::timeout(SYNC_WAIT_MAX, synced.wait_for(|done| *done)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => {
                Err(NetError::NotReady("the services are not known yet: the API does not answer".to_owned()))
            }
        }
    }

    async fn apply(&self, state: &mut State) -> Result<()> {
        let Some(world) = &state.world else { return Ok(()) };
        let wanted = plan(world, &state.leases, &self.node);
        if let Some(applied) = &state.applied {
            let script = difference(&self.config, applied, &wanted);
            if script.is_empty() {
                return Ok(());
            }
            match nft(&script).await {
                Ok(()) => {
                    let gone: BTreeSet<_> =
                        applied.udp_endpoints.difference(&wanted.udp_endpoints).copied().collect();
                    state.applied = Some(wanted);
                    forget_flows(gone).await;
                    return Ok(());
                }
                // Somebody else changed our table (a flushed rule set, say): make it anew.
                Err(error) => tracing::warn!(%error, "the rules are not as they were left; replacing them"),
            }
        }
        let before = state.applied.take().map(|table| table.udp_endpoints).unwrap_or_default();
        let clients = nft_clients(&self.config).await;
        nft(&replace(&self.config, &wanted, &clients)).await?;
        let gone = before.difference(&wanted.udp_endpoints).copied().collect();
        state.applied = Some(wanted);
        forget_flows(gone).await;
        Ok(())
    }
}

/// UDP has no end that the kernel sees: a client that keeps its socket would be sent to an endpoint
/// that is gone for as long as it talks.
async fn forget_flows(gone: BTreeSet<SocketAddrV4>) {
    if gone.is_empty() {
        return;
    }
    let forgotten = tokio::task::spawn_blocking(move || conntrack::forget_udp(&gone)).await;
    match forgotten {
        Ok(Ok(count)) => tracing::debug!(count, "forgot tracked UDP flows of endpoints that are gone"),
        Ok(Err(error)) => tracing::warn!(%error, "tracked UDP flows could not be forgotten"),
        Err(panic) => tracing::error!(%panic, "forgetting UDP flows"),
    }
}

/// Runs one transaction.
pub(crate) async fn nft(script: &str) -> Result<()> {
    let run = async {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context(|| "running nft (is the nftables package installed?)".to_owned())?;
        let mut input = child.stdin.take();
        let feed = async {
            if let Some(pipe) = input.as_mut() {
                // nft that ends early says why on its standard error.
                let _ = pipe.write_all(script.as_bytes()).await;
            }
            drop(input);
        };
        let ((), output) = tokio::join!(feed, child.wait_with_output());
        let output = output.context(|| "waiting for nft".to_owned())?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(NetError::Nft { stderr: stderr.lines().take(4).collect::<Vec<_>>().join(" ") })
    };
    let timeout = || Err(NetError::Nft { stderr: "it did not end in time".to_owned() });
    tokio::time::timeout(NFT_TIMEOUT, run).await.unwrap_or_else(|_| timeout())
}

/// Is there a table of this instance?
async fn nft_list(config: &NetConfig) -> Result<bool> {
    let output = Command::new("nft")
        .args(["-j", "list", "tables", "ip"])
        .kill_on_drop(true)
        .output()
        .await
        .context(|| "running nft (is the nftables package installed?)".to_owned())?;
    if !output.status.success() {
        return Err(NetError::Nft { stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let table = config.table();
    Ok(listed["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|entry| entry["table"]["name"] == table.as_str()))
}

/// The clients with affinity in the present table; none where there is no table.
async fn nft_clients(config: &NetConfig) -> Vec<Client> {
    let table = config.table();
    let listed =
        Command::new("nft").args(["-j", "list", "table", "ip", &table]).kill_on_drop(true).output().await;
    let Ok(output) = listed else { return Vec::new() };
    parse_clients(&serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// Reads the elements of all sets out of nft's JSON (libnftables-json(5)).
fn parse_clients(listed: &serde_json::Value) -> Vec<Client> {
    let entries = listed["nftables"].as_array().into_iter().flatten();
    let sets =
        entries.filter_map(|entry| Some((entry["set"]["name"].as_str()?, entry["set"]["elem"].as_array()?)));
    let clients = sets.flat_map(|(name, elements)| {
        elements.iter().filter_map(move |element| {
            let element = &element["elem"];
            let left = u32::try_from(element["expires"].as_u64()?).ok()?;
            Some((name.to_owned(), element["val"].as_str()?.parse().ok()?, left))
        })
    });
    clients.collect()
}

/// Removes the table, if it is there.
pub(crate) async fn purge(config: &NetConfig) -> Result<()> {
    let table = config.table();
    nft(&format!("add table ip {table}\ndelete table ip {table}\n")).await
}
