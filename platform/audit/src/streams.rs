//! Long answers: exports, followers, recordings. Each is read by a thread of its own, as fast as the client
//! takes it.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use gantry_audit_api::frame::Kind;
use gantry_audit_api::query::Query;
use gantry_audit_api::record::Record;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Inner;
use crate::access::Viewer;
use crate::catalog::State;
use crate::search::{Cursor, Hit, Scope};
use crate::shown::Piece;

/// Pieces that wait for a slow client.
const PIECES_MAX: usize = 4;
/// Frames looked at before the matching ones are sent.
const FRAMES_AT_ONCE: usize = 1000;
const PIECE_BYTES: usize = 64 << 10;

type Pieces = mpsc::Sender<io::Result<Bytes>>;

fn body(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    Body::from_stream(futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    }))
}

/// Everything that matches and is there now, the oldest first.
pub(crate) fn export(inner: Arc<Inner>, query: Query, scope: Scope) -> Body {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::spawn(async move {
        let end = inner.catalog.tip.borrow().next_sequence;
        let asked = query.continue_.as_ref().and_then(|t| t.parse().ok());
        let mut cursor = Cursor::from(asked.unwrap_or_else(|| first_sequence(&inner, &query)));
        let mut left = query.limit.unwrap_or(usize::MAX);
        while cursor.next_sequence() < end && left > 0 {
            let Ok((next, lines, more)) = step(&inner, cursor, &query, &scope, end, left, Piece::Line).await
            else {
                return;
            };
            cursor = next;
            left -= lines.len();
            if !send(&sender, &lines).await || !more {
                return;
            }
        }
    });
    body(receiver)
}

/// What matches from now on, or from `continue` or a list's `resourceVersion` on, until the client, the server or the caller's right goes.
pub(crate) fn follow(inner: Arc<Inner>, query: Query, mut viewer: Viewer, piece: Piece) -> Body {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    // Before the answer begins: who has its head sees whatever comes from then on.
    let mut tip = inner.catalog.tip.subscribe();
    let asked = query.continue_.as_ref().or(query.resource_version.as_ref()).and_then(|t| t.parse().ok());
    // 0 is any version, for a watch.
    let asked = asked.filter(|sequence| *sequence > 0 || query.follow);
    let mut cursor = Cursor::from(asked.unwrap_or_else(|| tip.borrow().next_sequence));
    tokio::spawn(async move {
        let draining: CancellationToken = inner.draining.clone();
        loop {
            tip.borrow_and_update();
            if !viewer.refresh(&inner) {
                return;
            }
            let (rights, from) = (viewer.versions(), cursor.next_sequence());
            let looked = step(&inner, cursor, &query, &viewer.scope, u64::MAX, usize::MAX, piece).await;
            let Ok((next, lines, more)) = looked else { return };
            // What was looked for meanwhile with rights that have gone is not shown.
            if !viewer.refresh(&inner) {
                return;
            }
            if viewer.versions() != rights {
                cursor = Cursor::from(from);
                continue;
            }
            cursor = next;
            if !send(&sender, &lines).await {
                return;
            }
            if more {
                continue;
            }
            tokio::select! {
                changed = tip.changed() => if changed.is_err() { return },
                () = draining.cancelled() => return,
                () = sender.closed() => return,
            }
        }
    });
    body(receiver)
}

/// Where an export of this query must begin.
fn first_sequence(inner: &Inner, query: &Query) -> u64 {
    let since_us = query.since.map_or(i64::MIN, |time| time.as_microsecond());
    let entries = inner.catalog.entries();
    let early = |entry: &&Arc<crate::catalog::Entry>| match &*entry.lock() {
        State::Sealed(index) => index.max_us < since_us,
        State::Open(_) => false,
    };
    let first = entries.iter().find(|entry| !early(entry));
    first.map_or(1, |entry| entry.first_sequence)
}

/// Looks at some frames; also whether there may be more at once.
async fn step(
    inner: &Arc<Inner>,
    mut cursor: Cursor,
    query: &Query,
    scope: &Scope,
    end: u64,
    lines_max: usize,
    piece: Piece,
) -> Result<(Cursor, Vec<Vec<u8>>, bool), ()> {
    let (query, scope) = (query.clone(), scope.clone());
    let read = inner.reading(move |inner| {
        let mut lines = Vec::new();
        let more = cursor.advance(&inner.catalog, FRAMES_AT_ONCE, |sequence, kind, payload| {
            if kind != Kind::Record || sequence >= end || lines.len() >= lines_max {
                return;
            }
            let matches = Record::parse(payload).is_some_and(|r| query.matches(&r) && scope.admits(&r));
            if matches {
                lines.push(piece.of(&Hit { sequence, payload: payload.to_vec() }));
            }
        })?;
        Ok((cursor, lines, more))
    });
    read.await.map_err(|_| ())
}

async fn send(sender: &Pieces, lines: &[Vec<u8>]) -> bool {
    let mut piece = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        piece.extend_from_slice(line);
        let full = piece.len() >= PIECE_BYTES || index + 1 == lines.len();
        if full && sender.send(Ok(std::mem::take(&mut piece).into())).await.is_err() {
            return false;
        }
    }
    true
}

/// A recording, decompressed as it goes.
pub(crate) fn session(file: File) -> Body {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut decoder = match zstd::Decoder::new(file) {
            Ok(decoder) => decoder,
            Err(error) => return drop(sender.blocking_send(Err(error))),
        };
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let sent = match decoder.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => sender.blocking_send(Ok(Bytes::copy_from_slice(&piece[..count]))),
                // The end of a recording that a crash cut off: what is there is shown.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return,
                Err(error) => return drop(sender.blocking_send(Err(error))),
            };
            if sent.is_err() {
                return;
            }
        }
    });
    body(receiver)
}
