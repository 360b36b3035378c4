//! `/exec` and `/attach`: sessions in a container.

use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use gantry_cri::{AttachRequest, ExecRequest};
use gantry_kube_types::SessionStart;
use http::HeaderValue;
use k8s_openapi::api::core::v1::Pod;

use super::channels::{self, ERROR, Protocol, RESIZE, Route, STDERR, STDIN, STDOUT, Session};
use super::error::{Failure, find_pod, has_container};
use super::logs::flag;
use super::recording::Recording;
use super::spdy::{Reader, Writer};
use super::upstream::{self, Upstream};
use super::{passthrough, websocket};
use crate::api::AgentApi;

/// The protocol asked of the runtime for WebSocket clients: exit codes, and terminals that are resized.
const RUNTIME_PROTOCOL: HeaderValue = HeaderValue::from_static("v4.channel.k8s.io");
/// Words of one command; the kernel's own limit on their bytes is checked by the runtime.
const COMMAND_WORDS_MAX: usize = 4096;

/// Which streams a session has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Options {
    /// Reads the API's names (`stdin`) and the kubelet's (`input`).
    fn parse(pairs: Vec<(String, String)>) -> Result<Self, Failure> {
        let mut options = Self::default();
        for (name, value) in pairs {
            let target = match name.as_str() {
                "command" => {
                    options.command.push(value);
                    continue;
                }
                "stdin" | "input" => &mut options.stdin,
                "stdout" | "output" => &mut options.stdout,
                "stderr" | "error" => &mut options.stderr,
                "tty" => &mut options.tty,
                _ => continue,
            };
            *target = value.is_empty()
                || flag(&value)
                    .ok_or_else(|| Failure::bad_request(format!("invalid value {value:?} of {name}")))?;
        }
        if options.command.len() > COMMAND_WORDS_MAX {
            return Err(Failure::bad_request(format!("a command has at most {COMMAND_WORDS_MAX} words")));
        }
        // A terminal has one output.
        options.stderr &= !options.tty;
        if !options.stdin && !options.stdout && !options.stderr {
            return Err(Failure::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        Ok(options)
    }

    /// Channels and the names of their streams, in the order they are opened.
    fn streams(&self) -> Vec<(u8, &'static str)> {
        let wanted = [
            (true, ERROR, "error"),
            (self.stdin, STDIN, "stdin"),
            (self.stdout, STDOUT, "stdout"),
            (self.stderr, STDERR, "stderr"),
            (self.tty, RESIZE, "resize"),
        ];
        wanted.into_iter().filter(|(wanted, ..)| *wanted).map(|(_, channel, name)| (channel, name)).collect()
    }
}

/// Does the container's own process have a terminal? Who attaches to that has it, too, whatever they ask for.
fn has_terminal(pod: &Pod, container: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| (&c.name, c.tty));
    let all = spec.init_containers.iter().flatten().chain(&spec.containers).map(|c| (&c.name, c.tty));
    all.chain(ephemeral).any(|(name, tty)| name == container && tty == Some(true))
}

/// What is asked of the runtime.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exec,
    Attach,
}

type Target = Path<(String, String, String)>;
type Pairs = Query<Vec<(String, String)>>;

pub(super) async fn exec(
    State(api): State<AgentApi>,
    Path(target): Target,
    Query(query): Pairs,
    request: Request,
) -> Response {
    serve(&api, Kind::Exec, &target, query, request).await.unwrap_or_else(IntoResponse::into_response)
}

