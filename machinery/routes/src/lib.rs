//! Routes that can be listed.
//!
//! A router does not tell which paths it answers, and a list beside it is forgotten: then nobody tries whether the new
//! path is closed to strangers. So a part of the platform writes down its paths once, here, and both its router and
//! what `/gantry/routes` shows come of it.

use axum::Router;
use axum::routing::MethodRouter;

/// Paths, each with what answers it. `S` is the state its handlers need.
pub struct Routes<S = ()>(Vec<(String, MethodRouter<S>)>);

impl<S> Default for Routes<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub fn new() -> Self {
        Self::default()
    }

    /// `path` as axum takes it: `/users/{user}`. Parameters in the same place have the same name everywhere.
    #[must_use]
    pub fn route(mut self, path: &str, methods: MethodRouter<S>) -> Self {
        self.0.push((path.to_owned(), methods));
        self
    }

    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The same, each answered by what `change` makes of it.
    #[must_use]
    pub fn map(self, change: impl Fn(&str, MethodRouter<S>) -> MethodRouter<S>) -> Self {
        let changed = self.0.into_iter().map(|(path, methods)| {
            let methods = change(&path, methods);
            (path, methods)
        });
        Self(changed.collect())
    }

    /// The same, each behind `prefix`.
    #[must_use]
    pub fn below(self, prefix: &str) -> Self {
        Self(self.0.into_iter().map(|(path, methods)| (format!("{prefix}{path}"), methods)).collect())
    }

    /// The paths, sorted.
    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.0.iter().map(|(path, _)| path.clone()).collect();
        paths.sort_unstable();
        paths
    }

    /// Answers [`Routes::paths`]. A path that is added to the router itself is on no list.
    ///
    /// # Panics
    /// When two paths cannot stand beside each other.
    pub fn router(self) -> Router<S> {
        self.0.into_iter().fold(Router::new(), |router, (path, methods)| router.route(&path, methods))
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    #[test]
    fn what_is_served_is_listed() {
        let users =
            Routes::<()>::new().route("/users/{user}", get(|| async {})).route("/users", get(|| async {}));
        let all = users.below("/v3").merge(Routes::new().route("/", get(|| async {})));
        assert_eq!(all.paths(), ["/", "/v3/users", "/v3/users/{user}"]);
        let _router: Router = all.router();
    }
}
