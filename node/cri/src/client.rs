//! Calls of `RuntimeService` and `ImageService`.

use std::path::Path;
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::types::*;

/// The largest answer accepted, equal to containerd's own limit.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Calls that only read or change records. Anything slower means the runtime hangs.
const SHORT: Duration = Duration::from_secs(15);
/// Calls that start processes, set up networks or unpack file systems.
const LONG: Duration = Duration::from_secs(240);

/// A failed call: which one, gRPC's code, and the runtime's own words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CriError {
    /// `Service/Method` that failed.
    pub method: &'static str,
    /// The gRPC status code.
    pub code: tonic::Code,
    /// The runtime's message, in the form that clients of gRPC servers know.
    pub message: String,
}

impl CriError {
    fn new(method: &'static str, status: &tonic::Status) -> Self {
        let name = code_name(status.code());
        Self {
            method,
            code: status.code(),
            message: format!("rpc error: code = {name} desc = {}", status.message()),
        }
    }

    /// The object named in the call does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        self.code == tonic::Code::NotFound || self.message.contains("not found")
    }

    /// The runtime could not be reached at all.
    pub fn is_unavailable(&self) -> bool {
        self.code == tonic::Code::Unavailable
    }
}

/// The code's name as Go's gRPC prints it, which is what users of kubectl see in pod statuses.
fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code::*;
    match code {
        Ok => "OK",
        Cancelled => "Canceled",
        Unknown => "Unknown",
        InvalidArgument => "InvalidArgument",
        DeadlineExceeded => "DeadlineExceeded",
        NotFound => "NotFound",
        AlreadyExists => "AlreadyExists",
        PermissionDenied => "PermissionDenied",
        ResourceExhausted => "ResourceExhausted",
        FailedPrecondition => "FailedPrecondition",
        Aborted => "Aborted",
        OutOfRange => "OutOfRange",
        Unimplemented => "Unimplemented",
        Internal => "Internal",
        Unavailable => "Unavailable",
        DataLoss => "DataLoss",
        Unauthenticated => "Unauthenticated",
    }
}

/// A client of one container runtime. Cheap to clone; all clones share one connection.
#[derive(Clone, Debug)]
pub struct Runtime {
    channel: Channel,
}

impl Runtime {
    /// A client for the runtime behind `socket`. Connects on first use, and again whenever the runtime restarts.
    pub fn new(socket: &Path) -> Self {
        Self { channel: crate::channel::unix(socket) }
    }

    /// The channel, for the other services behind the same socket.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    async fn call<Q, A>(&self, method: &'static str, request: Q, limit: Duration) -> Result<A, CriError>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = async {
            grpc.ready().await.map_err(|e| tonic::Status::unavailable(root_cause(&e)))?;
            let mut request = tonic::Request::new(request);
            request.set_timeout(limit);
            grpc.unary(request, PathAndQuery::from_static(method), ProstCodec::<Q, A>::default()).await
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(CriError::new(method, &status)),
            Err(_) => {
                Err(CriError::new(method, &tonic::Status::deadline_exceeded("context deadline exceeded")))
            }
        }
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

