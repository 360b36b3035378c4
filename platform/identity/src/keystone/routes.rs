//! The table of routes: paths below `/identity/v3`, each with what it answers to.

use axum::Router;
use axum::routing::MethodRouter;

use super::call::Api;
use super::noted::noted;

/// Routes of one part of the API.
#[derive(Default)]
pub(crate) struct Routes(Vec<(String, MethodRouter<Api>)>);

impl Routes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// `path` is below `/v3`. Parameters in the same place have the same name everywhere.
    pub(crate) fn route(mut self, path: &str, methods: MethodRouter<Api>) -> Self {
        self.0.push((path.to_owned(), methods));
        self
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The paths, sorted.
    pub(crate) fn paths(&self) -> Vec<&str> {
        let mut paths: Vec<&str> = self.0.iter().map(|(path, _)| path.as_str()).collect();
        paths.sort_unstable();
        paths
    }

    /// A router with the paths below `prefix`.
    pub(crate) fn below(self, prefix: &str) -> Router<Api> {
        self.0.into_iter().fold(Router::new(), |router, (path, methods)| {
            router.route(&format!("{prefix}{path}"), noted(&path, methods))
        })
    }
}
