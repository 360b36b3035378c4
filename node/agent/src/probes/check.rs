//! One check of one probe.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gantry_cri::{ExecSyncRequest, Runtime, health};
use k8s_openapi::api::core::v1::{Container, Probe};

use super::http::{HttpCheck, resolve_port};

/// How much of a command's or page's output goes into a message.
const OUTPUT_BYTES_MAX: usize = 1024;

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure(String),
    /// The check could not be made.
    Unclear(String),
}

/// What is checked.
pub(crate) struct Target<'a> {
    pub(crate) container: &'a Container,
    pub(crate) run_id: &'a str,
    pub(crate) ip: IpAddr,
}

/// Runs the probe's check once, within `limit`.
pub(crate) async fn run_probe(
    runtime: &Runtime,
    probe: &Probe,
    target: &Target<'_>,
    limit: Duration,
) -> Outcome {
    if let Some(exec) = &probe.exec {
        return run_command(runtime, target.run_id, exec.command.clone().unwrap_or_default(), limit).await;
    }
    if let Some(get) = &probe.http_get {
        return match HttpCheck::new(get, target.container, target.ip) {
            Ok(check) => match check.get(limit).await {
                Ok(_) => Outcome::Success,
                Err(message) => Outcome::Failure(message),
            },
            Err(message) => Outcome::Unclear(message),
        };
    }
    if let Some(tcp) = &probe.tcp_socket {
        let Some(port) = resolve_port(&tcp.port, target.container) else {
            return Outcome::Unclear("couldn't find the named port in the container".into());
        };
        let host = tcp.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| target.ip.to_string());
        return connect(&host, port, limit).await;
    }
    if let Some(grpc) = &probe.grpc {
        let Ok(port) = u16::try_from(grpc.port) else { return Outcome::Unclear("invalid port".into()) };
        let address = SocketAddr::new(target.ip, port);
        let service = grpc.service.as_deref().unwrap_or_default();
        return match health::check(address, service, limit).await {
            Ok(()) => Outcome::Success,
            Err(error) => Outcome::Failure(error.to_string()),
        };
    }
    Outcome::Unclear("the probe names no handler".into())
}

async fn connect(host: &str, port: u16, limit: Duration) -> Outcome {
    match tokio::time::timeout(limit, tokio::net::TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(dial_error(&format!("{host}:{port}"), &error)),
        Err(_) => Outcome::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}

/// A refused connection in the words users of kubectl know.
pub(super) fn dial_error(address: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("dial tcp {address}: connect: connection refused"),
        _ => format!("dial tcp {address}: {error}"),
    }
}

async fn run_command(runtime: &Runtime, run_id: &str, cmd: Vec<String>, limit: Duration) -> Outcome {
    let timeout = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let request = ExecSyncRequest { container_id: run_id.to_owned(), cmd: cmd.clone(), timeout };
    match runtime.exec_sync(request).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            output.truncate(OUTPUT_BYTES_MAX);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error)
            if error.message.contains("DeadlineExceeded") || error.message.contains("deadline exceeded") =>
        {
            Outcome::Failure(format!(
                "command timed out: \"{}\" timed out after {}s",
                cmd.join(" "),
                limit.as_secs()
            ))
        }
        // A command that cannot start is the container's failure; a runtime that does not answer is not.
        Err(error) if error.is_unavailable() => Outcome::Unclear(error.to_string()),
        Err(error) => Outcome::Failure(error.to_string()),
    }
}
