//! `subPath` mounts: a part of a volume, bound to a place of our own before the runtime sees it. A container can
//! write links into its volume, so every step is resolved by the kernel beneath the volume's root.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};

/// Binds `volume/sub_path` to `target` and returns it. Missing directories of the path are created.
pub(crate) fn bind(volume: &Path, sub_path: &str, target: &Path) -> io::Result<PathBuf> {
    let inside = Path::new(sub_path);
    if !inside.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid subPath {sub_path:?}")));
    }
    let handle = open_or_create(volume, inside)?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    let is_dir = fs::metadata(&source)?.is_dir();
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    // A left-over of an earlier run may bind something else by now.
    crate::files::unmount_below(target)?;
    if is_dir {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        fs::File::create(target)?;
    }
    mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(target.to_owned())
}

fn open_or_create(volume: &Path, inside: &Path) -> io::Result<OwnedFd> {
    let root: OwnedFd = fs::File::open(volume)?.into();
    let how = |flags: OFlag| {
        OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
    };
    match openat2(root.as_fd(), inside, how(OFlag::O_PATH)) {
        Ok(handle) => return Ok(handle),
        Err(nix::errno::Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mut done = PathBuf::new();
    for component in inside.components() {
        let parent = if done.as_os_str().is_empty() { Path::new(".") } else { done.as_path() };
        let parent = openat2(root.as_fd(), parent, how(OFlag::O_PATH | OFlag::O_DIRECTORY))?;
        let name: &Path = component.as_ref();
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        done.push(component);
    }
    Ok(openat2(root.as_fd(), inside, how(OFlag::O_PATH))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_out_of_the_volume_are_not_followed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let volume = dir.path().join("v");
        fs::create_dir(&volume).expect("volume");
        std::os::unix::fs::symlink("/etc", volume.join("out")).expect("link");
        std::os::unix::fs::symlink("..", volume.join("up")).expect("link");
        for bad in ["out", "out/passwd", "up", "up/x"] {
            assert!(open_or_create(&volume, Path::new(bad)).is_err(), "{bad}");
        }
        assert!(bind(&volume, "../x", &dir.path().join("t")).is_err());
        open_or_create(&volume, Path::new("a/b")).expect("created");
        assert!(volume.join("a/b").is_dir());
        fs::create_dir(volume.join("real")).expect("dir");
        std::os::unix::fs::symlink("real", volume.join("link")).expect("link");
        open_or_create(&volume, Path::new("link")).expect("links inside are fine");
    }
}
