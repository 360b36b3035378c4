//! Address ranges and names on the host that no two instances may share.
//!
//! Every instance takes one slot N: pods live in 10.(100+N).0.0/17, services in 10.(100+N).128.0/17.
//! A slot once taken is kept with the instance's data, so that addresses survive restarts and reboots;
//! a slot whose instance is gone, or that overlaps with what the host routes, is passed over.

use std::fs::{self, File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use gantry_base::fs as durable;
use ipnet::Ipv4Net;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

const SLOTS: u8 = 100;
const FIRST_OCTET: u8 = 10;
const SECOND_OCTET_BASE: u8 = 100;
/// Version of `addresses.json`.
const VERSION: u32 = 1;

/// The ranges of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// Of the file's form; files of before it was written down have the first.
    #[serde(default = "first_version")]
    version: u32,
    pub slot: u8,
    pub pod_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    /// Interface name of the pod bridge.
    pub bridge: String,
}

impl Addresses {
    pub fn of_slot(slot: u8) -> Self {
        let second = SECOND_OCTET_BASE + slot;
        let net = |third| {
            // 17 is a valid prefix length.
            Ipv4Net::new_assert(Ipv4Addr::new(FIRST_OCTET, second, third, 0), 17)
        };
        Self {
            version: VERSION,
            slot,
            pod_cidr: net(0),
            service_cidr: net(128),
            bridge: format!("gantry{slot}"),
        }
    }

    /// The bridge's own address: the pods' gateway, where they reach the API server.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pod_cidr.network()) + 1)
    }

    /// The address of the `kubernetes` Service.
    pub fn api_service(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_cidr.network()) + 1)
    }

    /// The address of cluster DNS.
    pub fn dns(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_cidr.network()) + 10)
    }
}

fn first_version() -> u32 {
    1
}

/// The ranges an instance has, where it has any. A file that cannot be read is refused, not replaced: other
/// ranges would change the address of every pod and Service.
pub fn kept(data: &Path) -> anyhow::Result<Option<Addresses>> {
    let path = data.join("addresses.json");
    let Some(bytes) = durable::read_optional(&path).with_context(|| path.display().to_string())? else {
        return Ok(None);
    };
    let kept: Addresses =
        serde_json::from_slice(&bytes).with_context(|| format!("{} cannot be read", path.display()))?;
    if kept.version > VERSION {
        bail!(
            "{} has version {}, and this gantry knows {VERSION}: use the newer gantry that wrote it",
            path.display(),
            kept.version
        );
    }
    Ok(Some(kept))
}

/// The instance's ranges: those it had, or a free slot of this host.
pub fn allocate(data: &Path, slots: &Path) -> anyhow::Result<Addresses> {
    let _guard = lock(slots)?;
    let kept_slot = kept(data)?.map(|addresses| addresses.slot);
    let routed = routed_networks();
    for slot in kept_slot.into_iter().chain(0..SLOTS) {
        let addresses = Addresses::of_slot(slot);
        let own = Some(slot) == kept_slot;
        if !is_free(slots, slot, data) || (!own && overlaps(&addresses, &routed)) {
            continue;
        }
        durable::write_atomic(&slot_path(slots, slot), data.as_os_str().as_encoded_bytes(), 0o644)?;
        durable::write_atomic(&data.join("addresses.json"), &serde_json::to_vec_pretty(&addresses)?, 0o644)?;
        return Ok(addresses);
    }
    bail!(
        "all {SLOTS} address ranges 10.{SECOND_OCTET_BASE}.0.0/16 and up are in use on this host; stop an instance with `gantry down --purge`"
    )
}

/// Gives the instance's slot back.
pub fn release(data: &Path, slots: &Path) -> anyhow::Result<()> {
    let _guard = lock(slots)?;
    for slot in 0..SLOTS {
        if taken_by(slots, slot).as_deref() == Some(data) {
            durable::remove_all(&slot_path(slots, slot))?;
        }
    }
    Ok(())
}

fn slot_path(slots: &Path, slot: u8) -> PathBuf {
    slots.join(format!("slot-{slot}"))
}

fn taken_by(slots: &Path, slot: u8) -> Option<PathBuf> {
    let text = fs::read_to_string(slot_path(slots, slot)).ok()?;
    Some(PathBuf::from(text))
}

fn is_free(slots: &Path, slot: u8, data: &Path) -> bool {
    taken_by(slots, slot).is_none_or(|holder| holder == data || !holder.join("addresses.json").exists())
}

fn lock(slots: &Path) -> anyhow::Result<Flock<File>> {
    durable::create_directory(slots, 0o755).with_context(|| slots.display().to_string())?;
    let path = slots.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| anyhow::anyhow!("{}: {error}", path.display()))
}

/// Networks the host has a route to, from `/proc/net/route` (little-endian hexadecimal).
fn routed_networks() -> Vec<Ipv4Net> {
    let text = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let read = |line: &str| {
        let mut fields = line.split_whitespace();
        let destination = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
        let mask = u32::from_str_radix(fields.nth(5)?, 16).ok()?;
        let length = mask.count_ones() as u8;
        Ipv4Net::new(Ipv4Addr::from(destination.swap_bytes()), length).ok()
    };
    // The default route covers everything and says nothing.
    text.lines().skip(1).filter_map(read).filter(|net| net.prefix_len() > 0).collect()
}

fn overlaps(addresses: &Addresses, routed: &[Ipv4Net]) -> bool {
    let ours = [addresses.pod_cidr, addresses.service_cidr];
    routed.iter().any(|net| ours.iter().any(|our| our.contains(net) || net.contains(our)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_kept_not_shared_and_returned() {
        let host = tempfile::tempdir().expect("a temporary directory");
        let (slots, first, second) =
            (host.path().join("slots"), host.path().join("a"), host.path().join("b"));
        for data in [&first, &second] {
            fs::create_dir(data).expect("made");
        }
        let a = allocate(&first, &slots).expect("a slot");
        let b = allocate(&second, &slots).expect("another slot");
        assert_ne!(a.slot, b.slot);
        assert_eq!(allocate(&first, &slots).expect("kept"), a);
        fs::remove_dir_all(&first).expect("removed");
        fs::create_dir(&first).expect("made again");
        assert_eq!(allocate(&first, &slots).expect("the slot of what is gone is free"), a);
        release(&second, &slots).expect("released");
        let file = first.join("addresses.json");
        let text = fs::read_to_string(&file).expect("written");
        let put = |text: &str| durable::write_atomic(&file, text.as_bytes(), 0o644).expect("written");
        put(&text.replace("\"version\": 1,", ""));
        assert_eq!(kept(&first).expect("of before versions"), Some(a.clone()));
        put(&text.replace("\"version\": 1", "\"version\": 2"));
        let newer = allocate(&first, &slots).expect_err("not understood").to_string();
        assert!(newer.contains("has version 2"), "{newer}");
        put("{");
        allocate(&first, &slots).expect_err("damaged, and not replaced");
        assert_eq!(fs::read_to_string(&file).expect("kept"), "{");
        assert_eq!(a.dns().to_string(), format!("10.{}.128.10", 100 + a.slot));
    }
}