pub(super) async fn attach(
    State(api): State<AgentApi>,
    Path(target): Target,
    Query(query): Pairs,
    request: Request,
) -> Response {
    serve(&api, Kind::Attach, &target, query, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn serve(
    api: &AgentApi,
    kind: Kind,
    (namespace, pod, container): &(String, String, String),
    query: Vec<(String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let options = Options::parse(query)?;
    if kind == Kind::Exec && options.command.is_empty() {
        return Err(Failure::bad_request("you must specify at least 1 command"));
    }
    let record = find_pod(api, namespace, pod)?;
    let running = record.container(container).filter(|c| c.running && has_container(&record.pod, container));
    let id =
        running.ok_or_else(|| Failure::internal(format!("container not found ({container:?})")))?.id.clone();
    // Asked before the runtime makes a session, so that a request that cannot become one leaves none behind.
    let protocol = negotiate(&request)?;
    let recording = Recording::begin(
        &request,
        SessionStart {
            audit_id: String::new(),
            namespace: namespace.clone(),
            pod: pod.clone(),
            container: container.clone(),
            command: options.command.clone(),
            tty: options.tty || kind == Kind::Attach && has_terminal(&record.pod, container),
        },
        protocol.is_some(),
    )?;
    let url = url(api, kind, id, &options).await?;
    match protocol {
        None => passthrough::spdy(request, &url).await,
        Some(protocol) => session(request, &url, protocol, &options, recording).await,
    }
}

/// The WebSocket protocol, or `None` for a SPDY client.
fn negotiate(request: &Request) -> Result<Option<Protocol>, Failure> {
    if !websocket::is_websocket(request.method(), request.headers()) {
        passthrough::check(request)?;
        return Ok(None);
    }
    let offered = websocket::offered(request.headers());
    let protocol = Protocol::choose(&offered);
    protocol.map(Some).ok_or_else(|| {
        Failure::bad_request(format!(
            "unable to upgrade: none of the subprotocols {offered:?} is spoken here"
        ))
    })
}

async fn url(api: &AgentApi, kind: Kind, id: String, options: &Options) -> Result<String, Failure> {
    let Options { command, stdin, stdout, stderr, tty } = options.clone();
    match kind {
        Kind::Exec => {
            let request = ExecRequest { container_id: id, cmd: command, tty, stdin, stdout, stderr };
            Ok(api.runtime.exec(request).await?.url)
        }
        Kind::Attach => {
            let request = AttachRequest { container_id: id, stdin, tty, stdout, stderr };
            Ok(api.runtime.attach(request).await?.url)
        }
    }
}

/// Translates between the client's channels and the runtime's streams.
async fn session(
    mut request: Request,
    url: &str,
    protocol: Protocol,
    options: &Options,
    recording: Recording,
) -> Result<Response, Failure> {
    let mut answer = websocket::accept(request.headers(), protocol.name)?;
    if recording.is_on() {
        // For who reads no channel but what a program writes.
        let told = HeaderValue::from_static("299 - \"This session is recorded.\"");
        answer.headers_mut().insert(http::header::WARNING, told);
    }
    let Upstream { io, .. } = upstream::connect(url, &[RUNTIME_PROTOCOL]).await?;
    let (read, write) = tokio::io::split(io);
    let mut writer = Writer::new(write);
    let mut routes = Vec::new();
    for (channel, name) in options.streams() {
        let stream = writer.open(&[("streamtype", name)]).await;
        let stream = stream.map_err(|e| Failure::internal(format!("error dialing backend: {e}")))?;
        let up = matches!(channel, STDIN | RESIZE);
        routes.push(Route { channel, stream, up, awaited: !up });
    }
    // An empty message tells the client that the session stands.
    let first = routes.iter().map(|r| r.channel).filter(|c| matches!(*c, STDOUT | STDERR | ERROR)).min();
    let channels: Vec<u8> = routes.iter().map(|r| r.channel).collect();
    let notice = recording.notice(options.tty, &channels);
    let session = Session {
        protocol,
        routes,
        error_channel: Some(ERROR),
        reader: Reader::new(read),
        writer,
        greeting: first.map(|channel| (channel, Vec::new())).into_iter().chain(notice).collect(),
        recording,
    };
    spawn(&mut request, session);
    Ok(answer)
}

/// Runs the session as soon as the connection is the client's WebSocket.
pub(super) fn spawn<R, W>(request: &mut Request, session: channels::Session<R, W>)
where
    R: tokio::io::AsyncRead + Unpin + Send + 'static,
    W: tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        match websocket::socket(upgrade).await {
            Ok(socket) => session.run(socket).await,
            Err(error) => tracing::debug!(%error, "a client left during its upgrade"),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, Failure> {
        let pairs = text.split('&').filter_map(|p| p.split_once('='));
        Options::parse(pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).collect())
    }

    #[test]
    fn both_families_of_names_are_read() {
        let want = Options {
            command: vec!["sh".into(), "-c".into()],
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        };
        assert_eq!(parse("command=sh&command=-c&stdin=true&stdout=true&stderr=true"), Ok(want.clone()));
        assert_eq!(parse("command=sh&input=1&output=1&error=1&command=-c&tty=0&x=y"), Ok(want));
        assert!(parse("command=sh").is_err(), "no stream");
        assert!(parse("stdout=maybe").is_err());
    }

    #[test]
    fn who_attaches_has_the_terminal_of_the_container() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "initContainers": [{"name": "first", "tty": true}],
            "containers": [{"name": "main", "tty": true}, {"name": "plain"}, {"name": "none", "tty": false}],
            "ephemeralContainers": [{"name": "debug", "tty": true}],
        }}))
        .expect("a pod");
        let with: Vec<&str> = ["first", "main", "plain", "none", "debug", "absent"]
            .into_iter()
            .filter(|name| has_terminal(&pod, name))
            .collect();
        assert_eq!(with, ["first", "main", "debug"]);
        assert!(!has_terminal(&Pod::default(), "main"));
    }

    #[test]
    fn a_terminal_has_one_output_and_a_size() {
        let names = |text: &str| -> Vec<&str> {
            parse(text).expect("valid").streams().into_iter().map(|(_, name)| name).collect()
        };
        assert_eq!(names("stdin=1&stdout=1&stderr=1&tty=1"), ["error", "stdin", "stdout", "resize"]);
        assert_eq!(names("stdout=1&stderr=1"), ["error", "stdout", "stderr"]);
    }
}
