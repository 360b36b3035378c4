//! A file's bytes for a response, piece by piece.
//!
//! What the page cache has is read by the thread that sends it, just before it does: no other thread is woken, and the
//! bytes are still in the processor's own cache when they are encrypted. What is not there yet is read where the disk
//! may be waited for.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use bytes::Bytes;
use futures::stream::try_unfold;
use rustix::fs::Advice;
use rustix::io::ReadWriteFlags;

/// One read, and what a connection encrypts and writes at once. A download has one or two of them under way.
const PIECE_BYTES: u64 = 128 << 10;

/// The bytes of the file at `path` from `start` up to but not including `end`.
pub(super) async fn body(path: PathBuf, start: u64, end: u64) -> io::Result<Body> {
    let opened = tokio::task::spawn_blocking(move || {
        let mut reader =
            Reader { file: Arc::new(File::open(path)?), at: start, end, buffers: Arc::default() };
        let first = reader.wait(reader.buffers.take(reader.wanted()))?;
        if reader.at < end {
            // The disk is asked for twice as much ahead; a file system that cannot is as good without.
            let _ = rustix::fs::fadvise(&*reader.file, start, None, Advice::Sequential);
        }
        io::Result::Ok((reader, first))
    });
    let (reader, first) = opened.await.map_err(io::Error::other)??;
    if reader.at == end {
        return Ok(Body::from(first));
    }
    let rest = try_unfold(reader, Reader::next);
    let first = futures::stream::once(async move { Ok(first) });
    Ok(Body::from_stream(futures::StreamExt::chain(first, rest)))
}

struct Reader {
    file: Arc<File>,
    at: u64,
    end: u64,
    buffers: Arc<Buffers>,
}

impl Reader {
    fn wanted(&self) -> usize {
        // At most a piece, which fits.
        (self.end - self.at).min(PIECE_BYTES) as usize
    }

    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if self.at == self.end {
            return Ok(None);
        }
        let mut piece = self.buffers.take(self.wanted());
        if self.cached(&mut piece) {
            return Ok(Some((Bytes::from_owner(piece), self)));
        }
        let waited = tokio::task::spawn_blocking(move || self.wait(piece).map(|piece| (piece, self)));
        waited.await.map_err(io::Error::other)?.map(Some)
    }

    /// What of the piece is in memory already, if any of it is.
    fn cached(&mut self, piece: &mut Piece) -> bool {
        let mut into = [IoSliceMut::new(&mut piece.buffer[..piece.len])];
        // A file that ended, memory that lacks it and a file system that cannot tell are the disk's matter.
        match rustix::io::preadv2(&*self.file, &mut into, self.at, ReadWriteFlags::NOWAIT) {
            Ok(read) if read > 0 => {
                piece.len = read;
                self.at += read as u64;
                true
            }
            _ => false,
        }
    }

    /// All of the piece.
    fn wait(&mut self, mut piece: Piece) -> io::Result<Bytes> {
        self.file.read_exact_at(&mut piece.buffer[..piece.len], self.at)?;
        self.at += piece.len as u64;
        Ok(Bytes::from_owner(piece))
    }
}

/// Buffers of one download, used again once they are sent.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(self: &Arc<Self>, len: usize) -> Piece {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = known.unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        Piece { buffer, len, home: self.clone() }
    }
}

struct Piece {
    buffer: Vec<u8>,
    len: usize,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.home.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn every_part_is_what_the_file_has_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("blob");
        let content: Vec<u8> = (0..5 * PIECE_BYTES + 7).map(|n| ((n * n) >> 3) as u8).collect();
        gantry_base::fs::write_atomic(&path, &content, 0o600).expect("written");
        let all = content.len() as u64;
        for (start, end) in
            [(0, all), (0, 1), (all - 1, all), (3, PIECE_BYTES + 3), (PIECE_BYTES, all), (5, 5)]
        {
            for cached in [true, false] {
                if !cached {
                    let file =
                        File::open(&path).and_then(|file| file.sync_all().map(|()| file)).expect("a file");
                    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("forgotten");
                }
                let body = body(path.clone(), start, end).await.expect("a body");
                let bytes = to_bytes(body, usize::MAX).await.expect("bytes");
                assert!(bytes == content[start as usize..end as usize], "{start}..{end} {cached}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_shorter_than_it_was_ends_in_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("blob");
        gantry_base::fs::write_atomic(&path, &vec![1; PIECE_BYTES as usize + 7], 0o600).expect("written");
        let body = body(path, 0, 1_000_000).await.expect("its beginning is there");
        to_bytes(body, usize::MAX).await.expect_err("its end is not");
    }

    #[tokio::test]
    async fn buffers_come_back() {
        let buffers = Arc::new(Buffers::default());
        let bytes = Bytes::from_owner(buffers.take(100));
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(buffers.0.lock().expect("no panic").len(), 0, "a part is still to be sent");
        drop(part);
        assert_eq!(buffers.0.lock().expect("no panic").len(), 1);
        assert_eq!(Bytes::from_owner(buffers.take(50)).len(), 50);
    }
}
