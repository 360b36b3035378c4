//! The list of everything the front door answers beside the Kubernetes API, which lists itself: what the tests of
//! its closedness walk through, so that no route is forgotten.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

/// Where the list is; for whoever is signed in.
pub const PATH: &str = "/gantry/routes";

/// Paths that answer without credentials, each for its reason.
const OPEN: &[&str] = &[
    // Clients find the version, and the verifiers of our tokens their keys, before they have a credential.
    "/identity",
    "/identity/v3",
    "/identity/.well-known/openid-configuration",
    "/identity/jwks.json",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
    // Load balancers ask.
    "/healthz",
    "/livez",
    "/readyz",
    "/version",
    // Signing in itself: refuses without a good method, in its own words.
    "/identity/v3/auth/tokens",
    "/token",
    // The body holds the password that is to be changed.
    "/identity/v3/users/{user}/password",
    // Signed by an OAuth1 consumer.
    "/identity/v3/OS-OAUTH1/request_token",
    "/identity/v3/OS-OAUTH1/access_token",
    // Signed with an EC2 credential; no token is made from one here, whoever asks.
    "/identity/v3/ec2tokens",
    "/identity/v3/s3tokens",
    // Signing in through another: its proof is looked at.
    "/identity/v3/OS-FEDERATION/identity_providers/{provider}/login",
    "/identity/v3/OS-FEDERATION/identity_providers/{provider}/protocols/openid/auth",
    "/identity/v3/OS-FEDERATION/identity_providers/{provider}/protocols/openid/device",
    "/identity/v3/OS-FEDERATION/identity_providers/{provider}/protocols/keystone/auth",
];

/// Serves the list.
pub fn router() -> Router {
    let list = Arc::new(list());
    Router::new().route(
        PATH,
        get(move || {
            let list = list.clone();
            async move { axum::Json(list.as_ref().clone()) }
        }),
    )
}

fn list() -> serde_json::Value {
    let identity = gantry_identity::keystone::paths().into_iter().map(|path| format!("/identity/v3{path}"));
    let issuer = gantry_identity::issuer::PATHS.iter().map(|path| (*path).to_owned());
    let own = ["/gantry/health", PATH, crate::metrics::PATH, "/apis/audit.gantry.dev/v1alpha1"];
    let own = gantry_registry::PATHS.iter().chain(&own).map(|path| (*path).to_owned());
    let routes: Vec<String> = identity.chain(issuer).chain(own).collect();
    serde_json::json!({ "routes": routes, "open": OPEN })
}
