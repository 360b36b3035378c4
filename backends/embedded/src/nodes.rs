//! Nodes that live in this process: their HTTP API over a pipe instead of a network connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use gantry_apiserver::node::{BoxedIo, NodeConnector};
use gantry_kube_types::StatusError;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;

const PIPE_BYTES: usize = 64 * 1024;

/// The nodes of this process by name. Filled after the API server has started, because an agent needs
/// the API server to start.
#[derive(Clone, Default)]
pub struct LocalNodes(Arc<Mutex<HashMap<String, Router>>>);

impl LocalNodes {
    /// `router` answers what the API server asks of the node `name`.
    pub fn insert(&self, name: &str, router: Router) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), router);
    }

    fn get(&self, name: &str) -> Option<Router> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

#[async_trait::async_trait]
impl NodeConnector for LocalNodes {
    async fn connect(&self, node: &str) -> Result<BoxedIo, StatusError> {
        let router = self.get(node).ok_or_else(|| {
            StatusError::service_unavailable(format!("node \"{node}\" is not connected to this server"))
        })?;
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(async move {
            let service = TowerToHyperService::new(router);
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(theirs), service)
                .with_upgrades();
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the local node ended");
            }
        });
        Ok(Box::new(ours))
    }
}
