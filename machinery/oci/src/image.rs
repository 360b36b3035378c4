//! One image: a manifest and the blobs it names, in memory or in files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifestBuilder, MediaType};

use crate::Digest;

/// An image, ready to be pushed or written.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's exact bytes; their digest is the image's name.
    pub manifest: Bytes,
    /// The manifest's media type.
    pub media_type: String,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

/// Content with the name it must have.
#[derive(Clone, Debug)]
pub struct Blob {
    pub media_type: String,
    pub digest: Digest,
    pub size_bytes: u64,
    pub source: MediaSource,
}

/// Where a blob's bytes are.
#[derive(Clone, Debug)]
pub enum MediaSource {
    Bytes(Bytes),
    File(FilePart),
    Elsewhere(Opener),
}

type Open = dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync;

/// Gives the bytes from an offset on, wherever they are. Opening does not block; reading may.
#[derive(Clone)]
pub struct Opener(Arc<Open>);

impl Opener {
    pub fn new(open: impl Fn(u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

/// A part of a file. Clones share the temporary file, which goes with the last of them.
#[derive(Clone, Debug)]
pub struct FilePart {
    pub path: PathBuf,
    pub offset_bytes: u64,
    pub size_bytes: u64,
    /// Keeps a temporary file.
    pub keep: Option<Arc<tempfile::TempPath>>,
}

impl MediaSource {
    /// The bytes from the beginning.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self.open_at(0)
    }

    /// The bytes from `offset` on.
    pub fn open_at(&self, offset_bytes: u64) -> io::Result<Box<dyn Read + Send>> {
        match self {
            Self::Bytes(bytes) => {
                let at = usize::try_from(offset_bytes).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Box::new(io::Cursor::new(bytes.slice(at..))))
            }
            Self::File(part) => {
                let mut file = File::open(&part.path)?;
                let offset_bytes = offset_bytes.min(part.size_bytes);
                file.seek(SeekFrom::Start(part.offset_bytes + offset_bytes))?;
                Ok(Box::new(file.take(part.size_bytes - offset_bytes)))
            }
            Self::Elsewhere(opener) => opener.0(offset_bytes),
        }
    }
}

impl Blob {
    /// A blob in memory.
    pub fn of_bytes(media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            media_type: media_type.into(),
            digest: Digest::of(&bytes),
            size_bytes: bytes.len() as u64,
            source: MediaSource::Bytes(bytes),
        }
    }

    fn descriptor(&self) -> Descriptor {
        let digest: oci_spec::image::Digest =
            self.digest.to_string().parse().expect("our digests are a subset of the specification's");
        Descriptor::new(MediaType::from(self.media_type.as_str()), self.size_bytes, digest)
    }
}

impl Image {
    /// Builds manifest and configuration blob around `layers`.
    pub fn assemble(config: &ImageConfiguration, layers: Vec<Blob>) -> Result<Self, serde_json::Error> {
        Self::with_config(canonical(config)?, layers)
    }

    /// Builds the manifest around a configuration whose exact bytes stay.
    pub fn with_config(config: Bytes, layers: Vec<Blob>) -> Result<Self, serde_json::Error> {
        let config = Blob::of_bytes(MediaType::ImageConfig.to_string(), config);
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(config.descriptor())
            .layers(layers.iter().map(Blob::descriptor).collect::<Vec<_>>())
            .build()
            .map_err(serde::de::Error::custom)?;
        Ok(Self {
            manifest: canonical(&manifest)?,
            media_type: MediaType::ImageManifest.to_string(),
            config,
            layers,
        })
    }

    /// Writes an OCI archive (a tar of an image layout) with one image, named `name`.
    pub fn write_archive(&self, name: &str, writer: impl io::Write) -> io::Result<()> {
        let entry = serde_json::json!({
            "mediaType": self.media_type, "digest": self.digest(), "size": self.manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": name },
        });
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
        let mut tar = tar::Builder::new(writer);
        let mut add = |path: &str, size: u64, content: &mut dyn Read| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_size(size);
            tar.append_data(&mut header, path, content)
        };
        let version = br#"{"imageLayoutVersion":"1.0.0"}"#;
        add("oci-layout", version.len() as u64, &mut &version[..])?;
        add("index.json", index.len() as u64, &mut index.as_bytes())?;
        let place = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex());
        add(&place(&self.digest()), self.manifest.len() as u64, &mut &self.manifest[..])?;
        let mut written = std::collections::BTreeSet::new();
        for blob in self.blobs().filter(|blob| written.insert(blob.digest.clone())) {
            add(&place(&blob.digest), blob.size_bytes, &mut blob.source.open()?)?;
        }
        tar.finish()
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// Configuration and layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Size of everything a pull of the image transfers.
    pub fn size_bytes(&self) -> u64 {
        self.blobs().map(|b| b.size_bytes).sum::<u64>() + self.manifest.len() as u64
    }
}

/// Layers that are no part of what is passed on: where they are, their `urls` say (OCI image specification, *Layer*,
/// section *Non-Distributable Layers*).
pub fn is_elsewhere(media_type: &str, urls: usize) -> bool {
    urls > 0 && (media_type.contains(".nondistributable.") || media_type.contains(".foreign."))
}

/// JSON with the fields of every object in order: the types of oci-spec hold hash maps, whose order would make
/// another digest in every process.
pub fn canonical<T: serde::Serialize>(value: &T) -> serde_json::Result<Bytes> {
    let mut value = serde_json::to_value(value)?;
    value.sort_all_objects();
    Ok(Bytes::from(serde_json::to_vec(&value)?))
}
