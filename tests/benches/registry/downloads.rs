//! Pulls by a client that costs little beside what it measures: bytes are decrypted, counted and thrown away. That they
//! are the right ones is looked at before, by [`Remote::pull`].

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConnection;

use crate::load::{Target, length_of};
use crate::remote::BLOBS_AT_ONCE;

/// rustls asks the socket for 4 KiB at a time.
const READ_BYTES: usize = 256 << 10;

/// Connections that are kept from one pull to the next, as clients keep them.
pub struct Downloads {
    target: Target,
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    socket: BufReader<TcpStream>,
    tls: ClientConnection,
    plain: Vec<u8>,
}

impl Downloads {
    pub fn new(target: Target) -> Self {
        Self { target, idle: Mutex::default() }
    }

    pub fn request(&self, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
        self.target.request("GET", path, headers, "")
    }

    /// `times` pulls at the same time of an image, each with [`BLOBS_AT_ONCE`] requests under way; what each takes all
    /// together of bytes is returned, too.
    pub fn pull(&self, requests: &[Vec<u8>], times: usize) -> (Duration, usize) {
        let began = Instant::now();
        let bytes = std::thread::scope(|scope| {
            let lanes = (0..times).flat_map(|_| 0..BLOBS_AT_ONCE.min(requests.len()));
            let lane = |first: usize| {
                let own = requests.iter().skip(first).step_by(BLOBS_AT_ONCE);
                scope.spawn(move || self.lane(own))
            };
            let running: Vec<_> = lanes.map(lane).collect();
            running.into_iter().map(|lane| lane.join().expect("a download")).sum()
        });
        (began.elapsed(), bytes)
    }

    fn lane<'a>(&self, requests: impl Iterator<Item = &'a Vec<u8>>) -> usize {
        let known = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = known.unwrap_or_else(|| Connection::new(&self.target));
        let bytes = requests.map(|request| connection.get(request)).sum();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        bytes
    }
}

impl Connection {
    fn new(target: &Target) -> Self {
        let (socket, tls) = target.connect();
        Self { socket: BufReader::with_capacity(READ_BYTES, socket), tls, plain: vec![0; READ_BYTES] }
    }

    /// The length of the body.
    fn get(&mut self, request: &[u8]) -> usize {
        self.tls.writer().write_all(request).expect("room for a small request");
        while self.tls.wants_write() {
            self.tls.write_tls(self.socket.get_mut()).expect("the server reads");
        }
        let (mut head, mut read, mut length) = (Vec::new(), 0, None);
        while length.is_none_or(|(length, _)| read < length) {
            assert_ne!(
                self.tls.read_tls(&mut self.socket).expect("an answer"),
                0,
                "the server closed the connection"
            );
            let state = self.tls.process_new_packets().expect("the server speaks TLS");
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let n = self.tls.reader().read(&mut self.plain).expect("so much is there");
                if length.is_none() {
                    head.extend_from_slice(&self.plain[..n]);
                    length = length_of(&head);
                }
                (read, left) = (read + n, left - n);
            }
        }
        assert_eq!(head.get(9..12), Some(&b"200"[..]), "{}", String::from_utf8_lossy(&head));
        length.map_or(0, |(length, head)| length - head)
    }
}
