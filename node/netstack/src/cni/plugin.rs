//! The plugin process: carries one request to the node and prints the answer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CniError, REQUEST_BYTES_MAX, Reply, Request, SUPPORTED_VERSIONS, code, loopback};

/// Longest wait for the node; the runtime's own limit is usually longer.
const NODE_TIMEOUT: Duration = Duration::from_secs(60);

/// The CNI plugin's `main`, for when the binary is called `gantry-cni`.
///
/// Reads the `CNI_*` variables and the network configuration on standard input, as the CNI
/// specification defines them; exit code 1 comes with an error object on standard output.
pub fn cni_main() -> ExitCode {
    let (version, reply) = run();
    let (output, exit) = match reply {
        Ok(Value::Null) => return ExitCode::SUCCESS,
        Ok(result) => (result, ExitCode::SUCCESS),
        Err(error) => {
            let mut object = json!({ "cniVersion": version });
            object["code"] = json!(error.code);
            object["msg"] = json!(error.msg);
            if !error.details.is_empty() {
                object["details"] = json!(error.details);
            }
            (object, ExitCode::FAILURE)
        }
    };
    match writeln!(std::io::stdout(), "{output}") {
        Ok(()) => exit,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The `CNI_*` variables are this program's arguments, not settings: nothing else reads them.
fn variable(name: &str) -> String {
    std::env::var_os(name).and_then(|value| value.into_string().ok()).unwrap_or_default()
}

fn run() -> (String, Reply) {
    let newest = SUPPORTED_VERSIONS[SUPPORTED_VERSIONS.len() - 1].to_owned();
    let config = match read_configuration() {
        Ok(config) => config,
        Err(error) => return (newest, Err(error)),
    };
    let version = config["cniVersion"].as_str().unwrap_or("0.3.0").to_owned();
    let request = Request {
        command: variable("CNI_COMMAND"),
        container_id: variable("CNI_CONTAINERID"),
        netns: variable("CNI_NETNS"),
        ifname: variable("CNI_IFNAME"),
        args: variable("CNI_ARGS"),
        config,
    };
    if request.command == "VERSION" {
        return (
            version.clone(),
            Ok(json!({ "cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS })),
        );
    }
    if !SUPPORTED_VERSIONS.contains(&version.as_str()) {
        let message = format!("CNI version {version} is not one of {}", SUPPORTED_VERSIONS.join(", "));
        return (newest, Err(CniError::new(code::INCOMPATIBLE_VERSION, message)));
    }
    let reply = check(&request).and_then(|()| match request.config["type"].as_str() {
        Some(loopback::NAME) => loopback::answer(&request, &version),
        _ => forward(&request),
    });
    (version, reply)
}

fn read_configuration() -> Result<Value, CniError> {
    let mut text = Vec::new();
    let limit = REQUEST_BYTES_MAX as u64;
    std::io::stdin()
        .take(limit)
        .read_to_end(&mut text)
        .map_err(|e| CniError::new(code::IO_FAILURE, format!("reading the network configuration: {e}")))?;
    serde_json::from_slice(&text).map_err(|e| {
        CniError::new(code::DECODING_FAILURE, format!("the network configuration is not JSON: {e}"))
    })
}

fn check(request: &Request) -> Result<(), CniError> {
    let needed: &[(&str, &str)] = match request.command.as_str() {
        "ADD" | "CHECK" => &[
            ("CNI_CONTAINERID", &request.container_id),
            ("CNI_NETNS", &request.netns),
            ("CNI_IFNAME", &request.ifname),
        ],
        "DEL" => &[("CNI_CONTAINERID", &request.container_id), ("CNI_IFNAME", &request.ifname)],
        "STATUS" | "GC" => &[],
        other => {
            let message = format!("CNI_COMMAND {other:?} is unknown");
            return Err(CniError::new(code::INVALID_ENVIRONMENT, message));
        }
    };
    match needed.iter().find(|(_, value)| value.is_empty()) {
        Some((name, _)) => Err(CniError::new(code::INVALID_ENVIRONMENT, format!("{name} is not set"))),
        None => Ok(()),
    }
}

fn forward(request: &Request) -> Reply {
    let Some(socket) = request.config["gantry"]["socket"].as_str() else {
        return Err(CniError::new(code::INVALID_CONFIG, "gantry.socket is missing in the configuration"));
    };
    let unreachable = |error: std::io::Error| {
        let message = format!("the Gantry node does not answer on {socket} ({error}); is it running?");
        let unavailable = request.command == "STATUS";
        let code = if unavailable { code::NOT_AVAILABLE } else { code::TRY_AGAIN_LATER };
        CniError::new(code, message)
    };
    let decoding = |e: serde_json::Error| CniError::new(code::DECODING_FAILURE, e.to_string());
    let mut stream = UnixStream::connect(socket).map_err(unreachable)?;
    stream.set_read_timeout(Some(NODE_TIMEOUT)).map_err(unreachable)?;
    stream.set_write_timeout(Some(NODE_TIMEOUT)).map_err(unreachable)?;
    let line = serde_json::to_vec(request).map_err(decoding)?;
    stream.write_all(&line).map_err(unreachable)?;
    stream.shutdown(std::net::Shutdown::Write).map_err(unreachable)?;
    let mut answer = Vec::new();
    stream.take(REQUEST_BYTES_MAX as u64).read_to_end(&mut answer).map_err(unreachable)?;
    if answer.is_empty() {
        return Err(unreachable(std::io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice::<Reply>(&answer).map_err(decoding)?
}
