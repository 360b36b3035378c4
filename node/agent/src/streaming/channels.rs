//! Kubernetes' channel protocols on WebSocket: every message begins with the number of a channel. They are carried
//! to and from the runtime's SPDY streams.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::recording::Recording;
use super::spdy::{Reader, Received, Writer};
use super::websocket::Socket;

/// Channel numbers of exec and attach.
pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// In version 5: the channel in the second byte gets nothing more from the sender.
const CLOSE: u8 = 255;
/// After the last message to the client its own last messages are read off this long; a connection closed with
/// unread bytes would lose what the client has not read yet.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Pings of the runtime that wait for an answer; it sends none unless asked to.
const PINGS_MAX: usize = 4;

/// A sub-protocol that clients may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    /// Its name on the wire.
    pub(super) name: &'static str,
    /// Messages are text: the channel's digit, then base64.
    base64: bool,
    /// The client can close single channels.
    close: bool,
    /// The error channel carries a `Status` object, also for success; else a message, for failures only.
    status: bool,
}

/// What exec and attach speak. Source: `k8s.io/apimachinery` remotecommand constants, and the kubelet's older names.
const PROTOCOLS: [Protocol; 6] = [
    Protocol { name: "v5.channel.k8s.io", base64: false, close: true, status: true },
    Protocol { name: "v4.channel.k8s.io", base64: false, close: false, status: true },
    Protocol { name: "v4.base64.channel.k8s.io", base64: true, close: false, status: true },
    Protocol { name: "channel.k8s.io", base64: false, close: false, status: false },
    Protocol { name: "base64.channel.k8s.io", base64: true, close: false, status: false },
    Protocol { name: "", base64: false, close: false, status: false },
];

impl Protocol {
    /// The first of the client's offers that is spoken here; without offers the oldest one.
    pub(super) fn choose(offered: &[&str]) -> Option<Self> {
        let known = |name: &str| PROTOCOLS.into_iter().find(|p| p.name == name);
        match offered {
            [] => known(""),
            offered => offered.iter().find_map(|o| known(o)),
        }
    }

    /// Port forwarding over plain channels.
    pub(super) fn port_forward(name: &'static str) -> Self {
        Self { name, base64: false, close: false, status: true }
    }

    /// A message on a channel.
    fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        if self.base64 {
            let mut text = String::with_capacity(1 + bytes.len().div_ceil(3) * 4);
            text.push(char::from(b'0' + channel));
            STANDARD.encode_string(bytes, &mut text);
            return Message::text(text);
        }
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(channel);
        message.extend_from_slice(bytes);
        Message::binary(message)
    }

    /// What a client's message means. `None` for what has no meaning.
    fn decode(self, message: Message) -> Option<Input> {
        let bytes: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return Some(Input::Gone),
            // Pings are answered below us.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return None,
        };
        let channel = *bytes.first()?;
        if self.base64 {
            let channel = channel.checked_sub(b'0').filter(|n| *n < 10)?;
            return Some(Input::Data(channel, STANDARD.decode(&bytes[1..]).ok()?.into()));
        }
        if self.close && channel == CLOSE {
            return bytes.get(1).map(|channel| Input::Close(*channel));
        }
        Some(Input::Data(channel, bytes.slice(1..)))
    }
}

/// What the client said.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Data(u8, Bytes),
    Close(u8),
    Gone,
}

/// A channel and the runtime's stream behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) channel: u8,
    pub(super) stream: u32,
    /// The client may send on it.
    pub(super) up: bool,
    /// The session is over when every stream that gives output and is waited for has ended.
    pub(super) awaited: bool,
}

