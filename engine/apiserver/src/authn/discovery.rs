//! What others verify our tokens by (OpenID Connect Discovery 1.0, RFC 7517).

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use gantry_routes::Routes;
use serde_json::json;

use super::ServiceAccountTokens;

const JWKS_PATH: &str = "/openid/v1/jwks";

/// `/.well-known/openid-configuration` and `/openid/v1/jwks`. `external_url` is where others reach the
/// API server (`https://host:port`).
pub fn discovery_routes(tokens: &ServiceAccountTokens, external_url: &str) -> Routes {
    let configuration = json!({
        "issuer": tokens.issuer,
        "jwks_uri": format!("{}{JWKS_PATH}", external_url.trim_end_matches('/')),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    let keys = json!({ "keys": [tokens.key.to_jwk()] });
    Routes::new()
        .route("/.well-known/openid-configuration", document(configuration.to_string(), "application/json"))
        .route(JWKS_PATH, document(keys.to_string(), "application/jwk-set+json"))
}

fn document(body: String, content_type: &'static str) -> axum::routing::MethodRouter {
    get(move || {
        let body = body.clone();
        async move {
            ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "public, max-age=3600")], body).into_response()
        }
    })
}