macro_rules! methods {
    ($service:literal: $( $(#[$doc:meta])* $name:ident = $method:literal ($request:ty) -> $answer:ty, $limit:expr; )*) => {
        impl Runtime {
            $( $(#[$doc])* pub async fn $name(&self, request: $request) -> Result<$answer, CriError> {
                self.call(concat!("/runtime.v1.", $service, "/", $method), request, $limit).await
            } )*
        }
    };
}

methods! { "RuntimeService":
    /// Name and version of the runtime; also the check that it answers.
    version = "Version" (VersionRequest) -> VersionResponse, SHORT;
    /// Creates and starts a sandbox, its network included.
    run_pod_sandbox = "RunPodSandbox" (RunPodSandboxRequest) -> RunPodSandboxResponse, LONG;
    /// Stops the sandbox's processes and gives its network back. Safe to repeat.
    stop_pod_sandbox = "StopPodSandbox" (StopPodSandboxRequest) -> StopPodSandboxResponse, LONG;
    /// Removes a sandbox and every container in it. Safe to repeat.
    remove_pod_sandbox = "RemovePodSandbox" (RemovePodSandboxRequest) -> RemovePodSandboxResponse, LONG;
    /// State, addresses and labels of one sandbox.
    pod_sandbox_status = "PodSandboxStatus" (PodSandboxStatusRequest) -> PodSandboxStatusResponse, SHORT;
    /// Sandboxes that match a filter.
    list_pod_sandbox = "ListPodSandbox" (ListPodSandboxRequest) -> ListPodSandboxResponse, SHORT;
    /// Creates a container in a sandbox without starting it.
    create_container = "CreateContainer" (CreateContainerRequest) -> CreateContainerResponse, LONG;
    /// Starts a created container.
    start_container = "StartContainer" (StartContainerRequest) -> StartContainerResponse, LONG;
    /// Removes a container, killing it when it still runs. Safe to repeat.
    remove_container = "RemoveContainer" (RemoveContainerRequest) -> RemoveContainerResponse, LONG;
    /// Containers that match a filter.
    list_containers = "ListContainers" (ListContainersRequest) -> ListContainersResponse, SHORT;
    /// State, times and exit code of one container.
    container_status = "ContainerStatus" (ContainerStatusRequest) -> ContainerStatusResponse, SHORT;
    /// Changes the cgroup limits of a running container.
    update_container_resources = "UpdateContainerResources" (UpdateContainerResourcesRequest)
        -> UpdateContainerResourcesResponse, SHORT;
    /// Opens the log file anew, after the old one was renamed.
    reopen_container_log = "ReopenContainerLog" (ReopenContainerLogRequest) -> ReopenContainerLogResponse, SHORT;
    /// A URL to stream an exec session from.
    exec = "Exec" (ExecRequest) -> ExecResponse, SHORT;
    /// A URL to stream an attached session from.
    attach = "Attach" (AttachRequest) -> AttachResponse, SHORT;
    /// A URL to forward ports of a sandbox from.
    port_forward = "PortForward" (PortForwardRequest) -> PortForwardResponse, SHORT;
    /// Resource usage of one container.
    container_stats = "ContainerStats" (ContainerStatsRequest) -> ContainerStatsResponse, SHORT;
    /// Resource usage of the containers that match a filter.
    list_container_stats = "ListContainerStats" (ListContainerStatsRequest) -> ListContainerStatsResponse, SHORT;
    /// Resource usage of one sandbox and its containers.
    pod_sandbox_stats = "PodSandboxStats" (PodSandboxStatsRequest) -> PodSandboxStatsResponse, SHORT;
    /// Resource usage of the sandboxes that match a filter.
    list_pod_sandbox_stats = "ListPodSandboxStats" (ListPodSandboxStatsRequest)
        -> ListPodSandboxStatsResponse, SHORT;
    /// Tells the runtime the node's pod address range.
    update_runtime_config = "UpdateRuntimeConfig" (UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse, SHORT;
    /// The runtime's own conditions (`RuntimeReady`, `NetworkReady`).
    status = "Status" (StatusRequest) -> StatusResponse, SHORT;
}

methods! { "ImageService":
    /// Images that match a filter.
    list_images = "ListImages" (ListImagesRequest) -> ListImagesResponse, SHORT;
    /// One image by name or id; `image` is `None` when it is not present.
    image_status = "ImageStatus" (ImageStatusRequest) -> ImageStatusResponse, SHORT;
    /// Removes an image. Safe to repeat.
    remove_image = "RemoveImage" (RemoveImageRequest) -> RemoveImageResponse, LONG;
    /// Usage of the file systems that hold images and containers.
    image_fs_info = "ImageFsInfo" (ImageFsInfoRequest) -> ImageFsInfoResponse, SHORT;
}

impl Runtime {
    /// Pulls an image. The caller bounds the time and may drop the future to cancel the pull.
    pub async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse, CriError> {
        // A day: far longer than any pull, so that the caller's own limit decides.
        self.call("/runtime.v1.ImageService/PullImage", request, Duration::from_secs(86_400)).await
    }

    /// Sends the stop signal, waits up to `timeout` seconds, then kills.
    pub async fn stop_container(&self, id: &str, timeout: i64) -> Result<(), CriError> {
        let limit = Duration::from_secs(u64::try_from(timeout).unwrap_or(0)).saturating_add(LONG);
        let request = StopContainerRequest { container_id: id.to_owned(), timeout };
        let _: StopContainerResponse =
            self.call("/runtime.v1.RuntimeService/StopContainer", request, limit).await?;
        Ok(())
    }

    /// Runs a command in a container and gathers its output. `timeout` in seconds, 0 for none.
    pub async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, CriError> {
        let limit = match u64::try_from(request.timeout) {
            Ok(seconds) if seconds > 0 => Duration::from_secs(seconds) + Duration::from_secs(2),
            _ => Duration::from_secs(86_400),
        };
        self.call("/runtime.v1.RuntimeService/ExecSync", request, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field numbers against bytes a real kubelet sent, so that a slip in a tag shows without a runtime.
    #[test]
    fn stop_container_encodes_as_the_protocol_says() {
        let bytes = StopContainerRequest { container_id: "ab".into(), timeout: 30 }.encode_to_vec();
        assert_eq!(bytes, [0x0a, 2, b'a', b'b', 0x10, 30]);
        let config =
            PodSandboxConfig { hostname: "h".into(), log_directory: "/l".into(), ..Default::default() };
        assert_eq!(config.encode_to_vec(), [0x12, 1, b'h', 0x1a, 2, b'/', b'l']);
    }

    #[tokio::test]
    async fn a_missing_socket_is_unavailable() {
        let runtime = Runtime::new(Path::new("/nonexistent/gantry-cri.sock"));
        let error = runtime.version(VersionRequest::default()).await.expect_err("nothing listens there");
        assert!(error.is_unavailable(), "{error:?}");
    }
}
