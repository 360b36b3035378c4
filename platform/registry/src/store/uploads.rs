//! Uploads under way: bytes on disk, the running hash in memory.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use gantry_oci::{Algorithm, Digest, Hasher, RepositoryName};

use super::sync::begin_writing;
use super::{Store, remove_file};

/// The disk begins with what came of an upload when it is so much: little is left when the end is to be durable.
const BEGIN_BYTES: u64 = 8 << 20;

/// One upload; whoever holds the lock is the one request that may add to it.
pub(crate) type UploadHandle = Arc<tokio::sync::Mutex<Upload>>;

/// An upload that is open for more bytes.
pub(crate) struct Upload {
    pub(crate) id: String,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    pub(crate) received_bytes: u64,
    /// The disk has begun with what is before this.
    begun_bytes: u64,
    /// Whoever sends it knows its name.
    resumable: bool,
    /// Finished or cancelled while somebody waited for the lock.
    pub(crate) closed: bool,
}

impl Upload {
    /// Adds bytes at the end. A failed write leaves nothing counted.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // Part of it may be in the file: cut it off, so that the file is what the hash says.
            self.file.set_len(self.received_bytes)?;
            io::Seek::seek(&mut self.file, io::SeekFrom::End(0))?;
            return Err(error);
        }
        self.hasher.update(bytes);
        self.received_bytes += bytes.len() as u64;
        if self.received_bytes >= self.begun_bytes + BEGIN_BYTES {
            begin_writing(&self.file, self.begun_bytes, self.received_bytes);
            self.begun_bytes = self.received_bytes;
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// For reading what has come so far, also after the upload has become a blob or was cancelled.
    pub(crate) fn reader(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// The digest of everything received.
    pub(crate) fn digest(&self, algorithm: Algorithm) -> io::Result<Digest> {
        match algorithm {
            Algorithm::Sha256 => Ok(self.hasher.clone().finish()),
            other => Ok(Hasher::read(other, File::open(&self.path)?)?.0),
        }
    }
}

struct Session {
    repository: RepositoryName,
    touched: SystemTime,
    /// Absent after a restart until somebody goes on with it.
    open: Option<UploadHandle>,
}

/// All uploads under way.
#[derive(Default)]
pub(crate) struct Table {
    sessions: HashMap<String, Session>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct SessionFile {
    repository: String,
}

impl Table {
    /// Takes up the uploads a former process left.
    pub(crate) fn load(directory: &Path) -> io::Result<Self> {
        let mut table = Self::default();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.ends_with(".json") {
                continue;
            }
            let file = gantry_base::fs::read_optional(&directory.join(format!("{name}.json")))?;
            let repository = file
                .and_then(|bytes| serde_json::from_slice::<SessionFile>(&bytes).ok())
                .and_then(|file| file.repository.parse().ok());
            match repository {
                Some(repository) => {
                    let touched = entry.metadata()?.modified().unwrap_or_else(|_| SystemTime::now());
                    table.sessions.insert(name, Session { repository, touched, open: None });
                }
                None => {
                    remove_file(&entry.path())?;
                }
            }
        }
        Ok(table)
    }
}

impl Store {
    fn upload_path(&self, id: &str) -> PathBuf {
        self.config.root.join("uploads").join(id)
    }

    fn uploads(&self) -> std::sync::MutexGuard<'_, Table> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes of an upload have come, whoever adds to it now; `None`: there is no such upload.
    pub(crate) fn received(&self, id: &str) -> Option<u64> {
        self.uploads().sessions.get(id)?;
        fs::metadata(self.upload_path(id)).ok().map(|metadata| metadata.len())
    }

    /// Begins an upload; `None` if there are too many. One that is `resumable` can go on after a restart.
    pub(crate) fn begin_upload(
        &self,
        repository: &RepositoryName,
        resumable: bool,
    ) -> io::Result<Option<UploadHandle>> {
        if self.uploads().sessions.len() >= self.config.limits.uploads_max {
            return Ok(None);
        }
        let id = uuid::Uuid::new_v4().to_string();
        let path = self.upload_path(&id);
        if resumable {
            // The session file first: data without one is rubbish of a process that died.
            let session = serde_json::to_vec(&SessionFile { repository: repository.to_string() })?;
            File::create(path.with_extension("json"))?.write_all(&session)?;
        }
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
        let hasher = Hasher::new(Algorithm::Sha256);
        let upload = Upload {
            id: id.clone(),
            path,
            file,
            hasher,
            received_bytes: 0,
            begun_bytes: 0,
            resumable,
            closed: false,
        };
        let handle = Arc::new(tokio::sync::Mutex::new(upload));
        let session = Session {
            repository: repository.clone(),
            touched: SystemTime::now(),
            open: Some(handle.clone()),
        };
        self.uploads().sessions.insert(id, session);
        Ok(Some(handle))
    }

    /// Goes on with an upload, after a restart by hashing again what is there.
    pub(crate) fn upload(&self, repository: &RepositoryName, id: &str) -> io::Result<Option<UploadHandle>> {
        {
            let mut table = self.uploads();
            let Some(session) = table.sessions.get_mut(id).filter(|s| s.repository == *repository) else {
                return Ok(None);
            };
            session.touched = SystemTime::now();
            if let Some(handle) = &session.open {
                return Ok(Some(handle.clone()));
            }
        }
        let path = self.upload_path(id);
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 256 * 1024];
        let mut received_bytes = 0;
        loop {
            let n = io::Read::read(&mut file, &mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            received_bytes += n as u64;
        }
        let upload = Upload {
            id: id.to_owned(),
            path,
            file,
            hasher,
            received_bytes,
            begun_bytes: received_bytes,
            resumable: true,
            closed: false,
        };
        let mut table = self.uploads();
        let Some(session) = table.sessions.get_mut(id) else { return Ok(None) };
        // Two requests may have read it at once: the first stays.
        let handle = session.open.get_or_insert_with(|| Arc::new(tokio::sync::Mutex::new(upload)));
        Ok(Some(handle.clone()))
    }

    /// Checks the digest and makes the upload a blob. `Ok(Err(found))`: the content has another digest, and
    /// the upload is gone. After another error it stays, if somebody can try again.
    pub(crate) fn finish_upload(
        &self,
        repository: &RepositoryName,
        upload: &mut Upload,
        expected: &Digest,
    ) -> io::Result<Result<(), Digest>> {
        let found = upload.digest(expected.algorithm())?;
        if found != *expected {
            self.cancel_upload(upload)?;
            return Ok(Err(found));
        }
        upload.file.sync_data()?;
        let committed = self.commit_blob(repository, &upload.path, expected, upload.received_bytes);
        if committed.is_ok() || !upload.resumable {
            self.cancel_upload(upload)?;
        }
        committed.map(Ok)
    }

    /// Forgets an upload and its bytes.
    pub(crate) fn cancel_upload(&self, upload: &mut Upload) -> io::Result<()> {
        upload.closed = true;
        self.uploads().sessions.remove(&upload.id);
        remove_file(&upload.path)?;
        remove_file(&upload.path.with_extension("json"))?;
        Ok(())
    }

    /// Forgets uploads nobody has gone on with; returns how many.
    pub(super) fn expire_uploads(&self) -> io::Result<usize> {
        let mut expired = Vec::new();
        self.uploads().sessions.retain(|id, session| {
            let idle = session.touched.elapsed().unwrap_or_default() > self.config.upload_expiry;
            // Locked: a request is adding to it now.
            let busy = session.open.as_ref().is_some_and(|handle| match handle.try_lock() {
                Ok(mut upload) if idle => {
                    upload.closed = true;
                    false
                }
                Ok(_) => false,
                Err(_) => true,
            });
            if idle && !busy {
                expired.push(id.clone());
            }
            !idle || busy
        });
        for id in &expired {
            let path = self.upload_path(id);
            remove_file(&path)?;
            remove_file(&path.with_extension("json"))?;
        }
        Ok(expired.len())
    }
}
