//! `hostPath` volumes: what the path must be before it is given to a container.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::files;

/// Checks, or for the `…OrCreate` types makes, the path. An empty type checks nothing.
pub(crate) fn check(path: &Path, kind: &str) -> io::Result<()> {
    let meta = fs::metadata(path);
    let missing = meta.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let wrong = |what: &str| {
        let text = format!("hostPath type check failed: {} is not {what}", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    };
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if missing => files::create_dir(path, 0o755),
        "FileOrCreate" if missing => fs::File::create(path).map(|_| ()),
        "Directory" | "DirectoryOrCreate" if meta.as_ref().is_ok_and(std::fs::Metadata::is_dir) => Ok(()),
        "File" | "FileOrCreate" if meta.as_ref().is_ok_and(fs::Metadata::is_file) => Ok(()),
        "Socket" if meta.as_ref().is_ok_and(|m| m.file_type().is_socket()) => Ok(()),
        "CharDevice" if meta.as_ref().is_ok_and(|m| m.file_type().is_char_device()) => Ok(()),
        "BlockDevice" if meta.as_ref().is_ok_and(|m| m.file_type().is_block_device()) => Ok(()),
        "Directory" | "DirectoryOrCreate" => wrong("a directory"),
        "File" | "FileOrCreate" => wrong("a file"),
        "Socket" => wrong("a socket file"),
        "CharDevice" => wrong("a character device"),
        "BlockDevice" => wrong("a block device"),
        other => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{other} is an invalid volume type")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let dir = tempfile::tempdir().expect("temp dir");
        let at = |name: &str| dir.path().join(name);
        for (name, kind, ok) in [
            ("none", "", true),
            ("none", "Directory", false),
            ("new", "DirectoryOrCreate", true),
            ("new", "Directory", true),
            ("new", "File", false),
            ("file", "FileOrCreate", true),
            ("file", "File", true),
            ("file", "DirectoryOrCreate", false),
            ("file", "Socket", false),
            ("file", "Nonsense", false),
        ] {
            assert_eq!(check(&at(name), kind).is_ok(), ok, "{name} as {kind:?}");
        }
        assert!(check(Path::new("/dev/null"), "CharDevice").is_ok());
    }
}
