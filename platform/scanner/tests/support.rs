//! Layers written entry by entry, so that they can be what no tool writes.

use std::io::Write;
use std::sync::Arc;

use gantry_oci::image::{Blob, Image};
use gantry_scanner::{Options, Report, ScanError, Scanner};
use jiff::Timestamp;
use tar::{EntryType, Header};

pub const STATUS: &str = "var/lib/dpkg/status";

/// A tar in memory.
#[derive(Default)]
pub struct Layer {
    bytes: Vec<u8>,
}

impl Layer {
    /// An entry with a name that is written as it is.
    pub fn raw(mut self, kind: EntryType, name: &[u8], link: &str, content: &[u8], size: u64) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(size);
        if !link.is_empty() {
            header.set_link_name_literal(link).expect("a link");
        }
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.raw(EntryType::Regular, path.as_bytes(), "", content, content.len() as u64)
    }

    /// An empty file with these permissions.
    pub fn raw_mode(mut self, path: &str, mode: u32) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(EntryType::Regular);
        header.set_mode(mode);
        header.set_size(0);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self
    }

    pub fn directory(self, path: &str) -> Self {
        self.raw(EntryType::Directory, path.as_bytes(), "", b"", 0)
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.raw(EntryType::Symlink, path.as_bytes(), target, b"", 0)
    }

    pub fn tar(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    pub fn plain(self) -> Blob {
        Blob::of_bytes("application/vnd.oci.image.layer.v1.tar", self.tar())
    }

    pub fn gzip(self) -> Blob {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&self.tar()).expect("compressed");
        Blob::of_bytes("application/vnd.oci.image.layer.v1.tar+gzip", encoder.finish().expect("compressed"))
    }

    pub fn zstd(self) -> Blob {
        let bytes = zstd::stream::encode_all(&self.tar()[..], 1).expect("compressed");
        Blob::of_bytes("application/vnd.oci.image.layer.v1.tar+zstd", bytes)
    }
}

pub fn image(layers: Vec<Blob>) -> Image {
    Image::with_config(gantry_config(), layers).expect("an image")
}

fn gantry_config() -> bytes::Bytes {
    bytes::Bytes::from_static(
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
    )
}

pub fn now() -> Timestamp {
    Timestamp::from_second(1_764_100_000).expect("a time")
}

pub fn scan(layers: Vec<Blob>) -> Result<Report, ScanError> {
    Scanner::new(Options::default()).image("test", &image(layers), now())
}

/// `NAME@VERSION` of what was found.
pub fn names(report: &Report) -> Vec<String> {
    report.packages.iter().map(|found| format!("{}@{}", found.package.name, found.package.version)).collect()
}

/// A paragraph of dpkg's status.
pub fn deb(name: &str, version: &str) -> String {
    format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n")
}

/// A zip with entries that are stored or deflated.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("compressed");
        let packed = encoder.finish().expect("compressed");
        let at = u32::try_from(bytes.len()).expect("small");
        let size = |n: usize| u32::try_from(n).expect("small").to_le_bytes();
        let length = u16::try_from(name.len()).expect("short").to_le_bytes();
        let mut common = vec![20, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(size(packed.len()));
        common.extend(size(content.len()));
        common.extend(length);
        common.extend([0, 0]);
        bytes.extend(b"PK\x03\x04");
        bytes.extend(&common);
        bytes.extend(name.as_bytes());
        bytes.extend(&packed);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (count, at) =
        (u16::try_from(entries.len()).expect("few"), u32::try_from(bytes.len()).expect("small"));
    let size = u32::try_from(directory.len()).expect("small");
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend(count.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(at.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

/// A directory with these files.
pub fn directory(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Arc<std::path::Path>) {
    let directory = tempfile::tempdir().expect("a directory");
    for (path, content) in files {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::File::create(path).and_then(|mut file| file.write_all(content)).expect("written");
    }
    let path = Arc::from(directory.path());
    (directory, path)
}
