//! Files that are whole or absent, whatever happens in between.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Replaces `path` by `bytes` so that a reader, or a machine that lost power, sees the old content or
/// the new one and nothing between: temporary file beside it, fsync, rename, fsync of the directory.
///
/// `mode` is the file's permission, e.g. `0o600`.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (directory, name) = split(path)?;
    // One temporary name per process and path: two writers of one file in one process are a bug
    // that the last rename decides, never a mixture.
    let temporary = directory.join(format!(".{}.{}.tmp", name, std::process::id()));
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_directory(directory)
}

/// Makes the names in `directory` (creations, renames, removals) durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// `mkdir -p` with a mode for the directories it makes.
pub fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Reads a file that may be absent.
pub fn read_optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes of a key that [`secret_key`] reads and makes.
pub const SECRET_KEY_BYTES: usize = 32;

/// Reads a secret key, or makes one of random bytes (0600) where there is no file.
pub fn secret_key(path: &Path) -> io::Result<[u8; SECRET_KEY_BYTES]> {
    match read_optional(path)? {
        Some(bytes) => bytes.try_into().map_err(|_| {
            io::Error::other(format!("{} is no key: {SECRET_KEY_BYTES} bytes are expected", path.display()))
        }),
        None => {
            let mut key = [0; SECRET_KEY_BYTES];
            let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut key);
            filled.map_err(|_| io::Error::other("no random numbers could be had"))?;
            write_atomic(path, &key, 0o600)?;
            Ok(key)
        }
    }
}

/// Removes a file or a tree that may be absent.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let name = path.file_name().and_then(|n| n.to_str());
    match (path.parent(), name) {
        (Some(directory), Some(name)) if !directory.as_os_str().is_empty() => Ok((directory, name)),
        (_, Some(name)) => Ok((Path::new("."), name)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no file name", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_temporary() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("token");
        write_atomic(&path, b"old", 0o600).expect("first write");
        write_atomic(&path, b"new", 0o600).expect("second write");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        assert_eq!(fs::metadata(&path).expect("stat").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 1);
        remove_all(&path).expect("remove");
        remove_all(&path).expect("remove what is gone");
        assert_eq!(read_optional(&path).expect("read"), None);
    }
}
