//! The documents by which others verify our tokens: OpenID Connect Discovery and the key set (RFC 7517).

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use gantry_routes::Routes;
use http::header::CACHE_CONTROL;

use crate::core::Core;
use crate::keys::openid_configuration;

/// Serves [`paths`], to whoever asks: the documents hold public keys alone.
pub fn router(core: Arc<Core>) -> Router {
    table().router().with_state(core)
}

/// Where the documents are.
pub fn paths() -> Vec<String> {
    table().paths()
}

fn table() -> Routes<Arc<Core>> {
    Routes::new()
        .route("/identity/.well-known/openid-configuration", get(configuration))
        .route("/identity/jwks.json", get(keys))
}

async fn configuration(State(core): State<Arc<Core>>) -> impl IntoResponse {
    let issuer = &core.tokens.config().issuer;
    Json(openid_configuration(issuer, &format!("{issuer}/jwks.json")))
}

/// Keys are published two hours before they sign: whoever keeps the set for one hour knows them in time.
async fn keys(State(core): State<Arc<Core>>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "public, max-age=3600")], Json(core.tokens.keys().jwks()))
}
