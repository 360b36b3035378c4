//! The documents by which others verify our tokens: OpenID Connect Discovery and the key set (RFC 7517).

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use http::header::CACHE_CONTROL;

use crate::core::Core;
use crate::keys::openid_configuration;

/// Where the documents are, for whoever asks: they hold public keys alone.
pub const PATHS: [&str; 2] = ["/identity/.well-known/openid-configuration", "/identity/jwks.json"];

/// Serves [`PATHS`].
pub fn router(core: Arc<Core>) -> Router {
    Router::new().route(PATHS[0], get(configuration)).route(PATHS[1], get(keys)).with_state(core)
}

async fn configuration(State(core): State<Arc<Core>>) -> impl IntoResponse {
    let issuer = &core.tokens.config().issuer;
    Json(openid_configuration(issuer, &format!("{issuer}/jwks.json")))
}

/// Keys are published two hours before they sign: whoever keeps the set for one hour knows them in time.
async fn keys(State(core): State<Arc<Core>>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "public, max-age=3600")], Json(core.tokens.keys().jwks()))
}
