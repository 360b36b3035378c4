//! What an instance may have left on the host: nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

/// Everything on this host that belongs to the instance, one line each. Empty after `gantry down --purge`.
///
/// `bridge` is the instance's bridge; `namespaces` are paths of network namespaces its pods had.
pub fn leftovers(
    instance: &str,
    directories: &[&Path],
    bridge: Option<&str>,
    namespaces: &[String],
) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(mounts(directories));
    found.extend(links(instance, bridge));
    found.extend(tables(instance));
    found.extend(cgroups(&format!("gantry-{instance}")));
    found.extend(processes(directories));
    found.extend(client_certificates(directories));
    for path in namespaces.iter().filter(|path| Path::new(path).exists()) {
        found.push(format!("network namespace {path}"));
    }
    for directory in directories.iter().filter(|directory| directory.exists()) {
        found.push(format!("directory {}", directory.display()));
    }
    found
}

fn mounts(directories: &[&Path]) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| directories.iter().any(|directory| Path::new(point).starts_with(directory)))
        .map(|point| format!("mount {point}"))
        .collect()
}

/// The bridge, and the host's ends of containers' links: `g` and six digits of the name's SHA-256.
fn links(instance: &str, bridge: Option<&str>) -> Vec<String> {
    let digest = Sha256::digest(instance.as_bytes());
    let prefix = format!("g{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2]);
    let names = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&prefix) || Some(name.as_str()) == bridge)
        .map(|name| format!("link {name}"))
        .collect()
}

fn tables(instance: &str) -> Vec<String> {
    let Ok(out) = Command::new("nft").args(["list", "tables"]).output() else { return Vec::new() };
    let own = format!("gantry-{instance}");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().filter(|line| line.split(' ').next_back() == Some(&own)).map(str::to_owned).collect()
}

/// The group lies directly below each hierarchy's root, or below the group this process is in.
fn cgroups(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    search(Path::new("/sys/fs/cgroup"), name, 3, &mut found);
    found
}

fn search(directory: &Path, name: &str, depth: usize, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy() == name {
            found.push(format!("cgroup {}", entry.path().display()));
        } else if depth > 1 {
            search(&entry.path(), name, depth - 1, found);
        }
    }
}

/// Folders that tell OCI clients of the host about the instance's registry name its data directory.
fn client_certificates(directories: &[&Path]) -> Vec<String> {
    let folders = fs::read_dir("/etc/containers/certs.d").into_iter().flatten().flatten();
    folders
        .filter(|folder| {
            let owner = fs::read_to_string(folder.path().join("gantry-instance")).unwrap_or_default();
            directories.iter().any(|directory| *directory == Path::new(&owner))
        })
        .map(|folder| format!("client certificates {}", folder.path().display()))
        .collect()
}

/// Bridges of address slots that no instance holds: a start took the slot, made the bridge, and gave only the
/// slot back.
pub fn ownerless_bridges() -> Vec<String> {
    let names = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let slot = |name: &str| name.strip_prefix("gantry").and_then(|number| number.parse::<u8>().ok());
    names
        .filter(|name| {
            slot(name).is_some_and(|slot| !Path::new(&format!("/run/gantry-addresses/slot-{slot}")).exists())
        })
        .collect()
}

/// gantry itself, containerd and its shims all have the instance's directories among their arguments.
fn processes(directories: &[&Path]) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if directories.iter().any(|directory| line.contains(&*directory.to_string_lossy())) {
            found.push(format!("process {pid}: {}", line.trim()));
        }
    }
    found
}
