//! A load of HTTP/1.1 requests over kept-alive TLS connections, made to cost little beside what it measures:
//! requests are written beforehand, one thread serves all connections, answers are read as far as their length.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Where requests go.
#[derive(Clone)]
pub struct Target {
    port: u16,
    tls: Arc<ClientConfig>,
}

impl Target {
    /// A server on this machine whose authority is in `pki`; as the owner of the certificate, or as nobody.
    pub fn new(port: u16, authority: &Path, certificate: Option<(&[u8], &[u8])>) -> Self {
        let pem = std::fs::read(authority).expect("the server's authority");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).expect("a certificate")).expect("a usable one");
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let tls = match certificate {
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("they belong together")
            }
            None => builder.with_no_client_auth(),
        };
        Self { port, tls: Arc::new(tls) }
    }

    /// A new connection.
    pub fn connect(&self) -> (TcpStream, ClientConnection) {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("the server listens");
        socket.set_nodelay(true).expect("a socket has options");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let mut tls = ClientConnection::new(self.tls.clone(), name).expect("a client");
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).expect("the server is who it should be");
        }
        (socket, tls)
    }

    /// One request as it goes over the wire.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n", self.port);
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        text.into_bytes()
    }
}

/// When a load ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// After so long; requests are sent round and round.
    Time(Duration),
    /// When every request was answered once.
    Each,
}

pub struct Load<'a> {
    pub target: &'a Target,
    pub requests: &'a [Vec<u8>],
    pub connections: usize,
    pub until: Until,
    /// What every answer must be.
    pub status: u16,
    /// Between an answer and the connection's next request; zero: at once.
    pub pause: Duration,
}

/// What came of it.
pub struct Outcome {
    pub done: usize,
    pub taken: Duration,
    /// Of the thread that made the load.
    pub cpu: Duration,
    /// Sorted, in microseconds.
    latencies: Vec<u32>,
}

impl Outcome {
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.taken.as_secs_f64()
    }

    /// The latency that `percent` of the requests stayed below, in microseconds.
    pub fn percentile_us(&self, percent: usize) -> u32 {
        let at = self.latencies.len() * percent / 100;
        self.latencies.get(at.min(self.latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

impl Load<'_> {
    /// Makes the load on this thread, after all connections are made.
    ///
    /// # Panics
    /// At an answer of another status, with the answer.
    pub fn run(&self) -> Outcome {
        let mut clients: Vec<Client> =
            (0..self.connections).map(|number| Client::connect(self.target, number)).collect();
        let (cpu, began) = (thread_cpu(), Instant::now());
        let (mut done, mut latencies) = (0, Vec::new());
        let more = |next: usize| match self.until {
            Until::Time(time) => began.elapsed() < time,
            Until::Each => next < self.requests.len(),
        };
        let mut under_way = 0;
        for client in &mut clients {
            if more(client.next) {
                client.send_one_of(self.requests, self.connections);
                under_way += 1;
            }
        }
        while under_way > 0 || clients.iter().any(|client| client.due.is_some()) {
            let ready = wait(&clients);
            for (client, ready) in clients.iter_mut().zip(ready) {
                if ready && client.answered(self.status) {
                    let sent = client.sent.take().expect("it was looked at");
                    latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                    (done, under_way) = (done + 1, under_way - 1);
                    client.due = Some(Instant::now() + self.pause);
                }
                if client.due.is_some_and(|due| self.pause.is_zero() || due <= Instant::now()) {
                    client.due = None;
                    if more(client.next) {
                        client.send_one_of(self.requests, self.connections);
                        under_way += 1;
                    }
                }
            }
        }
        let (taken, cpu) = (began.elapsed(), thread_cpu() - cpu);
        latencies.sort_unstable();
        Outcome { done, taken, cpu, latencies }
    }
}

/// Until an answer comes or a request is due; which clients have something to read.
fn wait(clients: &[Client]) -> Vec<bool> {
    let due = clients.iter().filter_map(|client| client.due).min();
    let interest = |client: &Client| match client.sent {
        Some(_) => PollFlags::POLLIN,
        None => PollFlags::empty(),
    };
    let mut waiting: Vec<PollFd<'_>> =
        clients.iter().map(|client| PollFd::new(client.socket.as_fd(), interest(client))).collect();
    let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
    let timeout = match timeout {
        // Whole milliseconds, rounded up: a pause is never shorter than it says.
        Some(left) => PollTimeout::try_from(left.as_micros().div_ceil(1000) as i32).expect("a short pause"),
        None => PollTimeout::NONE,
    };
    poll(&mut waiting, timeout).expect("the sockets are open");
    clients
        .iter()
        .zip(&waiting)
        .map(|(client, polled)| client.sent.is_some() && polled.any() == Some(true))
        .collect()
}

struct Client {
    socket: TcpStream,
    tls: ClientConnection,
    answer: Vec<u8>,
    /// Which request it sends next.
    next: usize,
    /// When the request that is under way was sent.
    sent: Option<Instant>,
    /// When the next one is to be sent.
    due: Option<Instant>,
}

impl Client {
    fn connect(target: &Target, next: usize) -> Self {
        let (socket, tls) = target.connect();
        socket.set_nonblocking(true).expect("a socket has options");
        Self { socket, tls, answer: Vec::with_capacity(16 << 10), next, sent: None, due: None }
    }

    /// Each connection has requests of its own: with as many as there are connections, one.
    fn send_one_of(&mut self, requests: &[Vec<u8>], connections: usize) {
        self.send(&requests[self.next % requests.len()]);
        self.next += connections;
    }

    fn send(&mut self, request: &[u8]) {
        self.tls.writer().write_all(request).expect("room for a small request");
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                written => drop(written.expect("the server reads")),
            }
        }
        self.answer.clear();
        self.sent = Some(Instant::now());
    }

    /// Whether the answer is there.
    fn answered(&mut self, status: u16) -> bool {
        match self.tls.read_tls(&mut self.socket) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            read => assert_ne!(read.expect("the server answers"), 0, "the server closed the connection"),
        }
        let state = self.tls.process_new_packets().expect("the server speaks TLS");
        let had = self.answer.len();
        self.answer.resize(had + state.plaintext_bytes_to_read(), 0);
        self.tls.reader().read_exact(&mut self.answer[had..]).expect("so much is there");
        let Some((length, _)) = length_of(&self.answer) else { return false };
        if self.answer.len() < length {
            return false;
        }
        let expected = self.answer.get(9..12) == Some(status.to_string().as_bytes());
        assert!(expected, "{}", String::from_utf8_lossy(&self.answer));
        true
    }
}

/// Head and body together, and the head, once that is there.
pub fn length_of(answer: &[u8]) -> Option<(usize, usize)> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).expect("a head is text");
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    // Answers without a body may leave it out; nothing here is sent in chunks.
    assert!(!text.contains("chunked"), "{text}");
    Some((head + length.unwrap_or_default(), head))
}

/// User and system time of this thread so far.
pub fn thread_cpu() -> Duration {
    spent(UsageWho::RUSAGE_THREAD)
}

/// User and system time of this process so far.
pub fn own_cpu() -> Duration {
    spent(UsageWho::RUSAGE_SELF)
}

fn spent(who: UsageWho) -> Duration {
    let usage = getrusage(who).expect("a process may ask this");
    let time = |value: nix::sys::time::TimeVal| {
        // Times of a process are not negative.
        Duration::new(value.tv_sec() as u64, 0) + Duration::from_micros(value.tv_usec() as u64)
    };
    time(usage.user_time()) + time(usage.system_time())
}
