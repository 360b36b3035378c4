//! Callers in this process: real HTTP over an in-memory pipe.
//!
//! A bare service call would be shorter, but a request without a connection has nothing to upgrade,
//! so exec, attach and port-forward would fail; and a component must meet the same authorisation,
//! limits and encodings as everybody else.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use gantry_kube_types::UserInfo;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::DuplexStream;
use tokio::sync::Semaphore;
use tower::Service;

use crate::builder::FrontDoor;
use crate::connection::Connection;
use crate::io::Held;
use crate::pipeline::Origin;

/// The host name of requests that never leave the process.
const AUTHORITY: &str = "gantry.in-process";
const PIPE_BYTES: usize = 64 * 1024;
const IDLE_CONNECTIONS_MAX: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

type PipeFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// A client of the front door with a fixed identity: the service for `kube::Client::new`.
///
/// Cheap to clone; clones share one bounded pool of connections.
#[derive(Clone)]
pub struct InProcess {
    client: Client<Connector, Body>,
}

impl FrontDoor {
    /// Requests through the returned service are `user`'s; authorisation and impersonation apply.
    pub fn connect_as(&self, user: UserInfo) -> InProcess {
        let connector = Connector {
            door: self.clone(),
            origin: Arc::new(Origin::InProcess(user)),
            places: Arc::new(Semaphore::new(self.limits().in_process_connections_max)),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        InProcess { client }
    }
}

impl<B> Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<Incoming>;
    type Error = Error;
    type Future = PipeFuture<Self::Response, Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let mut uri = std::mem::take(&mut head.uri).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(Authority::from_static(AUTHORITY));
        uri.path_and_query.get_or_insert(http::uri::PathAndQuery::from_static("/"));
        // Scheme, authority and path are all there, which is all a URI can lack.
        head.uri = Uri::from_parts(uri).unwrap_or_default();
        head.version = http::Version::HTTP_11;
        Box::pin(self.client.request(Request::from_parts(head, Body::new(body))))
    }
}

#[derive(Clone)]
struct Connector {
    door: FrontDoor,
    origin: Arc<Origin>,
    places: Arc<Semaphore>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Held<DuplexStream>>;
    type Error = tokio::sync::AcquireError;
    type Future = PipeFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { door, origin, places } = self.clone();
        Box::pin(async move {
            let place = places.acquire_owned().await?;
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            let kept = Connection::default();
            tokio::spawn(serve_pipe(door, origin, theirs, kept.clone()));
            Ok(TokioIo::new(Held::new(ours, place, kept)))
        })
    }
}

/// Ends when the client's side is closed.
async fn serve_pipe(door: FrontDoor, origin: Arc<Origin>, pipe: DuplexStream, kept: Connection) {
    let service = service_fn(move |request| {
        let (door, origin, kept) = (door.clone(), origin.clone(), kept.clone());
        async move { Ok::<_, std::convert::Infallible>(door.handle(request, &origin, None, &kept).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        // The client is this process: its idle connections are its own business.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(pipe), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::trace!(%error, "in-process connection ended");
    }
}
