//! Which versions of the API there are.

use axum::Json as JsonBody;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use serde_json::{Value, json};

use super::call::Visit;

/// The newest minor version whose calls are all here.
const VERSION: &str = "v3.14";
const UPDATED: &str = "2020-04-07T00:00:00Z";

fn document(visit: &Visit) -> Value {
    json!({
        "id": VERSION,
        "status": "stable",
        "updated": UPDATED,
        "links": [{ "rel": "self", "href": visit.url("") }],
        "media-types": [{ "base": "application/json", "type": "application/vnd.openstack.identity-v3+json" }],
    })
}

/// `GET /identity`
pub(crate) async fn list(visit: Visit) -> Response {
    let body = json!({ "versions": { "values": [document(&visit)] } });
    (StatusCode::MULTIPLE_CHOICES, [(LOCATION, visit.url(""))], JsonBody(body)).into_response()
}

/// `GET /identity/v3`
pub(crate) async fn show(visit: Visit) -> Response {
    JsonBody(json!({ "version": document(&visit) })).into_response()
}
