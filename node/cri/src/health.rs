//! The standard gRPC health check (`grpc.health.v1.Health/Check`), as pod probes use it.

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SERVING` of the answer's status enumeration.
const SERVING: i32 = 1;

/// Why a server does not count as healthy, in words for an event.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// No connection within the limit.
    #[error("timeout: failed to connect service \"{0}\" within {1:?}")]
    Connect(SocketAddr, Duration),
    /// The connection was refused or broke.
    #[error("error: failed to connect service \"{0}\": {1}")]
    Refused(SocketAddr, String),
    /// The server has no health service.
    #[error("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {0}")]
    Unimplemented(String),
    /// The call failed.
    #[error("error: health rpc probe failed: {0}")]
    Failed(String),
    /// The answer was not `SERVING`.
    #[error("service unhealthy (responded with \"{0}\")")]
    NotServing(&'static str),
}

/// Asks the server at `address` about `service` ("" for the server as a whole).
pub async fn check(address: SocketAddr, service: &str, limit: Duration) -> Result<(), HealthError> {
    let ask = async {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| HealthError::Refused(address, e.to_string()))?
            .user_agent("kube-probe/1.37")
            .map_err(|e| HealthError::Refused(address, e.to_string()))?;
        let channel = endpoint.connect().await.map_err(|e| HealthError::Refused(address, e.to_string()))?;
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(|e| HealthError::Refused(address, e.to_string()))?;
        let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        match grpc.unary(request, path, codec).await {
            Ok(answer) => match answer.into_inner().status {
                SERVING => Ok(()),
                2 => Err(HealthError::NotServing("NOT_SERVING")),
                3 => Err(HealthError::NotServing("SERVICE_UNKNOWN")),
                _ => Err(HealthError::NotServing("UNKNOWN")),
            },
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                Err(HealthError::Unimplemented(status.message().to_owned()))
            }
            Err(status) => Err(HealthError::Failed(status.message().to_owned())),
        }
    };
    tokio::time::timeout(limit, ask).await.unwrap_or(Err(HealthError::Connect(address, limit)))
}
