//! `gantry bundle create -o site.tar --key cosign.key --advisories demo/x:1`

use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::{Buf, Bytes};
use gantry_bundle::{Advisories, Contents, Entry, Manifest, Writer};
use gantry_oci::client::RegistryClient;
use gantry_oci::{Algorithm, Digest, Hasher, RepositoryName};
use gantry_scanner::advisories::{Exported, export, exported_manifest};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::collect::Collected;
use crate::commands::advisories::directory;
use crate::commands::image::Password;
use crate::{ClientFlags, Context};

/// Pieces of a blob that wait for the disk.
const PIECES_MAX: usize = 16;

#[derive(clap::Args, Debug)]
pub struct CreateArgs {
    /// Images of the registry: REPOSITORY[:TAG][@DIGEST]
    #[arg(required_unless_present = "advisories")]
    images: Vec<String>,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Sign it with this private key: of `gantry image generate-key-pair`, of cosign, or PKCS #8 in PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    password: Password,
    /// Of images for several platforms, the one of this: OS/ARCHITECTURE[/VARIANT] [default: all]
    #[arg(long)]
    platform: Option<String>,
    /// Put the advisories of `gantry advisories` in, too
    #[arg(long)]
    advisories: bool,
    /// Their directory (default: $GANTRY_ADVISORIES_DIR, then $XDG_DATA_HOME/gantry/advisories)
    #[arg(long, value_name = "DIR", requires = "advisories")]
    advisories_directory: Option<PathBuf>,
}

pub async fn run(args: CreateArgs, flags: &ClientFlags) -> anyhow::Result<()> {
    let key = args.key.as_deref().map(|path| args.password.open(path)).transpose()?;
    let mut contents = Contents::default();
    let mut advisories = None;
    if args.advisories {
        let directory = directory(args.advisories_directory.as_deref())?;
        let read = tokio::task::spawn_blocking(move || of_directory(&directory));
        let (said, entries, exported) = read.await??;
        contents.advisories = Some((said, entries));
        advisories = Some(exported);
    }
    let mut collected = None;
    if !args.images.is_empty() {
        let context = Context::load(flags).await?;
        let client = context.registry()?;
        let mut all = Collected::new(client.clone());
        for image in &args.images {
            all.image(image, args.platform.as_deref()).await?;
        }
        contents.repositories = all.repositories();
        contents.sizes.clone_from(&all.sizes);
        collected = Some((client, all));
    }
    let manifest = Manifest::new(contents, Timestamp::now())?;
    let parent = args.output.parent().filter(|parent| !parent.as_os_str().is_empty());
    let file = tempfile::Builder::new().prefix(".bundle-").tempfile_in(parent.unwrap_or(Path::new(".")));
    let file = file.with_context(|| format!("cannot write {}", args.output.display()))?;
    let bar = super::bar("Writing", manifest.size_bytes())?;
    let mut writer = Writer::new(BufWriter::new(file), &manifest, key.as_ref())?;
    while let Some(entry) = writer.next().cloned() {
        let own = collected.as_ref().and_then(|(_, all)| all.manifests.get(&entry.digest)).cloned();
        let source =
            collected.as_ref().and_then(|(client, all)| Some((client, all.blobs.get(&entry.digest)?)));
        writer = match (own, source, &mut advisories) {
            (Some(bytes), ..) => append(writer, bytes.reader()).await?,
            (None, Some((client, repository)), _) => fetch(writer, client, repository, &entry.digest).await?,
            (None, None, Some(exported)) => {
                let (file, bytes) = (exported.table.try_clone()?, exported.manifest.clone());
                match bytes.len() as u64 == entry.size_bytes && Digest::of(&bytes) == entry.digest {
                    true => append(writer, io::Cursor::new(bytes)).await?,
                    false => append(writer, At { file, at: 0 }).await?,
                }
            }
            (None, None, None) => bail!("nothing is known of {}", entry.name),
        };
        bar.inc(entry.size_bytes);
    }
    let file = writer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    bar.finish_and_clear();
    file.as_file().sync_all()?;
    file.persist(&args.output).with_context(|| format!("cannot write {}", args.output.display()))?;
    if key.is_none() {
        eprintln!("The bundle is not signed: who loads it cannot know whose it is (--key signs it)");
    }
    println!("{}", args.output.display());
    Ok(())
}

type Carried = (Advisories, [Entry; 2], Exported);

fn of_directory(directory: &Path) -> anyhow::Result<Carried> {
    let exported = export(directory)?;
    let manifest = exported_manifest(&exported.manifest).map_err(anyhow::Error::msg)?;
    let table = At { file: exported.table.try_clone()?, at: 0 };
    let (digest, size_bytes) = Hasher::read(Algorithm::Sha256, table)?;
    let files = [
        Entry {
            name: "advisories/manifest.json".to_owned(),
            size_bytes: exported.manifest.len() as u64,
            digest: Digest::of(&exported.manifest),
        },
        Entry { name: "advisories/advisories.table".to_owned(), size_bytes, digest },
    ];
    let said = Advisories {
        manifest: files[0].name.clone(),
        table: files[1].name.clone(),
        count: manifest.sources.iter().map(|source| source.advisories).sum(),
        newest_modified: manifest.sources.iter().filter_map(|source| source.newest_modified).max(),
    };
    Ok((said, files, exported))
}

async fn append<W: io::Write + Send + 'static>(
    mut writer: Writer<W>,
    content: impl Read + Send + 'static,
) -> anyhow::Result<Writer<W>> {
    let written = tokio::task::spawn_blocking(move || writer.append(content).map(|()| writer));
    Ok(written.await??)
}

/// Writes a blob while it comes.
async fn fetch<W: io::Write + Send + 'static>(
    writer: Writer<W>,
    client: &RegistryClient,
    repository: &RepositoryName,
    digest: &Digest,
) -> anyhow::Result<Writer<W>> {
    let mut incoming = client.incoming(repository, digest).await?;
    let (pieces, received) = mpsc::channel(PIECES_MAX);
    let written = tokio::spawn(append(writer, Pieces { received, piece: Bytes::new() }));
    while let Some(piece) = incoming.chunk().await.with_context(|| format!("{repository}@{digest}"))? {
        // What reads has an error to tell, which is below.
        if pieces.send(piece).await.is_err() {
            break;
        }
    }
    drop(pieces);
    written.await?
}

/// What comes from another task, for who reads.
struct Pieces {
    received: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.received.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

/// A file from a place of its own: handles that were cloned share theirs.
struct At {
    file: std::fs::File,
    at: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = std::os::unix::fs::FileExt::read_at(&self.file, buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