/// An open session.
pub(super) struct Session<R, W> {
    pub(super) protocol: Protocol,
    pub(super) routes: Vec<Route>,
    /// The channel on which a break-down of the runtime is told.
    pub(super) error_channel: Option<u8>,
    pub(super) reader: Reader<R>,
    pub(super) writer: Writer<W>,
    /// Sent to the client before anything else.
    pub(super) greeting: Vec<(u8, Vec<u8>)>,
    /// Sees what is carried.
    pub(super) recording: Recording,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Session<R, W> {
    /// Carries bytes both ways until either side ends.
    pub(super) async fn run(self, socket: Socket) {
        let (mut sink, stream) = socket.split();
        for (channel, bytes) in &self.greeting {
            if sink.send(self.protocol.encode(*channel, bytes)).await.is_err() {
                return;
            }
        }
        let (pings, answers) = mpsc::channel(PINGS_MAX);
        let down = Down {
            protocol: self.protocol,
            routes: &self.routes,
            error_channel: self.error_channel,
            reader: self.reader,
            sink,
            pings,
            recording: self.recording.clone(),
        };
        let up = up(self.protocol, &self.routes, stream, self.writer, answers, &self.recording);
        tokio::pin!(up);
        tokio::select! {
            () = &mut up => {}
            () = down.run() => {
                let _ = tokio::time::timeout(DRAIN_MAX, up).await;
            }
        }
    }
}

/// From the client to the runtime, until the client has gone.
async fn up<W: AsyncWrite + Unpin>(
    protocol: Protocol,
    routes: &[Route],
    mut stream: SplitStream<Socket>,
    mut writer: Writer<W>,
    mut answers: mpsc::Receiver<u32>,
    recording: &Recording,
) {
    let mut closed = HashSet::new();
    // Once the runtime takes nothing more the client's messages are read and dropped, until it goes by itself.
    let mut broken = false;
    loop {
        let message = tokio::select! {
            Some(ping) = answers.recv() => {
                broken |= writer.pong(ping).await.is_err();
                continue;
            }
            message = stream.next() => message,
        };
        let Some(Ok(message)) = message else { return };
        let (channel, data) = match protocol.decode(message) {
            None => continue,
            Some(Input::Gone) => return,
            Some(Input::Data(channel, data)) => (channel, Some(data)),
            Some(Input::Close(channel)) => (channel, None),
        };
        let Some(route) = routes.iter().find(|r| r.up && r.channel == channel) else { continue };
        if broken || closed.contains(&channel) {
            continue;
        }
        if data.as_ref().is_some_and(|data| !recording.sent(channel, data)) {
            // What cannot be recorded does not reach the container.
            broken = true;
            continue;
        }
        let sent = match data {
            Some(data) => writer.send(route.stream, &data).await,
            None => {
                closed.insert(channel);
                writer.finish(route.stream).await
            }
        };
        broken |= sent.is_err();
    }
}

/// From the runtime to the client.
struct Down<'a, R> {
    protocol: Protocol,
    routes: &'a [Route],
    error_channel: Option<u8>,
    reader: Reader<R>,
    sink: SplitSink<Socket, Message>,
    pings: mpsc::Sender<u32>,
    recording: Recording,
}

