//! A client of the node: plain requests, followed logs, and sessions over WebSocket.

use std::net::SocketAddr;

use axum::Router;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// The router, served on loopback.
pub struct Node {
    pub address: SocketAddr,
}

impl Node {
    pub async fn serve(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address }
    }

    async fn request(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("http://{}{path}", self.address)).await.expect("an answer")
    }

    /// Status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.request(path).await;
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    pub async fn follow(&self, path: &str) -> Follower {
        let answer = self.request(path).await;
        assert_eq!(answer.status(), 200);
        Follower { body: answer.bytes_stream().boxed(), seen: String::new() }
    }

    pub async fn exec(&self, command: &[&str], streams: &str, protocol: &str) -> Session {
        let mut query = streams.to_owned();
        for word in command {
            query.push_str("&command=");
            for byte in word.bytes() {
                query.push_str(&format!("%{byte:02X}"));
            }
        }
        Session::open(self, "/exec/test/target/c", &query, protocol).await.expect("the session opens")
    }
}

/// A log that is followed.
pub struct Follower {
    body: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    seen: String,
}

impl Follower {
    /// Reads on until the text has come.
    pub async fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let bytes = self.body.next().await.unwrap_or_else(|| panic!("the log ended at {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes.expect("the log goes on")));
        }
    }

    /// Reads on until the log ends as it should.
    pub async fn end(mut self) {
        while let Some(bytes) = self.body.next().await {
            bytes.expect("the log ends, it does not break off");
        }
    }
}

/// What a session gave.
#[derive(Default)]
pub struct End {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub status: Value,
}

/// An open session.
pub struct Session {
    socket: WebSocketStream<TcpStream>,
    base64: bool,
    /// Output that `expect` has read.
    seen: Vec<u8>,
}

impl Session {
    /// The error is the HTTP status of a refusal.
    pub async fn open(node: &Node, path: &str, query: &str, protocol: &str) -> Result<Self, u16> {
        let url = format!("ws://{}{path}?{query}", node.address);
        let mut request = url.into_client_request().expect("a request");
        let header = protocol.parse().expect("a header");
        request.headers_mut().insert("sec-websocket-protocol", header);
        let stream = TcpStream::connect(node.address).await.expect("connected");
        match client_async(request, stream).await {
            Ok((socket, answer)) => {
                assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
                Ok(Self { socket, base64: protocol.contains("base64"), seen: Vec::new() })
            }
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let message = [&[channel], bytes].concat();
        self.socket.send(Message::binary(message)).await.expect("sent");
    }

    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match self.socket.next().await?.expect("the session goes on") {
                Message::Binary(bytes) => return Some((bytes[0], bytes[1..].to_vec())),
                Message::Text(text) if self.base64 => {
                    use base64::Engine;
                    let bytes = base64::engine::general_purpose::STANDARD.decode(&text[1..]).expect("base64");
                    return Some((text.as_bytes()[0] - b'0', bytes));
                }
                Message::Close(frame) => {
                    assert_eq!(frame.map(|f| u16::from(f.code)), Some(1000));
                }
                _ => {}
            }
        }
    }

    /// The output that was read holds these bytes.
    pub fn has_seen(&self, wanted: &[u8]) -> bool {
        self.seen.windows(wanted.len()).any(|w| w == wanted)
    }

    /// Reads on until the output holds these bytes.
    pub async fn expect(&mut self, wanted: &[u8]) {
        while !self.has_seen(wanted) {
            let Some((_, bytes)) = self.next().await else {
                panic!("ended at {:?}", String::from_utf8_lossy(&self.seen))
            };
            self.seen.extend(bytes);
        }
    }

    /// Sends everything, closes stdin, and reads to the end at the same time.
    pub async fn pump(self, bytes: &[u8]) -> End {
        let (mut sink, stream) = self.socket.split();
        let send = async {
            for piece in bytes.chunks(100_000) {
                sink.send(Message::binary([&[0], piece].concat())).await.expect("sent");
            }
            sink.send(Message::binary(vec![255, 0])).await.expect("closed");
        };
        let receive = stream.fold(End::default(), async |mut end, message| {
            if let Message::Binary(bytes) = message.expect("the session goes on") {
                collect(&mut end, bytes[0], &bytes[1..]);
            }
            end
        });
        tokio::join!(send, receive).1
    }

    /// Reads to the end.
    pub async fn finish(mut self) -> End {
        let mut end = End::default();
        while let Some((channel, bytes)) = self.next().await {
            collect(&mut end, channel, &bytes);
        }
        end
    }

    /// All messages to the end, with their channels.
    pub async fn finish_raw(mut self) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(message) = self.next().await {
            all.push(message);
        }
        all
    }
}

fn collect(end: &mut End, channel: u8, bytes: &[u8]) {
    match channel {
        1 => end.stdout.extend_from_slice(bytes),
        2 => end.stderr.extend_from_slice(bytes),
        3 if !bytes.is_empty() => end.status = serde_json::from_slice(bytes).expect("a Status"),
        _ => {}
    }
}
