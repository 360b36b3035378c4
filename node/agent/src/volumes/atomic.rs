//! Files of ConfigMap-like volumes, replaced all at once: the content lies in a directory with a time in its name,
//! `..data` points to it, and user-visible names are links through `..data`. Swapping that one link changes every
//! file in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) content: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// Files by their path relative to the volume.
pub(crate) type Payload = BTreeMap<String, File>;

/// A path that stays inside the volume and does not collide with the links used here.
pub(crate) fn valid_path(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with("..")
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

/// Makes `directory` hold exactly `payload`; does nothing when it already does. `group` owns the files.
pub(crate) fn write(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    if let Some(bad) = payload.keys().find(|path| !valid_path(path)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {bad:?}")));
    }
    let current = fs::read_link(directory.join(DATA)).ok().map(|name| directory.join(name));
    if let Some(current) = &current
        && read(current)? == *payload
    {
        return Ok(false);
    }
    let now = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.").to_string();
    let fresh = tempfile::Builder::new().prefix(&now).tempdir_in(directory)?.keep();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        write_file(&target, file, group)?;
    }
    let name = fresh.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let new_link = directory.join(DATA_NEW);
    let _ = fs::remove_file(&new_link);
    symlink(name, &new_link)?;
    fs::rename(&new_link, directory.join(DATA))?;
    link_names(directory, payload)?;
    if let Some(old) = current {
        crate::files::remove_tree(&old)?;
    }
    Ok(true)
}

/// Files of a volume are private to the pod and may hold secrets; the mode is set before the content is written.
fn write_file(path: &Path, file: &File, group: Option<u32>) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut handle = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    handle.write_all(&file.content)?;
    if group.is_some() {
        chown(path, None, group)?;
    }
    handle.set_permissions(fs::Permissions::from_mode(file.mode))
}

/// The user-visible links: one per first path component, stale ones removed.
fn link_names(directory: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(PathBuf::from(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(&*name) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What a data directory holds now.
fn read(root: &Path) -> io::Result<Payload> {
    let mut payload = Payload::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                open.push(path);
            } else if let Ok(name) = path.strip_prefix(root) {
                let file = File { content: fs::read(&path)?, mode: meta.mode() & 0o7777 };
                payload.insert(name.to_string_lossy().into_owned(), file);
            }
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { content: text.as_bytes().to_vec(), mode: 0o644 };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn content_is_swapped_and_stale_names_go() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = dir.path();
        assert!(write(root, &payload(&[("a", "1"), ("d/e", "2")]), None).expect("first"));
        assert!(!write(root, &payload(&[("a", "1"), ("d/e", "2")]), None).expect("unchanged"));
        let text = |name: &str| fs::read_to_string(root.join(name)).ok();
        assert_eq!((text("a"), text("d/e")), (Some("1".into()), Some("2".into())));
        assert!(write(root, &payload(&[("a", "3")]), None).expect("changed"));
        assert_eq!((text("a"), text("d/e")), (Some("3".into()), None));
        let hidden = fs::read_dir(root).expect("dir").flatten().filter(|e| e.path().is_dir()).count();
        assert_eq!(hidden, 2, "one data directory and the link to it");
        assert!(!root.join("d").exists());
    }

    #[test]
    fn paths_out_of_the_volume_are_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        for bad in ["../x", "/x", "a/../../x", "", "..data"] {
            assert!(write(dir.path(), &payload(&[(bad, "1")]), None).is_err(), "{bad}");
        }
    }
}