impl<R: AsyncRead + Unpin> Down<'_, R> {
    async fn run(mut self) {
        if self.carry().await.is_ok() {
            let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            // The client may have gone first.
            let _ = self.sink.send(Message::Close(Some(frame))).await;
        }
    }

    /// Until all output has ended. An error is the client's connection's.
    async fn carry(&mut self) -> Result<(), Error> {
        let mut awaited: HashSet<u32> = self.routes.iter().filter(|r| r.awaited).map(|r| r.stream).collect();
        let mut told = false;
        while !awaited.is_empty() {
            let recording = self.recording.clone();
            let received = tokio::select! {
                received = self.reader.next() => received,
                // Nothing more is read after this, so what was read of a frame may be lost.
                why = recording.over() => return self.cut_off(&why).await,
            };
            match received {
                Ok(Some(Received::Data(stream, bytes))) => {
                    let Some(route) = self.routes.iter().find(|r| r.stream == stream) else { continue };
                    if Some(route.channel) == self.error_channel {
                        told = true;
                        if let Some(text) = self.error_text(&bytes) {
                            self.sink.send(self.protocol.encode(route.channel, &text)).await?;
                        }
                    } else if self.recording.shown(route.channel, &bytes) {
                        self.sink.send(self.protocol.encode(route.channel, &bytes)).await?;
                    }
                }
                Ok(Some(Received::Finished(stream) | Received::Reset(stream, _))) => {
                    awaited.remove(&stream);
                }
                Ok(Some(Received::Ping(id))) => {
                    // A runtime that pings faster than it reads gets fewer answers.
                    let _ = self.pings.try_send(id);
                }
                Ok(None) | Err(_) => break,
            }
        }
        match self.error_channel {
            Some(channel) if !told => {
                let text = broken_off(self.protocol.status);
                self.sink.send(self.protocol.encode(channel, &text)).await
            }
            _ => Ok(()),
        }
    }

    /// The session ends because its recording does: says so where the user looks, and where the client does.
    async fn cut_off(&mut self, why: &str) -> Result<(), Error> {
        let shown = self.routes.iter().map(|r| r.channel).filter(|c| matches!(*c, STDOUT | STDERR)).max();
        if let Some(channel) = shown {
            let line = format!("\r\n{why}\r\n");
            self.sink.send(self.protocol.encode(channel, line.as_bytes())).await?;
        }
        match self.error_channel {
            Some(channel) => {
                let text = failure(self.protocol.status, why);
                self.sink.send(self.protocol.encode(channel, &text)).await
            }
            None => Ok(()),
        }
    }

    /// Older protocols carry only the message of a failure.
    fn error_text(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.protocol.status {
            return Some(bytes.to_vec());
        }
        match serde_json::from_slice::<serde_json::Value>(bytes) {
            Ok(status) if status["status"] == "Success" => None,
            Ok(status) => Some(status["message"].as_str().unwrap_or("failed").as_bytes().to_vec()),
            Err(_) => Some(bytes.to_vec()),
        }
    }
}

/// Told when the runtime went away without a word about the command's end.
fn broken_off(status: bool) -> Vec<u8> {
    failure(status, "the connection to the container runtime broke off")
}

/// A failure as the error channel carries it.
fn failure(status: bool, message: &str) -> Vec<u8> {
    if !status {
        return message.as_bytes().to_vec();
    }
    let object = serde_json::json!({
        "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500,
    });
    object.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_first_known_offer_is_taken() {
        for (offered, want) in [
            (&["v5.channel.k8s.io", "v4.channel.k8s.io"][..], Some("v5.channel.k8s.io")),
            (&["v9.channel.k8s.io", "base64.channel.k8s.io"], Some("base64.channel.k8s.io")),
            (&["v9.channel.k8s.io"], None),
            (&[], Some("")),
        ] {
            assert_eq!(Protocol::choose(offered).map(|p| p.name), want);
        }
    }

    #[test]
    fn messages_are_told_apart_by_channel() {
        let of = |name| Protocol::choose(&[name]).expect("known");
        let (v5, v4, text) = (of("v5.channel.k8s.io"), of("v4.channel.k8s.io"), of("base64.channel.k8s.io"));
        let data = |channel, bytes: &'static [u8]| Some(Input::Data(channel, Bytes::from_static(bytes)));
        for (protocol, message, want) in [
            (v5, Message::binary(vec![0, 1, 2]), data(0, &[1, 2])),
            (v5, Message::binary(vec![255, 0]), Some(Input::Close(0))),
            (v5, Message::binary(vec![255]), None),
            (v5, Message::binary(vec![]), None),
            (v4, Message::binary(vec![255, 0]), data(255, &[0])),
            (v4, Message::text("\u{4}{}"), data(4, b"{}")),
            (v4, Message::Ping(Bytes::new()), None),
            (v4, Message::Close(None), Some(Input::Gone)),
            (text, Message::text("0aGk="), data(0, b"hi")),
            (text, Message::text("0a"), None),
            (text, Message::text("xaGk="), None),
        ] {
            assert_eq!(protocol.decode(message.clone()), want, "{message:?}");
        }
        assert_eq!(v5.encode(1, b"x"), Message::binary(vec![1, b'x']));
        assert_eq!(text.encode(1, b"hi"), Message::text("1aGk="));
    }
}
